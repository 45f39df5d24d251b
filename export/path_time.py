"""The time of a moving scene along a camera path: frozen, running, or as the path has it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lumigraph.core import CameraPath, Scene
from lumigraph.core.camera_path import check_time_span
from lumigraph.core.errors import InputError

TimeSpan = tuple[float, float]
FOLLOW = "follow"


def time_span(text: str) -> TimeSpan:
    """Times at the first and the last frame: of "0.3" twice 0.3, of "0.2:0.8" these, of "follow" 0
    and 1.

    Raises:
        InputError: anything else, or a time outside of [0, 1].

    >>> time_span("0.3"), time_span("follow"), time_span("0.8:0.2")
    ((0.3, 0.3), (0.0, 1.0), (0.8, 0.2))
    """
    if text == FOLLOW:
        return 0.0, 1.0
    begin, colon, end = text.partition(":")
    try:
        span = (float(begin), float(end if colon else begin))
    except ValueError:
        raise InputError(
            f"time {text!r}: give a time in [0, 1], two of them as 0.2:0.8, or {FOLLOW}"
        ) from None
    check_time_span(span)
    return span


def check_moving(moves: bool, name: object) -> None:
    """Refuse a choice of time where nothing moves.

    Args:
        moves: see `is_moving`.
        name: of the run or file, for the message.

    Raises:
        InputError: nothing moves.
    """
    if not moves:
        raise InputError(f"{name}: nothing moves in it; leave the time away")


def is_moving(model: Any) -> bool:
    """Whether pictures of a model change with the time of the camera."""
    return getattr(model, "moments", None) is not None


def check_one_time(moves: bool, time: float | None, name: object) -> None:
    """What moves needs one time in [0, 1], other things none.

    Args:
        moves, name: see `check_moving`.

    Raises:
        InputError: it is missing, out of range, or plays no part.
    """
    if time is not None:
        check_time_span((time, time))
        check_moving(moves, name)
    elif moves:
        raise InputError(f"{name}: moves, and this holds one time: name it with --time 0.5, say")


def at_time(scene: Scene, time: float) -> Scene:
    """A scene whose cameras all are at one time in [0, 1]."""
    return replace(scene, cameras=scene.cameras.at_time(time))


def timed_path(path: CameraPath, model: Any, asked: TimeSpan | None, *, name: object) -> CameraPath:
    """A path with the time that a model is to be seen at.

    Args:
        asked: times at the first and the last frame; None takes those of the path, and lets time
            run from 0 to 1 where it has none.
        name: see `check_moving`.

    Raises:
        InputError: times were asked for, but nothing moves.
    """
    if asked is not None:
        check_moving(is_moving(model), name)
        return path.following_time(*asked)
    return path.following_time() if is_moving(model) and not path.is_timed else path
