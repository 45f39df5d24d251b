"""`lumigraph export`: what a run has learnt as files for other programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import tyro

from lumigraph.core.axes import AxisName

from .parsing import UsageError, option_name
from .terminal import Terminal, escaped


@dataclass(frozen=True)
class Arguments:
    """Write what a run has learnt for other programs, or as a page to look at. Meshes need more
    packages (pip install 'lumigraph[mesh]').
    """

    subject: tyro.conf.Positional[Literal["splats", "points", "mesh", "cameras", "page"]]
    """splats: a file of Gaussians (.ply, .splat, .spz); points: a colored point cloud (.ply);
    mesh: colored or textured triangles (.ply, .obj, .glb); cameras: their poses (.json, or a folder
    for a COLMAP model); page: a web page that works offline (.html)."""
    run: tyro.conf.Positional[Path]
    """Run folder; for splats, points and page also a file of Gaussians, for cameras also data."""
    out: Path
    """File to write; for cameras a .json file or a folder, for meshes of all moments a folder."""
    time: float | None = None
    """mesh: of what moves, 0 to 1: the moment nearest to it."""
    frame: Literal["capture", "scene"] = "capture"
    """capture: the frame and unit of the data; scene: that of training."""
    degree: int | None = None
    """Highest harmonics kept, 0 to 3; by default all that the format holds, in a page 0."""
    spz_version: Literal[2, 3] = 3
    """Version of .spz; 2 for old readers."""
    harmonics_bits: int | None = None
    """Bits of the harmonics in .spz, 1 to 8; by default 5 of degree 1 and 4 above."""
    least_opacity: float = 0.1
    """points: Gaussians below it are left out, 0 to 1."""
    max_points: int = 1_000_000
    """points: of a run without Gaussians, at most."""
    copy_images: bool = False
    """cameras: copy the pictures beside them; pictures without files are written in any case."""
    max_gaussians: int = 20_000_000
    """Refuse files that say they hold more; page: keep so many, those that matter most."""
    voxel: float | None = None
    """mesh: side of a voxel, in the unit of its frame; by default about a pixel of the pictures."""
    resolution: int | None = None
    """mesh: voxels along the side of the scene's bounds, instead of --voxel."""
    truncation: float = 4.0
    """mesh: distance from the surface up to which depths count, in voxels, 2 to 8."""
    from_: Annotated[
        Literal["fusion", "density", "distance"] | None, tyro.conf.arg(name="from")
    ] = None
    """mesh: from rendered depths, the density of a volume, or a signed distance; by default from
    distance or density where there is one."""
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
    """mesh, points: training cameras used at most."""
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
    mesh_format: Literal["ply", "obj", "glb"] = "ply"
    """mesh: files of a folder, one for each moment of what moves."""
    device: Literal["auto", "cpu", "cuda"] | None = None
    """mesh, points, page: where to render; by default as in training."""
    title: str | None = None
    """page: shown in it; by default the name of the scene or the file."""
    background: str | None = None
    """page of Gaussians: black, white or #rrggbb; by default that of the run, black for files."""
    up: AxisName | None = None
    """page of Gaussians: axis that points up; by default that of the cameras, -y for files."""
    cameras: int = 24
    """page of Gaussians: captured cameras that one can jump to."""
    azimuths: int = 36
    """page of other methods: pictures around."""
    elevations: int = 3
    """page of other methods: rings of pictures."""
    picture_size: int = 480
    """page of other methods: pixels along the longer side."""
    picture_quality: int = 80
    """page of other methods: 1 to 100."""
    picture_format: Literal["webp", "jpeg"] = "webp"
    """page of other methods: how pictures are stored."""
    page_limit_mib: float = 200.0
    """page: refuse to write a larger one."""
    overwrite: bool = False
    """Replace a file that is there."""
    json: bool = False
    """Print one final JSON object on stdout, everything else on stderr."""


def run(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    """Write and say what was written and lost."""
    _check_options(arguments)
    report = SUBJECTS[arguments.subject].write(arguments, terminal)
    terminal.say(escaped(report.line()))
    return {"run": str(arguments.run), **report.to_dict()}


class Report(Protocol):
    """What was written."""

    def line(self) -> str:
        """For people."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        ...


def _splats(arguments: Arguments, terminal: Terminal) -> Report:
    from lumigraph import export

    options = export.WriteOptions(
        degree=arguments.degree,
        spz_version=arguments.spz_version,
        harmonics_bits=arguments.harmonics_bits,
        overwrite=arguments.overwrite,
    )
    return export.splats(
        arguments.run,
        out=arguments.out,
        frame=arguments.frame,
        options=options,
        max_gaussians=arguments.max_gaussians,
    )


def _points(arguments: Arguments, terminal: Terminal) -> Report:
    from lumigraph import export

    shared = [field.name for field in fields(export.PointsOptions)]
    options = export.PointsOptions(**{name: getattr(arguments, name) for name in shared})
    with terminal.frames("looking") as progress:
        return export.points(
            arguments.run,
            out=arguments.out,
            frame=arguments.frame,
            device=arguments.device,
            options=options,
            on_view=progress,
        )


def _mesh(arguments: Arguments, terminal: Terminal) -> Report:
    from lumigraph import export, training

    shared = {field.name for field in fields(export.MeshOptions)} - {"source"}
    options = export.MeshOptions(
        source=arguments.from_, **{name: getattr(arguments, name) for name in shared}
    )
    opened = training.Run.open(arguments.run)
    out = arguments.out
    folder = out.is_dir() or not out.suffix
    if folder and arguments.time is not None:
        raise UsageError(f"--time is for one mesh; --out {out} is a folder for all moments")
    if not folder and arguments.mesh_format != "ply":
        raise UsageError(f"--mesh-format is for a folder of meshes; --out {out} says its own")
    shared_options: dict[str, Any] = {
        "out": out, "frame": arguments.frame, "device": arguments.device, "options": options
    }  # fmt: skip
    report: Any
    with terminal.stages("mesh") as progress:
        if folder:
            report = export.mesh_sequence(
                opened, suffix=f".{arguments.mesh_format}", on_progress=progress, **shared_options
            )
        else:
            report = export.mesh(
                opened, time=arguments.time, on_progress=progress, **shared_options
            )
    opened.add_timing("mesh", report.seconds)
    return report


def _page(arguments: Arguments, terminal: Terminal) -> Report:
    from lumigraph import export

    shared = {field.name for field in fields(export.PageOptions)}
    given = {name: getattr(arguments, name) for name in shared}
    options = export.PageOptions(**{**given, "degree": arguments.degree or 0})
    with terminal.frames("pictures") as progress:
        return export.page(
            arguments.run,
            out=arguments.out,
            options=options,
            device=arguments.device,
            on_note=lambda note: terminal.say(escaped(note)),
            on_picture=progress,
        )


def _cameras(arguments: Arguments, terminal: Terminal) -> Report:
    from lumigraph import export

    with terminal.frames("pictures") as progress:
        return export.cameras(
            str(arguments.run),
            out=arguments.out,
            frame=arguments.frame,
            copy_images=arguments.copy_images,
            overwrite=arguments.overwrite,
            on_image=progress,
        )


@dataclass(frozen=True)
class Subject:
    """What can be written."""

    write: Callable[[Arguments, Terminal], Report]
    options: tuple[str, ...]
    """Fields of `Arguments` that it heeds besides those for all."""


_FOR_ALL = ("subject", "run", "out", "overwrite", "json")
SUBJECTS = {
    "splats": Subject(
        _splats, ("frame", "max_gaussians", "degree", "spz_version", "harmonics_bits")
    ),
    "points": Subject(
        _points, ("frame", "max_gaussians", "least_opacity", "views", "max_points", "device")
    ),
    "mesh": Subject(
        _mesh,
        (
            "frame", "voxel", "resolution", "truncation", "from_", "level", "depth", "views",
            "orbit", "reach", "texture", "texture_colors", "components", "least_triangles",
            "triangles", "memory_budget_gib", "time", "mesh_format", "device",
        ),
    ),
    "cameras": Subject(_cameras, ("frame", "copy_images")),
    "page": Subject(
        _page,
        (
            "max_gaussians", "degree", "device", "title", "background", "up", "cameras", "azimuths",
            "elevations", "picture_size", "picture_quality", "picture_format", "page_limit_mib",
        ),
    ),
}  # fmt: skip
"""By name; the names stand in `Arguments.subject` as well."""


def _check_options(arguments: Arguments) -> None:
    """Refuse options that the subject would not heed."""
    heeded = (*_FOR_ALL, *SUBJECTS[arguments.subject].options)
    for field in fields(arguments):
        if field.name in heeded or getattr(arguments, field.name) == field.default:
            continue
        homes = [name for name, subject in SUBJECTS.items() if field.name in subject.options]
        option = option_name(field.name)
        raise UsageError(f"{option} is for {' and '.join(homes)}, not for {arguments.subject}")
