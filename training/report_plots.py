"""Plots of a report as SVG text, drawn without a display and without matplotlib's global state."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK = "#1f2933"
MUTED = "#7b8794"
GRID = "#e4e7eb"
BLUE = "#2563eb"
ORANGE = "#d9730d"
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
    figure, axes = _figure(label)
    axes.plot(*zip(*kept, strict=True) if kept else ([], []), color=BLUE, linewidth=1.6)
    if logarithmic and kept:
        axes.set_yscale("log")
    axes.set_xlabel("training time, seconds", color=MUTED, fontsize=9)
    if kept:
        axes.set_xlim(0, max(kept[-1][0], 1e-3))
        last = kept[-1]
        axes.plot(*last, marker="o", color=BLUE, markersize=4, clip_on=False)
    return _svg(figure)


def view_scores(scores: Sequence[float], *, label: str) -> str:
    """One dot a test view and a line at the mean."""
    finite = [(index, value) for index, value in enumerate(scores) if math.isfinite(value)]
    mean = sum(value for _, value in finite) / max(len(finite), 1)
    figure, axes = _figure(f"{label} (mean {mean:.2f})" if finite else label)
    if finite:
        indices, values = zip(*finite, strict=True)
        low = min(values) - 0.15 * max(max(values) - min(values), 1.0)
        axes.vlines(indices, low, values, color=GRID, linewidth=1)
        axes.plot(indices, values, "o", color=BLUE, markersize=4)
        axes.axhline(mean, color=ORANGE, linewidth=1.2)
        axes.set_ylim(bottom=low)
    axes.set_xlabel("test view", color=MUTED, fontsize=9)
    return _svg(figure)


def _figure(label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 3.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(label, loc="left", fontsize=10.5, color=INK)
    axes.tick_params(which="both", colors=MUTED, labelsize=8.5, length=0)
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    return figure, axes


def _svg(figure: Figure) -> str:
    """The drawing as an `<svg>` element; its size comes from the page."""
    target = io.StringIO()
    # Without a fixed salt the ids inside differ from run to run; without a date, so do not files.
    settings: Any = {"svg.hashsalt": "lumigraph", "svg.fonttype": "path"}
    with matplotlib.rc_context(settings):
        FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None, "Creator": None})
    text = target.getvalue()
    return text[text.index("<svg") :]
