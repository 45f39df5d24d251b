"""A trained model along a camera path: to a video or a folder of pictures, headless.

The colour map of depth is fixed over the whole video from a first look at a few small frames, so
that nothing flickers when the range of a single frame changes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lumigraph.core import Cameras, Frame, InputError, Scene
from lumigraph.core.camera_path import CameraPath
from lumigraph.export.video_writer import check_output, to_bytes, write_video

CHANNELS = ("rgb", "depth", "normal", "opacity")
PATHS = ("orbit", "spiral", "captured", "interpolate")
_LOOKS = 5
_LOOK_PIXELS = 96
"""A first look for the depth range: this many frames of this many pixels on the long side."""


class Renders(Protocol):
    """What can be rendered: the model of a run, or anything else with this method."""

    def render(self, cameras: Cameras, *, channels: Sequence[str] = ...) -> Frame:
        """The frame of one camera (a batch of length 1)."""
        ...


@dataclass(frozen=True)
class PathOptions:
    """How a path becomes files. Checked on construction."""

    channels: tuple[str, ...] = ("rgb",)
    """Any of rgb, depth, normal, opacity, in the order shown."""
    separate: bool = False
    """One file or folder for each channel, named after it, instead of all side by side."""
    fps: float | None = None
    """Frames a second of a video; None takes those of the path, or 30."""
    overwrite: bool = False
    """Replace what stands at the target."""

    def __post_init__(self) -> None:
        known = ", ".join(CHANNELS)
        if not self.channels:
            raise InputError(f"channels is empty; choose from {known}")
        for channel in self.channels:
            if channel not in CHANNELS:
                raise InputError(f"channel {channel!r} is unknown; choose from {known}")
        if len(set(self.channels)) != len(self.channels):
            raise InputError(f"channels {','.join(self.channels)}: each may be named once")


@dataclass(frozen=True)
class RenderedPath:
    """What was written."""

    paths: tuple[Path, ...]
    """The video, or one for each channel when they are separate."""
    frames: int
    seconds: float = field(compare=False)
    """Time spent on rendering and writing."""


def camera_path(scene: Scene, name: str | Path) -> CameraPath:
    """A path by name (orbit, spiral, captured, interpolate) or from a JSON file.

    Raises:
        InputError: an unknown name, or a file that is missing or damaged.
    """
    if str(name) in PATHS:
        return getattr(CameraPath, str(name))(scene)
    if Path(name).suffix == ".json":
        return CameraPath.from_file(name)
    raise InputError(f"path {str(name)!r} is unknown; use {', '.join(PATHS)} or a .json file")


def render_cameras(
    model: Renders,
    cameras: Cameras,
    out: str | Path,
    *,
    options: PathOptions | None = None,
    on_frame: Callable[[int, int], None] | None = None,
) -> RenderedPath:
    """Render every camera and write the frames in that order.

    Args:
        model: renders one camera at a time.
        cameras: all of one size.
        out: a `.mp4` file, or a folder for PNG files.
        options: channels, layout, frames a second.
        on_frame: told after each frame how many are done, and of how many.

    Raises:
        InputError: no cameras, an unusable target or a full disk; see `write_video`.
    """
    options = options or PathOptions()
    started = time.monotonic()
    if len(cameras) == 0:
        raise InputError("the camera path has no frames; ask for at least one")
    targets = _targets(Path(out), options)
    for target in targets:
        check_output(target, overwrite=options.overwrite)
    depth_range = _depth_range(model, cameras) if "depth" in options.channels else None
    fps = options.fps or 30.0
    columns = _columns(model, cameras, options.channels, depth_range, on_frame)
    if len(targets) == 1:
        rows = (np.concatenate(pictures, axis=1) for pictures in columns)
        count = write_video(rows, targets[0], fps=fps)
    else:
        count = _write_separate(columns, targets, fps)
    return RenderedPath(tuple(targets), count, time.monotonic() - started)


def video(
    run: Any,
    *,
    path: CameraPath | str | Path,
    out: str | Path,
    size: tuple[int | None, int | None] = (None, None),
    frames: int | None = None,
    device: str | None = None,
    options: PathOptions | None = None,
    on_frame: Callable[[int, int], None] | None = None,
) -> RenderedPath:
    """Render a run along a path: `lg.export.video(run, path="orbit", out="orbit.mp4")`.

    Args:
        run: a `training.Run`.
        path: a camera path, the name of one (see `camera_path`) or its JSON file.
        out: a `.mp4` file, or a folder for PNG files.
        size: width and height of one channel in pixels; (None, None) takes those of the first
            captured image, and one of the two alone keeps its shape.
        frames: how many, evenly spread over the path; None fills the path's duration.
        device: where to render; None takes that of the run's settings.
        options: channels, layout, frames a second.
        on_frame: told after each frame how many are done, and of how many.
    """
    options = options or PathOptions()
    for target in _targets(Path(out), options):
        check_output(target, overwrite=options.overwrite)
    scene = run.scene()
    if not isinstance(path, CameraPath):
        path = camera_path(scene, path)
    if options.fps is not None:
        path = replace(path, fps=options.fps)
    cameras = path.cameras(*_size(scene.cameras, *size), frames)
    options = replace(options, fps=path.fps)
    return render_cameras(run.model(device), cameras, out, options=options, on_frame=on_frame)


def _size(cameras: Cameras, width: int | None, height: int | None) -> tuple[int, int]:
    for name, value in (("width", width), ("height", height)):
        if value is not None and not 1 <= value <= 16384:
            raise InputError(f"{name} is {value}: expected 1 to 16384 pixels")
    captured_width, captured_height = cameras.size(0)
    if width is None and height is None:
        return captured_width, captured_height
    ratio = captured_width / captured_height
    if width is None:
        assert height is not None
        return max(1, round(height * ratio)), height
    return width, height if height is not None else max(1, round(width / ratio))


def _targets(out: Path, options: PathOptions) -> list[Path]:
    """One target, or `name-depth.mp4` / `name/depth` for each channel."""
    if not options.separate or len(options.channels) == 1:
        return [out]
    if out.suffix:
        return [out.with_name(f"{out.stem}-{channel}{out.suffix}") for channel in options.channels]
    return [out / channel for channel in options.channels]


def _depth_range(model: Renders, cameras: Cameras) -> tuple[float, float]:
    """Middle of the ranges of a few frames: one odd frame does not decide."""
    count = min(_LOOKS, len(cameras))
    width, height = cameras.size(0)
    scale = min(1.0, _LOOK_PIXELS / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    ranges = []
    for index in range(count):
        camera = cameras[index * len(cameras) // count].resized_to(*size)
        frame = model.render(camera, channels=("color", "depth", "opacity"))
        if bool((frame.opacity > 0.5).any()):
            ranges.append(frame.depth_range())
    if not ranges:
        return 0.0, 1.0
    return statistics.median(low for low, _ in ranges), statistics.median(hi for _, hi in ranges)


def _columns(
    model: Renders,
    cameras: Cameras,
    channels: tuple[str, ...],
    depth_range: tuple[float, float] | None,
    on_frame: Callable[[int, int], None] | None,
) -> Iterator[list[np.ndarray]]:
    """For each camera, its channels as uint8 pictures."""
    asked = tuple({"rgb": "color"}.get(channel, channel) for channel in channels)
    for index in range(len(cameras)):
        frame = model.render(cameras[index], channels=asked)
        yield [to_bytes(frame.channel(name, depth_range=depth_range)) for name in asked]
        if on_frame is not None:
            on_frame(index + 1, len(cameras))


def _write_separate(columns: Iterator[list[np.ndarray]], targets: list[Path], fps: float) -> int:
    """Each frame is rendered once; all but the first channel wait in memory as bytes."""
    kept: list[list[np.ndarray]] = [[] for _ in targets[1:]]

    def first() -> Iterator[np.ndarray]:
        for pictures in columns:
            for store, picture in zip(kept, pictures[1:], strict=True):
                store.append(picture)
            yield pictures[0]

    count = write_video(first(), targets[0], fps=fps)
    for store, target in zip(kept, targets[1:], strict=True):
        write_video(store, target, fps=fps)
    return count
