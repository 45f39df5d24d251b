"""Editing a camera path view by view: what a keyframe editor does, without any window.

Views keep their order; each has seconds from the start, the first 0. Every change is checked, takes
effect whole or not at all, and can be undone.

What happens to time:

    add           `spacing` after the last view
    insert_after  in the middle between its neighbours; after the last view like `add`
    move          the seconds stay where they are, the views change places
    remove        the others keep their seconds; without the first, the second begins at 0
    retime        one view moves between its neighbours, or takes all that follow along
    set_duration  all seconds are stretched alike
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from lumigraph.core.camera_path import CameraPath, Keyframe, check_time_span
from lumigraph.core.errors import InputError

FIELD_OF_VIEW = 50.0
MOST_UNDO = 200


@dataclass(frozen=True)
class _State:
    """What undo brings back."""

    keyframes: tuple[Keyframe, ...] = ()
    tail: float = 0.0
    """Seconds after the last view: back to the first in a loop, else standing still."""
    fps: float = 30.0
    loop: bool = False
    time_span: tuple[float, float] | None = None


class PathEditor:
    """A camera path that is being made. Not for several threads at a time.

    Args:
        spacing: seconds between views that are added.
        fps: frames per second of the video.
        loop: whether the path closes.
        time_span: see `set_time_span`.

    >>> editor = PathEditor(spacing=2.0)
    >>> first, second = editor.add(torch.eye(4)), editor.add(torch.eye(4), field_of_view=30.0)
    >>> editor.duration, editor.at(1.0)[1]
    (2.0, 40.0)
    >>> editor.undo(), len(editor)
    (True, 1)
    """

    def __init__(
        self,
        *,
        spacing: float = 1.0,
        fps: float = 30.0,
        loop: bool = False,
        time_span: tuple[float, float] | None = None,
    ) -> None:
        self.spacing = _positive("spacing", spacing)
        tail = self.spacing if loop else 0.0
        if time_span is not None:
            check_time_span(time_span)
        self._state = _State(tail=tail, fps=_positive("fps", fps), loop=loop, time_span=time_span)
        self._path: CameraPath | None = None
        self._past: list[_State] = []

    @classmethod
    def from_path(cls, path: CameraPath) -> PathEditor:
        """An editor that holds a path; views added later come at its mean pace."""
        last = path.keyframes[-1].seconds
        count = len(path.keyframes)
        editor = cls(spacing=last / (count - 1) if count > 1 else 1.0, fps=path.fps)
        tail = path.duration - last
        if path.loop and tail == 0:
            tail = editor.spacing
        editor._show(_State(tuple(path.keyframes), tail, path.fps, path.loop, path.time_span))
        return editor

    def __len__(self) -> int:
        return len(self._state.keyframes)

    @property
    def keyframes(self) -> Sequence[Keyframe]:
        """The views in their order."""
        return self._state.keyframes

    @property
    def duration(self) -> float:
        """Seconds of the whole path, 0 without views."""
        frames = self._state.keyframes
        return frames[-1].seconds + self._state.tail if frames else 0.0

    @property
    def fps(self) -> float:
        return self._state.fps

    @property
    def loop(self) -> bool:
        return self._state.loop

    @property
    def time_span(self) -> tuple[float, float] | None:
        """Time of a moving scene at the first and the last frame; None: that of the views."""
        return self._state.time_span

    def add(
        self,
        camera_to_world: Tensor,
        *,
        field_of_view: float | None = None,
        time: float | None = None,
    ) -> int:
        """A view at the end; returns its index.

        Args:
            camera_to_world: (4, 4) as in `Keyframe`.
            field_of_view: degrees; None takes that of the view before, or 50.
            time: of a moving scene, in [0, 1], for all views or for none; None takes that of the
                view before.

        Raises:
            InputError: a value that cannot be; nothing has changed. So for every change.
        """
        return self.insert_after(
            len(self) - 1, camera_to_world, field_of_view=field_of_view, time=time
        )

    def insert_after(
        self,
        index: int,
        camera_to_world: Tensor,
        *,
        field_of_view: float | None = None,
        time: float | None = None,
    ) -> int:
        """A view behind that of `index` (-1 in front of all); returns its index.

        In front of all it begins at 0 and the others come `spacing` later. Other arguments are
        those of `add`.
        """
        frames = list(self._state.keyframes)
        if index != -1:
            self._checked(index)
        place = index + 1
        near = frames[max(index, 0)] if frames else None
        if field_of_view is None:
            field_of_view = near.field_of_view if near else FIELD_OF_VIEW
        if time is None and near is not None:
            time = near.time
        if place == len(frames):
            seconds = frames[-1].seconds + self.spacing if frames else 0.0
        elif place == 0:
            seconds = 0.0
            frames = [_later(frame, self.spacing) for frame in frames]
        else:
            seconds = (frames[index].seconds + frames[place].seconds) / 2
        frames.insert(place, Keyframe(seconds, _pose(camera_to_world), field_of_view, time))
        self._change(replace(self._state, keyframes=tuple(frames)))
        return place

    def set_view(
        self,
        index: int,
        camera_to_world: Tensor,
        *,
        field_of_view: float | None = None,
        time: float | None = None,
    ) -> None:
        """Another pose for a view, at the same seconds; None keeps what it has."""
        frame = self._checked(index)
        angle = frame.field_of_view if field_of_view is None else field_of_view
        moment = frame.time if time is None else time
        self._put(index, Keyframe(frame.seconds, _pose(camera_to_world), angle, moment))

    def move(self, index: int, place: int) -> None:
        """Put a view at another place in the order."""
        self._checked(index)
        self._checked(place)
        frames = list(self._state.keyframes)
        moments = [frame.seconds for frame in frames]
        frames.insert(place, frames.pop(index))
        pairs = zip(frames, moments, strict=True)
        moved = tuple(replace(frame, seconds=moment) for frame, moment in pairs)
        self._change(replace(self._state, keyframes=moved))

    def remove(self, index: int) -> None:
        """Take a view out."""
        self._checked(index)
        frames = list(self._state.keyframes)
        del frames[index]
        if frames and frames[0].seconds:
            frames = [_later(frame, -frames[0].seconds) for frame in frames]
        self._change(replace(self._state, keyframes=tuple(frames)))

    def clear(self) -> None:
        """Take all views out."""
        self._change(replace(self._state, keyframes=()))

    def retime(self, index: int, seconds: float, *, shift: bool = False) -> None:
        """Let a view come at other seconds.

        Args:
            shift: all that follow move by as much; otherwise they stay, and the view with them in
                its order.

        Raises:
            InputError: it would pass a neighbour, or it is the first, which stays at 0.
        """
        frame = self._checked(index)
        seconds = _number("seconds", seconds)
        if index == 0:
            if seconds == 0:
                return
            raise InputError("the first keyframe stays at 0 s; retime those behind it")
        frames = list(self._state.keyframes)
        behind = index + 1 < len(frames) and not shift
        low = frames[index - 1].seconds
        high = frames[index + 1].seconds if behind else math.inf
        if not low < seconds < high:
            limit = f" and before {high:g} s" if behind else ""
            raise InputError(
                f"keyframe {index} must come after {low:g} s{limit}; got {seconds:g} s"
            )
        step = seconds - frame.seconds
        frames[index] = replace(frame, seconds=seconds)
        if shift:
            frames[index + 1 :] = [_later(other, step) for other in frames[index + 1 :]]
        self._change(replace(self._state, keyframes=tuple(frames)))

    def set_duration(self, seconds: float) -> None:
        """Make the whole path last as long, at the same relative pace."""
        seconds = _positive("duration", seconds)
        if not self.duration:
            raise InputError("duration needs at least two keyframes; add another view")
        factor = seconds / self.duration
        frames = [replace(f, seconds=f.seconds * factor) for f in self._state.keyframes]
        # not the factor times the tail, so that the sum is what was asked for
        tail = seconds - frames[-1].seconds if self._state.tail else 0.0
        if not tail:
            frames[-1] = replace(frames[-1], seconds=seconds)
        self._change(replace(self._state, keyframes=tuple(frames), tail=tail))

    def set_fps(self, fps: float) -> None:
        """Frames per second."""
        self._change(replace(self._state, fps=_positive("fps", fps)))

    def set_loop(self, loop: bool) -> None:
        """Close the path, with `spacing` seconds from the last view to the first, or open it."""
        if loop != self._state.loop:
            self._change(replace(self._state, loop=loop, tail=self.spacing if loop else 0.0))

    def set_field_of_view(self, degrees: float, index: int | None = None) -> None:
        """Degrees across the shorter side of the picture, of one view or of all."""
        angle = _number("field_of_view", degrees)
        self._set(index, lambda frame: replace(frame, field_of_view=angle))

    def set_time(self, time: float | None, index: int | None = None) -> None:
        """Time of a moving scene in [0, 1], of one view or of all; None for a still scene."""
        moment = None if time is None else _number("time", time)
        self._set(index, lambda frame: replace(frame, time=moment))

    def set_time_span(self, span: tuple[float, float] | None) -> None:
        """Let time run between two times in [0, 1], whatever that of the views; None: as these."""
        if span is not None:
            check_time_span(span)
        self._change(replace(self._state, time_span=span))

    def undo(self) -> bool:
        """Take the last change back; False where there is none."""
        if not self._past:
            return False
        self._show(self._past.pop())
        return True

    def at(self, seconds: float) -> tuple[Tensor, float, float | None]:
        """The moment to preview: camera_to_world (4, 4), field of view in degrees, time or None.

        Raises:
            InputError: there are no views.
        """
        path = self._path
        if path is None:
            raise InputError("the path has no keyframes yet; add a view")
        return path.view_at(seconds)

    def to_path(self) -> CameraPath:
        """The path as it stands.

        Raises:
            InputError: fewer than two views.
        """
        if self._path is None or len(self) < 2:
            raise InputError(
                f"a camera path needs at least two keyframes; got {len(self)}: add another view"
            )
        return self._path

    def save(self, file: str | Path, *, overwrite: bool = False) -> None:
        """Write the path as `lumigraph render --path` reads it, whole or not at all.

        Raises:
            InputError: as `to_path`, or the file exists, or its name does not end in `.json`.
            DataError: it cannot be written.
        """
        target = Path(file)
        if target.suffix != ".json":
            raise InputError(f"{target}: a path file must end in .json; choose another name")
        path = self.to_path()
        if target.exists() and not overwrite:
            raise InputError(f"{target}: exists; choose another name, or overwrite it")
        path.to_file(target)

    def _checked(self, index: int) -> Keyframe:
        count = len(self)
        if not 0 <= index < count:
            known = f"there are 0 to {count - 1}" if count else "there are none yet"
            raise InputError(f"no keyframe {index}; {known}")
        return self._state.keyframes[index]

    def _set(self, index: int | None, change: Callable[[Keyframe], Keyframe]) -> None:
        if index is not None:
            self._put(index, change(self._checked(index)))
            return
        frames = tuple(change(frame) for frame in self._state.keyframes)
        self._change(replace(self._state, keyframes=frames))

    def _put(self, index: int, frame: Keyframe) -> None:
        frames = list(self._state.keyframes)
        frames[index] = frame
        self._change(replace(self._state, keyframes=tuple(frames)))

    def _change(self, state: _State) -> None:
        past = self._state
        self._show(state)
        self._past = [*self._past[1 - MOST_UNDO :], past]

    def _show(self, state: _State) -> None:
        """Take over a state; making its path is what checks it."""
        path = None
        if state.keyframes:
            duration = state.keyframes[-1].seconds + state.tail
            path = CameraPath(state.keyframes, duration, state.fps, state.loop, state.time_span)
        self._state, self._path = state, path


def _later(frame: Keyframe, seconds: float) -> Keyframe:
    return replace(frame, seconds=frame.seconds + seconds)


def _pose(camera_to_world: Tensor) -> Tensor:
    """A copy that nobody else changes."""
    return torch.as_tensor(camera_to_world).detach().to("cpu", torch.float64, copy=True)


def _number(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise InputError(f"{name} must be a finite number; got {value}")
    return float(value)


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} must be a positive number; got {value}")
    return float(value)
