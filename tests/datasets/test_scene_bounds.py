"""Placements chosen from cameras and points: orbit, forward-facing, walk-through."""

import numpy as np
import pytest
import torch

from lumigraph.datasets.scene_bounds import (
    MAX_AABB_SCALE,
    choose_placement,
    focus_point,
    reach_of,
)


def pose_towards(position, target, up=(0.0, 0.0, 1.0)) -> np.ndarray:
    forward = np.subtract(target, position)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(forward, right), forward, position], axis=1)
    return pose


def ring(radius: float, center, up) -> np.ndarray:
    """Cameras around `center` whose ring is perpendicular to `up`."""
    up = np.asarray(up) / np.linalg.norm(up)
    side = np.cross(up, [0.3, 0.9, -0.1])
    side /= np.linalg.norm(side)
    other = np.cross(up, side)
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    spots = [center + radius * (np.cos(a) * side + np.sin(a) * other + 0.3 * up) for a in angles]
    return np.stack([pose_towards(spot, center, up) for spot in spots])


def move(placement, points: np.ndarray) -> np.ndarray:
    return placement.normalization.apply(torch.from_numpy(points)).numpy()


def test_focus_of_a_ring() -> None:
    center = np.array([3.0, -2.0, 7.0])
    poses = ring(5.0, center, (0, 0, 1))
    focus, spread = focus_point(poses[:, :3, 3], poses[:, :3, 2])
    np.testing.assert_allclose(focus, center, atol=1e-6)
    assert spread > 0.3


@pytest.mark.parametrize("unit", [0.01, 1.0, 1000.0])
@pytest.mark.parametrize("up", [(0, 0, 1), (0, -1, 0), (0.2, -0.7, 0.4), (0, 0, -1)])
def test_orbit(up, unit) -> None:
    """Object in the cube, up along +z, surroundings held, whatever unit and frame came."""
    random = np.random.default_rng(0)
    center = np.array([3.0, -2.0, 7.0]) * unit
    poses = ring(5.0 * unit, center, up)
    inner = center + random.normal(0, 0.4 * unit, (800, 3))
    outer = center + random.uniform(-20, 20, (160, 3)) * unit
    points = np.concatenate([inner, outer])
    placement = choose_placement(poses, points=points)
    assert placement.kind == "orbit"
    np.testing.assert_allclose(move(placement, center[None])[0], 0.0, atol=1e-6)
    turned = placement.normalization.rotation.numpy() @ (np.array(up) / np.linalg.norm(up))
    np.testing.assert_allclose(turned, [0, 0, 1], atol=1e-6)
    held = (np.abs(move(placement, inner)).max(axis=1) < 1).mean()
    assert held > 0.9
    reach = np.quantile(np.abs(move(placement, points)).max(axis=1), 0.99)
    assert reach <= placement.aabb_scale <= 2 * max(reach, 4.0)
    nearest = np.linalg.norm(move(placement, poses[:, :3, 3]), axis=1).min() - 1.0
    assert 0.0 < placement.near < nearest


def test_orbit_without_points_takes_the_share_of_the_synthetic_scenes() -> None:
    poses = ring(4.0, np.zeros(3), (0, 0, 1))
    placement = choose_placement(poses)
    radius = np.linalg.norm(poses[0, :3, 3])
    assert placement.normalization.scale == pytest.approx(1 / (0.375 * radius))
    assert placement.aabb_scale == 4


def test_forward_facing() -> None:
    """The cube stands before the cameras; the cameras are within the outermost cascade."""
    random = np.random.default_rng(1)
    spots = random.uniform(-1, 1, (12, 3)) * [2.0, 1.0, 0.3]
    poses = np.stack([pose_towards(spot, np.add(spot, [0, 30.0, 0.1])) for spot in spots])
    depth = 1.0 / random.uniform(1 / 60.0, 1 / 10.0, 2000)
    points = np.stack([random.uniform(-0.5, 0.5, 2000), np.ones(2000), np.zeros(2000)], axis=1)
    points = points * depth[:, None]
    placement = choose_placement(poses, points=points, depth_range=(10.0, 60.0))
    assert placement.kind == "forward"
    cameras, content = move(placement, spots), move(placement, points)
    assert np.abs(cameras).max() <= placement.aabb_scale
    assert np.abs(cameras).max(axis=1).min() > 1.0, "no camera inside the cube of interest"
    assert (np.abs(content).max(axis=1) <= placement.aabb_scale).mean() >= 0.99
    assert (np.abs(content).max(axis=1) <= 1.0).mean() > 0.4
    distance = np.linalg.norm(content[:, None] - cameras[None], axis=2)
    assert placement.near < distance.min()
    np.testing.assert_allclose(placement.near, 9.0 * placement.normalization.scale)


def test_drive_along_a_street() -> None:
    spots = np.stack([np.zeros(40), np.linspace(0, 60, 40), np.full(40, 1.5)], axis=1)
    poses = np.stack([pose_towards(spot, np.add(spot, [0, 1, 0])) for spot in spots])
    random = np.random.default_rng(2)
    points = random.uniform([-12, -5, 0], [12, 90, 8], (3000, 3))
    placement = choose_placement(poses, points=points, align_up=False)
    assert placement.kind == "inside"
    np.testing.assert_allclose(placement.normalization.rotation, np.eye(3))
    assert np.abs(move(placement, spots)).max() < 1.0
    assert (np.abs(move(placement, points)).max(axis=1) <= placement.aabb_scale).mean() >= 0.99


def test_one_camera_alone() -> None:
    placement = choose_placement(pose_towards((1.0, 2.0, 3.0), (5.0, 2.0, 3.0))[None])
    assert bool(torch.isfinite(placement.normalization.to_matrix()).all())
    assert placement.near >= 0.0 and placement.aabb_scale >= 1


@pytest.mark.parametrize(("ratio", "expected"), [(0.5, 1), (1.0, 1), (1.01, 2), (9.0, 16)])
def test_reach_is_the_next_power_of_two(ratio, expected) -> None:
    assert reach_of(ratio) == (expected, [])


def test_reach_that_is_cut_says_so() -> None:
    aabb_scale, notes = reach_of(1000.0)
    assert aabb_scale == MAX_AABB_SCALE and "1000 times" in notes[0]
