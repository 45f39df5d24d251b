"""`lumigraph export`: what a run has learnt as files for other programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from .parsing import UsageError, option_name
from .terminal import Terminal, escaped


@dataclass(frozen=True)
class Arguments:
    """Write the Gaussians of a run, or of a file of Gaussians, for other programs; or the surface
    of a run, which needs more packages (pip install 'lumigraph[mesh]').
    """

    subject: tyro.conf.Positional[Literal["splats", "points", "mesh"]]
    """splats: a file of Gaussians (.ply, .splat, .spz); points: a colored point cloud (.ply);
    mesh: colored triangles (.ply, .obj, .glb)."""
    run: tyro.conf.Positional[Path]
    """Run folder; for splats and points also a file of Gaussians."""
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
    voxel: float | None = None
    """mesh: side of a voxel, in the unit of its frame; by default about a pixel of the pictures."""
    resolution: int | None = None
    """mesh: voxels along the side of the scene's bounds, instead of --voxel."""
    truncation: float = 4.0
    """mesh: distance from the surface up to which depths count, in voxels, 2 to 8."""
    from_: Annotated[Literal["fusion", "density"] | None, tyro.conf.arg(name="from")] = None
    """mesh: from rendered depths, or from the density of a volume; by default from density where
    there is one."""
    level: float = 20.0
    """mesh: density at the surface, per side of the scene's bounds; for --from density."""
    depth: Literal["median", "expected"] | None = None
    """mesh: depth where half of the light is gone, or the mean depth; by default median where the
    method has it."""
    texture: int | None = None
    """mesh: longer side of a texture in pixels, e.g. 2048; by default colors of vertices."""
    texture_colors: Literal["photographs", "renderings"] = "photographs"
    """mesh: what the texture shows."""
    views: int = 200
    """mesh: training cameras used at most."""
    orbit: int = 0
    """mesh: further cameras on an orbit."""
    reach: float = 1.0
    """mesh: how far it may reach, in multiples of the scene's bounds."""
    components: int | None = None
    """mesh: keep so many connected parts, the largest."""
    least_triangles: int = 64
    """mesh: connected parts with fewer triangles are left out."""
    triangles: int | None = None
    """mesh: simplify to about so many triangles."""
    memory_budget_gib: float | None = None
    """mesh: memory that the voxels may take; by default four fifths of what is free."""
    device: Literal["auto", "cpu", "cuda"] | None = None
    """mesh: where to render and fuse; by default as in training."""
    overwrite: bool = False
    """Replace a file that is there."""
    json: bool = False
    """Print one final JSON object on stdout, everything else on stderr."""


def run(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    """Write and say what was written and lost."""
    _check_options(arguments)
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


def _mesh(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    from lumigraph import export, training

    shared = {field.name for field in fields(export.MeshOptions)} - {"source"}
    options = export.MeshOptions(
        source=arguments.from_, **{name: getattr(arguments, name) for name in shared}
    )
    opened = training.Run.open(arguments.run)
    with terminal.stages("mesh") as progress:
        report = export.mesh(
            opened,
            out=arguments.out,
            frame=arguments.frame,
            device=arguments.device,
            options=options,
            on_progress=progress,
        )
    opened.add_timing("mesh", report.seconds)
    terminal.say(escaped(report.line()))
    return {"run": str(arguments.run), **report.to_dict()}


_SUBJECTS: dict[str, Callable[[Arguments, Terminal], dict[str, Any]]] = {
    "splats": _splats,
    "points": _points,
    "mesh": _mesh,
}
"""Subject -> what writes it; the names stand in `Arguments.subject` as well."""

_FOR_ALL = ("subject", "run", "out", "frame", "overwrite", "json")
_GAUSSIANS = ("max_gaussians",)
_OPTIONS = {
    "splats": (*_FOR_ALL, *_GAUSSIANS, "degree", "spz_version", "harmonics_bits"),
    "points": (*_FOR_ALL, *_GAUSSIANS, "least_opacity"),
    "mesh": (
        *_FOR_ALL, "voxel", "resolution", "truncation", "from_", "level", "depth", "views", "orbit",
        "reach", "texture", "texture_colors", "components", "least_triangles", "triangles",
        "memory_budget_gib", "device",
    ),
}  # fmt: skip
"""Subject -> the options that it takes."""


def _check_options(arguments: Arguments) -> None:
    """Refuse options that the subject would not heed."""
    for field in fields(arguments):
        if field.name in _OPTIONS[arguments.subject]:
            continue
        if getattr(arguments, field.name) != field.default:
            homes = [subject for subject, names in _OPTIONS.items() if field.name in names]
            option = option_name(field.name)
            raise UsageError(f"{option} is for {' and '.join(homes)}, not for {arguments.subject}")
