"""Where Gaussians start."""

import math

import numpy as np
import pytest
import torch

from lumigraph.core import DataError
from lumigraph.core.scene import PointCloud, cube
from lumigraph.core.transforms import rotation_from_quaternion
from lumigraph.training.gaussians.initialization import (
    cloud_from_mesh,
    cloud_from_points,
    cloud_from_volume,
    initial_cloud,
    neighbour_distances,
    random_points,
    rotations_to,
)
from lumigraph.training.gaussians.silhouettes import judge_points


def test_neighbour_distances_are_means_over_three():
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(50, 3, generator=generator)
    apart = np.linalg.norm(points[:, None].numpy() - points[None].numpy(), axis=2)
    wanted = np.sort(apart, axis=1)[:, 1:4].mean(axis=1)
    found = neighbour_distances(points, lone=1.0)
    assert found.numpy() == pytest.approx(wanted, rel=1e-5)


def test_lone_and_doubled_points_have_a_finite_scale():
    assert neighbour_distances(torch.zeros(1, 3), lone=0.2).tolist() == pytest.approx([0.2])
    assert neighbour_distances(torch.zeros(5, 3), lone=0.2).tolist() == pytest.approx([0.2] * 5)
    assert len(neighbour_distances(torch.zeros(0, 3), lone=0.2)) == 0
    mixed = torch.cat([torch.zeros(4, 3), torch.eye(3)])
    assert float(neighbour_distances(mixed, lone=0.2).min()) > 1e-4


def test_points_become_round_gaussians_of_their_color():
    points = torch.tensor([[0.0, 0, 0], [0, 0, 2]])
    colors = torch.tensor([[1.0, 0.5, 0.0], [0.25, 0.5, 0.75]])
    cloud = cloud_from_points(points, colors, opacity=0.1, scale_factor=0.5)
    assert torch.equal(cloud.means, points) and cloud.degree == 0
    assert cloud.log_scales.exp().tolist() == [pytest.approx([1.0] * 3)] * 2
    assert cloud.opacity_logits.sigmoid().tolist() == pytest.approx([0.1, 0.1])
    shown = 0.5 + 0.28209479 * cloud.harmonics[:, 0]
    assert torch.allclose(shown, colors, atol=1e-6)


def test_each_strategy_has_its_start(make_scene, small_config, some_points):
    scene = make_scene(points=some_points())
    known = neighbour_distances(scene.points.positions, lone=1.0)
    for name, opacity, factor in (("default", 0.1, 1.0), ("mcmc", 0.5, 0.1)):
        cloud, notes = initial_cloud(scene, small_config(strategy=name))
        assert float(cloud.opacity_logits.sigmoid().mean()) == pytest.approx(opacity)
        assert torch.allclose(cloud.log_scales[:, 0].exp(), known * factor)
        assert notes == ["starts from 40 points of the scene"]


def test_too_many_points_are_thinned_with_a_message(make_scene, small_config, some_points):
    scene = make_scene(points=some_points(100))
    cloud, notes = initial_cloud(scene, small_config(max_gaussians=30))
    assert len(cloud) == 30
    assert notes == ["starts from 30 of 100 points; max_gaussians allows no more"]
    again, _ = initial_cloud(scene, small_config(max_gaussians=30))
    assert torch.equal(cloud.means, again.means)


def test_points_that_are_not_finite_are_left_out(make_scene, small_config):
    positions = torch.zeros(3, 3)
    positions[1, 2] = torch.nan
    cloud, _ = initial_cloud(make_scene(points=PointCloud(positions)), small_config())
    assert len(cloud) == 2


@pytest.mark.parametrize("points", [None, PointCloud(torch.zeros(0, 3))])
def test_points_are_asked_for_and_there_are_none(make_scene, small_config, points):
    scene = make_scene(points=points)
    with pytest.raises(DataError, match="memory: has no points to start from; use --set init"):
        initial_cloud(scene, small_config(initialization="points"))
    cloud, notes = initial_cloud(scene, small_config())  # auto
    assert len(cloud) == 40 and notes == ["starts from 40 random points"]


def test_random_points_stay_in_bounds_and_silhouettes(make_scene):
    scene = make_scene(alpha=True)
    positions, colors = random_points(scene, 200, torch.Generator().manual_seed(0))
    assert len(positions) == 200 and float(positions.abs().max()) <= 1
    for index in range(len(scene.cameras)):
        pixels, _ = scene.cameras.project(positions, index)
        # the square of pixels 8 to 16, widened by the margin
        assert float(pixels.min()) > 5.9 and float(pixels.max()) < 18.1
    assert float((colors[:, 0] - 200 / 255).abs().max()) < 1e-5


def test_pixels_to_ignore_say_nothing_about_silhouettes(make_scene):
    class Ignored:
        def __len__(self):
            return 6

        def load(self, index):
            return torch.zeros(24, 24, dtype=torch.bool)

    points = torch.tensor([[0.0, 0, 0], [0.0, 0, 0.9]])
    assert judge_points(make_scene(alpha=True), points)[0].tolist() == [True, False]
    known, colors = judge_points(make_scene(alpha=True, masks=Ignored()), points)
    assert known.tolist() == [False, False] and bool((colors == 0.5).all())


def test_surroundings_get_half_of_the_points(make_scene):
    scene = make_scene(aabb_scale=8)
    positions, _ = random_points(scene, 2000, torch.Generator().manual_seed(0))
    reach = positions.abs().amax(dim=1)
    assert float(reach.max()) > 4 and float(reach.max()) <= 8
    # those that no camera sees are drawn again, so that the parts are not exact
    assert 0.2 < float((reach > 1).float().mean()) < 0.8


def test_mesh_samples_lie_on_it_flat_and_even():
    vertices = torch.tensor([[0.0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 5], [0, 5, 4]])
    cloud = cloud_from_mesh(vertices, faces, count=3000, colors=vertices / 2)
    floor = cloud.means[:, 2].abs() < 1e-6
    assert bool((floor | (cloud.means[:, 0].abs() < 1e-6)).all())
    assert float(floor.float().mean()) == pytest.approx(2 / 3, abs=0.03)  # areas 2 and 1
    shortest = rotation_from_quaternion(cloud.rotations)[..., 2]
    assert bool((shortest[floor, 2].abs() > 0.999).all())
    assert bool((shortest[~floor, 0].abs() > 0.999).all())
    radius = math.sqrt(3 / (math.pi * 3000))
    scales = cloud.log_scales.exp()[0].tolist()
    assert scales == pytest.approx([radius, radius, radius / 10], rel=1e-4)
    shown = 0.5 + 0.28209479 * cloud.harmonics[:, 0]
    assert torch.allclose(shown, cloud.means / 2, atol=1e-5)


def test_a_mesh_without_area_is_refused():
    with pytest.raises(DataError, match="mesh: has no triangle with an area"):
        cloud_from_mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]), count=5)
    with pytest.raises(DataError, match="mesh: has no triangle"):
        cloud_from_mesh(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.int64), count=5)


def test_rotations_turn_the_z_axis():
    normals = torch.tensor([[0.0, 0, 2], [0, 0, -1], [1, 0, 0], [0.3, -0.5, -0.8]])
    turned = rotation_from_quaternion(rotations_to(normals))[..., 2]
    assert torch.allclose(turned, torch.nn.functional.normalize(normals, dim=1), atol=1e-5)


class Ball:
    """A dense ball of one color in grid space."""

    bounds, cascades = cube(torch.zeros(3), 4.0), 1
    strength = 500.0

    def density(self, positions):
        return self.strength * ((positions - 0.5).norm(dim=1) < 0.25).float()

    def query(self, positions, directions):
        return self.density(positions), torch.tensor([0.2, 0.4, 0.6]).expand_as(positions)

    def networks(self):
        return None


def test_a_volume_gives_its_surface():
    cloud = cloud_from_volume(Ball(), count=5000)
    radius = cloud.means.norm(dim=1)
    assert len(cloud) == 5000
    # a ball of radius 1 in scene units, cells of 4 / 128
    assert float(radius.min()) > 0.9 and float(radius.max()) < 1.03
    shown = 0.5 + 0.28209479 * cloud.harmonics[:, 0]
    assert torch.allclose(shown, torch.tensor([0.2, 0.4, 0.6]).expand_as(shown), atol=1e-5)


def test_an_empty_volume_is_refused():
    class Nothing(Ball):
        strength = 0.0

    with pytest.raises(DataError, match="field: is empty everywhere; train it longer"):
        cloud_from_volume(Nothing(), count=10)
