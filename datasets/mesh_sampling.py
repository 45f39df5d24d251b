"""Areas and normals of triangles, and points spread evenly over the surface of a mesh. Letters:
N points, T triangles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lumigraph.core.errors import DataError

from .mesh_reading import Points, TriangleMesh


class SurfaceSampler:
    """Draws points of a mesh; areas are added up once.

    Raises:
        DataError: the mesh has no area.
    """

    def __init__(self, mesh: TriangleMesh) -> None:
        self._corners = mesh.vertices[mesh.triangles]
        self._sides = self._corners[:, 1:] - self._corners[:, :1]
        self._total = np.cumsum(np.linalg.norm(_across(self._corners), axis=1) / 2)
        if not self._total[-1] > 0:
            raise DataError(
                f"{mesh.name}: its triangles have no area; give a file with a surface in it"
            )

    def draw(self, count: int, *, seed: int) -> tuple[Points, NDArray[np.int64]]:
        """Points (count, 3), one in each of `count` equal shares of the area, in the order of the
        triangles, and the triangle (count,) of each."""
        random = np.random.default_rng(seed)
        # One point in each share: more even than independent ones.
        places = (np.arange(count) + random.random(count)) / count * self._total[-1]
        chosen = np.searchsorted(self._total, places, side="right")
        chosen = np.minimum(chosen, len(self._total) - 1)
        weights = random.random((count, 2))
        outside = weights.sum(axis=1) > 1
        weights[outside] = 1 - weights[outside]
        offsets = (weights[:, :, None] * self._sides[chosen]).sum(axis=1)
        return self._corners[chosen, 0] + offsets, chosen

    def normals(self, chosen: NDArray[np.int64]) -> Points:
        """(N, 3) of triangles (N,), see `triangle_normals`."""
        return triangle_normals(self._corners[chosen])


def sample_surface(
    mesh: TriangleMesh, count: int, *, seed: int
) -> tuple[Points, NDArray[np.int64]]:
    """Points (count, 3) spread evenly over the area of a mesh, and the triangle (count,) of each.

    Raises:
        DataError: the mesh has no area.
    """
    return SurfaceSampler(mesh).draw(count, seed=seed)


def surface_area(mesh: TriangleMesh) -> float:
    """In squared units of the frame."""
    return float(np.linalg.norm(_across(mesh.vertices[mesh.triangles]), axis=1).sum() / 2)


def triangle_normals(corners: Points) -> Points:
    """(T, 3) of unit length, by corners (T, 3, 3) in counter-clockwise order; 0 without area."""
    across = _across(corners)
    length = np.linalg.norm(across, axis=1, keepdims=True)
    return np.where(length > 0, across / np.where(length > 0, length, 1.0), 0.0)


def _across(corners: Points) -> Points:
    """(T, 3) normals as long as twice the areas of triangles."""
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
