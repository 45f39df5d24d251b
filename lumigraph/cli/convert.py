"""`lumigraph convert`: cameras of plain photographs or of a video, by structure from motion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from .terminal import Terminal, escaped


@dataclass(frozen=True)
class Arguments:
    """Find the cameras of photographs or of a video; ends in a folder that train takes.

    Needs pycolmap: pip install 'lumigraph[sfm]'.
    """

    source: tyro.conf.Positional[Path]
    """Folder of photographs, or a video file."""
    out: Path
    """Scene folder to write; must not exist yet."""
    frames: int = 100
    """Frames taken from a video."""
    max_side: int = 1600
    """Longer side of the pictures at most, in pixels."""
    matching: Literal["auto", "exhaustive", "sequential"] = "auto"
    """Which pictures are compared: auto is sequential for a video, else exhaustive."""
    mixed_cameras: bool = False
    """Fit a lens for each picture: for several cameras, or a zoom."""
    json: bool = False
    """Print one final JSON object on stdout, everything else on stderr."""


def run(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    """Convert and say how many pictures found their place."""
    from lumigraph.datasets import sfm

    options = sfm.ConvertOptions(
        frames=arguments.frames,
        max_side=arguments.max_side,
        matching=arguments.matching,
        shared_camera=not arguments.mixed_cameras,
    )
    with terminal.stages("converting") as progress:
        result = sfm.convert(
            arguments.source,
            arguments.out,
            options=options,
            on_message=lambda text: terminal.say(escaped(text)),
            on_progress=progress,
        )
    terminal.facts(
        [
            ("scene", result["out"]),
            ("placed", f"{result['registered']} of {result['images']} pictures"),
            ("points", result["points"]),
            ("time", f"{result['seconds']:.1f} s"),
        ]
    )
    terminal.say(f"next: lumigraph inspect {escaped(result['out'])}")
    return dict(result)
