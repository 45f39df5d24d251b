"""Plots as SVG text, drawn without a display and without matplotlib's global state."""

from __future__ import annotations

import io
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


def titled_figure(label: str) -> tuple[Figure, Axes]:
    """An empty plot with a title, in the look of all reports."""
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


def svg_text(figure: Figure) -> str:
    """The drawing as an `<svg>` element; its size comes from the page."""
    target = io.StringIO()
    # Without a fixed salt the ids inside differ from run to run; without a date, so do not files.
    settings: Any = {"svg.hashsalt": "lumigraph", "svg.fonttype": "path"}
    with matplotlib.rc_context(settings):
        FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None, "Creator": None})
    text = target.getvalue()
    return text[text.index("<svg") :]
