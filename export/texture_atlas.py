"""A surface laid flat: charts packed into a picture by xatlas, and which texel shows which place.

Texture coordinates (u, v) run from the lower left corner of the picture, 0 to 1. Letters: V
vertices, T triangles, N texels, H W picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumigraph.core.errors import DataError, require

from .isosurface import Surface

PADDING = 4
"""Texels between charts, so that neighbours do not shine through when the texture is reduced."""
FILLED = 0.8
"""Part of a picture that charts fill, as a first guess of their scale."""
_BATCH = 1 << 22  # texels that are tried together


@dataclass(frozen=True, eq=False)
class Atlas:
    """A surface whose vertices are doubled along the seams of its charts."""

    origin: NDArray[np.int64]
    """(V,) vertex of the surface that each vertex was."""
    triangles: NDArray[np.int64]
    """(T, 3), the triangles of the surface in their order."""
    coordinates: NDArray[np.float64]
    """(V, 2) u v."""
    shape: tuple[int, int]
    """Height and width of the picture."""


@dataclass(frozen=True, eq=False)
class Texels:
    """Texels that show a place of the surface."""

    rows: NDArray[np.int64]
    """(N,) row in the picture, from the top."""
    columns: NDArray[np.int64]
    """(N,)"""
    triangles: NDArray[np.int64]
    """(N,) triangle that is shown."""
    weights: NDArray[np.float64]
    """(N, 3) of the triangle's corners."""


def unwrapped(surface: Surface, *, size: int) -> Atlas:
    """Cut a surface into charts and pack them.

    Args:
        size: longer side of the picture in texels.

    Raises:
        DataError: it cannot be cut.
        MissingExtraError: xatlas is not installed.
    """
    xatlas = require("xatlas", extra="mesh")
    middle = surface.vertices.mean(axis=0)  # float32 has few digits
    atlas = xatlas.Atlas()
    atlas.add_mesh(
        (surface.vertices - middle).astype(np.float32), surface.triangles.astype(np.uint32)
    )
    packing = xatlas.PackOptions()
    packing.padding, packing.bilinear = PADDING, True
    # with a resolution as well, what does not fit would go to a second picture
    packing.texels_per_unit = _texels_per_unit(surface, size)
    packing.create_image = False
    atlas.generate(xatlas.ChartOptions(), packing)
    if atlas.atlas_count != 1 or atlas.chart_count == 0:
        raise DataError("the surface cannot be unwrapped for a texture; write it without --texture")
    origin, triangles, coordinates = atlas.get_mesh(0)
    scale = size / max(atlas.width, atlas.height)
    shape = (max(1, round(atlas.height * scale)), max(1, round(atlas.width * scale)))
    return Atlas(
        np.asarray(origin, np.int64),
        np.asarray(triangles, np.int64),
        np.asarray(coordinates, np.float64),
        shape,
    )


def _texels_per_unit(surface: Surface, size: int) -> float:
    corners = surface.vertices[surface.triangles]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = float(np.linalg.norm(across, axis=1).sum()) / 2
    return size * float(np.sqrt(FILLED / max(area, 1e-30)))


def covered(atlas: Atlas) -> Texels:
    """Texels whose middle lies in a triangle, or within about a texel beside it; each once."""
    height, width = atlas.shape
    corners = (atlas.coordinates * [width, height])[atlas.triangles]  # (T, 3, 2) in texels
    low = np.floor(corners.min(axis=1) - 1.0).astype(np.int64)
    high = np.ceil(corners.max(axis=1) + 1.0).astype(np.int64)
    spans = high - low
    counts = spans.prod(axis=1)
    ends = np.cumsum(counts)
    best = np.full(height * width, np.inf)
    owner = np.full(height * width, -1, np.int64)
    share = np.zeros((height * width, 3))
    start = 0
    while start < len(counts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _BATCH, side="right")))
        chosen = np.repeat(np.arange(start, stop), counts[start:stop])
        step = (
            np.arange(len(chosen))
            - np.repeat(ends[start:stop] - counts[start:stop], counts[start:stop])
            + before
        )
        x = low[chosen, 0] + step % spans[chosen, 0]
        y = low[chosen, 1] + step // spans[chosen, 0]
        weights, gap = _weights(corners[chosen], np.stack([x, y], axis=1) + 0.5)
        near = (gap <= 1.0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        place, gap = (y * width + x)[near], gap[near]
        # of several triangles the nearest: later ones win, so the nearest comes last
        order = np.argsort(-gap, kind="stable")
        place, gap = place[order], gap[order]
        better = gap < best[place]
        place, rows = place[better], np.flatnonzero(near)[order][better]
        best[place], owner[place], share[place] = gap[better], chosen[rows], weights[rows]
        start = stop
    found = np.flatnonzero(owner >= 0)
    rows = height - 1 - found // width
    return Texels(rows, found % width, owner[found], share[found])


def _weights(
    corners: NDArray[np.float64], points: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (N, 3) of the corners (N, 3, 2) at the place of triangles next to points (N, 2), and
    how far the points lie outside (N,), 0 inside."""
    origin, first, second = (corners[:, k] for k in range(3))
    a, b, p = first - origin, second - origin, points - origin
    area = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    safe = np.where(np.abs(area) < 1e-12, 1.0, area)
    u = (p[:, 0] * b[:, 1] - p[:, 1] * b[:, 0]) / safe
    v = (a[:, 0] * p[:, 1] - a[:, 1] * p[:, 0]) / safe
    weights = np.stack([1 - u - v, u, v], axis=1).clip(0.0, 1.0)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    nearest = (corners * weights[:, :, None]).sum(axis=1)
    gap = np.linalg.norm(points - nearest, axis=1)
    return weights, np.where(np.abs(area) < 1e-12, np.inf, np.where(gap < 1e-9, 0.0, gap))
