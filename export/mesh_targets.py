"""What points lie nearest to: a mesh, or a cloud.

Distances to triangles are those to the triangles under the nearest of many points spread over the
surface: exact but for the rare triangle that lies near and holds none of these points, where they
are too large by less than the gap between the points. Letters: N points, P points of the truth,
T triangles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from lumigraph.core.errors import DataError, InputError, require
from lumigraph.datasets.mesh_reading import Points, TriangleMesh
from lumigraph.datasets.mesh_sampling import sample_surface, triangle_normals

_NEIGHBOURS = 8  # Points whose triangles are looked at.
_BATCH = 50_000


@dataclass(frozen=True, eq=False)
class TruePoints:
    """Measured points of a true surface, such as those of a laser scan. Checked on construction."""

    positions: Points
    """(P, 3)"""
    normals: Points | None = None
    """(P, 3) of unit length, of either side."""
    name: str = "truth"
    """For messages, e.g. the file."""

    def __post_init__(self) -> None:
        shape = np.shape(self.positions)
        if len(shape) != 2 or shape[1] != 3:
            raise InputError(f"{self.name} must be a mesh or points N x 3; got {shape}")
        if not len(self.positions) or not np.isfinite(self.positions).all():
            raise DataError(
                f"{self.name} holds no points, or some that are not finite; write it again"
            )
        if self.normals is not None and np.shape(self.normals) != shape:
            raise InputError(f"{self.name}: normals must be {shape}; got {np.shape(self.normals)}")


class Nearest(NamedTuple):
    """What lies nearest to each of some points."""

    distances: Points
    """(N,)"""
    normals: Points | None
    """(N, 3) of the surface there, of either side; None where a cloud has none. 0 where a triangle
    has no area."""


class Samples(NamedTuple):
    """Points of a surface."""

    points: Points
    """(N, 3)"""
    normals: Points | None
    """(N, 3), see `Nearest`."""


class Target:
    """Something that distances are measured to: a surface, or a cloud of points."""

    def __init__(
        self,
        points: Points,
        normals: Points | None,
        *,
        corners: Points | None = None,
        triangles: NDArray[np.int64] | None = None,
        count: int,
    ) -> None:
        """Points (N, 3), the first `count` of which are spread evenly, and their normals; for a
        surface corners (T, 3, 3) and the triangle (N,) that each point lies on."""
        self.samples = Samples(points[:count], None if normals is None else normals[:count])
        self._normals, self._corners, self._triangles = normals, corners, triangles
        self._tree = cKDTree(points)

    @classmethod
    def of(cls, truth: TriangleMesh | TruePoints | Points, *, samples: int, seed: int) -> Target:
        """A mesh, with at least `samples` points on it, or points (P, 3), of which at most so many
        are sampled."""
        if isinstance(truth, TriangleMesh):
            return cls._of_mesh(truth, samples, seed)
        cloud = truth if isinstance(truth, TruePoints) else TruePoints(truth)
        points, normals = np.asarray(cloud.positions, np.float64), cloud.normals
        if len(points) > samples:
            order = np.random.default_rng(seed).permutation(len(points))
            points, normals = points[order], None if normals is None else normals[order]
        return cls(points, normals, count=samples)

    @classmethod
    def _of_mesh(cls, mesh: TriangleMesh, samples: int, seed: int) -> Target:
        points, triangles = sample_surface(mesh, samples, seed=seed)
        corners = mesh.vertices[mesh.triangles]
        # Their middles too, so that small triangles are found.
        points = np.concatenate([points, corners.mean(axis=1)])
        triangles = np.concatenate([triangles, np.arange(len(corners))])
        normals = triangle_normals(corners)[triangles]
        return cls(points, normals, corners=corners, triangles=triangles, count=samples)

    def distances(self, points: Points) -> Points:
        """(N,) distance of each point (N, 3) to the nearest of the target."""
        return self.nearest(points).distances

    def nearest(self, points: Points) -> Nearest:
        """How far the target is from each point (N, 3), and its normal there."""
        starts = range(0, len(points), _BATCH)
        parts = [self._nearest(points[start : start + _BATCH]) for start in starts]
        if not parts:
            return Nearest(np.empty(0), None if self._normals is None else np.empty((0, 3)))
        distances = np.concatenate([found for found, _ in parts])
        if self._normals is None:
            return Nearest(distances, None)
        return Nearest(distances, self._normals[np.concatenate([rows for _, rows in parts])])

    def _nearest(self, points: Points) -> tuple[Points, NDArray[np.int64]]:
        """Distances (N,), and the rows (N,) of the target's points that stand for the nearest
        place."""
        if self._corners is None:
            distances, rows = self._tree.query(points, workers=-1)
            return np.asarray(distances, np.float64), np.asarray(rows, np.int64)
        assert self._triangles is not None
        trimesh = require("trimesh", extra="mesh")
        neighbours = min(_NEIGHBOURS, self._tree.n)
        shape = (len(points), neighbours)
        found, rows = self._tree.query(points, k=neighbours, workers=-1)
        to_samples, rows = np.reshape(found, shape), np.reshape(rows, shape)
        repeated = points.repeat(neighbours, axis=0)
        corners = self._corners[self._triangles[rows.reshape(-1)]]
        with np.errstate(invalid="ignore", divide="ignore"):
            closest = trimesh.triangles.closest_point(corners, repeated)
        gaps = np.linalg.norm(closest - repeated, axis=1).reshape(shape)
        # A triangle without area has no closest point by that formula; its sample is one.
        distances = np.fmin(gaps, to_samples)
        best = distances.argmin(axis=1)
        every = np.arange(len(points))
        return distances[every, best], rows[every, best]
