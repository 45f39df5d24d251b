"""Where a viewer begins, and what its camera turns about."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lumigraph.core import Cameras, Scene
from lumigraph.core.path_shapes import focus
from lumigraph.core.transforms import look_at

from .source import FrameSource

START_ANGLE = math.radians(50)  # field of view before a file, from lower to upper edge


def start_view(source: FrameSource) -> tuple[Tensor, Tensor, float]:
    """Where a browser begins: pose (4, 4), the point that it turns about (3,), and the angle from
    its lower to its upper edge in radians."""
    scene = source.scene
    middle = source.bounds.mean(dim=0)
    side = float(source.bounds[1, 0] - source.bounds[0, 0])
    if scene is not None and len(scene.cameras):
        camera = scene.cameras[first_camera(scene)]
        pose = camera.camera_to_world[0].float().cpu()
        distance = focus_distance(scene, pose)
        return pose, pose[:3, 3] + distance * pose[:3, 2], fitting_angle(camera, 4 / 3)
    up = source.up
    flat = torch.tensor([0.61, 0.47, 0.64])
    away = flat - (flat @ up) * up
    eye = middle + side * (1.3 * away / away.norm() + 0.5 * up)
    return look_at(eye, middle, up=up), middle, START_ANGLE


def first_camera(scene: Scene) -> int:
    """The camera that a browser begins at: the first of the training split."""
    train = scene.splits.get("train")
    return int(train[0]) if train is not None and len(train) else 0


def focus_distance(scene: Scene, pose: Tensor) -> float:
    """Distance along the axis of a pose (4, 4) to the point nearest to what is looked at."""
    ahead = float((focus(scene).float() - pose[:3, 3].float().cpu()) @ pose[:3, 2].float().cpu())
    return ahead if ahead > 1e-2 * scene.side else scene.side


def fitting_angle(cameras: Cameras, aspect: float) -> float:
    """Radians from the lower to the upper edge of a window that show a camera's whole picture.

    Args:
        cameras: a batch of one; the angles of its pinhole are taken, whatever its lens.
        aspect: width of the window divided by its height.
    """
    width, height = cameras.size(0)
    focal_x, focal_y = cameras.intrinsics[0, :2].tolist()
    half = max(height / 2 / focal_y, width / 2 / focal_x / aspect)
    return min(2 * math.atan(half), math.radians(150))
