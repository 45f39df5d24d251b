"""Plots of a report as SVG text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lumigraph.core.svg_figure import BLUE, GRID, MUTED, ORANGE, svg_text, titled_figure

_MOST_POINTS = 1500
"""More points than this on a line are thinned out: the file stays small, the curve the same."""


def curve(
    times: Sequence[float], values: Sequence[float], *, label: str, logarithmic: bool = False
) -> str:
    """A quantity against training time in seconds; values that are not finite are left out."""
    stride = max(1, math.ceil(len(times) / _MOST_POINTS))
    points = list(zip(times, values, strict=True))
    kept = points[::stride]
    if points and kept[-1] != points[-1]:
        kept.append(points[-1])
    kept = [(t, v) for t, v in kept if math.isfinite(v) and (v > 0 or not logarithmic)]
    figure, axes = titled_figure(label)
    axes.plot(*zip(*kept, strict=True) if kept else ([], []), color=BLUE, linewidth=1.6)
    if logarithmic and kept:
        axes.set_yscale("log")
    axes.set_xlabel("training time, seconds", color=MUTED, fontsize=9)
    if kept:
        axes.set_xlim(0, max(kept[-1][0], 1e-3))
        last = kept[-1]
        axes.plot(*last, marker="o", color=BLUE, markersize=4, clip_on=False)
    return svg_text(figure)


def view_scores(scores: Sequence[float], *, label: str) -> str:
    """One dot a test view and a line at the mean."""
    finite = [(index, value) for index, value in enumerate(scores) if math.isfinite(value)]
    mean = sum(value for _, value in finite) / max(len(finite), 1)
    figure, axes = titled_figure(f"{label} (mean {mean:.2f})" if finite else label)
    if finite:
        indices, values = zip(*finite, strict=True)
        low = min(values) - 0.15 * max(max(values) - min(values), 1.0)
        axes.vlines(indices, low, values, color=GRID, linewidth=1)
        axes.plot(indices, values, "o", color=BLUE, markersize=4)
        axes.axhline(mean, color=ORANGE, linewidth=1.2)
        axes.set_ylim(bottom=low)
    axes.set_xlabel("test view", color=MUTED, fontsize=9)
    return svg_text(figure)
