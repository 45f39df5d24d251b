"""Rays that meet a mesh, by Intel's Embree. Letters: N rays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumigraph.core.errors import require

from .mesh_reading import Points, TriangleMesh


class Hits(NamedTuple):
    """What each ray meets first."""

    distances: Points
    """(N,) along the ray, infinite where it meets nothing."""
    triangles: NDArray[np.int64]
    """(N,) number of the triangle, -1 where it meets nothing."""


class RayCaster:
    """A mesh prepared for rays, which Embree follows in single precision.

    Coordinates are moved to the middle of the mesh and scaled by its size before they become single
    precision.
    """

    def __init__(self, vertices: Points, triangles: NDArray[np.int64]) -> None:
        """Vertices (V, 3) and triangles (T, 3).

        Raises:
            MissingExtraError: embreex is not installed.
        """
        scenes = require("embreex.rtcore_scene", extra="mesh")
        meshes = require("embreex.mesh_construction", extra="mesh")
        low, high = vertices.min(axis=0), vertices.max(axis=0)
        self._middle, self._size = (low + high) / 2, max(float((high - low).max()), 1e-300)
        self._scene = scenes.EmbreeScene()
        # The scene keeps no reference to its geometry.
        self._mesh = meshes.TriangleMesh(
            self._scene, self._single(vertices), triangles.astype(np.int32)
        )

    @classmethod
    def of(cls, mesh: TriangleMesh) -> RayCaster:
        """A mesh in its own frame."""
        return cls(mesh.vertices, mesh.triangles)

    def first_hits(self, origins: Points, directions: Points) -> Hits:
        """Follow rays from origins (N, 3) along unit directions (N, 3); both sides of a triangle
        stop them."""
        if not len(origins):
            return Hits(np.empty(0), np.empty(0, np.int64))
        found = self._scene.run(
            self._single(origins),
            np.ascontiguousarray(directions, np.float32),
            query="INTERSECT",
            output=1,
        )
        triangles = found["primID"].astype(np.int64)
        distances = found["tfar"].astype(np.float64) * self._size
        return Hits(np.where(triangles < 0, np.inf, distances), triangles)

    def _single(self, points: Points) -> NDArray[np.float32]:
        return np.ascontiguousarray((points - self._middle) / self._size, np.float32)
