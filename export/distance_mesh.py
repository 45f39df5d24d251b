"""The zero set of a field of signed distances as triangles, straight from its signed distances.

Marching cubes (Lewiner et al. 2003, by scikit-image) over bricks of 128 x 128 x 128 cells, one
after the other, so that the volume is never held. A brick is looked at coarsely first, and finely
only where the distance is small. The occupancy grid is not asked, so that nothing is cut off; only
cells that no camera sees are empty, and so is the border of the cube: the surface is closed.
Letters: V vertices, T triangles.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from lumigraph.core.errors import ConfigError, InputError, require
from lumigraph.fields.protocols import DistanceField, SurfaceField, to_grid_space

from .isosurface import CELLS, LEAST_DISTANCE, Surface, gathered

MOST_CELLS = 2048
"""Along a side of the bounds."""
CHUNK = 1 << 18
_STRIDE = 4  # cells between the places looked at first
_NEAR = 2.5  # strides; 1.3 would do for true distances, learnt ones grow slower or faster

Unseen = NDArray[np.bool_]


def has_distance(model: Any) -> bool:
    """Whether a model has signed distances."""
    return isinstance(getattr(model, "field", None), DistanceField)


def surface_parts(model: Any) -> tuple[DistanceField, Any]:
    """Field and renderer of a model that has distances.

    Raises:
        InputError: the method has none.
    """
    if not has_distance(model):
        raise InputError("this method has no signed distance; use --from density or fusion")
    return model.field, model.renderer


def unseen_cells(occupancy: Any) -> Unseen:
    """(G, G, G) by x, y, z: cells of a `renderers.OccupancyGrid` that no camera saw."""
    count = occupancy.resolution
    values = occupancy.values.detach().cpu().numpy()[: count**3]
    return np.ascontiguousarray(values.reshape(count, count, count).transpose(2, 1, 0) < 0)


def distance_surface(
    field: DistanceField,
    cells: int,
    *,
    limit: int,
    unseen: Unseen | None = None,
    on_brick: Callable[[int, int], None] | None = None,
) -> Surface:
    """Where the distance is zero, in the scene frame, with the colors of who looks straight at it.

    Args:
        cells: along a side of the field's bounds, 8 to 2048.
        limit: bytes that the triangles may take.
        unseen: see `unseen_cells`; None takes the whole cube.
        on_brick: told after each brick how many are done, and of how many.

    Raises:
        ConfigError: too few or too many cells, or the triangles do not fit.
        MissingExtraError: scikit-image is not installed.
    """
    if not 8 <= cells <= MOST_CELLS:
        raise ConfigError(
            f"the mesh would have {cells} cells along a side, expected 8 to {MOST_CELLS}; change "
            "--resolution or --voxel"
        )
    along = math.ceil(cells / CELLS)
    parts = (
        (done, along**3, _march(field, np.array(brick) * CELLS, cells, unseen))
        for done, brick in enumerate(itertools.product(range(along), repeat=3), start=1)
    )
    vertices, faces = gathered(parts, limit=limit, advice="a lower --resolution", on_part=on_brick)
    bounds = field.bounds.detach().cpu().double().numpy()
    side = bounds[1, 0] - bounds[0, 0]
    points = vertices / cells * side + bounds[0]
    return Surface(points, faces, surface_colors(field, points))


@torch.no_grad()
def surface_colors(field: DistanceField, points: NDArray[Any]) -> NDArray[np.uint8]:
    """(V, 3) sRGB of points (V, 3) of the surface in the scene frame, seen against the normal; gray
    where the field knows distances alone."""
    colors = np.full((len(points), 3), 128, np.uint8)
    if not isinstance(field, SurfaceField):
        return colors
    for start in range(0, len(points), CHUNK):
        part = torch.from_numpy(np.ascontiguousarray(points[start : start + CHUNK])).float()
        places = to_grid_space(part.to(field.bounds.device), field.bounds)
        samples = field.sdf_and_gradient(places)
        toward = -torch.nn.functional.normalize(samples.gradient, dim=1)
        color = field.color(samples, places, toward).clamp(0, 1)
        colors[start : start + CHUNK] = (color * 255).round().byte().cpu().numpy()
    return colors


def _march(
    field: DistanceField, begin: NDArray[np.int64], cells: int, unseen: Unseen | None
) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """Vertices as places in the grid (V, 3) and triangles of one brick that starts at `begin`."""
    measure = require("skimage.measure", extra="mesh")
    axes = [np.arange(start, min(start + CELLS, cells) + 1) for start in begin]
    distance = _distances(field, axes, cells)
    if distance is None:
        return None
    for k, axis in enumerate(axes):
        border = ((axis == 0) | (axis == cells)).reshape([-1 if k == n else 1 for n in range(3)])
        distance = np.where(border, np.abs(distance), distance)
    if unseen is not None:
        last = len(unseen) - 1
        index = [np.minimum(axis * len(unseen) // cells, last) for axis in axes]
        distance = np.where(unseen[np.ix_(*index)], np.abs(distance), distance)
    distance *= cells  # in cells, kept off zero: no vertex falls onto a place of the grid
    if not (distance <= 0).any() or not (distance > 0).any():
        return None
    pushed = np.where(distance > 0, 1, -1) * np.maximum(np.abs(distance), LEAST_DISTANCE)
    vertices, triangles, _, _ = measure.marching_cubes(pushed.astype(np.float32), 0.0)
    return vertices.astype(np.float64) + begin, triangles.astype(np.int64)


def _distances(
    field: DistanceField, axes: list[NDArray[np.int64]], cells: int
) -> NDArray[np.float32] | None:
    """(X, Y, Z) distances at places of the grid: exact near the surface, elsewhere those of the
    nearest coarse place. None where all are far from it."""
    coarse = [np.unique(np.append(axis[::_STRIDE], axis[-1])) for axis in axes]
    rough = _asked(field, np.stack(np.meshgrid(*coarse, indexing="ij"), -1), cells)
    signs = (rough > 0).astype(np.int8)
    turns = ndimage.maximum_filter(signs, 3) != ndimage.minimum_filter(signs, 3)
    near = turns | (np.abs(rough) < _NEAR * _STRIDE / cells)
    if not near.any():
        return None
    nearest = [
        np.minimum((axis - axis[0] + _STRIDE // 2) // _STRIDE, len(rows) - 1)
        for axis, rows in zip(axes, coarse, strict=True)
    ]
    found = rough[np.ix_(*nearest)]
    rows = np.argwhere(near[np.ix_(*nearest)])
    places = np.stack([axes[k][rows[:, k]] for k in range(3)], axis=1)
    found[tuple(rows.T)] = _asked(field, places, cells)
    return found


def _asked(field: DistanceField, places: NDArray[np.int64], cells: int) -> NDArray[np.float32]:
    """(...,) distances in grid units at places (..., 3) of the grid."""
    flat = places.reshape(-1, 3)
    found = np.empty(len(flat), np.float32)
    for start in range(0, len(flat), CHUNK):
        part = torch.from_numpy((flat[start : start + CHUNK] / cells).astype(np.float32))
        distance = field.sdf(part.to(field.bounds.device))
        found[start : start + CHUNK] = distance.detach().cpu().numpy()
    return found.reshape(places.shape[:-1])
