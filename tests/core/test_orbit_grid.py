"""Rings of views around what a capture looks at."""

import math

import pytest
import torch

from lumigraph.core import Cameras, Scene
from lumigraph.core.path_shapes import orbit_grid, upward
from lumigraph.core.scene import cube
from lumigraph.core.transforms import look_at

UP = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)


def scene(azimuths, heights=(0.3, 0.6), radius=3.0) -> Scene:
    eyes = [
        radius * torch.tensor([math.cos(a) * math.cos(h), math.sin(a) * math.cos(h), math.sin(h)])
        for a in azimuths
        for h in heights
    ]
    poses = look_at(torch.stack(eyes), torch.zeros(3), up=[0.0, 0.0, 1.0])
    cameras = Cameras.from_intrinsics(poses, 32, 24, 30.0)
    splits = {"train": torch.arange(len(cameras))}
    return Scene("ring", "memory", cameras, splits, cube(torch.zeros(3), 2.0))


def test_a_capture_all_around_gives_whole_rings_that_look_at_the_middle():
    grid = orbit_grid(scene([k * math.pi / 6 for k in range(12)]), azimuths=8, elevations=3)
    assert grid.closed and grid.poses.shape == (3, 8, 4, 4)
    torch.testing.assert_close(grid.azimuths.diff(), torch.full((7,), math.pi / 4).double())
    positions, forwards = grid.poses[..., :3, 3], grid.poses[..., :3, 2]
    distance = positions.norm(dim=-1)
    torch.testing.assert_close(distance, torch.full_like(distance, 3.0), atol=0.05, rtol=0)
    middle = positions + distance[..., None] * forwards
    assert float(middle.abs().max()) < 1e-3
    heights = torch.asin((positions @ UP) / distance)
    assert float(heights.std(dim=1).max()) < 0.01
    assert float(heights.mean(dim=1)[0]) == pytest.approx(0.27, abs=0.05)
    assert bool((heights.mean(dim=1).diff() > 0.1).all())


def test_a_capture_of_one_side_gives_its_arc():
    grid = orbit_grid(scene([-0.5, 0.0, 0.5]), azimuths=5, elevations=1)
    assert not grid.closed and grid.poses.shape == (1, 5, 4, 4)
    ends = grid.poses[0, [0, -1], :2, 3]
    angles = torch.atan2(ends[:, 1], ends[:, 0]).abs()
    torch.testing.assert_close(angles, torch.full_like(angles, 0.5), atol=0.06, rtol=0)
    assert float(grid.elevations[0]) == pytest.approx(0.45, abs=0.05)


def test_rings_stay_below_the_pole():
    grid = orbit_grid(scene([0, 1, 2, 3, 4, 5], heights=(1.5,)), azimuths=4, elevations=3)
    assert float(grid.elevations.abs().max()) <= math.radians(85)
    assert bool(torch.isfinite(grid.poses).all())


def test_up_is_across_the_horizontal_axes_of_level_cameras():
    """From one side and above the images' own up leans; their horizontal axes do not."""
    cameras = scene([-0.6, 0.0, 0.6], heights=(0.5, 0.7)).cameras
    torch.testing.assert_close(upward(cameras), UP, atol=1e-5, rtol=0)


def test_up_is_the_mean_where_horizontal_axes_say_nothing():
    side_by_side = scene([-0.02, 0.0, 0.02], heights=(0.4, 0.5)).cameras
    leaning = torch.tensor([-math.sin(0.45), 0.0, math.cos(0.45)], dtype=torch.float64)
    torch.testing.assert_close(upward(side_by_side), leaning, atol=0.01, rtol=0)
    poses = scene([k * math.pi / 4 for k in range(8)], heights=(0.0,)).cameras.camera_to_world
    poses, angles = poses.clone(), [0.9, -0.9, -0.9, 0.9, 0.9, 0.9, -0.9, -0.9]
    for pose, angle in zip(poses, angles, strict=True):  # not held level
        cos, sin = math.cos(angle), math.sin(angle)
        pose[:3, :2] = pose[:3, :2] @ torch.tensor([[cos, -sin], [sin, cos]])
    tilted = Cameras.from_intrinsics(poses, 32, 24, 30.0)
    ups = -poses[:, :3, 1].double().mean(dim=0)
    torch.testing.assert_close(upward(tilted), ups / ups.norm())
