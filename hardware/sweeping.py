"""Design-space sweeps: the analytic model on every point, the cycle model on the Pareto front.

Axes are dotted keys of a cluster with their values. A point that the cluster forbids is reported
with its reason and left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lumigraph.core.errors import ConfigError

from .cluster import ClusterSpec
from .simulation import FrameResult, simulate
from .trace import Trace

MOST_POINTS = 20_000


@dataclass(frozen=True)
class SweepPoint:
    """One cluster of a sweep."""

    settings: Mapping[str, Any]
    frames_per_second: float
    watts: float
    area_mm2: float
    bottleneck: str
    fidelity: str = "analytic"
    on_front: bool = False
    analytic_error: float | None = None
    """Analytic over simulated frame time, less 1, where both are known."""

    def dominates(self, other: SweepPoint) -> bool:
        """No worse in speed, power and area, and better in one."""
        mine = (-self.frames_per_second, self.watts, self.area_mm2)
        theirs = (-other.frames_per_second, other.watts, other.area_mm2)
        return mine != theirs and all(a <= b for a, b in zip(mine, theirs, strict=True))


@dataclass(frozen=True)
class SweepResult:
    """All points in the order of the axes, and those that the cluster forbids."""

    axes: Mapping[str, Sequence[Any]]
    points: tuple[SweepPoint, ...]
    refused: tuple[tuple[Mapping[str, Any], str], ...]

    @property
    def front(self) -> tuple[SweepPoint, ...]:
        """Points that no other dominates, the fastest first."""
        found = [point for point in self.points if point.on_front]
        return tuple(sorted(found, key=lambda point: -point.frames_per_second))


def sweep(
    trace: Trace,
    cluster: ClusterSpec,
    axes: Mapping[str, Sequence[Any]],
    *,
    most_area_mm2: float | None = None,
    most_watts: float | None = None,
    cycle_on_front: bool = True,
) -> SweepResult:
    """Evaluate a grid of clusters.

    Args:
        axes: dotted key -> values, e.g. {"nfp.count": [8, 16], "nfp.mlp.lanes": [1, 2]}.
        most_area_mm2, most_watts: points beyond are not candidates of the front.
        cycle_on_front: simulate the points of the front.

    Raises:
        ConfigError: no axes, an unknown key, or more than 20,000 points.
    """
    if not axes or not all(axes.values()):
        raise ConfigError("sweep: name at least one axis with values, e.g. nfp.count=8,16,32")
    total = 1
    for values in axes.values():
        total *= len(values)
    if total > MOST_POINTS:
        raise ConfigError(f"sweep: {total} points; at most {MOST_POINTS}: shorten an axis")
    points, refused = [], []
    for values in itertools.product(*axes.values()):
        settings = dict(zip(axes, values, strict=True))
        try:
            frame = simulate(trace, cluster.with_settings(settings), fidelity="analytic")
        except ConfigError as error:
            if "unknown key" in str(error):
                raise
            refused.append((settings, str(error)))
            continue
        points.append(_point(settings, frame))
    candidates = [
        point
        for point in points
        if (most_area_mm2 is None or point.area_mm2 <= most_area_mm2)
        and (most_watts is None or point.watts <= most_watts)
    ]
    front = {id(p) for p in candidates if not any(q.dominates(p) for q in candidates)}
    done = []
    for point in points:
        if id(point) not in front:
            done.append(point)
            continue
        done.append(_confirmed(point, trace, cluster) if cycle_on_front else _marked(point))
    return SweepResult(dict(axes), tuple(done), tuple(refused))


def _point(settings: Mapping[str, Any], frame: FrameResult) -> SweepPoint:
    return SweepPoint(
        settings=settings,
        frames_per_second=frame.frames_per_second,
        watts=frame.watts,
        area_mm2=sum(frame.area.values()),
        bottleneck=frame.rate.bottleneck,
        fidelity=frame.rate.fidelity,
    )


def _marked(point: SweepPoint) -> SweepPoint:
    return replace(point, on_front=True)


def _confirmed(point: SweepPoint, trace: Trace, cluster: ClusterSpec) -> SweepPoint:
    frame = simulate(trace, cluster.with_settings(point.settings))
    error = frame.frames_per_second / point.frames_per_second - 1
    return replace(_point(point.settings, frame), on_front=True, analytic_error=error)
