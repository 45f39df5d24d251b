"""The surface of a volume field as triangles, straight from its density.

Marching cubes (Lewiner et al. 2003, by scikit-image) over bricks of 128 x 128 x 128 cells, one
after the other, so that the volume is never held; bricks without an occupied cell of the occupancy
grid are passed over. Density grows by orders of magnitude across a surface, so its logarithm is
what is interpolated, at each voxel the mean of the eight cells around it: what is finer than a cell
would make the surface rough. Where the occupancy grid is empty, and at the border of the region,
there is nothing; space that no camera sees into is solid: the surface is closed. Neighbouring
bricks compute the vertices of their common face alike, and vertices are joined by the edge of the
grid that they lie on, so there are no cracks.

Everything is in grid space (`fields/protocols.py`) but for the result. Letters: V vertices, T
triangles.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lumigraph.core.errors import ConfigError, InputError, require
from lumigraph.cuda.reference.marching import unpack_bits
from lumigraph.fields.protocols import VolumeField, to_grid_space

from .isosurface import CELLS, LEAST_DISTANCE, Surface, gathered

MOST_CELLS = 2048
"""Along a side of the region."""
DENSITY_CHUNK = 1 << 18
COLOR_CHUNK = 1 << 12
COLOR_OFFSET = 2.0
"""Cells in front of the surface from which its color is looked at."""
_DARKEST = 4.0  # of the logarithm of density over level; more would hide what lies beside it


@dataclass(frozen=True)
class DensityGrid:
    """Where density is looked at: cells over a cube in the middle of grid space."""

    cells: int
    """Along a side of the cube."""
    reach: float
    """Side of the cube in grid units."""

    def __post_init__(self) -> None:
        if not 8 <= self.cells <= MOST_CELLS:
            raise ConfigError(
                f"the mesh would have {self.cells} cells along a side, expected 8 to "
                f"{MOST_CELLS}; change --resolution, --voxel or --reach"
            )

    @property
    def cell(self) -> float:
        """Side of a cell in grid units."""
        return self.reach / self.cells

    def positions(self, places: NDArray[Any]) -> NDArray[np.float64]:
        """Grid-space coordinates of grid places, whole or not."""
        return 0.5 - self.reach / 2 + places * self.cell


class Occupancy:
    """Which cells of all cascades hold something, and what is hidden, on the CPU."""

    def __init__(self, grid: Any, hidden: NDArray[np.bool_] | None = None) -> None:
        """Of a `renderers.OccupancyGrid`; `hidden` (n, n, n) are cells of the region that nobody
        can look into."""
        self.hidden = hidden
        march = grid.march_grid
        cells = unpack_bits(march.bits.cpu(), march.resolution, march.cascades)  # z, y, x
        self.cells: NDArray[np.bool_] = cells.permute(0, 3, 2, 1).contiguous().numpy()

    def at(self, axes: list[NDArray[np.float64]]) -> NDArray[np.bool_]:
        """(X, Y, Z) whether the points of a grid with these coordinates (X,), (Y,), (Z,) lie in
        occupied cells of the finest cascade that holds them."""
        levels = [
            np.ceil(np.log2(np.maximum(2 * np.abs(axis - 0.5), 1.0))).astype(int) for axis in axes
        ]
        level = np.maximum.outer(np.maximum.outer(levels[0], levels[1]), levels[2])
        found = np.zeros(level.shape, bool)
        count, resolution = self.cells.shape[:2]
        for cascade in range(int(level.min()), min(int(level.max()) + 1, count)):
            side = 2.0**cascade
            places = [np.floor(((axis - 0.5) / side + 0.5) * resolution) for axis in axes]
            index = np.ix_(*[place.clip(0, resolution - 1).astype(int) for place in places])
            found |= (level == cascade) & self.cells[cascade][index]
        return found

    def hidden_at(
        self, axes: list[NDArray[np.float64]], grid: DensityGrid
    ) -> NDArray[np.bool_] | None:
        """(X, Y, Z) whether the points of a grid lie in hidden cells; None where none is known."""
        if self.hidden is None:
            return None
        count = len(self.hidden)
        places = [
            np.floor((axis - grid.positions(np.zeros(1))) / grid.reach * count) for axis in axes
        ]
        return self.hidden[np.ix_(*[place.clip(0, count - 1).astype(int) for place in places])]

    def any_in(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> bool:
        """Whether an occupied cell touches a box."""
        count, resolution = self.cells.shape[:2]
        for cascade in range(count):
            side = 2.0**cascade
            first, last = (((x - 0.5) / side + 0.5) * resolution for x in (low, high))
            begin = np.floor(first).astype(int).clip(0, resolution)
            end = (np.floor(last).astype(int) + 1).clip(0, resolution)
            part = self.cells[cascade][tuple(map(slice, begin, end))]
            if part.any():
                return True
        return False

    def any_hidden_in(self, brick: NDArray[np.int64], grid: DensityGrid) -> bool:
        """Whether a hidden cell touches a brick."""
        if self.hidden is None:
            return False
        share = len(self.hidden) / grid.cells
        begin = np.floor(brick * CELLS * share).astype(int)
        end = np.floor((brick + 1) * CELLS * share).astype(int) + 1
        return bool(self.hidden[tuple(map(slice, begin, end))].any())


def density_surface(
    field: VolumeField,
    occupancy: Any,
    grid: DensityGrid,
    *,
    level: float,
    limit: int,
    hidden: NDArray[np.bool_] | None = None,
    on_brick: Callable[[int, int], None] | None = None,
) -> Surface:
    """Where density passes a level, in the scene frame, still without colors (gray).

    Args:
        field: asked for density alone.
        occupancy: the `renderers.OccupancyGrid` that the field was trained with.
        level: density per side of the scene's bounds.
        limit: bytes that the triangles may take.
        hidden: (n, n, n) cells of the region that are solid, see `hidden_space.py`.
        on_brick: told after each brick how many are done, and of how many.

    Raises:
        ConfigError: the triangles do not fit.
        MissingExtraError: scikit-image is not installed.
    """
    cells = Occupancy(occupancy, hidden)
    parts = (
        (done, total, None if brick is None else _march(field, cells, grid, brick, level))
        for done, total, brick in _bricks(grid, cells)
    )
    advice = "a lower --resolution, a higher --level or a smaller --reach"
    vertices, faces = gathered(parts, limit=limit, advice=advice, on_part=on_brick)
    bounds = field.bounds.cpu().double().numpy()
    side = bounds[1, 0] - bounds[0, 0]
    colors = np.full((len(vertices), 3), 128, np.uint8)
    return Surface(grid.positions(vertices) * side + bounds[0], faces, colors)


def _bricks(
    grid: DensityGrid, cells: Occupancy
) -> Iterator[tuple[int, int, NDArray[np.int64] | None]]:
    """How many bricks are done, of how many, and the brick, None where it is empty."""
    along = math.ceil(grid.cells / CELLS)
    for done, place in enumerate(itertools.product(range(along), repeat=3), start=1):
        brick = np.array(place)
        low, high = (grid.positions((brick + end) * CELLS) for end in (0, 1))
        needed = cells.any_in(low, high) or cells.any_hidden_in(brick, grid)
        yield done, along**3, brick if needed else None


def _march(
    field: VolumeField, cells: Occupancy, grid: DensityGrid, brick: NDArray[np.int64], level: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """Vertices as grid places (V, 3) and triangles of one brick."""
    measure = require("skimage.measure", extra="mesh")
    steps = [np.arange(CELLS + 1) + start * CELLS for start in brick]
    steps = [axis[axis <= grid.cells] for axis in steps]
    axes = [grid.positions(axis) for axis in steps]
    inner = [(axis > 0) & (axis < grid.cells) for axis in steps]
    inside = inner[0][:, None, None] & inner[1][:, None] & inner[2]
    occupied = cells.at(axes) & inside
    outside = np.where(occupied, -_log_density(field, grid, steps, occupied, level), _DARKEST)
    hidden = cells.hidden_at(axes, grid)
    if hidden is not None:
        outside[hidden & inside & (outside > 0)] = -_DARKEST
    if not (outside <= 0).any() or not (outside > 0).any():
        return None
    pushed = np.where(outside > 0, 1, -1) * np.maximum(np.abs(outside), LEAST_DISTANCE)
    vertices, triangles, _, _ = measure.marching_cubes(pushed.astype(np.float32), 0.0)
    return vertices.astype(np.float64) + brick * CELLS, triangles.astype(np.int64)


def _log_density(
    field: VolumeField,
    grid: DensityGrid,
    steps: list[NDArray[np.int64]],
    wanted: NDArray[np.bool_],
    level: float,
) -> NDArray[np.float64]:
    """(X, Y, Z) logarithm of density over level at grid places `steps` (X,), (Y,), (Z,): the mean
    over the middles of the eight cells around each, where it is `wanted`."""
    middles = [np.concatenate([axis[:1] - 0.5, axis + 0.5]) for axis in steps]
    axes = [grid.positions(axis) for axis in middles]
    around = [
        tuple(slice(shift, shift + len(axis)) for shift, axis in zip(corner, steps, strict=True))
        for corner in itertools.product((0, 1), repeat=3)
    ]
    asked = np.zeros([len(axis) for axis in axes], bool)
    for corner in around:
        asked[corner] |= wanted
    rows, found = np.argwhere(asked), np.zeros(asked.shape)
    for start in range(0, len(rows), DENSITY_CHUNK):
        part = rows[start : start + DENSITY_CHUNK]
        points = np.stack([axes[k][part[:, k]] for k in range(3)], axis=1).astype(np.float32)
        with torch.no_grad():
            density = field.density(torch.from_numpy(points).to(field.bounds.device))
        ratio = np.log(np.maximum(density.cpu().double().numpy(), 1e-30)) - math.log(level)
        found[tuple(part.T)] = ratio.clip(-_DARKEST, _DARKEST)
    total = np.zeros(wanted.shape)
    for corner in around:
        total += found[corner]
    return total / 8


def seen_colors(
    renderer: Any, field: VolumeField, points: NDArray[Any], normals: NDArray[Any], offset: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """What somebody right in front of the surface sees who looks against the normal.

    Args:
        renderer: the `VolumeRenderer` of the field.
        points: (M, 3) in the scene frame.
        normals: (M, 3) unit, outward.
        offset: distance from the surface within which things count, scene units.

    Returns:
        (M, 3) sRGB in [0, 1], and (M,) whether anything opaque was met.
    """
    device = field.bounds.device
    # the renderer passes over what is nearer than its near distance
    back = offset + float(renderer.near) * float(field.bounds[1, 0] - field.bounds[0, 0])
    colors, found = np.zeros((len(points), 3), np.float32), np.zeros(len(points), bool)
    for start in range(0, len(points), COLOR_CHUNK):
        part = slice(start, start + COLOR_CHUNK)
        outward = torch.from_numpy(np.ascontiguousarray(normals[part])).float().to(device)
        eyes = torch.from_numpy(np.ascontiguousarray(points[part])).float().to(device)
        eyes = to_grid_space(eyes + back * outward, field.bounds)
        with torch.no_grad():
            seen = renderer.render_rays(field, eyes, -outward)
        opacity = seen.opacity.cpu().numpy()
        colors[part] = seen.color.cpu().numpy() / np.maximum(opacity, 1e-6)[:, None]
        found[part] = opacity > 0.5
    return colors.clip(0, 1), found


def has_density(model: Any) -> bool:
    """Whether a model is a volume field with its occupancy grid."""
    field, renderer = getattr(model, "field", None), getattr(model, "renderer", None)
    return isinstance(field, VolumeField) and hasattr(renderer, "occupancy")


def volume_parts(model: Any) -> tuple[VolumeField, Any]:
    """Field and renderer of a model that has a density.

    Raises:
        InputError: the method has none.
    """
    if not has_density(model):
        raise InputError("this method has no density to take a surface from; use --from fusion")
    return model.field, model.renderer
