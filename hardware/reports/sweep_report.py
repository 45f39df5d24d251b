"""The report of a sweep: all points, the Pareto front, and what the cycle model made of it."""

from __future__ import annotations

from typing import Any

from lumigraph.hardware.cluster import ClusterSpec
from lumigraph.hardware.sweeping import SweepPoint, SweepResult
from lumigraph.hardware.trace import Trace

from . import plots
from .document import Plot, Report, Table


def sweep_report(result: SweepResult, trace: Trace, cluster: ClusterSpec) -> Report:
    """Tables and a plot of a sweep."""
    errors = [abs(p.analytic_error) for p in result.points if p.analytic_error is not None]
    front = result.front
    summary = (
        f"{len(front)} of {len(result.points)} clusters are on the Pareto front of speed, power "
        f"and area"
    )
    if front:
        best = front[0]
        summary += f"; the fastest makes {best.frames_per_second:.1f} frames/s with {_text(best)}"
    if errors:
        summary += f". There the analytic model is at most {100 * max(errors):.1f} % off"
    groups: dict[str, list[tuple[float, float]]] = {"others": [], "Pareto front": []}
    for point in result.points:
        name = "Pareto front" if point.on_front else "others"
        groups[name].append((point.area_mm2, point.frames_per_second))
    title = "Speed against area"
    svg = plots.scatter(title, groups, x_label="mm2", y_label="frames/s")
    tables = [
        _table("front", "Pareto front", front),
        _table("points", "All clusters", result.points),
    ]
    if result.refused:
        rows = tuple((str(dict(settings)), why) for settings, why in result.refused)
        tables.append(Table("refused", "Clusters that cannot be", ("settings", "reason"), rows))
    return Report(
        title=f"Sweep of {cluster.name} on {trace.scene}",
        summary=summary + ".",
        facts=tuple((key, ", ".join(map(str, values))) for key, values in result.axes.items()),
        tables=tuple(tables),
        plots=(Plot("area-speed", title, svg),),
        result={"points": [_row(point) for point in result.points]},
    )


def _text(point: SweepPoint) -> str:
    return ", ".join(f"{key} = {value}" for key, value in point.settings.items())


def _table(name: str, title: str, points: tuple[SweepPoint, ...]) -> Table:
    rows = tuple(
        (
            _text(p),
            p.frames_per_second,
            p.watts,
            p.area_mm2,
            p.bottleneck,
            p.fidelity,
            p.on_front,
            None if p.analytic_error is None else 100 * p.analytic_error,
        )
        for p in points
    )
    columns = ("cluster", "frames/s", "W", "mm2", "bound by", "model", "on the front")
    return Table(name, title, (*columns, "cycle over analytic, %"), rows)


def _row(point: SweepPoint) -> dict[str, Any]:
    return {
        "settings": dict(point.settings),
        "frames_per_second": point.frames_per_second,
        "watts": point.watts,
        "area_mm2": point.area_mm2,
        "bottleneck": point.bottleneck,
        "fidelity": point.fidelity,
        "on_front": point.on_front,
        "analytic_error": point.analytic_error,
    }
