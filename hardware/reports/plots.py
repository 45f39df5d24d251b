"""Plots of the reports, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lumigraph.core.svg_figure import BLUE, MUTED, ORANGE, svg_text, titled_figure

COLORS = (BLUE, ORANGE, "#0f9d76", "#a33ea1", "#c2263f", "#6b7280", "#c9a50c")


def lines(
    title: str,
    x: Sequence[float],
    series: Mapping[str, Sequence[float]],
    *,
    x_label: str,
    ceilings: Mapping[str, float] | None = None,
    log_x: bool = True,
) -> str:
    """A line for each series; dashed lines at ceilings."""
    figure, axes = titled_figure(title)
    for index, (name, values) in enumerate(series.items()):
        color = COLORS[index % len(COLORS)]
        axes.plot(x, values, color=color, marker="o", markersize=3.5, linewidth=1.5, label=name)
        if ceilings and name in ceilings:
            axes.axhline(ceilings[name], color=color, linewidth=0.9, linestyle="--")
    if log_x:
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(x), [f"{value:g}" for value in x])
        axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel(x_label, color=MUTED, fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    return svg_text(figure)


def stacked(
    title: str, labels: Sequence[str], parts: Mapping[str, Sequence[float]], *, x_label: str
) -> str:
    """Horizontal bars, each made of parts."""
    figure, axes = titled_figure(title)
    left = [0.0] * len(labels)
    for index, (name, values) in enumerate(parts.items()):
        color = COLORS[index % len(COLORS)]
        axes.barh(labels, values, left=left, color=color, height=0.65, label=name)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel(x_label, color=MUTED, fontsize=9)
    figure.legend(frameon=False, fontsize=8, ncols=4, loc="outside lower center")
    return svg_text(figure)


def scatter(
    title: str,
    points: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x_label: str,
    y_label: str,
) -> str:
    """Dots of a kind in one color."""
    figure, axes = titled_figure(title)
    for index, (name, pairs) in enumerate(points.items()):
        x, y = zip(*pairs, strict=True) if pairs else ((), ())
        axes.plot(x, y, "o", color=COLORS[index % len(COLORS)], markersize=4, label=name)
    axes.set_xlabel(x_label, color=MUTED, fontsize=9)
    axes.set_ylabel(y_label, color=MUTED, fontsize=9)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    return svg_text(figure)
