"""How fast a source renders for the viewer, without a browser."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass

from lumigraph.core.transforms import look_at, rotation_exp

from .display import Look, picture
from .places import start_view
from .source import FrameSource
from .views import Shot


@dataclass(frozen=True)
class FrameRate:
    """Times of whole pictures, from the camera to bytes before compression."""

    width: int
    height: int
    frames: int
    median_seconds: float
    slowest_seconds: float

    @property
    def frames_per_second(self) -> float:
        """By the median."""
        return 1 / self.median_seconds


def measure_rate(
    source: FrameSource, width: int, height: int, *, frames: int = 30, warmup: int = 3
) -> FrameRate:
    """Render a source from places on a circle around where a browser begins.

    Args:
        width, height: of the pictures in pixels.
        frames: that are timed, after `warmup` others.
    """
    pose, target, angle = start_view(source)
    seconds = []
    for index in range(-warmup, frames):
        turn = rotation_exp(source.up.double() * (2 * math.pi * max(index, 0) / frames))
        eye = target.double() + turn @ (pose[:3, 3] - target).double()
        around = look_at(eye, target.double(), up=source.up).float()
        began = time.perf_counter()
        cameras = Shot(around, angle, width, height).cameras(width, height)
        with source.session() as model:
            if model is None:
                raise TimeoutError("the model cannot be had now; try again")
            frame = model.render(cameras, channels=Look().needs, on_cpu=False)
        picture(frame, Look(), behind=None, photo=None)
        if index >= 0:
            seconds.append(time.perf_counter() - began)
    return FrameRate(width, height, frames, statistics.median(seconds), max(seconds))
