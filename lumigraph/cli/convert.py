"""`lumigraph convert`: cameras of plain photographs or of a video, by structure from motion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """Scene folder to write."""
    json: bool = False
    """Print one final JSON object on stdout, everything else on stderr."""


def run(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    """Convert and say how many pictures found their place."""
    from lumigraph.datasets import sfm

    result = sfm.convert(
        arguments.source, arguments.out, on_message=lambda text: terminal.say(escaped(text))
    )
    terminal.facts(
        [
            ("scene", result["out"]),
            ("registered", f"{result['registered']} of {result['images']} pictures"),
            ("points", result["points"]),
        ]
    )
    terminal.say(f"next: lumigraph inspect {result['out']}")
    return result
