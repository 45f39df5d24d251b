"""`lumigraph inspect`: what a folder of posed images, a run or a file of geometry holds, with a
picture of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from lumigraph.core.axes import AxisName

from .parsing import UsageError
from .terminal import Terminal, escaped

if TYPE_CHECKING:
    from lumigraph.core import Scene
    from lumigraph.viewer import PictureOptions, SubjectOptions, SubjectReport

_GEOMETRY = (".ply", ".obj", ".glb", ".splat", ".spz")
_SCENE_MARKS = (".json", ".npz", ".npy", ".bin", ".txt")
"""Files that stand for the folder of a scene; their reader knows which."""


@dataclass(frozen=True)
class Arguments:
    """Say what was found, and draw it: the cameras and points of a scene; a run; a mesh, points or
    Gaussians. All but the plan of a scene needs PyVista (pip install 'lumigraph[geometry]').
    """

    data: tyro.conf.Positional[str]
    """Folder or file of posed images, or builtin:object; a run folder; or a .ply, .obj, .glb,
    .splat or .spz file."""
    out: Path | None = None
    """Picture to write (.png); by default inspect-NAME.png here."""
    style: Literal["plan", "3d"] | None = None
    """Scene: drawn with matplotlib from two sides, which is the default, or with PyVista."""
    truth: Path | None = None
    """Mesh: color it by its distance to this mesh or .ply of points, and score it."""
    threshold: float | None = None
    """Mesh with --truth: distance for precision, recall and F-score."""
    error_limit: float | None = None
    """Mesh with --truth: distance at the upper end of the color bar."""
    cameras: str | None = None
    """File: draw the cameras of this scene, too."""
    camera: int | None = None
    """3d: look through this camera of the scene, counted from 0; by default from outside."""
    up: AxisName | None = None
    """3d: what is up; by default what the cameras say, else z."""
    size: str = "1600x1000"
    """3d: width and height of the picture."""
    background: Literal["light", "white", "dark"] = "light"
    """3d: what is behind."""
    most_gaussians: int = 20_000
    """3d: Gaussians drawn at most, the largest and most opaque."""
    format: str | None = None
    """Scene: read as this format instead of recognising it."""
    image_scale: float = 1.0
    """Scene: reduce the images by this factor, e.g. 0.25."""
    split_every: int | None = None
    """Scene: every n-th image is kept for testing where the data has no split of its own."""
    frames: str | None = None
    """Scene that moves: which moments, START:STOP:STEP, e.g. 0:60 or ::5."""
    json: bool = False
    """Print one final JSON object on stdout, everything else on stderr."""


def run(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    """Load, print, draw."""
    subject = _subject(arguments.data)
    if subject == "scene" and arguments.style == "3d":
        subject = "scene in 3d"
    _check_options(arguments, subject)
    return _SUBJECTS[subject](arguments, terminal)


def _subject(data: str) -> str:
    """What is to be inspected, by name and suffix."""
    path = Path(data).expanduser()
    if path.is_dir():
        return "run" if (path / "config.yaml").is_file() else "scene"
    suffix = path.suffix.lower()
    if path.is_file() and suffix not in (*_GEOMETRY, *_SCENE_MARKS):
        raise UsageError(
            f"{data}: cannot be inspected; give a folder of posed images, a run folder, or a file "
            f"that ends in one of {', '.join(_GEOMETRY)}"
        )
    return "file" if suffix in _GEOMETRY else "scene"


def _plan(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    from lumigraph.core.errors import InputError
    from lumigraph.datasets.inspection import save_picture

    if arguments.out is not None and arguments.out.suffix != ".png":
        raise InputError(f"--out {arguments.out}: expected a name that ends in .png")
    scene, found = _loaded(arguments, terminal)
    out = save_picture(scene, arguments.out or Path(f"inspect-{scene.name}.png"))
    terminal.facts([("picture", out)])
    return {**found, "picture": str(out)}


def _scene(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    from lumigraph import viewer

    options, subject = _options(arguments)
    scene, found = _loaded(arguments, terminal)
    out = arguments.out or Path(f"inspect-{scene.name}.png")
    report = viewer.picture_of_scene(scene, out=out, options=options, subject=subject)
    return {**found, **_told(report, terminal)}


def _run(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    from lumigraph import viewer
    from lumigraph.datasets.inspection import inspect
    from lumigraph.training import Run

    options, subject = _options(arguments)
    opened = Run.open(Path(arguments.data).expanduser())
    found = inspect(opened.scene())
    for line in found.lines():
        terminal.say(escaped(line))
    out = arguments.out or Path(f"inspect-{opened.path.resolve().name}.png")
    report = viewer.picture_of_run(opened, out=out, options=options, subject=subject)
    return {"run": arguments.data, **found.to_dict(), **_told(report, terminal)}


def _file(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    from lumigraph import datasets, viewer

    options, subject = _options(arguments)
    path = Path(arguments.data).expanduser()
    scene = None if arguments.cameras is None else datasets.load(arguments.cameras)
    report = viewer.picture_of_file(
        path,
        out=arguments.out or Path(f"inspect-{path.stem}.png"),
        truth=arguments.truth,
        scene=scene,
        options=options,
        subject=subject,
    )
    return {"file": arguments.data, **_told(report, terminal)}


def _loaded(arguments: Arguments, terminal: Terminal) -> tuple[Scene, dict[str, Any]]:
    """The scene and what was found in it, which is printed."""
    from lumigraph import datasets
    from lumigraph.datasets.inspection import inspect

    scene = datasets.load(
        arguments.data,
        format=arguments.format,
        image_scale=arguments.image_scale,
        split_every=arguments.split_every,
        frames=arguments.frames,
    )
    report = inspect(scene)
    for line in report.lines():
        terminal.say(escaped(line))
    return scene, report.to_dict()


def _options(arguments: Arguments) -> tuple[PictureOptions, SubjectOptions]:
    """Checked, before anything is loaded."""
    from lumigraph import viewer
    from lumigraph.core.transforms import axis_of

    sides = arguments.size.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and len(side) < 6 for side in sides):
        raise UsageError(f"--size {arguments.size}: expected WIDTHxHEIGHT, e.g. 1600x1000")
    options = viewer.PictureOptions(
        size=(int(sides[0]), int(sides[1])),
        background=arguments.background,
        up=None if arguments.up is None else tuple(axis_of(arguments.up).tolist()),
    )
    subject = viewer.SubjectOptions(
        camera=arguments.camera,
        most_gaussians=arguments.most_gaussians,
        threshold=arguments.threshold,
        error_limit=arguments.error_limit,
    )
    if arguments.out is not None:
        viewer.check_picture_target(arguments.out)
    return options, subject


def _told(report: SubjectReport, terminal: Terminal) -> dict[str, Any]:
    """Say what was drawn."""
    terminal.facts([*report.facts, ("picture", str(report.picture.path))])
    return report.numbers


_SUBJECTS: dict[str, Callable[[Arguments, Terminal], dict[str, Any]]] = {
    "scene": _plan,
    "scene in 3d": _scene,
    "run": _run,
    "file": _file,
}

_READING = ("format", "image_scale", "split_every", "frames")
_DRAWING = ("camera", "up", "size", "background")
_OPTIONS = {
    "scene": ("style", *_READING),
    "scene in 3d": ("style", *_READING, *_DRAWING),
    "run": (*_DRAWING, "most_gaussians"),
    "file": (*_DRAWING, "truth", "threshold", "error_limit", "cameras", "most_gaussians"),
}
"""Subject -> the options that it takes beside data, out and json."""


def _check_options(arguments: Arguments, subject: str) -> None:
    """Refuse options that would not be heeded."""
    allowed = {"data", "out", "json", *_OPTIONS[subject]}
    for field in fields(arguments):
        if field.name in allowed or getattr(arguments, field.name) == field.default:
            continue
        option = "--" + field.name.replace("_", "-")
        way_out = "; add --style 3d" if subject == "scene" and field.name in _DRAWING else ""
        raise UsageError(f"{option} is not for {arguments.data}, a {subject}{way_out}")
    if arguments.truth is None and (arguments.threshold or arguments.error_limit):
        raise UsageError("--threshold and --error-limit need --truth")
    if subject == "file" and arguments.camera is not None and arguments.cameras is None:
        raise UsageError("--camera needs --cameras with the scene that it is of")
