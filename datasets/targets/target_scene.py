"""A scene that is no set of photographs: what is fitted, with cameras to look at it from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from lumigraph.core.cameras import Cameras
from lumigraph.core.errors import DataError
from lumigraph.core.scene import Scene
from lumigraph.core.transforms import look_at

FIELD_OF_VIEW = 40.0  # degrees, from the left to the right edge
CAMERA_SIZE = (640, 480)
CAMERAS = 12
ELEVATION = 20.0  # degrees above the horizon
AWAY = 2.2  # sides of the bounds between a camera and the middle
CUBE_MARGIN = 1.1  # side of the bounds over the longest side of what is in them

Target = TypeVar("Target")


@dataclass(frozen=True, eq=False, kw_only=True)
class TargetScene(Scene):
    """A `Scene` without images, whose cameras say from where its target is usually looked at."""

    target: Any = field(repr=False)
    """What is fitted: a `Picture`, a `Solid` or a `Medium`."""


def target_of(scene: Scene, kind: type[Target], *, wanted: str) -> Target:
    """What a method is fitted to.

    Args:
        kind: class of the target that the method takes.
        wanted: what to give instead, for the message: "method sdf needs a mesh (.obj)".

    Raises:
        DataError: the scene holds no such target.
    """
    target = getattr(scene, "target", None)
    if not isinstance(target, kind):
        raise DataError(f"{scene.source}: {wanted}")
    return target


def cameras_around(bounds: Tensor, *, up: Tensor) -> Cameras:
    """Cameras on a ring about bounds (2, 3), above their middle.

    Args:
        up: (3,) unit vector.
    """
    center, side = bounds.double().mean(dim=0), float(bounds[1, 0] - bounds[0, 0])
    up = up.double()
    spare = torch.eye(3, dtype=torch.float64)[int(up.abs().argmin())]
    right = torch.linalg.cross(up, spare)
    right = right / right.norm()
    ahead = torch.linalg.cross(up, right)
    angles = torch.arange(CAMERAS, dtype=torch.float64) * (2 * torch.pi / CAMERAS)
    lift = torch.tensor(ELEVATION, dtype=torch.float64).deg2rad()
    ring = torch.cos(angles)[:, None] * right + torch.sin(angles)[:, None] * ahead
    eyes = center + AWAY * side * (torch.cos(lift) * ring + torch.sin(lift) * up)
    poses = look_at(eyes, center, up=up).float()
    width, height = CAMERA_SIZE
    half = torch.tensor(FIELD_OF_VIEW / 2).deg2rad()
    return Cameras.from_intrinsics(poses, width, height, width / 2 / float(torch.tan(half)))
