"""`lumigraph convert`: photographs or a video to a scene with cameras, by structure from motion; or
a file of Gaussians to another format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from .parsing import UsageError
from .terminal import Terminal, escaped

_GAUSSIANS = (".ply", ".splat", ".spz", ".lg4d")
"""A file that ends so holds Gaussians."""


@dataclass(frozen=True)
class Arguments:
    """Find the cameras of photographs or of a video, which needs pycolmap
    (pip install 'lumigraph[sfm]'); or turn a file of Gaussians into another format.
    """

    source: tyro.conf.Positional[Path]
    """Folder of photographs, a video file, or a file of Gaussians (.ply, .splat, .spz)."""
    target: tyro.conf.Positional[Path | None] = None
    """The same as --out."""
    out: Path | None = None
    """Scene folder to write, which must not exist yet; or the file of Gaussians to write."""
    frames: int = 100
    """Frames taken from a video."""
    max_side: int = 1600
    """Longer side of the pictures at most, in pixels."""
    matching: Literal["auto", "exhaustive", "sequential"] = "auto"
    """Which pictures are compared: auto is sequential for a video, else exhaustive."""
    mixed_cameras: bool = False
    """Fit a lens for each picture: for several cameras, or a zoom."""
    degree: int | None = None
    """Highest harmonics kept of Gaussians, 0 to 3; by default all that the format holds."""
    spz_version: Literal[2, 3] = 3
    """Version of .spz; 2 for old readers."""
    harmonics_bits: int | None = None
    """Bits of the harmonics in .spz, 1 to 8; by default 5 of degree 1 and 4 above."""
    max_gaussians: int = 20_000_000
    """Refuse files that say they hold more."""
    overwrite: bool = False
    """Replace a file of Gaussians that is there."""
    json: bool = False
    """Print one final JSON object on stdout, everything else on stderr."""


def run(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    """Convert by the kind of the source."""
    out = arguments.out or arguments.target
    if out is None:
        raise UsageError("--out is missing; see lumigraph convert --help")
    if arguments.out is not None and arguments.target is not None:
        raise UsageError(f"the target is named twice: {arguments.target} and --out {out}")
    if arguments.source.suffix.lower() in _GAUSSIANS and not arguments.source.is_dir():
        return _convert_gaussians(arguments, out, terminal)
    return _convert_pictures(arguments, out, terminal)


def _convert_gaussians(arguments: Arguments, out: Path, terminal: Terminal) -> dict[str, Any]:
    """Read, write, and say what was found and what was lost."""
    from lumigraph import export
    from lumigraph.export.splat_files.writing import check_splat_target

    options = export.WriteOptions(
        degree=arguments.degree,
        spz_version=arguments.spz_version,
        harmonics_bits=arguments.harmonics_bits,
        overwrite=arguments.overwrite,
    )
    check_splat_target(out, overwrite=arguments.overwrite)
    found = export.read_splats(arguments.source, max_gaussians=arguments.max_gaussians)
    terminal.say(escaped(found.report.line()))
    options = options.noting(found.report.antialiased)
    report = export.write_splats(found.cloud, out, options=options)
    terminal.say(escaped(report.line()))
    read = {"read": found.report.stored, "culled": found.report.culled}
    return {"source": str(arguments.source), **read, **report.to_dict()}


def _convert_pictures(arguments: Arguments, out: Path, terminal: Terminal) -> dict[str, Any]:
    """Find the cameras and say how many pictures found their place."""
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
            out,
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
