"""`lumigraph inspect`: what a folder of posed images holds, before training on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from .terminal import Terminal, escaped


@dataclass(frozen=True)
class Arguments:
    """Load a scene, say what was found, and draw its cameras and points."""

    data: tyro.conf.Positional[str]
    """Folder or file of posed images, or builtin:object."""
    out: Path | None = None
    """Picture to write (.png); by default inspect-NAME.png here."""
    format: str | None = None
    """Read as this format instead of recognising it."""
    image_scale: float = 1.0
    """Reduce the images by this factor, e.g. 0.25."""
    split_every: int | None = None
    """Every n-th image is kept for testing where the data has no split of its own."""
    json: bool = False
    """Print one final JSON object on stdout, everything else on stderr."""


def run(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    """Load, print, draw."""
    from lumigraph import datasets
    from lumigraph.core.errors import InputError
    from lumigraph.export import draw_scene, summarize_scene

    if arguments.out is not None and arguments.out.suffix != ".png":
        raise InputError(f"--out {arguments.out}: expected a name that ends in .png")
    scene = datasets.load(
        arguments.data,
        format=arguments.format,
        image_scale=arguments.image_scale,
        split_every=arguments.split_every,
    )
    summary = summarize_scene(scene)
    show(summary, terminal)
    out = draw_scene(scene, arguments.out or Path(f"inspect-{scene.name}.png"))
    terminal.facts([("picture", out)])
    return {**summary, "picture": str(out)}


def show(summary: dict[str, Any], terminal: Terminal) -> None:
    """The summary for people."""
    low, high = summary["camera_distance"]
    extras = [name for name in ("masks", "depths", "times") if summary[name]]
    alpha = "with alpha" if summary["has_alpha"] else "no alpha"
    over = f", over {summary['background']}" if summary["background"] else ""
    corners = [", ".join(f"{x:.3g}" for x in corner) for corner in summary["bounds"]]
    terminal.facts(
        [
            ("scene", summary["name"]),
            ("images", f"{summary['images']}, {alpha}{over}"),
            ("splits", _counts(summary["splits"])),
            ("sizes", _counts(summary["sizes"])),
            ("camera models", _counts(summary["camera_models"])),
            ("region of interest", f"({corners[0]}) to ({corners[1]})"),
            ("surroundings", f"{summary['aabb_scale']} times that"),
            ("camera distance", f"{low:.3g} to {high:.3g} from its middle"),
            ("points", summary["points"] or "none"),
            ("also", ", ".join(extras) or "nothing"),
        ]
    )
    for note in summary["notes"]:
        terminal.say(f"  [yellow]note[/yellow]  {escaped(note)}")


def _counts(counts: dict[str, int]) -> str:
    """`640x480 (30), 480x640 (4)`, shortened after a few."""
    shown = [f"{name} ({count})" for name, count in list(counts.items())[:4]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "") or "none"
