"""What a viewer wishes and has got: plain data between a browser's events and the renderer."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from lumigraph.core import Cameras, Frame
from lumigraph.core.errors import InputError
from lumigraph.core.transforms import pose_matrix, rotation_from_quaternion

from .display import Look, Photo

STILL_SECONDS = 0.12
"""A camera that has not moved for this long stands still."""
MOST_PIXELS = 4096


@dataclass(frozen=True, eq=False)
class Shot:
    """A pinhole camera of the browser."""

    camera_to_world: Tensor
    """(4, 4), x right, y down, z forward, in the scene frame."""
    field_of_view: float
    """Radians, from the lower to the upper edge."""
    width: int
    """Of the window, in pixels."""
    height: int

    @classmethod
    def of(
        cls,
        wxyz: Sequence[float],
        position: Sequence[float],
        *,
        field_of_view: float,
        size: tuple[int, int],
    ) -> Shot:
        """Checked values of a message.

        Raises:
            InputError: not a camera: wrong lengths, not finite, no direction, no area.
        """
        try:
            turn = torch.tensor([float(value) for value in wxyz], dtype=torch.float64)
            place = torch.tensor([float(value) for value in position], dtype=torch.float64)
            angle, width, height = float(field_of_view), int(size[0]), int(size[1])
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError("the camera of a message is not made of numbers") from error
        good = turn.shape == (4,) and place.shape == (3,) and bool(torch.isfinite(place).all())
        good = good and bool(torch.isfinite(turn).all()) and float(turn.norm()) > 1e-6
        good = good and 1e-3 < angle < math.pi - 1e-3 and width > 0 and height > 0
        if not good:
            raise InputError("the camera of a message is not a camera")
        pose = pose_matrix(rotation_from_quaternion(turn / turn.norm()), place)
        return cls(pose.float(), angle, min(width, 2 * MOST_PIXELS), min(height, 2 * MOST_PIXELS))

    def size(self, cap: int) -> tuple[int, int]:
        """Width and height of a whole picture: the window's, its longer side at most `cap`."""
        scale = min(1.0, cap / max(self.width, self.height))
        return max(1, round(self.width * scale)), max(1, round(self.height * scale))

    def cameras(self, width: int, height: int, *, moment: float = 0.0) -> Cameras:
        """A batch of one camera of the given size in pixels; `moment` is its time in [0, 1]."""
        focal_y = 0.5 * height / math.tan(0.5 * self.field_of_view)
        # square pixels of the window, whatever rounding did to the size
        focal_x = focal_y * (width / height) / (self.width / self.height)
        return Cameras.from_intrinsics(
            self.camera_to_world, width, height, focal_x, focal_y, times=moment
        )


@dataclass(frozen=True, eq=False)
class Wish:
    """What a viewer wants to see."""

    shot: Shot
    look: Look = field(default_factory=Look)
    cap: int = 640
    """Longer side of a whole picture, at most."""
    reduce: bool = True
    """Fewer pixels while the camera moves."""
    moment: float = 0.0
    """Time of the picture in [0, 1]; shows where the scene moves."""
    box: Tensor | None = None
    """(2, 3) what lies outside is not shown."""
    camera: int | None = None
    """The captured camera that is compared with."""
    depth: bool = False
    """Also send depths, so that meshes and lines are hidden behind the picture."""

    @property
    def full_size(self) -> tuple[int, int]:
        """Of a whole picture."""
        return self.shot.size(self.cap)

    def same_frame(self, other: Wish) -> bool:
        """Whether both are served by one frame, shown in different ways."""
        names = ("shot", "cap", "moment", "box")
        return all(_same(getattr(self, name), getattr(other, name)) for name in names)


def _same(first: object, second: object) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    return bool(first == second)


@dataclass
class Job:
    """A picture on its way, in tiles from top to bottom."""

    wish: Wish
    serial: int
    """Number of the wish."""
    version: int
    """Of the model, when the job began."""
    cameras: Cameras
    """A batch of one, in the size of the picture."""
    photo: Photo | None = None
    behind: Tensor | None = None
    """The background in the frame's color, see `display.background_of`."""
    tiles: list[Frame] = field(default_factory=list)
    seconds: float = 0.0
    """Time spent so far."""

    @property
    def rows_done(self) -> int:
        return sum(tile.height for tile in self.tiles)

    @property
    def full(self) -> bool:
        """Whether the picture has all pixels of the wish."""
        return self.cameras.size(0) == self.wish.full_size


@dataclass(frozen=True, eq=False)
class Drawn:
    """A picture for one viewer."""

    picture: np.ndarray
    """(H, W, 3) uint8 sRGB."""
    frame: Frame
    job: Job

    @property
    def wish(self) -> Wish:
        return self.job.wish

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.frame.width, self.frame.height

    @property
    def samples_per_ray(self) -> float | None:
        """Mean over the picture; None where rays have no samples."""
        samples = self.frame.extras.get("samples")
        return None if samples is None else float(samples.float().mean())


class View:
    """State of one viewer. Wishes come from any thread; the render thread serves them.

    Args:
        show: gets every picture, on the render thread.
        fail: gets a line about what went wrong, on the render thread.
    """

    def __init__(self, show: Callable[[Drawn], None], fail: Callable[[str], None]) -> None:
        self.show, self.fail = show, fail
        self._lock = threading.Lock()
        self._wish: Wish | None = None
        self._serial = 0
        self._moved_at = 0.0
        self.paused = False
        """Nothing is rendered, e.g. while the browser draws."""
        self.drawn_serial = -1
        self.full_serial = -1
        self.full_version = -1
        self.full_at = self.full_seconds = 0.0
        self.work: Job | None = None
        self.kept: Drawn | None = None
        """The last whole picture."""

    def want(self, wish: Wish, *, moving: bool) -> None:
        """The newest wish replaces the ones before it."""
        with self._lock:
            self._wish = wish
            self._serial += 1
            if moving:
                self._moved_at = time.monotonic()

    def change(self, *, moving: bool = False, **changes: object) -> None:
        """The last wish with some fields changed; nothing before the first wish.

        Where all of them are as they were, nothing has to be rendered.
        """
        with self._lock:
            wish = self._wish
            if wish is None or all(_same(getattr(wish, k), v) for k, v in changes.items()):
                return
            self._wish = replace(wish, **changes)  # type: ignore[arg-type]
            self._serial += 1
            if moving:
                self._moved_at = time.monotonic()

    def again(self) -> None:
        """The same wish once more: its picture is no longer on the screen."""
        with self._lock:
            self._serial += 1

    def newest(self) -> tuple[Wish | None, int, float]:
        """The wish, its number, and for how long the camera has stood still, in seconds."""
        with self._lock:
            return self._wish, self._serial, time.monotonic() - self._moved_at
