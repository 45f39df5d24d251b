"""`lumigraph render`: a camera path of a run to a video or to pictures."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import tyro

from lumigraph.core.axes import AxisName

from .parsing import UsageError
from .terminal import Terminal, escaped

if TYPE_CHECKING:
    from lumigraph.export import PathOptions
    from lumigraph.training import Run


@dataclass(frozen=True)
class Arguments:
    """Render a run or a file of Gaussians along a camera path, or a run beside its photographs,
    without a display.
    """

    run: tyro.conf.Positional[Path]
    """Run folder, or a file of Gaussians (.ply, .splat, .spz, .lg4d)."""
    path: str | None = None
    """orbit, turntable, spiral, captured, interpolate, camera:NUMBER (that camera of the capture
    stands still), or a camera path file (.json); by default orbit, and turntable for a file of
    Gaussians."""
    time: str | None = None
    """Of a moving scene, 0 to 1: 0.3 stands still, 0.2:0.8 runs between two times, follow runs from
    0 to 1; by default that of the path, and follow where it has none."""
    compare: str | None = None
    """Photographs on the left and what the run renders there on the right: test, train or all."""
    out: Path | None = None
    """A .mp4, .webm or .gif file, or a folder for PNG files; by default renders/PATH.mp4 in the run
    folder, or a video beside the file of Gaussians."""
    width: int | None = None
    """Pixels; by default those of the captured images."""
    height: int | None = None
    """Pixels; by default those of the captured images."""
    frames: int | None = None
    """Number of frames, evenly spread over the path; by default what its duration asks for."""
    fps: float | None = None
    """Frames a second; by default those of the path, and 2 for a comparison."""
    elevation: float = 20.0
    """Of a turntable, degrees above the horizon."""
    up: AxisName | None = None
    """What points up on a turntable; by default what is up in the captured images, and -y for a
    file of Gaussians."""
    background: Literal["black", "white"] = "black"
    """Behind a file of Gaussians."""
    channels: str = "rgb"
    """Any of rgb,depth,normal,opacity, separated by commas."""
    layout: Literal["row", "mosaic", "separate"] = "row"
    """Channels side by side, as a mosaic, or in one file for each."""
    separate: bool = False
    """The same as --layout separate."""
    samples: int | None = None
    """Method volume: paths of light in a pixel, by delta tracking; 0 marches a preview. By default
    what the run's settings say."""
    device: Literal["auto", "cpu", "cuda"] | None = None
    """Where to render; by default as in training."""
    overwrite: bool = False
    """Replace existing files."""
    json: bool = False
    """Print one final JSON object on stdout, everything else on stderr."""


def run(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    """Render and say what was written."""
    from lumigraph import export

    options = _options(arguments)
    size = (arguments.width, arguments.height)
    source = export.open_source(arguments.run, background=arguments.background)
    is_run = not isinstance(source, export.SplatSource)
    _check(arguments, is_run=is_run)
    if arguments.samples is not None:
        source = _with_samples(source, arguments.samples)
    name = arguments.path or ("orbit" if is_run else "turntable")
    out = arguments.out or _default_out(arguments, name, is_run=is_run)
    shared: dict[str, Any] = {"out": out, "size": size, "device": arguments.device}
    with terminal.frames("rendering") as progress:
        if arguments.compare is not None:
            rendered = export.comparison(
                source, views=arguments.compare, options=options, on_frame=progress, **shared
            )
        else:
            rendered = export.video(
                source,
                path=name,
                frames=arguments.frames,
                options=options,
                on_frame=progress,
                **shared,
            )
    if is_run:
        cast("Run", source).add_timing("render", rendered.seconds)
    for path in rendered.paths:
        terminal.say(escaped(f"{path}: {rendered.frames} frames in {rendered.seconds:.1f} s"))
    what = {"path": name} if arguments.compare is None else {"compare": arguments.compare}
    return {
        "run": str(arguments.run),
        **what,
        "out": [str(path) for path in rendered.paths],
        "frames": rendered.frames,
        "seconds": rendered.seconds,
    }


def _options(arguments: Arguments) -> PathOptions:
    from lumigraph import export
    from lumigraph.export.path_time import time_span

    return export.PathOptions(
        channels=tuple(word.strip() for word in arguments.channels.split(",") if word.strip()),
        layout="separate" if arguments.separate else arguments.layout,
        fps=arguments.fps,
        overwrite=arguments.overwrite,
        elevation=arguments.elevation,
        up=arguments.up,
        time_span=None if arguments.time is None else time_span(arguments.time),
    )


def _with_samples(source: Any, samples: int) -> Any:
    """A run whose frames take so many samples a pixel."""
    from dataclasses import replace

    from lumigraph.training.config import methods_with

    method = getattr(getattr(source, "config", None), "method", "")
    if method not in methods_with("samples_per_pixel"):
        raise UsageError("--samples is for runs of method volume")
    return replace(source, config=replace(source.config, samples_per_pixel=samples))


_OF_A_TURNTABLE = ("elevation", "up")
_OF_A_PATH = ("path", "time", "frames", *_OF_A_TURNTABLE)
_OF_A_FILE = ("background",)


def _check(arguments: Arguments, *, is_run: bool) -> None:
    """Refuse options that would not be heeded."""
    given = [f.name for f in fields(arguments) if getattr(arguments, f.name) != f.default]
    turntable = arguments.path == "turntable" or (arguments.path is None and not is_run)
    for name in given:
        option = f"--{name}"
        if arguments.compare is not None and name in _OF_A_PATH:
            raise UsageError(f"{option} is for camera paths, not for --compare")
        if name in _OF_A_TURNTABLE and not turntable:
            raise UsageError(f"{option} is for --path turntable")
        if is_run and name in _OF_A_FILE:
            raise UsageError(f"{option} is for files of Gaussians; a run knows its own")
    if arguments.compare is not None and not is_run:
        raise UsageError("--compare is for runs; a file of Gaussians has no photographs")
    if arguments.separate and arguments.layout == "mosaic":
        raise UsageError("--separate and --layout mosaic contradict each other")


def _default_out(arguments: Arguments, name: str, *, is_run: bool) -> Path:
    stem = (
        Path(name).stem.replace(":", "-")
        if arguments.compare is None
        else f"compare-{arguments.compare}"
    )
    if is_run:
        return arguments.run / "renders" / f"{stem}.mp4"
    return arguments.run.with_name(f"{arguments.run.stem}-{stem}.mp4")
