"""Which splats each tile of the screen must blend, front to back: `splat_tiles`.

Letters: G splats, I pairs of a tile and a splat. Tiles are 16x16 pixels, row by row.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from lumigraph.core.shapes import check_shapes
from lumigraph.cuda.build import cpu_library
from lumigraph.cuda.dispatch import operation, pointer
from lumigraph.cuda.reference import splat_raster as reference
from lumigraph.cuda.reference.splat_raster import TILE

from .pending_lists import PendingLists, too_many_pairs

__all__ = ["TileLists", "splat_tiles"]


class TileLists(NamedTuple):
    """Tile t blends `ids[starts[t] : starts[t + 1]]`, in that order."""

    ids: Tensor
    """(I,) int32, splats."""
    starts: Tensor
    """(tiles + 1,) int32."""


def tile_grid(width: int, height: int) -> tuple[int, int]:
    """Columns and rows."""
    return -(-width // TILE), -(-height // TILE)


def tile_count(width: int, height: int) -> int:
    columns, rows = tile_grid(width, height)
    return columns * rows


def splat_tiles(splats: Tensor, depths: Tensor, width: int, height: int) -> TileLists:
    """Tile lists by the exact test of every splat's ellipse against every tile of its box.

    Args:
        splats: (G, 12) of `project_gaussians`. depths: (G,) what they are sorted by; equal depths
            keep their order.
        width, height: of the image, in pixels.

    Raises:
        InputError: shapes that do not fit, or more pairs than 2^31 - 1 (GPU: 2^30 - 1).
    """
    check_shapes(("splats", splats, "G 12"), ("depths", depths, "G"))
    operate = reference.tiles if splats.dtype == torch.float64 else _tiles
    with torch.no_grad():
        ids, starts = operate(splats.detach(), depths.detach(), width, height)
    return TileLists(ids, starts)


def tiles_cpu(splats: Tensor, depths: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    splats, depths = splats.contiguous(), depths.contiguous()
    tiles = tile_count(width, height)
    starts = torch.empty(tiles + 1, dtype=torch.int32)
    pairs, native = ctypes.c_int64(), cpu_library()
    native.lg_splat_tiles.restype = ctypes.c_void_p
    handle = native.lg_splat_tiles(
        *(pointer(splats), pointer(depths), ctypes.c_int64(len(splats)), width, height),
        *(pointer(starts, torch.int32), ctypes.byref(pairs)),
    )
    ids = torch.empty(max(pairs.value, 0), dtype=torch.int32)
    target = pointer(ids, torch.int32) if pairs.value >= 0 else None
    native.lg_splat_tiles_fill(ctypes.c_void_p(handle), ctypes.c_int64(tiles), target)
    if pairs.value < 0:
        raise too_many_pairs()
    return ids, starts


def tiles_cuda(splats: Tensor, depths: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    lists = PendingLists(splats, depths, *tile_grid(width, height))
    lists.settle()
    return lists.ids, lists.starts


def _tiles_fake(splats: Tensor, depths: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    pairs = torch.library.get_ctx().new_dynamic_size()
    ids = splats.new_empty(pairs, dtype=torch.int32)
    return ids, splats.new_empty(tile_count(width, height) + 1, dtype=torch.int32)


_tiles = operation(
    "splat_tiles(Tensor splats, Tensor depths, int width, int height) -> (Tensor, Tensor)",
    reference=reference.tiles,
    cpu=tiles_cpu,
    cuda=tiles_cuda,
    fake=_tiles_fake,
)
