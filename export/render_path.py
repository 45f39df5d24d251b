"""A trained model along a camera path, or beside its photographs: to a video or a folder of
pictures, headless.

The colour map of depth is fixed over the whole video from a first look at a few small frames, so
that nothing flickers when the range of a single frame changes.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from lumigraph.core import Cameras, GaussianCloud, InputError, Scene
from lumigraph.core.axes import AxisName
from lumigraph.core.camera_path import CameraPath, check_time_span
from lumigraph.core.transforms import axis_of
from lumigraph.export.frame_layout import LAYOUTS, Layout, Picture, arranged, centered, fitting
from lumigraph.export.path_time import TimeSpan, timed_path
from lumigraph.export.render_source import Renders, Source, open_source
from lumigraph.export.splat_files import FILE_UP
from lumigraph.export.video_writer import check_fps, check_output, open_video, to_bytes

CHANNELS = ("rgb", "depth", "normal", "opacity")
PATHS = ("orbit", "turntable", "spiral", "captured", "interpolate")
AXES = ("x", "y", "z", "-x", "-y", "-z")
PHOTOGRAPH = "photograph"
"""Name of the pictures that a comparison shows beside the channels."""
COMPARISON_FPS = 2.0
SIZE_WITHOUT_CAMERAS = (640, 480)
_LOOKS = 5
_LOOK_PIXELS = 96
"""A first look for the depth range: this many frames of this many pixels on the long side."""

Size = tuple[int | None, int | None]
Progress = Callable[[int, int], None]
Columns = Iterator[list[Picture]]


@dataclass(frozen=True)
class PathOptions:
    """How a path becomes files. Checked on construction."""

    channels: tuple[str, ...] = ("rgb",)
    """Any of rgb, depth, normal, opacity, in the order shown."""
    layout: Layout = "row"
    """Channels side by side, as a mosaic, or each as a file or folder of its own, named after it.
    """
    fps: float | None = None
    """Frames a second of a video; None takes those of the path, or 30."""
    overwrite: bool = False
    """Replace what stands at the target."""
    elevation: float = 20.0
    """Of a turntable, degrees above the horizon, between -90 and 90."""
    up: AxisName | None = None
    """What points up on a turntable, in the scene frame; None takes what is up in the images of the
    capture, and -y where there is no capture, as most files of Gaussians have it."""
    time_span: TimeSpan | None = None
    """Times in [0, 1] of a moving scene at the first and the last frame, twice the same to stand
    still; None takes those of the path, and lets time run from 0 to 1 where it has none."""

    def __post_init__(self) -> None:
        known = ", ".join(CHANNELS)
        if not self.channels:
            raise InputError(f"channels is empty; choose from {known}")
        for channel in self.channels:
            if channel not in CHANNELS:
                raise InputError(f"channel {channel!r} is unknown; choose from {known}")
        if len(set(self.channels)) != len(self.channels):
            raise InputError(f"channels {','.join(self.channels)}: each may be named once")
        if self.layout not in LAYOUTS:
            raise InputError(f"layout {self.layout!r} is unknown; choose from {', '.join(LAYOUTS)}")
        if self.up is not None and self.up not in AXES:
            raise InputError(f"up {self.up!r} is unknown; choose from {', '.join(AXES)}")
        if self.time_span is not None:
            check_time_span(self.time_span)


@dataclass(frozen=True)
class RenderedPath:
    """What was written."""

    paths: tuple[Path, ...]
    """The video, or one for each picture when they are separate."""
    frames: int
    seconds: float = field(compare=False)
    """Time spent on rendering and writing."""


def camera_path(
    scene: Scene, name: str | Path, *, options: PathOptions | None = None
) -> CameraPath:
    """A path by name (orbit, turntable, spiral, captured, interpolate), of a camera of the capture
    that stands still (camera:7), or from a JSON file.

    Raises:
        InputError: an unknown name, a file that is missing or damaged, or a path that needs the
            cameras of a capture where there are none.
    """
    options = options or PathOptions()
    if str(name) == "turntable":
        named = options.up or (None if len(scene.cameras) else FILE_UP)
        up = None if named is None else axis_of(named)
        return CameraPath.turntable(scene, elevation=options.elevation, up=up)
    kind, colon, number = str(name).partition(":")
    standing = kind == "camera" and bool(colon) and number.isdecimal()
    if str(name) in PATHS or standing:
        if len(scene.cameras) == 0:
            raise InputError(
                f"{scene.source}: has no cameras for the path {name!r}; "
                "use turntable or a .json file"
            )
        if standing:
            return CameraPath.standing(scene, int(number))
        return getattr(CameraPath, str(name))(scene)
    if Path(name).suffix == ".json":
        return CameraPath.from_file(name)
    known = ", ".join(PATHS)
    raise InputError(f"path {str(name)!r} is unknown; use {known}, camera:NUMBER or a .json file")


def render_cameras(
    model: Renders,
    cameras: Cameras,
    out: str | Path,
    *,
    options: PathOptions | None = None,
    on_frame: Progress | None = None,
) -> RenderedPath:
    """Render every camera and write the frames in that order.

    Args:
        model: renders one camera at a time.
        cameras: of one size, or else shown in the middle of the first one's.
        out: a `.mp4`, `.webm` or `.gif` file, or a folder for PNG files.
        options: channels, layout, frames a second.
        on_frame: told after each frame how many are done, and of how many.

    Raises:
        InputError: no cameras, an unusable target or a full disk; see `open_video`.
    """
    options = options or PathOptions()
    if len(cameras) == 0:
        raise InputError("the camera path has no frames; ask for at least one")
    _check_targets(Path(out), options.channels, options)
    shots = _Shots(model, cameras, options.channels, cameras.size(0))
    columns = shots.columns(on_frame)
    return _written(columns, Path(out), options.channels, options, fps=options.fps or 30.0)


def video(
    run: Source | GaussianCloud | str | Path,
    *,
    path: CameraPath | str | Path,
    out: str | Path,
    size: Size = (None, None),
    frames: int | None = None,
    device: str | None = None,
    options: PathOptions | None = None,
    on_frame: Progress | None = None,
) -> RenderedPath:
    """Render a run along a path: `lg.export.video(run, path="orbit", out="orbit.mp4")`.

    Args:
        run: a `training.Run`, its folder, a file of Gaussians, or a cloud; see `open_source`.
        path: a camera path, the name of one (see `camera_path`) or its JSON file.
        out: a `.mp4`, `.webm` or `.gif` file, or a folder for PNG files.
        size: width and height of one channel in pixels; (None, None) takes those of the first
            captured image, and one of the two alone keeps its shape.
        frames: how many, evenly spread over the path; None fills the path's duration.
        device: where to render; None takes that of the run's settings.
        options: channels, layout, frames a second, the turntable, time.
        on_frame: told after each frame how many are done, and of how many.

    Raises:
        InputError: see `camera_path` and `render_cameras`; a time where nothing moves.
    """
    options = options or PathOptions()
    _check_targets(Path(out), options.channels, options)
    source = open_source(run)
    scene = source.scene()
    if not isinstance(path, CameraPath):
        path = camera_path(scene, path, options=options)
    if options.fps is not None:
        path = replace(path, fps=options.fps)
    shape = _size(scene.cameras, *size)
    model = source.model(device)
    name = run if isinstance(run, (str, Path)) else scene.source
    path = timed_path(path, model, options.time_span, name=name)
    options = replace(options, fps=path.fps)
    return render_cameras(
        model, path.cameras(*shape, frames), out, options=options, on_frame=on_frame
    )


def comparison(
    run: Source | str | Path,
    *,
    out: str | Path,
    views: str = "test",
    size: Size = (None, None),
    device: str | None = None,
    options: PathOptions | None = None,
    on_frame: Progress | None = None,
) -> RenderedPath:
    """Photographs on the left, what the run renders there on the right.

    Args:
        run: a `training.Run`, or its folder.
        out: see `video`.
        views: a split of the scene, "test" say, or "all".
        size: of one picture, see `video`; pictures of another shape are shown in the middle.
        device: see `video`.
        options: channels, layout and frames a second, of which there are 2 by default.
        on_frame: see `video`.

    Raises:
        InputError: no such split, no photographs; see `video`, too.
    """
    options = options or PathOptions()
    names = (PHOTOGRAPH, *options.channels)
    _check_targets(Path(out), names, options)
    source = open_source(run)
    scene = source.scene()
    if scene.images is None:
        raise InputError(f"{scene.source}: has no photographs to compare with")
    indices = list(range(len(scene.cameras))) if views == "all" else scene.split(views).tolist()
    model = source.model(device)
    shape = _size(scene.cameras.select(indices), *size)
    shots = _Shots(model, scene.cameras.select(indices), options.channels, shape)
    columns = (
        [_photograph(scene, index, shape), *pictures]
        for index, pictures in zip(indices, shots.columns(on_frame), strict=True)
    )
    return _written(columns, Path(out), names, options, fps=options.fps or COMPARISON_FPS)


def _size(cameras: Cameras, width: int | None, height: int | None) -> tuple[int, int]:
    for name, value in (("width", width), ("height", height)):
        if value is not None and not 1 <= value <= 16384:
            raise InputError(f"{name} is {value}: expected 1 to 16384 pixels")
    captured_width, captured_height = cameras.size(0) if len(cameras) else SIZE_WITHOUT_CAMERAS
    if width is None and height is None:
        return captured_width, captured_height
    ratio = captured_width / captured_height
    if width is None:
        assert height is not None
        return max(1, round(height * ratio)), height
    return width, height if height is not None else max(1, round(width / ratio))


def _targets(out: Path, names: tuple[str, ...], layout: Layout) -> list[Path]:
    """One target, or `name-depth.mp4` / `name/depth` for each picture."""
    if layout != "separate" or len(names) == 1:
        return [out]
    if out.suffix:
        return [out.with_name(f"{out.stem}-{name}{out.suffix}") for name in names]
    return [out / name for name in names]


def _check_targets(out: Path, names: tuple[str, ...], options: PathOptions) -> None:
    for target in _targets(out, names, options.layout):
        check_output(target, overwrite=options.overwrite)
        if options.fps is not None:
            check_fps(target, options.fps)


def _photograph(scene: Scene, index: int, shape: tuple[int, int]) -> Picture:
    """A photograph over the scene's background, in the middle of a picture of that shape."""
    from lumigraph.training.evaluation import truth_image

    truth = truth_image(scene, index)
    width, height = fitting(scene.cameras[index], *shape).size(0)
    if truth.shape[:2] != (height, width):
        truth = torch.nn.functional.interpolate(
            truth.permute(2, 0, 1)[None], (height, width), mode="bilinear", antialias=True
        )[0].permute(1, 2, 0)
    return centered(to_bytes(truth), *shape)


@dataclass(frozen=True)
class _Shots:
    """Cameras to be rendered into pictures of one shape."""

    model: Renders
    cameras: Cameras
    channels: tuple[str, ...]
    shape: tuple[int, int]
    """Width and height in pixels."""

    def columns(self, on_frame: Progress | None) -> Columns:
        """For each camera, its channels as pictures."""
        asked = tuple({"rgb": "color"}.get(channel, channel) for channel in self.channels)
        depth_range = self._depth_range() if "depth" in asked else None
        for index in range(len(self.cameras)):
            frame = self.model.render(fitting(self.cameras[index], *self.shape), channels=asked)
            pictures = [to_bytes(frame.channel(name, depth_range=depth_range)) for name in asked]
            yield [centered(picture, *self.shape) for picture in pictures]
            if on_frame is not None:
                on_frame(index + 1, len(self.cameras))

    def _depth_range(self) -> tuple[float, float]:
        """Middle of the ranges of a few frames: one odd frame does not decide."""
        count = min(_LOOKS, len(self.cameras))
        scale = min(1.0, _LOOK_PIXELS / max(self.shape))
        small = (max(1, round(self.shape[0] * scale)), max(1, round(self.shape[1] * scale)))
        ranges = []
        for index in range(count):
            camera = fitting(self.cameras[index * len(self.cameras) // count], *small)
            frame = self.model.render(camera, channels=("color", "depth", "opacity"))
            if bool((frame.opacity > 0.5).any()):
                ranges.append(frame.depth_range())
        if not ranges:
            return 0.0, 1.0
        near, far = (statistics.median(values) for values in zip(*ranges, strict=True))
        return near, far


def _written(
    columns: Columns, out: Path, names: tuple[str, ...], options: PathOptions, *, fps: float
) -> RenderedPath:
    """Write pictures as they come; each view is rendered once, whatever the layout."""
    started = time.monotonic()
    targets = _targets(out, names, options.layout)
    count = 0
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(open_video(path, fps=fps, overwrite=options.overwrite))
            for path in targets
        ]
        for pictures in columns:
            if len(targets) == 1:
                pictures = [arranged(pictures, options.layout)]
            for write, picture in zip(writers, pictures, strict=True):
                write(picture)
            count += 1
    return RenderedPath(tuple(targets), count, time.monotonic() - started)
