"""Splats to pictures as one operation, tile lists and blending in a row: `splat_draw`.

Whoever projected them: static and moving Gaussians of a scene stand in one table. On a GPU
blending is launched before the host knows how many pairs of tile and splat there are.

Letters: G splats, I pairs of a tile and a splat, E extra channels, H W image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lumigraph.cuda.dispatch import library, operation
from lumigraph.cuda.reference import splat_raster

from . import rasterization, tiles
from .pending_lists import PendingLists
from .rasterization import Six

NO_SCREEN, PLAIN_SCREEN, ABSOLUTE_SCREEN = 0, 1, 2  # as in kernels/splat_moments.h


class DrawOptions(NamedTuple):
    """What the operation is told as numbers."""

    width: int
    height: int
    depth: int
    screen: int
    """Which gradient the screen probe receives."""


Eight = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
Three = tuple[Tensor, Tensor, Tensor]


def screen_kind(probe: Tensor | None, absolute: bool) -> int:
    """Which gradient a probe receives."""
    if probe is None:
        return NO_SCREEN
    return ABSOLUTE_SCREEN if absolute else PLAIN_SCREEN


def drawing(list_tiles: Callable[..., Any], blend: Callable[..., Any]) -> Callable[..., Eight]:
    """Six images, ids and starts, by these two."""

    def run(
        splats: Tensor, depths: Tensor, background: Tensor | None, extras: Tensor | None,
        probe: Tensor | None, numbers: list[int],
    ) -> Eight:  # fmt: skip
        options = DrawOptions(*numbers)
        size = (options.width, options.height)
        ids, starts = list_tiles(splats, depths, *size)
        images = blend(splats, extras, background, None, ids, starts, *size, bool(options.depth))
        return (*images, ids, starts)

    return run


def draw_cuda(
    splats: Tensor, depths: Tensor, background: Tensor | None, extras: Tensor | None,
    probe: Tensor | None, numbers: list[int],
) -> Eight:  # fmt: skip
    """Blending is launched before the host knows how many pairs there are: the GPU never waits."""
    options = DrawOptions(*numbers)
    lists = PendingLists(splats, depths, *tiles.tile_grid(options.width, options.height))

    def blend() -> Six:
        return rasterization.raster_cuda(
            splats, extras, background, None, lists.ids, lists.starts, options.width,
            options.height, bool(options.depth),
        )  # fmt: skip

    images = blend()
    if not lists.settle():
        images = blend()
    return (*images, lists.ids, lists.starts)


draw_reference = drawing(splat_raster.tiles, rasterization.raster_reference)
draw_cpu = drawing(tiles.tiles_cpu, rasterization.raster_cpu)


def draw_fake(
    splats: Tensor, depths: Tensor, background: Tensor | None, extras: Tensor | None,
    probe: Tensor | None, numbers: list[int],
) -> Eight:  # fmt: skip
    options = DrawOptions(*numbers)
    size = (options.width, options.height)
    images = rasterization.empty_images(splats, extras, size, bool(options.depth))
    pairs = torch.library.get_ctx().new_dynamic_size()
    ids = splats.new_empty(pairs, dtype=torch.int32)
    starts = splats.new_empty(tiles.tile_count(*size) + 1, dtype=torch.int32)
    return (*images, ids, starts)


# ---- backward. gradients: by color, transmittance, depth and extras, None where none came; saved:
# transmittance, last place, splats, ids and starts. Results: by splats, by extras, the probe's.


def drawing_backward(blend_backward: Callable[..., Any]) -> Callable[..., Three]:
    """By splats, by extras and the probe's, by this one."""

    def run(
        gradients: list[Tensor | None], saved: list[Tensor], background: Tensor | None,
        extras: Tensor | None, numbers: list[int],
    ) -> Three:  # fmt: skip
        options, (left, last, splats, ids, starts) = DrawOptions(*numbers), saved
        d_splats, d_extras, absolute = blend_backward(
            gradients, [left, last], splats, extras, background, ids, starts,
            bool(options.depth), options.screen == ABSOLUTE_SCREEN,
        )  # fmt: skip
        screen = d_splats[:, :2].clone() if options.screen == PLAIN_SCREEN else absolute
        return d_splats, d_extras, screen

    return run


def _backward_fake(
    gradients: list[Tensor | None], saved: list[Tensor], background: Tensor | None,
    extras: Tensor | None, numbers: list[int],
) -> Three:  # fmt: skip
    splats = saved[2]
    screen = splats.new_empty(len(splats) if DrawOptions(*numbers).screen else 0, 2)
    by_extras = splats.new_empty(0) if extras is None else torch.empty_like(extras)
    return torch.empty_like(splats), by_extras, screen


draw_backward_reference = drawing_backward(rasterization.raster_backward_reference)
draw_backward_cpu = drawing_backward(rasterization.raster_backward_cpu)

splat_draw = operation(
    "splat_draw(Tensor splats, Tensor depths, Tensor? background, Tensor? extras, Tensor? probe, "
    "int[] options) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=draw_reference,
    cpu=draw_cpu,
    cuda=draw_cuda,
    fake=draw_fake,
)
_splat_draw_backward = operation(
    "splat_draw_backward(Tensor?[] gradients, Tensor[] saved, Tensor? background, "
    "Tensor? extras, int[] options) -> (Tensor, Tensor, Tensor)",
    reference=draw_backward_reference,
    cpu=draw_backward_cpu,
    cuda=drawing_backward(rasterization.raster_backward_cuda),
    fake=_backward_fake,
)


def given_gradients(
    gradients: tuple[Tensor | None, ...], depth: bool
) -> tuple[list[Tensor | None], Tensor | None]:
    """Those of color, transmittance, depth and extras among the six images', and the first."""
    d_color, d_left, _, d_depth, _, d_extras, *_ = gradients
    return [d_color, d_left, d_depth if depth else None, d_extras], d_color


def _save(ctx: Any, inputs: tuple[Any, ...], output: Eight) -> None:
    splats, _, background, extras, _, ctx.options = inputs
    _, left, last, _, median, _, ids, starts = output
    ctx.save_for_backward(background, extras, left, last, splats, ids, starts)
    ctx.mark_non_differentiable(last, median, ids, starts)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    background, extras, left, last, splats, ids, starts = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    given, d_color = given_gradients(gradients, bool(DrawOptions(*ctx.options).depth))
    if all(g is None for g in given):
        return (None,) * 6
    by_splats, by_extras, screen = _splat_draw_backward(
        given, [left, last, splats, ids, starts], background, extras, ctx.options
    )
    by_background = None
    if wanted[2] and d_color is not None:
        by_background = (left[..., None] * d_color).sum((0, 1))
    return (
        by_splats,
        None,
        by_background,
        by_extras if extras is not None else None,
        screen if wanted[4] else None,
        None,
    )


torch.library.register_autograd(
    "lumigraph::splat_draw", _differentiate, setup_context=_save, lib=library
)
