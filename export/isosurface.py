"""The surface of a volume of fused distances as triangles.

Marching cubes with resolved ambiguities (Lewiner et al. 2003) by scikit-image, over bricks of up to
128 x 128 x 128 cells that share their border voxels. A vertex lies on one edge of the grid, which
names it: bricks are joined by these names, exactly. Only cells near which a surface was seen are
looked at: between carved space and the blind side of a thing there is none. Letters: V vertices,
T triangles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lumigraph.core.errors import ConfigError, require

from .tsdf import BLOCK, TsdfVolume

BRICK = 16
"""Blocks along each side of a brick."""
CELLS = BRICK * BLOCK
LEAST_WEIGHT = 1e-3
"""Weight from which somebody saw a surface near a voxel."""
LEAST_DISTANCE = 1e-3
"""Truncations: distances are kept this far from 0, so that no vertex falls onto a voxel."""
COLOR_BATCH = 1 << 18
VERTEX_BYTES = 800
"""Of a vertex and its two triangles until the file is written, as measured."""

Part = tuple[NDArray[np.float64], NDArray[np.int64]]
"""Places in the grid (V, 3), and triangles (T, 3)."""


class Surface(NamedTuple):
    """Triangles with colored vertices, outward counter-clockwise."""

    vertices: NDArray[np.float64]
    """(V, 3)"""
    triangles: NDArray[np.int64]
    """(T, 3)"""
    colors: NDArray[np.uint8]
    """(V, 3) sRGB."""

    def rows(self, kept: NDArray[np.bool_]) -> Surface:
        """The triangles `kept` (T,) and their vertices."""
        used, triangles = np.unique(self.triangles[kept], return_inverse=True)
        return Surface(self.vertices[used], triangles.reshape(-1, 3), self.colors[used])


def extract(volume: TsdfVolume) -> Surface:
    """The surface, vertices in the scene frame. Without any, V and T are 0.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    places, triangles, count = [np.empty((0, 3))], [np.empty((0, 3), np.int64)], 0
    for brick, rows in _bricks(volume):
        found = _march(volume, brick, rows)
        if found is not None:
            places.append(found[0])
            triangles.append(found[1] + count)
            count += len(found[0])
    vertices, faces = joined(np.concatenate(places), np.concatenate(triangles))
    colors = [np.empty((0, 3), np.uint8)]
    for start in range(0, len(vertices), COLOR_BATCH):
        part = torch.from_numpy(vertices[start : start + COLOR_BATCH]).to(volume.keys.device)
        colors.append((volume.colors(part) * 255).round().byte().cpu().numpy())
    origin = volume.grid.origin.cpu().double().numpy()
    return Surface(vertices * volume.grid.voxel + origin, faces, np.concatenate(colors))


def _bricks(volume: TsdfVolume) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Each brick (3,) that owns a block, with the rows of all blocks that it reads: its own, and
    the next ones on its upper sides."""
    blocks = volume.blocks.cpu().numpy()
    if len(blocks) == 0:
        return
    own = blocks // BRICK
    names, rows = [], []
    for corner in np.ndindex(2, 2, 2):
        # a block at the lower border of its brick also closes the one below
        reads = ((blocks % BRICK == 0) | (np.array(corner) == 0)).all(axis=1)
        names.append(own[reads] - corner)
        rows.append(np.flatnonzero(reads))
    bricks, which = np.unique(np.concatenate(names), axis=0, return_inverse=True)
    which = which.reshape(-1)
    order = np.argsort(which, kind="stable")
    starts = np.searchsorted(which[order], np.arange(len(bricks) + 1))
    every = np.concatenate(rows)[order]
    for index, brick in enumerate(bricks):
        yield brick, every[starts[index] : starts[index + 1]]


def _march(
    volume: TsdfVolume, brick: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """Vertices as voxel places (V, 3) and triangles of one brick."""
    measure = require("skimage.measure", extra="mesh")
    distance, known = _dense(volume, brick, rows)
    corners = [tuple(slice(s, s + CELLS) for s in shift) for shift in np.ndindex(2, 2, 2)]
    outside = distance > 0
    complete = np.ones((CELLS,) * 3, bool)
    high, low = np.zeros_like(complete), np.zeros_like(complete)
    for corner in corners:
        complete &= known[corner]
        high |= outside[corner]
        low |= ~outside[corner]
    crossed = np.zeros_like(known)
    crossed[1:, 1:, 1:] = complete & high & low  # the library names a cell by its upper corner
    if not crossed.any():
        return None
    vertices, triangles, _, _ = measure.marching_cubes(distance, 0.0, mask=crossed)
    return vertices.astype(np.float64) + brick * CELLS, triangles.astype(np.int64)


def _dense(
    volume: TsdfVolume, brick: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Distances and knowledge of all (129, 129, 129) voxels of a brick."""
    chosen = torch.from_numpy(rows).to(volume.keys.device)
    values = volume.values(chosen)
    x, y, z = (volume.blocks[chosen].cpu().numpy() - brick * BRICK).T
    shape = (BRICK + 1, BLOCK) * 3
    distance, known = np.ones(shape, np.float32), np.zeros(shape, bool)
    found = values.distance.cpu().numpy()
    pushed = np.where(found > 0, 1, -1) * np.maximum(np.abs(found), LEAST_DISTANCE)
    distance[x, :, y, :, z, :] = pushed
    known[x, :, y, :, z, :] = (values.near_weight >= LEAST_WEIGHT).cpu().numpy()
    side, end = (BRICK + 1) * BLOCK, CELLS + 1
    cut = np.s_[:end, :end, :end]
    return distance.reshape((side,) * 3)[cut], known.reshape((side,) * 3)[cut]


def gathered(
    parts: Iterable[tuple[int, int, Part | None]],
    *,
    limit: int,
    advice: str,
    on_part: Callable[[int, int], None] | None = None,
) -> Part:
    """Triangles of parts of one grid as one mesh without seams.

    Args:
        parts: how many are done, of how many, and places in the grid (V, 3) with triangles (T, 3),
            None where there are none.
        limit: bytes that the mesh may take until it is written.
        advice: what to change if it takes more.
        on_part: told after each part how many are done, and of how many.

    Raises:
        ConfigError: the mesh does not fit.
    """
    places, triangles, count = [np.empty((0, 3))], [np.empty((0, 3), np.int64)], 0
    for done, total, part in parts:
        if part is not None:
            places.append(part[0])
            triangles.append(part[1] + count)
            count += len(part[0])
            if count * VERTEX_BYTES > limit:
                raise ConfigError(
                    f"the mesh would need more than {limit / 2**30:.2f} GiB; use {advice}"
                )
        if on_part is not None:
            on_part(done, total)
    return joined(np.concatenate(places), np.concatenate(triangles))


def joined(
    places: NDArray[np.float64], triangles: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """One vertex for each edge of the grid: those between bricks come from both."""
    base = np.floor(places).astype(np.int64)
    free = places != base
    # a vertex has one coordinate between voxels, except for those inside a cell
    shared = (free.sum(axis=1) == 1) & (~free & (base % CELLS == 0)).any(axis=1)
    rows = np.flatnonzero(shared)
    names = np.column_stack([base[rows], free[rows].argmax(axis=1)])
    _, first, which = np.unique(names, axis=0, return_index=True, return_inverse=True)
    target = np.arange(len(places))
    target[rows] = rows[first[which.reshape(-1)]]
    used, joined = np.unique(target[triangles], return_inverse=True)
    return places[used], joined.reshape(-1, 3)
