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
    from lumigraph.datasets.inspection import inspect, save_picture

    if arguments.out is not None and arguments.out.suffix != ".png":
        raise InputError(f"--out {arguments.out}: expected a name that ends in .png")
    scene = datasets.load(
        arguments.data,
        format=arguments.format,
        image_scale=arguments.image_scale,
        split_every=arguments.split_every,
    )
    report = inspect(scene)
    for line in report.lines():
        terminal.say(escaped(line))
    out = save_picture(scene, arguments.out or Path(f"inspect-{scene.name}.png"))
    terminal.facts([("picture", out)])
    return {**report.to_dict(), "picture": str(out)}
