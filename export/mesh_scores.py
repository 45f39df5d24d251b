"""How far a mesh lies from the truth, in the unit of its frame.

With d(x, S) the distance of a point to the nearest one of S, M the mesh and G the truth:

    accuracy      mean d(x, G) over points x of M, spread evenly over its area
    completeness  mean d(x, M) over points x of G
    chamfer       (accuracy + completeness) / 2
    precision, recall   share of these points nearer than a threshold
    F-score       2 precision recall / (precision + recall)

Distances to triangles are those to the triangles under the nearest of many points spread over the
surface: exact but for the rare triangle that lies near and holds none of these points, where they
are too large by less than the gap between the points. Letters: N points, V vertices.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from lumigraph.core.errors import DataError, InputError, require
from lumigraph.datasets.mesh_reading import Points, TriangleMesh
from lumigraph.datasets.mesh_sampling import sample_surface

DEFAULT_SAMPLES = 200_000
THRESHOLD_SHARE = 0.01
"""Of the diagonal of the truth's box: the threshold that is taken when none is given."""
_NEIGHBOURS = 8  # Points whose triangles are looked at.
_BATCH = 50_000


@dataclass(frozen=True)
class MeshScores:
    """Distances in the unit of the frame, shares in [0, 1]."""

    accuracy: float
    accuracy_median: float
    completeness: float
    completeness_median: float
    chamfer: float
    threshold: float
    precision: float
    recall: float
    f_score: float
    samples: int
    """Points on each side, or fewer where the truth is a cloud of fewer."""
    diagonal: float
    """Of the box around the truth."""

    def lines(self) -> list[tuple[str, str]]:
        """Name and value of each fact, for people."""
        share = f"{self.chamfer / self.diagonal:.3%} of the diagonal" if self.diagonal else ""
        return [
            ("accuracy", f"{self.accuracy:.4g} mean, {self.accuracy_median:.4g} median"),
            (
                "completeness",
                f"{self.completeness:.4g} mean, {self.completeness_median:.4g} median",
            ),
            ("chamfer", f"{self.chamfer:.4g}, {share}"),
            (
                "F-score",
                f"{self.f_score:.4f} within {self.threshold:.4g} "
                f"(precision {self.precision:.4f}, recall {self.recall:.4f})",
            ),
        ]

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class MeshError:
    """A mesh held against the truth."""

    vertex_distances: Points
    """(V,) distance of each vertex of the mesh to the truth."""
    scores: MeshScores


class Target:
    """Something that distances are measured to: a surface, or a cloud of points."""

    def __init__(self, points: Points, corners: Points | None = None) -> None:
        """Points (N, 3) and, for a surface, the triangle (N, 3, 3) that each lies on."""
        self.points, self._corners = points, corners
        self._tree = cKDTree(points)

    @classmethod
    def of(cls, truth: TriangleMesh | Points, *, samples: int, seed: int) -> Target:
        """A mesh, with at least `samples` points on it, or points (P, 3)."""
        if not isinstance(truth, TriangleMesh):
            return cls(_checked_points(truth))
        points, triangles = sample_surface(truth, samples, seed=seed)
        corners = truth.vertices[truth.triangles]
        # Their middles too, so that small triangles are found.
        every = np.arange(len(corners))
        points = np.concatenate([points, corners.mean(axis=1)])
        return cls(points, corners[np.concatenate([triangles, every])])

    def distances(self, points: Points) -> Points:
        """(N,) distance of each point (N, 3) to the nearest of the target."""
        if self._corners is None:
            return np.asarray(self._tree.query(points)[0], np.float64)
        starts = range(0, len(points), _BATCH)
        parts = [self._to_triangles(points[start : start + _BATCH]) for start in starts]
        return np.concatenate(parts) if parts else np.empty(0)

    def _to_triangles(self, points: Points) -> Points:
        assert self._corners is not None
        trimesh = require("trimesh", extra="mesh")
        neighbours = min(_NEIGHBOURS, len(self.points))
        to_samples, nearest = self._tree.query(points, k=neighbours)
        repeated = points.repeat(neighbours, axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            closest = trimesh.triangles.closest_point(self._corners[nearest.reshape(-1)], repeated)
        gaps = np.linalg.norm(closest - repeated, axis=1).reshape(-1, neighbours)
        # A triangle without area has no closest point by that formula; its sample is one.
        return np.asarray(np.fmin(gaps, to_samples).min(axis=1), np.float64)


def mesh_error(
    mesh: TriangleMesh,
    truth: TriangleMesh | Points,
    *,
    samples: int = DEFAULT_SAMPLES,
    threshold: float | None = None,
    seed: int = 0,
) -> MeshError:
    """Compare a mesh with the truth, which lies in the same frame.

    Args:
        mesh: the mesh to judge.
        truth: a mesh, or points (P, 3).
        samples: points spread over each surface, from 100.
        threshold: distance for precision, recall and F-score, in the unit of the frame; None takes
            `THRESHOLD_SHARE` of the diagonal of the truth.
        seed: of the points.

    Raises:
        InputError: a bad option. DataError: points that are not finite, or none.
        MissingExtraError: trimesh is not installed.
    """
    if samples < 100:
        raise InputError(f"samples {samples}: expected at least 100")
    place = truth.vertices if isinstance(truth, TriangleMesh) else _checked_points(truth)
    diagonal = float(np.linalg.norm(np.ptp(place, axis=0)))
    chosen = THRESHOLD_SHARE * diagonal if threshold is None else threshold
    if not (np.isfinite(chosen) and chosen > 0):
        raise InputError(f"threshold {chosen}: expected a distance above 0")
    of_truth = Target.of(truth, samples=samples, seed=seed)
    of_mesh = Target.of(mesh, samples=samples, seed=seed + 1)
    from_mesh = of_truth.distances(of_mesh.points[:samples])
    from_truth = of_mesh.distances(of_truth.points[:samples])
    precision, recall = float((from_mesh < chosen).mean()), float((from_truth < chosen).mean())
    both = precision + recall
    accuracy, completeness = float(from_mesh.mean()), float(from_truth.mean())
    scores = MeshScores(
        accuracy=accuracy,
        accuracy_median=float(np.median(from_mesh)),
        completeness=completeness,
        completeness_median=float(np.median(from_truth)),
        chamfer=(accuracy + completeness) / 2,
        threshold=float(chosen),
        precision=precision,
        recall=recall,
        f_score=2 * precision * recall / both if both else 0.0,
        samples=min(samples, len(from_mesh), len(from_truth)),
        diagonal=diagonal,
    )
    return MeshError(of_truth.distances(mesh.vertices), scores)


def _checked_points(points: Points) -> Points:
    array = np.asarray(points, np.float64)
    if array.ndim != 2 or array.shape[1] != 3:
        raise InputError(f"truth must be a mesh or points N x 3; got {array.shape}")
    if len(array) == 0 or not np.isfinite(array).all():
        raise DataError("truth holds no points, or some that are not finite; write it again")
    return array
