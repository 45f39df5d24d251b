"""Which splats each tile of the screen must blend, front to back: `splat_tiles`.

Letters: G splats, I pairs of a tile and a splat. Tiles are 16x16 pixels, row by row.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.core.shapes import check_shapes
from lumigraph.cuda.build import cpu_library
from lumigraph.cuda.dispatch import operation, pointer
from lumigraph.cuda.reference import splat_raster as reference
from lumigraph.cuda.reference.splat_raster import TILE
from lumigraph.cuda.runtime import kernel

from .radix_sort import MOST_KEYS, radix_sort, scratch_size

__all__ = ["TileLists", "splat_tiles"]

BLOCK = 128  # threads, as in kernels/splat_tiles.cu
SCAN_BLOCK, SCAN_COUNTS = 256, 4096  # threads, and counts of a block of splat_scan
DEPTH_BITS = 32
ROOM_PER_SPLAT, LEAST_ROOM = 4, 2**21  # pairs
MOST_NARROW_TILES = 32766  # 16-bit keys; one more stands for no tile
# Ranks of a warp lie apart when pairs are written for fewer splats than this (measured on an H100:
# 0.30 -> 0.12 ms at 100 k, but 0.16 -> 0.26 ms at 3 M).
APART_BELOW = 1_000_000


class TileLists(NamedTuple):
    """Tile t blends `ids[starts[t] : starts[t + 1]]`, in that order."""

    ids: Tensor
    """(I,) int32, splats."""
    starts: Tensor
    """(tiles + 1,) int32."""


def tile_count(width: int, height: int) -> int:
    return -(-width // TILE) * -(-height // TILE)


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


def _too_many() -> InputError:
    return InputError(
        "the picture needs more pairs of tile and Gaussian than can be counted; use a smaller "
        "image, fewer or smaller Gaussians"
    )


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
        raise _too_many()
    return ids, starts


def tiles_cuda(splats: Tensor, depths: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    count, columns, rows = len(splats), -(-width // TILE), -(-height // TILE)
    tiles, device = columns * rows, splats.device
    if not count or not tiles:
        return _no_pairs(tiles, device)
    ends, total, order = _ends(splats, depths.contiguous(), (columns, rows))
    # The number of pairs is known to the device alone. Pairs are written while it is on its way,
    # into room for a usual number of them, and again in the rare case of more.
    room = max(ROOM_PER_SPLAT * count, LEAST_ROOM)
    keys, unsorted = _emit(splats, order, ends, (columns, rows), room)
    pairs = int(total)
    if pairs > MOST_KEYS:
        raise _too_many()
    if pairs == 0:
        return _no_pairs(tiles, device)
    if pairs > room:
        keys, unsorted = _emit(splats, order, ends, (columns, rows), pairs)
    keys, ids = radix_sort(keys[:pairs], unsorted[:pairs], bits=tiles.bit_length())
    starts = torch.empty(tiles + 1, dtype=torch.int32, device=device)
    run = kernel("splat_tiles.cu", "splat_ranges", LG_WIDE=_is_wide(tiles))
    run((-(-pairs // 256),), (256,), keys, pairs, tiles, starts)
    return ids, starts


def _is_wide(tiles: int) -> int:
    return int(tiles > MOST_NARROW_TILES)


def _ends(splats: Tensor, depths: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """For each rank the number of pairs up to its own, their total, and the splats by rank."""
    count, (columns, rows) = len(splats), size
    blocks = -(-count // SCAN_COUNTS)
    # look-back table of 64-bit words, ticket, then the sort's
    scratch = torch.zeros(
        2 * blocks + 1 + scratch_size(count, DEPTH_BITS), dtype=torch.int32, device=splats.device
    )
    table, ticket = scratch, scratch[2 * blocks :]
    order = radix_sort(depths, None, bits=DEPTH_BITS, keep_keys=False, scratch=ticket[1:])[1]
    counts, ends = (splats.new_empty(count, dtype=torch.int32) for _ in range(2))
    total = splats.new_empty(1, dtype=torch.int64)
    run = kernel("splat_tiles.cu", "splat_count", LG_WIDE=_is_wide(columns * rows))
    run((-(-count // BLOCK),), (BLOCK,), splats, order, count, columns, rows, 1, counts)
    run = kernel("splat_tiles.cu", "splat_scan", LG_WIDE=_is_wide(columns * rows))
    run((blocks,), (SCAN_BLOCK,), counts, count, table, ticket, ends, total)
    return ends, total, order


def _no_pairs(tiles: int, device: torch.device) -> tuple[Tensor, Tensor]:
    ids = torch.empty(0, dtype=torch.int32, device=device)
    return ids, torch.zeros(tiles + 1, dtype=torch.int32, device=device)


def _emit(
    splats: Tensor, order: Tensor, ends: Tensor, size: tuple[int, int], room: int
) -> tuple[Tensor, Tensor]:
    """Tiles and splats of the first `room` pairs, in rank order."""
    count, (columns, rows) = len(order), size
    wide = _is_wide(columns * rows)
    keys = splats.new_empty(room, dtype=torch.int32 if wide else torch.int16)
    ids = splats.new_empty(room, dtype=torch.int32)
    run = kernel("splat_tiles.cu", "splat_emit", LG_WIDE=wide)
    apart = int(count < APART_BELOW)
    blocks = ((-(-count // BLOCK),), (BLOCK,))
    run(*blocks, splats, order, ends, count, columns, rows, apart, room, keys, ids)
    return keys, ids


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
