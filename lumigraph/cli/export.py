"""`lumigraph export`: what a run has learnt as files for other programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from .terminal import Terminal, escaped


@dataclass(frozen=True)
class Arguments:
    """Write the Gaussians of a run, or of a file of Gaussians, for other programs."""

    subject: tyro.conf.Positional[Literal["splats", "points"]]
    """splats: a file of Gaussians (.ply, .splat, .spz); points: a colored point cloud (.ply)."""
    run: tyro.conf.Positional[Path]
    """Run folder, or a file of Gaussians."""
    out: Path
    """File to write."""
    frame: Literal["capture", "scene"] = "capture"
    """capture: the frame and unit of the data; scene: that of training."""
    degree: int | None = None
    """Highest harmonics kept, 0 to 3; by default all that the format holds."""
    spz_version: Literal[2, 3] = 3
    """Version of .spz; 2 for old readers."""
    harmonics_bits: int | None = None
    """Bits of the harmonics in .spz, 1 to 8; by default 5 of degree 1 and 4 above."""
    least_opacity: float = 0.1
    """Gaussians below it are no points, 0 to 1."""
    max_gaussians: int = 20_000_000
    """Refuse files that say they hold more."""
    overwrite: bool = False
    """Replace a file that is there."""
    json: bool = False
    """Print one final JSON object on stdout, everything else on stderr."""


def run(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    """Write and say what was written and lost."""
    return _SUBJECTS[arguments.subject](arguments, terminal)


def _splats(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    from lumigraph import export

    options = export.WriteOptions(
        degree=arguments.degree,
        spz_version=arguments.spz_version,
        harmonics_bits=arguments.harmonics_bits,
        overwrite=arguments.overwrite,
    )
    report = export.splats(
        arguments.run,
        out=arguments.out,
        frame=arguments.frame,
        options=options,
        max_gaussians=arguments.max_gaussians,
    )
    terminal.say(escaped(report.line()))
    return {"run": str(arguments.run), **report.to_dict()}


def _points(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    from lumigraph import export

    report = export.points(
        arguments.run,
        out=arguments.out,
        frame=arguments.frame,
        least_opacity=arguments.least_opacity,
        overwrite=arguments.overwrite,
        max_gaussians=arguments.max_gaussians,
    )
    terminal.say(escaped(report.line()))
    return {
        "run": str(arguments.run),
        "out": str(report.path),
        "points": report.count,
        "left_out": report.left_out,
    }


_SUBJECTS: dict[str, Callable[[Arguments, Terminal], dict[str, Any]]] = {
    "splats": _splats,
    "points": _points,
}
"""Subject -> what writes it; the names stand in `Arguments.subject` as well."""
