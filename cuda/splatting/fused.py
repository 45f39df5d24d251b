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
from lumigraph.cuda.reference import splat_projection

from . import drawing, projection, rasterization
from .drawing import ABSOLUTE_SCREEN, given_gradients


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

    @property
    def of_drawing(self) -> list[int]:
        return list(self[4:])


Nine = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
Eight = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _forward(project: Callable[..., Any], draw: Callable[..., Any]) -> Callable[..., Nine]:
    def run(
        means: Tensor, rotations: Tensor, scales: Tensor, opacities: Tensor, harmonics: Tensor,
        world_to_camera: Tensor, background: Tensor | None, extras: Tensor | None,
        probe: Tensor | None, camera: list[float], numbers: list[int],
    ) -> Nine:  # fmt: skip
        options = RenderOptions(*numbers)
        tensors = (means, rotations, scales, opacities, harmonics, world_to_camera)
        splats, depths = project(*tensors, camera, options.of_projection)
        *images, ids, starts = draw(splats, depths, background, extras, None, options.of_drawing)
        return (*images, splats, ids, starts)

    return run


def _fake_projection(means: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return means.new_empty(len(means), projection.SPLAT_ROW), means.new_empty(len(means))


# ---- backward. gradients: by color, transmittance, depth and extras, None where none came; saved:
# transmittance, last place, splats, ids and starts. Results: by the six tensors of the projection,
# by extras, and the probe's.


def _backward(
    draw_backward: Callable[..., Any], project_backward: Callable[..., Any]
) -> Callable[..., Eight]:
    def run(
        gradients: list[Tensor | None], saved: list[Tensor], tensors: list[Tensor],
        background: Tensor | None, extras: Tensor | None, camera: list[float],
        numbers: list[int], wants_pose: bool,
    ) -> Eight:  # fmt: skip
        options = RenderOptions(*numbers)
        d_splats, d_extras, screen = draw_backward(
            gradients, saved, background, extras, options.of_drawing
        )
        found = project_backward(
            d_splats, saved[2], tensors, camera, options.of_projection, wants_pose
        )
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
    reference=_forward(splat_projection.project, drawing.draw_reference),
    cpu=_forward(projection.project_cpu, drawing.draw_cpu),
    cuda=_forward(projection.project_cuda, drawing.draw_cuda),
    fake=_forward(_fake_projection, drawing.draw_fake),
)
_splat_render_backward = operation(
    "splat_render_backward(Tensor?[] gradients, Tensor[] saved, Tensor[] tensors, "
    "Tensor? background, Tensor? extras, float[] camera, int[] options, bool wants_pose) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=_backward(drawing.draw_backward_reference, projection.project_backward_reference),
    cpu=_backward(drawing.draw_backward_cpu, projection.project_backward_cpu),
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
    wanted = ctx.needs_input_grad
    given, d_color = given_gradients(gradients, bool(RenderOptions(*ctx.options).depth))
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
