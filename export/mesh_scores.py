"""How far a mesh lies from the truth, in the unit of its frame.

With d(x, S) the distance of a point to the nearest one of S, M the mesh and G the truth:

    accuracy      mean d(x, G) over points x of M, spread evenly over its area
    completeness  mean d(x, M) over points x of G
    chamfer       (accuracy + completeness) / 2
    precision, recall   share of these points nearer than a threshold
    F-score       2 precision recall / (precision + recall)
    normals       angle between the normal at x and that of the nearest place, of either side

Both kinds of x may be restricted to regions, such as what cameras see; the nearest place may be
anywhere. With a cap, distances beyond it take no part in means and medians, as in the protocol of
the DTU set; their shares are told. Letters: N points, V vertices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumigraph.core.errors import DataError, InputError
from lumigraph.datasets.mesh_reading import Points, TriangleMesh
from lumigraph.datasets.mesh_sampling import surface_area

from .mesh_targets import Nearest, Samples, Target, TruePoints

DEFAULT_SAMPLES = 200_000
LEAST_SAMPLES, MOST_SAMPLES = 100, 20_000_000
THRESHOLD_SHARE = 0.01
"""Of the diagonal of the truth's box: the threshold that is taken when none is given."""
SPARSE = 0.5
"""Thresholds: points of the truth that lie farther apart leave gaps which look like errors."""
Region = Callable[[Points], NDArray[np.bool_]]
"""Which of points (N, 3) count."""


class Regions(NamedTuple):
    """Where points of the mesh and of the truth count; None is everywhere."""

    mesh: Region | None = None
    truth: Region | None = None
    words: str = "all of both"
    """For people."""


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
    """Of the box around the truth, as far as it counts."""
    normal_cosine: float | None = None
    """Mean |cosine| between normals, of both directions; None where the truth has none."""
    normal_degrees: float | None = None
    """Mean angle between normals, 0 to 90 degrees, of both directions."""
    gap: float | None = None
    """For a cloud of points: how far apart they lie on the part of the mesh that counts."""
    cap: float | None = None
    """Distances beyond it are left out of accuracy, completeness and chamfer."""
    mesh_beyond: float = 0.0
    """Share of the points of the mesh beyond the cap."""
    truth_beyond: float = 0.0
    """Share of the points of the truth beyond the cap."""
    mesh_counted: float = 1.0
    """Share of the mesh's area that lies in its region."""
    truth_counted: float = 1.0
    """Share of the truth that lies in its region."""

    @property
    def sparse(self) -> bool:
        """Whether the truth is a cloud with gaps so wide that accuracy, chamfer, precision and
        F-score say little about the mesh."""
        return self.gap is not None and self.gap > SPARSE * self.threshold

    def short(self) -> str:
        """The most telling numbers in one line."""
        completeness = f"completeness {self.completeness:.3g}"
        if self.sparse:
            median = f"{self.completeness_median:.3g} median"
            return f"sparse points to mesh {self.completeness:.3g} mean, {median}"
        score = f"F-score {self.f_score:.3f} within {self.threshold:.3g}"
        return f"accuracy {self.accuracy:.3g}, {completeness}, {score}"

    def lines(self) -> list[tuple[str, str]]:
        """Name and value of each fact, for people."""
        completeness = f"{self.completeness:.4g} mean, {self.completeness_median:.4g} median"
        completeness += _beyond(self.truth_beyond, self.cap)
        normals = []
        if self.normal_degrees is not None:
            text = f"{self.normal_degrees:.2f} degrees mean, |cosine| {self.normal_cosine:.4f}"
            normals = [("normals", text)]
        if self.sparse:
            gap = f"the points lie {self.gap:.3g} apart: distances to them are gaps, not errors"
            return [
                ("points to mesh", completeness),
                ("recall", f"{self.recall:.4f} within {self.threshold:.4g}"),
                *normals,
                ("accuracy", f"not told: {gap}"),
            ]
        share = f"{self.chamfer / self.diagonal:.3%} of the diagonal" if self.diagonal else ""
        accuracy = f"{self.accuracy:.4g} mean, {self.accuracy_median:.4g} median"
        return [
            ("accuracy", accuracy + _beyond(self.mesh_beyond, self.cap)),
            ("completeness", completeness),
            ("chamfer", f"{self.chamfer:.4g}, {share}"),
            (
                "F-score",
                f"{self.f_score:.4f} within {self.threshold:.4g} "
                f"(precision {self.precision:.4f}, recall {self.recall:.4f})",
            ),
            *normals,
        ]

    def to_dict(self) -> dict[str, Any]:
        """For machines; what a sparse truth does not say is None."""
        values = asdict(self)
        hidden = ("accuracy", "accuracy_median", "chamfer", "precision", "f_score", "mesh_beyond")
        return {**values, **dict.fromkeys(hidden if self.sparse else ()), "sparse": self.sparse}


@dataclass(frozen=True, eq=False)
class MeshError:
    """A mesh held against the truth."""

    vertex_distances: Points
    """(V,) distance of each vertex of the mesh to the truth; NaN outside of the region."""
    scores: MeshScores
    truth_points: Points
    """(N, 3) points of the truth that count."""
    truth_distances: Points
    """(N,) of them to the mesh."""


def mesh_error(
    mesh: TriangleMesh,
    truth: TriangleMesh | TruePoints | Points,
    *,
    samples: int = DEFAULT_SAMPLES,
    spacing: float | None = None,
    threshold: float | None = None,
    cap: float | None = None,
    regions: Regions | None = None,
    seed: int = 0,
) -> MeshError:
    """Compare a mesh with the truth, which lies in the same frame.

    Args:
        mesh: the mesh to judge.
        truth: a mesh, or points (P, 3).
        samples: points spread over each surface, from 100.
        spacing: distance of these points instead, in the unit of the frame: one on each square of
            this side.
        threshold: distance for precision, recall and F-score, in the unit of the frame; None takes
            `THRESHOLD_SHARE` of the diagonal of the truth, as far as it counts.
        cap: larger distances are left out of the means; None counts all.
        regions: where points count; None is everywhere.
        seed: of the points.

    Raises:
        InputError: a bad option. DataError: points that are not finite, or none; nothing counts,
            or nothing lies within the cap.
        MissingExtraError: trimesh is not installed.
    """
    check_distances(spacing=spacing, threshold=threshold, cap=cap)
    if samples < LEAST_SAMPLES:
        raise InputError(f"samples {samples}: expected at least {LEAST_SAMPLES}")
    regions = regions or Regions()
    if not isinstance(truth, TriangleMesh | TruePoints):
        truth = TruePoints(np.asarray(truth, np.float64))
    of_truth = Target.of(truth, samples=_count(truth, samples, spacing), seed=seed)
    of_mesh = Target.of(mesh, samples=_count(mesh, samples, spacing), seed=seed + 1)
    from_mesh, mesh_counted = _counted(of_mesh.samples, regions.mesh, mesh.name)
    from_truth, truth_counted = _counted(of_truth.samples, regions.truth, truth.name)
    place = from_truth.points
    if regions.truth is None:
        place = truth.vertices if isinstance(truth, TriangleMesh) else truth.positions
    diagonal = float(np.linalg.norm(np.ptp(place, axis=0)))
    chosen = THRESHOLD_SHARE * diagonal if threshold is None else threshold
    check_distances(threshold=chosen)
    gap = None
    if isinstance(truth, TruePoints):
        here = len(truth.positions) * truth_counted
        gap = math.sqrt(surface_area(mesh) * mesh_counted / here)
    to_truth, to_mesh = of_truth.nearest(from_mesh.points), of_mesh.nearest(from_truth.points)
    scores = _scores(
        _Side(from_mesh, to_truth, mesh_counted, mesh.name),
        _Side(from_truth, to_mesh, truth_counted, truth.name),
        _Limits(chosen, cap, diagonal, gap),
    )
    distances = of_truth.distances(mesh.vertices)
    if regions.mesh is not None:
        distances[~regions.mesh(mesh.vertices)] = np.nan
    return MeshError(distances, scores, from_truth.points, to_mesh.distances)


class _Limits(NamedTuple):
    """Distances that the scores are made with, see `MeshScores`."""

    threshold: float
    cap: float | None
    diagonal: float
    gap: float | None


class _Side(NamedTuple):
    """Points of one surface, and how far the other is from them."""

    samples: Samples
    nearest: Nearest
    counted: float
    name: str

    def within(self, cap: float | None) -> NDArray[np.bool_]:
        """(N,) which distances take part.

        Raises:
            DataError: none does.
        """
        kept = self.nearest.distances <= (np.inf if cap is None else cap)
        if not kept.any():
            least = float(self.nearest.distances.min())
            raise DataError(
                f"{self.name}: no point of it lies within the cap of {cap:g}, the nearest at "
                f"{least:.4g}; check that frames and units are the same, or raise --cap"
            )
        return kept

    def cosines(self, kept: NDArray[np.bool_]) -> Points | None:
        """|cosine| between the normals of these points and those of the nearest places."""
        own, other = self.samples.normals, self.nearest.normals
        if own is None or other is None:
            return None
        cosine = np.abs((own[kept] * other[kept]).sum(axis=1))
        known = (own[kept] != 0).any(axis=1) & (other[kept] != 0).any(axis=1)
        return np.minimum(cosine[known], 1.0) if known.any() else None


def _scores(mesh: _Side, truth: _Side, limits: _Limits) -> MeshScores:
    threshold, cap, diagonal, gap = limits
    kept, found = mesh.within(cap), truth.within(cap)
    from_mesh, from_truth = mesh.nearest.distances, truth.nearest.distances
    accuracy, completeness = float(from_mesh[kept].mean()), float(from_truth[found].mean())
    precision, recall = (float((d < threshold).mean()) for d in (from_mesh, from_truth))
    both = precision + recall
    parts = [truth.cosines(found)]
    if gap is None or gap <= SPARSE * threshold:
        parts.append(mesh.cosines(kept))
    cosines = [part for part in parts if part is not None]
    angles = [float(np.degrees(np.arccos(part)).mean()) for part in cosines]
    return MeshScores(
        accuracy=accuracy,
        accuracy_median=float(np.median(from_mesh[kept])),
        completeness=completeness,
        completeness_median=float(np.median(from_truth[found])),
        chamfer=(accuracy + completeness) / 2,
        threshold=float(threshold),
        precision=precision,
        recall=recall,
        f_score=2 * precision * recall / both if both else 0.0,
        samples=min(len(from_mesh), len(from_truth)),
        diagonal=diagonal,
        normal_cosine=float(np.mean([part.mean() for part in cosines])) if cosines else None,
        normal_degrees=float(np.mean(angles)) if cosines else None,
        gap=gap,
        cap=cap,
        mesh_beyond=float((~kept).mean()),
        truth_beyond=float((~found).mean()),
        mesh_counted=mesh.counted,
        truth_counted=truth.counted,
    )


def _counted(samples: Samples, region: Region | None, name: str) -> tuple[Samples, float]:
    """Those in the region, and their share.

    Raises:
        DataError: none is.
    """
    if region is None:
        return samples, 1.0
    kept = region(samples.points)
    if not kept.any():
        raise DataError(
            f"{name}: none of it lies where it would count (what cameras see, inside outlines and "
            "observed space); check that it is in the frame and unit of the capture"
        )
    normals = samples.normals
    part = Samples(samples.points[kept], None if normals is None else normals[kept])
    return part, float(kept.mean())


def _count(surface: TriangleMesh | TruePoints, samples: int, spacing: float | None) -> int:
    """Points on a surface."""
    if spacing is None:
        return samples
    if isinstance(surface, TruePoints):
        return len(surface.positions)
    count = surface_area(surface) / spacing**2
    if count > MOST_SAMPLES:
        least = spacing * math.sqrt(count / MOST_SAMPLES)
        raise InputError(
            f"spacing {spacing:g}: {surface.name} would take {count:,.0f} points, more than "
            f"{MOST_SAMPLES:,}; take at least {least:.2g}"
        )
    return max(LEAST_SAMPLES, math.ceil(count))


def check_distances(**values: float | None) -> None:
    """Refuse distances that are not above 0, by name; None is left out.

    Raises:
        InputError: one is.
    """
    for name, value in values.items():
        if value is not None and not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} {value}: expected a distance above 0")


def _beyond(share: float, cap: float | None) -> str:
    return "" if cap is None else f"; {share:.2%} beyond {cap:g} left out"
