"""Camera paths for videos: keyframes, smooth motion between them and their file.

The file is JSON, in the frame of the scene that it was made for:

    {
      "format": "lumigraph-camera-path",
      "version": 1,
      "fps": 30,                          frames per second of the video
      "duration": 4.0,                    seconds; with "loop" the last part leads back to the start
      "loop": true,
      "time_span": [0.0, 1.0],            optional: time of a moving scene at the first and the last
                                          frame, which counts instead of that of the keyframes
      "keyframes": [                      in the order of their seconds, the first at 0
        {
          "seconds": 0.0,
          "camera_to_world": [[...], [...], [...], [0, 0, 0, 1]],   x right, y down, z forward
          "field_of_view": 45.0,          degrees across the shorter side of the picture
          "time": 0.5                     optional: time of a moving scene, 0 to 1
        }
      ]
    }

Positions follow a cubic through the keyframes (Hermite, with the slopes of the neighbours), and so
do the quaternions, which are then normalised; field of view and time go straight. With a time span
time runs evenly from its begin at the first frame to its end at the last one, in a loop as well: it
never runs back to the begin. A span of one time alone stands still while the camera moves.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumigraph.core import path_shapes
from lumigraph.core.camera_checks import check_poses
from lumigraph.core.cameras import Cameras
from lumigraph.core.errors import DataError, InputError
from lumigraph.core.path_curves import aligned, hermite, linear
from lumigraph.core.scene import Scene
from lumigraph.core.transforms import (
    pose_matrix,
    quaternion_from_rotation,
    rotation_from_quaternion,
)

FORMAT = "lumigraph-camera-path"
VERSION = 1
MOST_FRAMES = 1_000_000
_PATH_KEYS = {"format", "version", "fps", "duration", "loop", "time_span", "keyframes"}
_KEYFRAME_KEYS = {"seconds", "camera_to_world", "field_of_view", "time"}


@dataclass(frozen=True, eq=False)
class Keyframe:
    """One view of a path."""

    seconds: float
    """When the path is here, from the start of the path."""
    camera_to_world: Tensor
    """(4, 4), x right, y down, z forward, in the scene frame."""
    field_of_view: float
    """Degrees across the shorter side of the picture, between 0 and 180."""
    time: float | None = None
    """Time of a moving scene in [0, 1]."""


@dataclass(frozen=True, eq=False)
class CameraPath:
    """A moving camera.

    >>> start, end = torch.eye(4), torch.eye(4)
    >>> end[2, 3] = 1.0
    >>> path = CameraPath([Keyframe(0.0, start, 60.0), Keyframe(1.0, end, 60.0)], duration=1.0)
    >>> path.cameras(8, 6, frames=3).positions[:, 2].tolist()
    [0.0, 0.5, 1.0]
    """

    keyframes: Sequence[Keyframe]
    """At least one, in the order of their seconds, the first at 0."""
    duration: float
    """Seconds: the last keyframe's, or more for a loop, which then leads back to the first."""
    fps: float = 30.0
    """Frames per second."""
    loop: bool = False
    """Whether the path closes."""
    time_span: tuple[float, float] | None = None
    """Time of a moving scene at the first and at the last frame, in [0, 1]; None takes that of the
    keyframes, where they have one."""

    def __post_init__(self) -> None:
        if not self.keyframes:
            raise InputError("a camera path needs at least one keyframe; got none")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise InputError(f"fps must be a positive number; got {self.fps}")
        for index, keyframe in enumerate(self.keyframes):
            _check_keyframe(index, keyframe)
        seconds = [keyframe.seconds for keyframe in self.keyframes]
        _check_order(seconds)
        if not math.isfinite(self.duration) or self.duration < seconds[-1]:
            raise InputError(
                f"duration must reach the last keyframe at {seconds[-1]} s; got {self.duration}"
            )
        if self.loop and len(seconds) > 1 and self.duration == seconds[-1]:
            raise InputError("duration of a loop must go beyond its last keyframe, to lead back")
        timed = [keyframe.time is not None for keyframe in self.keyframes]
        if any(timed) and not all(timed):
            raise InputError("time must be given for all keyframes or for none")
        if self.time_span is not None:
            check_time_span(self.time_span)

    @property
    def is_timed(self) -> bool:
        """Whether its cameras carry a time."""
        return self.time_span is not None or self.keyframes[0].time is not None

    def with_time(self, time: float) -> CameraPath:
        """The same path through a scene that stands still at a time in [0, 1]."""
        return replace(self, time_span=(time, time))

    def following_time(self, begin: float = 0.0, end: float = 1.0) -> CameraPath:
        """The same path while time runs once from `begin` to `end`, both in [0, 1].

        >>> path = CameraPath([Keyframe(0.0, torch.eye(4), 60.0)], duration=1.0)
        >>> path.following_time(0.5, 1.0).cameras(8, 6, frames=3).times.tolist()
        [0.5, 0.75, 1.0]
        """
        return replace(self, time_span=(begin, end))

    @property
    def frame_count(self) -> int:
        """Number of frames at `fps`; the end of a loop is its start and not repeated."""
        count = round(self.duration * self.fps)
        return max(1, count if self.loop else count + 1)

    def cameras(self, width: int, height: int, frames: int | None = None) -> Cameras:
        """Pinhole cameras along the path.

        Args:
            width, height: picture size in pixels.
            frames: how many, evenly spaced over the duration; None takes `frame_count`.
        """
        count = self.frame_count if frames is None else frames
        if not 1 <= count <= MOST_FRAMES:
            raise InputError(f"frames must be at least 1 and at most {MOST_FRAMES:,}; got {count}")
        if width < 1 or height < 1:
            raise InputError(f"width and height must be at least 1 pixel; got {width} x {height}")
        intervals = count if self.loop else max(1, count - 1)
        seconds = torch.arange(count, dtype=torch.float64) * (self.duration / intervals)
        poses, angles, times = self._at(seconds)
        if self.time_span is not None:
            times = torch.linspace(*self.time_span, count, dtype=torch.float64)
        focal = min(width, height) / 2 / torch.tan(torch.deg2rad(angles) / 2)
        return Cameras.from_intrinsics(poses.float(), width, height, focal, times=times)

    def view_at(self, seconds: float) -> tuple[Tensor, float, float | None]:
        """One moment: camera_to_world (4, 4), degrees across the shorter side, time or None.

        Before the start and after the end the path stands still; a loop goes round, and with it a
        time span.
        """
        if not math.isfinite(seconds):
            raise InputError(f"seconds must be a finite number; got {seconds}")
        if self.loop and self.duration > 0:
            seconds = seconds % self.duration
        poses, angles, times = self._at(torch.tensor([seconds], dtype=torch.float64))
        return poses[0].float(), float(angles[0]), None if times is None else float(times[0])

    @classmethod
    def orbit(cls, scene: Scene, *, seconds: float = 6.0, fps: float = 30.0) -> CameraPath:
        """A closed swing around what the cameras of `scene` look at, at their height.

        A full circle where the capture goes around at least two thirds of one, otherwise there
        and back over the arc that it covers.
        """
        return cls._closed(scene, path_shapes.orbit_poses(scene), seconds, fps)

    @classmethod
    def turntable(
        cls,
        scene: Scene,
        *,
        elevation: float = 20.0,
        up: Tensor | Sequence[float] | None = None,
        seconds: float = 6.0,
        fps: float = 30.0,
    ) -> CameraPath:
        """A full circle around the middle of the bounds, whatever the capture covers.

        Args:
            elevation: degrees above the horizon, between -90 and 90.
            up: (3,) in the scene frame; None takes what is up in the images of the capture, and z
                for a scene without cameras.
        """
        if not -90 < elevation < 90:
            raise InputError(f"elevation must be between -90 and 90 degrees; got {elevation}")
        if up is None:
            up = path_shapes.upward(scene.cameras) if len(scene.cameras) else (0.0, 0.0, 1.0)
        axis = torch.as_tensor(up, dtype=torch.float64)
        if axis.shape != (3,) or not 1e-9 < float(axis.norm()) < math.inf:
            raise InputError(f"up must be three numbers that are not all 0; got {axis.tolist()}")
        poses = path_shapes.turntable_poses(scene, elevation=elevation, up=axis)
        return cls._closed(scene, poses, seconds, fps)

    @classmethod
    def spiral(
        cls, scene: Scene, *, seconds: float = 6.0, fps: float = 30.0, turns: int = 2
    ) -> CameraPath:
        """A closed spiral about the mean view, for captures that face one way."""
        return cls._closed(scene, path_shapes.spiral_poses(scene, turns=turns), seconds, fps)

    @classmethod
    def captured(cls, scene: Scene, *, fps: float = 10.0) -> CameraPath:
        """Every camera of the capture in its order and at its time, one frame each."""
        order = range(len(scene.cameras))
        return cls._through(scene, list(order), seconds_each=1 / fps, fps=fps)

    @classmethod
    def interpolate(
        cls, scene: Scene, *, views: int = 12, seconds: float = 6.0, fps: float = 30.0
    ) -> CameraPath:
        """A smooth walk through `views` cameras spread over the capture, by the shortest steps.

        Where cameras have times, time runs once from 0 to 1 meanwhile.
        """
        if views < 2:
            raise InputError(f"views must be at least 2; got {views}")
        order = path_shapes.spread_tour(scene.cameras, views)
        pace = seconds / max(1, len(order) - 1)
        path = cls._through(scene, order, seconds_each=pace, fps=fps)
        return path.following_time() if path.is_timed else path

    @classmethod
    def standing(
        cls, scene: Scene, camera: int, *, seconds: float = 6.0, fps: float = 30.0
    ) -> CameraPath:
        """One camera of the capture, which stands still while time runs once from 0 to 1.

        Raises:
            InputError: there is no such camera.
        """
        count = len(scene.cameras)
        if not 0 <= camera < count:
            known = f"0 to {count - 1}" if count else "none"
            raise InputError(f"{scene.source}: has no camera {camera}; cameras are {known}")
        if not (math.isfinite(seconds) and seconds > 0):
            raise InputError(f"seconds must be a positive number; got {seconds}")
        view = cls._through(scene, [camera], seconds_each=seconds, fps=fps).keyframes[0]
        path = cls([replace(view, time=None)], duration=seconds, fps=fps)
        return path if scene.cameras.times is None else path.following_time()

    @classmethod
    def from_file(cls, path: str | Path) -> CameraPath:
        """Read a path of two or more keyframes; errors name the file and the key or keyframe."""
        file = Path(path)
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise DataError(f"{file}: is not JSON ({error})") from error
        try:
            return _path_from(content)
        except InputError as error:
            raise DataError(f"{file}: {error}") from error

    def to_file(self, path: str | Path) -> None:
        """Write the path as JSON; the file appears whole or not at all."""
        file = Path(path)
        _check_count(self.keyframes)
        keyframes: list[dict[str, Any]] = []
        for keyframe in self.keyframes:
            entry: dict[str, Any] = {
                "seconds": keyframe.seconds,
                "camera_to_world": keyframe.camera_to_world.tolist(),
                "field_of_view": keyframe.field_of_view,
            }
            if keyframe.time is not None:
                entry["time"] = keyframe.time
            keyframes.append(entry)
        content = {
            "format": FORMAT,
            "version": VERSION,
            "fps": self.fps,
            "duration": self.duration,
            "loop": self.loop,
            **({} if self.time_span is None else {"time_span": list(self.time_span)}),
            "keyframes": keyframes,
        }
        partial = file.with_name(file.name + ".partial")
        try:
            partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            partial.replace(file)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise DataError(f"{file}: cannot be written ({error.strerror})") from error

    @classmethod
    def _closed(cls, scene: Scene, poses: Tensor, seconds: float, fps: float) -> CameraPath:
        if not (math.isfinite(seconds) and seconds > 0):
            raise InputError(f"seconds must be a positive number; got {seconds}")
        angle = path_shapes.median_field_of_view(scene.cameras)
        count = poses.shape[0]
        keyframes = [Keyframe(i * seconds / count, pose, angle) for i, pose in enumerate(poses)]
        span = None if scene.cameras.times is None else (0.0, 1.0)
        return cls(keyframes, duration=seconds, fps=fps, loop=True, time_span=span)

    @classmethod
    def _through(
        cls, scene: Scene, order: list[int], *, seconds_each: float, fps: float
    ) -> CameraPath:
        if not (math.isfinite(seconds_each) and seconds_each > 0 and fps > 0):
            raise InputError("seconds and fps must be positive numbers")
        cameras = scene.cameras.select(order).to("cpu")
        angles = path_shapes.fields_of_view(cameras).tolist()
        times = [None] * len(order) if cameras.times is None else cameras.times.tolist()
        keyframes = [
            Keyframe(i * seconds_each, pose, angles[i], times[i])
            for i, pose in enumerate(cameras.camera_to_world)
        ]
        return cls(keyframes, duration=keyframes[-1].seconds, fps=fps)

    def _at(self, seconds: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Poses (N, 4, 4), fields of view (N,) and times (N,) at `seconds` (N,)."""
        frames = list(self.keyframes)
        moments = [frame.seconds for frame in frames]
        if self.loop and len(frames) > 1:
            # The neighbours across the seam give the curve the same slope on both its sides.
            frames = [frames[-1], *frames, frames[0], frames[1]]
            ends = [self.duration, self.duration + moments[1]]
            moments = [moments[-1] - self.duration, *moments, *ends]
        knots = torch.tensor(moments, dtype=torch.float64)
        poses = torch.stack([frame.camera_to_world.double() for frame in frames])
        quaternions = aligned(quaternion_from_rotation(poses[:, :3, :3]))
        curve = hermite(knots, torch.cat([poses[:, :3, 3], quaternions], dim=1), seconds)
        result = pose_matrix(rotation_from_quaternion(curve[:, 3:]), curve[:, :3])
        angles = torch.tensor([[frame.field_of_view] for frame in frames], dtype=torch.float64)
        times = None
        if frames[0].time is not None:
            values = torch.tensor([[frame.time] for frame in frames], dtype=torch.float64)
            times = linear(knots, values, seconds)[:, 0].clamp(0, 1)
        if self.time_span is not None:
            begin, end = self.time_span
            share = (seconds / self.duration).clamp(0, 1) if self.duration else 0 * seconds
            times = begin + (end - begin) * share
        return result, linear(knots, angles, seconds)[:, 0], times


def check_time_span(span: tuple[float, float]) -> None:
    """Raises InputError where one of two times does not lie in [0, 1]."""
    for time in span:
        if not 0 <= time <= 1:
            raise InputError(f"time must lie in [0, 1]; got {time:g}")


def _check_keyframe(index: int, keyframe: Keyframe) -> None:
    where = f"keyframe {index}"
    pose = keyframe.camera_to_world
    if tuple(pose.shape) != (4, 4):
        raise InputError(f"{where}: camera_to_world must be 4x4; got {tuple(pose.shape)}")
    try:
        check_poses(pose[None])
    except InputError as error:
        raise InputError(f"{where}: {str(error).removeprefix('camera 0: ')}") from error
    if not 0 < keyframe.field_of_view < 180:
        raise InputError(
            f"{where}: field_of_view must be between 0 and 180 degrees; "
            f"got {keyframe.field_of_view}"
        )
    if keyframe.time is not None and not 0 <= keyframe.time <= 1:
        raise InputError(f"{where}: time must lie in [0, 1]; got {keyframe.time}")
    if not math.isfinite(keyframe.seconds):
        raise InputError(f"{where}: seconds must be finite; got {keyframe.seconds}")


def _check_order(seconds: list[float]) -> None:
    if seconds[0] != 0:
        raise InputError(f"keyframe 0 is at {seconds[0]:g} s; seconds must start at 0")
    for index, (before, after) in enumerate(pairwise(seconds)):
        if before >= after:
            raise InputError(
                f"keyframe {index + 1} at {after:g} s does not come after keyframe {index} at "
                f"{before:g} s; list keyframes in the order of their seconds"
            )


def _check_count(keyframes: Sequence[Any]) -> None:
    """A file holds a motion; a single view is most likely a half-made path."""
    if len(keyframes) < 2:
        raise InputError(
            f"a camera path needs at least two keyframes; got {len(keyframes)}: add another view, "
            "or the same one later to stand still"
        )


def _path_from(content: Any) -> CameraPath:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f'is not a camera path: "format" must be "{FORMAT}"')
    if content.get("version") != VERSION:
        raise InputError(f'"version" must be {VERSION}; got {content.get("version")!r}')
    _check_keys("the path", content, _PATH_KEYS, optional={"time_span"})
    entries = content["keyframes"]
    if not isinstance(entries, list):
        raise InputError('"keyframes" must be a list')
    _check_count(entries)
    if not isinstance(content["loop"], bool):
        raise InputError(f'"loop" must be true or false; got {content["loop"]!r}')
    return CameraPath(
        [_keyframe_from(index, entry) for index, entry in enumerate(entries)],
        duration=_number("duration", content["duration"]),
        fps=_number("fps", content["fps"]),
        loop=content["loop"],
        time_span=_span(content.get("time_span")),
    )


def _span(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise InputError(f'"time_span" must be two times in [0, 1]; got {value!r}')
    return _number("time_span", value[0]), _number("time_span", value[1])


def _keyframe_from(index: int, entry: Any) -> Keyframe:
    where = f"keyframe {index}"
    if not isinstance(entry, dict):
        raise InputError(f"{where} must be an object with the keys {sorted(_KEYFRAME_KEYS)}")
    _check_keys(where, entry, _KEYFRAME_KEYS, optional={"time"})
    try:
        pose = torch.tensor(entry["camera_to_world"], dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f'{where}: "camera_to_world" must be 4 rows of 4 numbers') from error
    time = entry.get("time")
    return Keyframe(
        seconds=_number(f"{where}: seconds", entry["seconds"]),
        camera_to_world=pose,
        field_of_view=_number(f"{where}: field_of_view", entry["field_of_view"]),
        time=None if time is None else _number(f"{where}: time", time),
    )


def _check_keys(where: str, entry: dict, known: set[str], *, optional: set[str]) -> None:
    missing = sorted(known - optional - entry.keys())
    unknown = sorted(entry.keys() - known)
    if missing:
        raise InputError(f"{where} lacks the key {missing[0]!r}")
    if unknown:
        raise InputError(f"{where} has the unknown key {unknown[0]!r}; known: {sorted(known)}")


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{name} must be a number; got {value!r}")
    return float(value)
