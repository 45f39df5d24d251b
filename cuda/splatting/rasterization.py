"""Blending splats to pictures: `rasterize_splats`. Maths: `reference/splat_raster.py`.

Letters: G splats, I pairs of a tile and a splat, E extra channels, H W image.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.core.shapes import check_shapes
from lumigraph.cuda.build import cpu_library
from lumigraph.cuda.dispatch import library, operation, pointer
from lumigraph.cuda.reference import splat_raster as reference
from lumigraph.cuda.runtime import kernel

from .projection import SPLAT_ROW
from .tiles import TileLists, tile_count

__all__ = ["MOST_EXTRAS", "RasterImages", "rasterize_splats"]

MOST_EXTRAS = 16  # channels of one pass
# Pixels a lane (LG_PIXELS of kernels/splat_raster.cu), forward and backward; measured on an H100.
FORWARD_PIXELS, BACKWARD_PIXELS = 2, 2

Six = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
Three = tuple[Tensor, Tensor, Tensor]


class RasterImages(NamedTuple):
    """What `rasterize_splats` makes."""

    color: Tensor
    """(H, W, 3), background included."""
    transmittance: Tensor
    """(H, W): what is left of the light from behind."""
    depth: Tensor | None
    """(H, W) sum of weight times depth, not divided by the opacity."""
    median_depth: Tensor | None
    """(H, W) depth of the splat that takes the transmittance below one half, 0 where none does."""
    extras: Tensor | None
    """(H, W, E) blended further channels."""


def rasterize_splats(
    splats: Tensor,
    lists: TileLists,
    width: int,
    height: int,
    *,
    extras: Tensor | None = None,
    background: Tensor | None = None,
    depth: bool = False,
    screen_probe: Tensor | None = None,
) -> RasterImages:
    """Blend splats front to back.

    Args:
        splats: (G, 12) of `project_gaussians`.
        lists: of `splat_tiles` for the same splats and size.
        width, height: of the image in pixels.
        extras: (G, E) further values to blend, any number of them.
        background: (3,) color seen through what is left; None is black.
        depth: also blend depths, and find the median.
        screen_probe: (G, 2) zeros that require grad: their gradient becomes the sum over pixels of
            |dL/d position|, which densification may ask for (AbsGS, Ye et al. 2024).

    Returns:
        Differentiable by splats (columns 0 to 9), extras and background, but for the median.

    Raises:
        InputError: shapes that do not fit, or a probe together with float64, which takes the plain
            twin, or with more than 16 extras, which take several passes.
    """
    check_shapes(
        ("splats", splats, "G 12"),
        ("extras", extras, "G E"),
        ("background", background, "3"),
        ("screen_probe", screen_probe, "G 2"),
        dtype=splats.dtype if splats.dtype == torch.float64 else torch.float32,
    )
    starts = str(tile_count(width, height) + 1)
    check_shapes(("lists.starts", lists.starts, starts), ("lists.ids", lists.ids, "I"))
    splats = splats.contiguous()
    background = None if background is None else background.contiguous()
    if splats.dtype == torch.float64:
        if screen_probe is not None:
            raise InputError("screen_probe needs float32 splats; got float64")
        found = reference.rasterize(splats, extras, background, *lists, width, height, depth)
        return _images(found, depth, found[5] if extras is not None else None)
    chunks = [None] if extras is None else list(extras.split(MOST_EXTRAS, dim=1))
    if screen_probe is not None and extras is not None and len(chunks) > 1:
        raise InputError(f"screen_probe takes at most {MOST_EXTRAS} extras; got {extras.shape[1]}")
    first = chunks[0].contiguous() if chunks[0] is not None else None
    found = _raster(splats, first, background, screen_probe, *lists, width, height, depth)
    blended = [found[5]]
    for chunk in chunks[1:]:
        assert chunk is not None
        part = _raster(splats, chunk.contiguous(), None, None, *lists, width, height, False)
        blended.append(part[5])
    return _images(found, depth, torch.cat(blended, dim=2) if extras is not None else None)


def _images(found: Six, depth: bool, extras: Tensor | None) -> RasterImages:
    color, left, _, far, median, _ = found
    return RasterImages(color, left, far if depth else None, median if depth else None, extras)


def empty_images(splats: Tensor, extras: Tensor | None, size: tuple[int, int], depth: bool) -> Six:
    width, height = size
    far = (height, width) if depth else (0,)
    count = 0 if extras is None else extras.shape[1]
    new = splats.new_empty
    return (
        new(height, width, 3),
        new(height, width),
        new(height, width, dtype=torch.int32),
        new(far),
        new(far),
        new(height, width, count),
    )


def _address(tensor: Tensor | None, dtype: torch.dtype = torch.float32) -> Any:
    return None if tensor is None else pointer(tensor, dtype)


def raster_reference(
    splats: Tensor, extras: Tensor | None, background: Tensor | None, probe: Tensor | None,
    ids: Tensor, starts: Tensor, width: int, height: int, depth: bool,
) -> Six:  # fmt: skip
    return reference.rasterize(splats, extras, background, ids, starts, width, height, depth)


def raster_cpu(
    splats: Tensor, extras: Tensor | None, background: Tensor | None, probe: Tensor | None,
    ids: Tensor, starts: Tensor, width: int, height: int, depth: bool,
) -> Six:  # fmt: skip
    splats, out = splats.contiguous(), empty_images(splats, extras, (width, height), depth)
    cpu_library().lg_splat_raster(
        pointer(splats),
        ctypes.c_int64(len(splats)),
        _address(extras),
        out[5].shape[2],
        _address(background),
        pointer(ids, torch.int32),
        pointer(starts, torch.int32),
        *(width, height, int(depth)),
        *(pointer(image, None) for image in out),
    )
    return out


def _constants(extras: Tensor | None, depth: bool) -> dict[str, int]:
    return {"LG_DEPTH": int(depth), "LG_EXTRAS": 0 if extras is None else extras.shape[1]}


def raster_cuda(
    splats: Tensor, extras: Tensor | None, background: Tensor | None, probe: Tensor | None,
    ids: Tensor, starts: Tensor, width: int, height: int, depth: bool,
) -> Six:  # fmt: skip
    splats, out = splats.contiguous(), empty_images(splats, extras, (width, height), depth)
    constants = {"LG_PIXELS": FORWARD_PIXELS, **_constants(extras, depth)}
    kernel("splat_raster.cu", "splat_raster", **constants)(
        (tile_count(width, height),),
        (256 // FORWARD_PIXELS,),
        *(splats, splats if extras is None else extras, ids, starts),
        *(splats if background is None else background, int(background is not None)),
        *(width, height),
        *out,
    )
    return out


def _raster_fake(
    splats: Tensor, extras: Tensor | None, background: Tensor | None, probe: Tensor | None,
    ids: Tensor, starts: Tensor, width: int, height: int, depth: bool,
) -> Six:  # fmt: skip
    return empty_images(splats, extras, (width, height), depth)


# ---- backward. gradients: by color, transmittance, depth and extras, None where none came; saved:
# transmittance and last place. Results: by splats, extras (or empty), absolute sums (or empty).


def _gradients(splats: Tensor, extras: Tensor | None, absolute: bool) -> Three:
    return (
        splats.new_zeros(len(splats), SPLAT_ROW),
        splats.new_empty(0) if extras is None else torch.zeros_like(extras),
        splats.new_zeros(len(splats) if absolute else 0, 2),
    )


def _given(
    gradients: list[Tensor | None], size: tuple[int, int, int]
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Contiguous gradients; that by color must exist for the kernels, and that by extras where
    there are extras."""
    height, width, count = size
    plain = [None if g is None else g.contiguous() for g in gradients]
    some = next(g for g in plain if g is not None)
    color, left, depth, extras = plain
    color = some.new_zeros(height, width, 3) if color is None else color
    if extras is None and count:
        extras = some.new_zeros(height, width, count)
    return color, left, depth, extras


def raster_backward_reference(
    gradients: list[Tensor | None], saved: list[Tensor], splats: Tensor, extras: Tensor | None,
    background: Tensor | None, ids: Tensor, starts: Tensor, depth: bool, absolute: bool,
) -> Three:  # fmt: skip
    height, width = saved[0].shape
    shapes = (splats, extras, background, ids, starts, width, height, depth)
    return reference.rasterize_backward(gradients, *shapes, absolute)


def raster_backward_cpu(
    gradients: list[Tensor | None], saved: list[Tensor], splats: Tensor, extras: Tensor | None,
    background: Tensor | None, ids: Tensor, starts: Tensor, depth: bool, absolute: bool,
) -> Three:  # fmt: skip
    height, width = saved[0].shape
    out = _gradients(splats, extras, absolute)
    count = 0 if extras is None else extras.shape[1]
    color, left, far, more = _given(gradients, (height, width, count))
    cpu_library().lg_splat_raster_backward(
        pointer(splats),
        ctypes.c_int64(len(splats)),
        *(_address(extras), count, _address(background)),
        *(pointer(ids, torch.int32), pointer(starts, torch.int32)),
        *(width, height, int(depth)),
        *(pointer(saved[0]), pointer(saved[1], torch.int32)),
        *(pointer(color), _address(left), _address(far), _address(more)),
        *(pointer(out[0]), pointer(out[1]), pointer(out[2]) if absolute else None),
    )
    return out


def raster_moments_cuda(
    gradients: list[Tensor | None], saved: list[Tensor], splats: Tensor, extras: Tensor | None,
    background: Tensor | None, ids: Tensor, starts: Tensor, depth: bool, absolute: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Sums of kernels/splat_moments.h for every splat (G, 12), and gradients by extras."""
    height, width = saved[0].shape
    count = 0 if extras is None else extras.shape[1]
    color, left, far, more = _given(gradients, (height, width, count))
    moments = splats.new_zeros(len(splats), SPLAT_ROW)
    d_extras = splats.new_empty(0) if extras is None else torch.zeros_like(extras)
    constants = _constants(extras, depth and far is not None)
    constants |= {"LG_PIXELS": BACKWARD_PIXELS, "LG_ABSOLUTE": int(absolute)}
    kernel("splat_raster.cu", "splat_raster_backward", **constants)(
        (tile_count(width, height),),
        (256 // BACKWARD_PIXELS,),
        *(splats, splats if extras is None else extras, ids, starts),
        *(splats if background is None else background, int(background is not None)),
        *(width, height, *saved, color),
        *(color if left is None else left, int(left is not None)),
        *(color if far is None else far, color if more is None else more),
        *(moments, d_extras),
    )
    return moments, d_extras


def raster_backward_cuda(
    gradients: list[Tensor | None], saved: list[Tensor], splats: Tensor, extras: Tensor | None,
    background: Tensor | None, ids: Tensor, starts: Tensor, depth: bool, absolute: bool,
) -> Three:  # fmt: skip
    moments, d_extras = raster_moments_cuda(
        gradients, saved, splats, extras, background, ids, starts, depth, absolute
    )
    by_position = splats.new_empty(len(splats) if absolute else 0, 2)
    finish = kernel("splat_raster.cu", "splat_raster_finish", LG_ABSOLUTE=int(absolute))
    finish((-(-len(splats) // 256),), (256,), splats, len(splats), moments, by_position)
    return moments, d_extras, by_position


def _backward_fake(
    gradients: list[Tensor | None], saved: list[Tensor], splats: Tensor, extras: Tensor | None,
    background: Tensor | None, ids: Tensor, starts: Tensor, depth: bool, absolute: bool,
) -> Three:  # fmt: skip
    return _gradients(splats, extras, absolute)


_raster = operation(
    "splat_raster(Tensor splats, Tensor? extras, Tensor? background, Tensor? probe, Tensor ids, "
    "Tensor starts, int width, int height, bool depth) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=raster_reference,
    cpu=raster_cpu,
    cuda=raster_cuda,
    fake=_raster_fake,
)
_raster_backward = operation(
    "splat_raster_backward(Tensor?[] gradients, Tensor[] saved, Tensor splats, Tensor? extras, "
    "Tensor? background, Tensor ids, Tensor starts, bool depth, bool absolute) "
    "-> (Tensor, Tensor, Tensor)",
    reference=raster_backward_reference,
    cpu=raster_backward_cpu,
    cuda=raster_backward_cuda,
    fake=_backward_fake,
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Six) -> None:
    splats, extras, background, _, ids, starts, _, _, ctx.depth = inputs
    ctx.save_for_backward(splats, extras, background, ids, starts, output[1], output[2])
    ctx.mark_non_differentiable(output[2], output[4])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    splats, extras, background, ids, starts, left, last = ctx.saved_tensors
    d_color, d_left, _, d_depth, _, d_extras = gradients
    wanted = ctx.needs_input_grad
    given = [d_color, d_left, d_depth if ctx.depth else None, d_extras]
    by_background = None
    if wanted[2] and d_color is not None:
        by_background = (left[..., None] * d_color).sum((0, 1))
    if all(g is None for g in given):
        return (None,) * 9
    by_splats, by_extras, absolute = _raster_backward(
        given, [left, last], splats, extras, background, ids, starts, ctx.depth, bool(wanted[3])
    )
    return (
        by_splats,
        by_extras if extras is not None else None,
        by_background,
        absolute if wanted[3] else None,
        *(None,) * 5,
    )


torch.library.register_autograd(
    "lumigraph::splat_raster", _backward, setup_context=_save, lib=library
)
