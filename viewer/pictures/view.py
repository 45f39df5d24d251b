"""Where a picture is taken from: a camera of the capture, or a place outside that shows all."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lumigraph.core.camera_models import CameraModel
from lumigraph.core.cameras import Cameras
from lumigraph.core.errors import InputError
from lumigraph.core.transforms import look_at

Points = NDArray[np.float64]

FIELD_OF_VIEW = 32.0
"""Degrees across the height of a picture from outside."""
ELEVATION = 24.0
"""Degrees that a picture from outside looks down."""
AZIMUTH = -37.0
"""Degrees that it is turned about the upward axis."""
MARGIN = 0.84
"""Share of a picture from outside that what is shown may take."""
DROP = 0.03
"""Share of the height by which it is lowered, to leave room for the title."""
_STRAIGHT = (CameraModel.PINHOLE, CameraModel.OPENCV)


@dataclass(frozen=True, eq=False)
class PictureView:
    """A pinhole camera."""

    camera_to_world: Points
    """(4, 4), x right, y down, z forward."""
    field_of_view: float
    """Degrees across the height."""
    size: tuple[int, int]
    """Width and height of the picture in pixels."""
    principal: tuple[float, float] = (0.5, 0.5)
    """Where the axis meets the picture, in shares of width and height."""

    @classmethod
    def of_camera(cls, cameras: Cameras, index: int, size: tuple[int, int]) -> PictureView:
        """What a camera of a capture sees, as large as fits into `size`; distortion is left out.

        Raises:
            InputError: no such camera, or one whose pictures bend straight lines.
        """
        if not 0 <= index < len(cameras):
            raise InputError(f"camera {index} does not exist; there are {len(cameras)}")
        model = CameraModel(int(cameras.models[index]))
        if model not in _STRAIGHT:
            raise InputError(
                f"camera {index} is {model.name.lower()}, and pictures are drawn with straight "
                "lines; take a pinhole or opencv camera, or look from outside"
            )
        fx, fy, cx, cy = cameras.intrinsics[index].double().tolist()
        width, height = cameras.size(index)
        # Pixels of a picture are square.
        aspect = width * fy / (height * fx)
        tall = min(size[1], round(size[0] / aspect))
        pose = cameras.camera_to_world[index].double().cpu().numpy()
        angle = math.degrees(2 * math.atan(height / (2 * fy)))
        wide = max(1, round(tall * aspect))
        return cls(pose, angle, (wide, max(1, tall)), (cx / width, cy / height))

    @classmethod
    def outside(
        cls,
        points: Points,
        *,
        up: Points,
        size: tuple[int, int],
        toward: Points | None = None,
    ) -> PictureView:
        """A view down on points (N, 3) from outside, as near as shows all of them.

        Args:
            up: (3,) direction that is up in the picture.
            toward: (3,) direction to look in, before it is turned and lowered; None takes one.
        """
        axes = _turned(_across(up, toward), up)
        half_height = math.tan(math.radians(FIELD_OF_VIEW / 2)) * MARGIN
        half = np.array([half_height * size[0] / size[1], half_height])
        local = points @ axes
        # The nearest place from which every point lies within the four sides of the picture: on
        # each axis two sides bind, which gives the place across and the least distance.
        high = (local[:, :2] - half * local[:, 2:]).max(axis=0)
        low = (local[:, :2] + half * local[:, 2:]).min(axis=0)
        distance = ((high - low) / (2 * half)).max()
        middle = (high + low) / 2
        place = axes @ np.array([*middle, -distance])
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = axes, place
        return cls(pose, FIELD_OF_VIEW, size, (0.5, 0.5 + DROP))

    @property
    def position(self) -> Points:
        """(3,)"""
        return self.camera_to_world[:3, 3]

    def project(self, points: Points) -> Points:
        """(N, 2) pixels of points (N, 3), the middle of the first pixel at (0.5, 0.5)."""
        local = (points - self.position) @ self.camera_to_world[:3, :3]
        width, height = self.size
        focal = height / (2 * math.tan(math.radians(self.field_of_view / 2)))
        middle = np.array(self.principal) * (width, height)
        return local[:, :2] / local[:, 2:] * focal + middle


def _across(up: Points, toward: Points | None) -> Points:
    """Unit direction across `up`, of `toward` where that says one."""
    up = up / np.linalg.norm(up)
    for direction in (toward, np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, -1.0])):
        if direction is None:
            continue
        level = direction - up * (up @ direction)
        if np.linalg.norm(level) > 0.3 * np.linalg.norm(direction) > 0:
            return np.asarray(level / np.linalg.norm(level))
    return _across(up, np.array([1.0, 0.0, 0.0]))


def _turned(ahead: Points, up: Points) -> Points:
    """Axes (3, 3) of a camera that looks `ahead`, turned by AZIMUTH and lowered by ELEVATION."""
    up = up / np.linalg.norm(up)
    right = np.cross(ahead, up)
    turn, drop = math.radians(AZIMUTH), math.radians(ELEVATION)
    level = math.cos(turn) * ahead + math.sin(turn) * right
    forward = math.cos(drop) * level - math.sin(drop) * up
    pose = look_at(torch.zeros(3).double(), torch.from_numpy(forward), up=torch.from_numpy(up))
    return pose[:3, :3].numpy()
