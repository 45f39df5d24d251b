"""The whole way from Gaussians to pictures as one operation: one entry into torch a direction, and
on a GPU no pass over memory between blending backward and projection backward.

Letters: G Gaussians, I pairs of a tile and a splat, E extra channels, H W image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lumigraph.cuda.dispatch import library, operation
from lumigraph.cuda.reference import splat_projection, splat_raster

from . import projection, rasterization, tiles
from .pending_lists import PendingLists
from .rasterization import Six

NO_SCREEN, PLAIN_SCREEN, ABSOLUTE_SCREEN = 0, 1, 2  # as in kernels/splat_moments.h


class RenderOptions(NamedTuple):
    """What the operation is told as numbers."""

    model: int
    raw: int
    antialiased: int
    bands: int
    width: int
    height: int
    depth: int
    screen: int
    """Which gradient the screen probe receives."""

    @property
    def of_projection(self) -> list[int]:
        return list(self[:4])


Nine = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
Eight = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _forward(
    project: Callable[..., Any], list_tiles: Callable[..., Any], blend: Callable[..., Any]
) -> Callable[..., Nine]:
    def run(
        means: Tensor, rotations: Tensor, scales: Tensor, opacities: Tensor, harmonics: Tensor,
        world_to_camera: Tensor, background: Tensor | None, extras: Tensor | None,
        probe: Tensor | None, camera: list[float], numbers: list[int],
    ) -> Nine:  # fmt: skip
        options = RenderOptions(*numbers)
        tensors = (means, rotations, scales, opacities, harmonics, world_to_camera)
        splats, depths = project(*tensors, camera, options.of_projection)
        size = (options.width, options.height)
        ids, starts = list_tiles(splats, depths, *size)
        images = blend(splats, extras, background, None, ids, starts, *size, bool(options.depth))
        return (*images, splats, ids, starts)

    return run


def _forward_cuda(
    means: Tensor, rotations: Tensor, scales: Tensor, opacities: Tensor, harmonics: Tensor,
    world_to_camera: Tensor, background: Tensor | None, extras: Tensor | None,
    probe: Tensor | None, camera: list[float], numbers: list[int],
) -> Nine:  # fmt: skip
    """Blending is launched before the host knows how many pairs there are: the GPU never waits."""
    options = RenderOptions(*numbers)
    tensors = (means, rotations, scales, opacities, harmonics, world_to_camera)
    splats, depths = projection.project_cuda(*tensors, camera, options.of_projection)
    lists = PendingLists(splats, depths, *tiles.tile_grid(options.width, options.height))

    def blend() -> Six:
        return rasterization.raster_cuda(
            splats, extras, background, None, lists.ids, lists.starts, options.width,
            options.height, bool(options.depth),
        )  # fmt: skip

    images = blend()
    if not lists.settle():
        images = blend()
    return (*images, splats, lists.ids, lists.starts)


def _fake(
    means: Tensor, rotations: Tensor, scales: Tensor, opacities: Tensor, harmonics: Tensor,
    world_to_camera: Tensor, background: Tensor | None, extras: Tensor | None,
    probe: Tensor | None, camera: list[float], numbers: list[int],
) -> Nine:  # fmt: skip
    options = RenderOptions(*numbers)
    splats = means.new_empty(len(means), projection.SPLAT_ROW)
    size = (options.width, options.height)
    images = rasterization.empty_images(splats, extras, size, bool(options.depth))
    pairs = torch.library.get_ctx().new_dynamic_size()
    ids = means.new_empty(pairs, dtype=torch.int32)
    starts = means.new_empty(tiles.tile_count(*size) + 1, dtype=torch.int32)
    return (*images, splats, ids, starts)


# ---- backward. gradients: by color, transmittance, depth and extras, None where none came; saved:
# transmittance, last place, splats, ids and starts. Results: by the six tensors of the projection,
# by extras, and the probe's.


def _backward(
    blend_backward: Callable[..., Any], project_backward: Callable[..., Any]
) -> Callable[..., Eight]:
    def run(
        gradients: list[Tensor | None], saved: list[Tensor], tensors: list[Tensor],
        background: Tensor | None, extras: Tensor | None, camera: list[float],
        numbers: list[int], wants_pose: bool,
    ) -> Eight:  # fmt: skip
        options, (left, last, splats, ids, starts) = RenderOptions(*numbers), saved
        d_splats, d_extras, absolute = blend_backward(
            gradients, [left, last], splats, extras, background, ids, starts,
            bool(options.depth), options.screen == ABSOLUTE_SCREEN,
        )  # fmt: skip
        found = project_backward(
            d_splats, splats, tensors, camera, options.of_projection, wants_pose
        )
        screen = d_splats[:, :2].clone() if options.screen == PLAIN_SCREEN else absolute
        return (*found, d_extras, screen)

    return run


def _backward_cuda(
    gradients: list[Tensor | None], saved: list[Tensor], tensors: list[Tensor],
    background: Tensor | None, extras: Tensor | None, camera: list[float],
    numbers: list[int], wants_pose: bool,
) -> Eight:  # fmt: skip
    options, (left, last, splats, ids, starts) = RenderOptions(*numbers), saved
    moments, d_extras = rasterization.raster_moments_cuda(
        gradients, [left, last], splats, extras, background, ids, starts,
        bool(options.depth), options.screen == ABSOLUTE_SCREEN,
    )  # fmt: skip
    screen = splats.new_empty(len(splats) if options.screen else 0, 2)
    found = projection.project_backward_cuda(
        moments, splats, tensors, camera, options.of_projection, wants_pose,
        screen if options.screen else None, options.screen, moments=True,
    )  # fmt: skip
    return (*found, d_extras, screen)


def _backward_fake(
    gradients: list[Tensor | None], saved: list[Tensor], tensors: list[Tensor],
    background: Tensor | None, extras: Tensor | None, camera: list[float],
    numbers: list[int], wants_pose: bool,
) -> Eight:  # fmt: skip
    screen = saved[2].new_empty(len(saved[2]) if RenderOptions(*numbers).screen else 0, 2)
    by_extras = saved[2].new_empty(0) if extras is None else torch.empty_like(extras)
    return (*projection.empty_gradients(tensors, wants_pose), by_extras, screen)


splat_render = operation(
    "splat_render(Tensor means, Tensor rotations, Tensor scales, Tensor opacities, "
    "Tensor harmonics, Tensor world_to_camera, Tensor? background, Tensor? extras, "
    "Tensor? probe, float[] camera, int[] options) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=_forward(
        splat_projection.project, splat_raster.tiles, rasterization.raster_reference
    ),
    cpu=_forward(projection.project_cpu, tiles.tiles_cpu, rasterization.raster_cpu),
    cuda=_forward_cuda,
    fake=_fake,
)
_splat_render_backward = operation(
    "splat_render_backward(Tensor?[] gradients, Tensor[] saved, Tensor[] tensors, "
    "Tensor? background, Tensor? extras, float[] camera, int[] options, bool wants_pose) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=_backward(
        rasterization.raster_backward_reference, projection.project_backward_reference
    ),
    cpu=_backward(rasterization.raster_backward_cpu, projection.project_backward_cpu),
    cuda=_backward_cuda,
    fake=_backward_fake,
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Nine) -> None:
    *tensors, background, extras, _, ctx.camera, ctx.options = inputs
    _, left, last, _, median, _, splats, ids, starts = output
    ctx.save_for_backward(*tensors, background, extras, left, last, splats, ids, starts)
    ctx.mark_non_differentiable(last, median, splats, ids, starts)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    *tensors, background, extras, left, last, splats, ids, starts = ctx.saved_tensors
    d_color, d_left, _, d_depth, _, d_extras, *_ = gradients
    options, wanted = RenderOptions(*ctx.options), ctx.needs_input_grad
    given = [d_color, d_left, d_depth if options.depth else None, d_extras]
    if all(g is None for g in given):
        return (None,) * 11
    *by_tensors, pose, by_extras, screen = _splat_render_backward(
        given, [left, last, splats, ids, starts], tensors, background, extras, ctx.camera,
        ctx.options, bool(wanted[5]),
    )  # fmt: skip
    by_background = None
    if wanted[6] and d_color is not None:
        by_background = (left[..., None] * d_color).sum((0, 1))
    return (
        *by_tensors,
        pose if wanted[5] else None,
        by_background,
        by_extras if extras is not None else None,
        screen if wanted[8] else None,
        None,
        None,
    )


torch.library.register_autograd(
    "lumigraph::splat_render", _differentiate, setup_context=_save, lib=library
)
