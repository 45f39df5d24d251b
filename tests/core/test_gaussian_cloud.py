"""Clouds of Gaussians: moved with a camera they look the same; parts, joins, empty ones, errors."""

import math

import pytest
import torch

from lumigraph.core import GaussianCloud, InputError, Similarity, spherical_harmonics
from lumigraph.core import transforms as tf
from lumigraph.core.gaussian_cloud import harmonics_rotation


def random_cloud(count: int = 20, degree: int = 3, seed: int = 0) -> GaussianCloud:
    generator = torch.Generator().manual_seed(seed)
    sizes = ((count, 3), (count, 4), (count, 3), (count,), (count, (degree + 1) ** 2, 3))
    return GaussianCloud(*(torch.randn(size, generator=generator) for size in sizes))


def similarity(seed: int) -> Similarity:
    generator = torch.Generator().manual_seed(seed)
    axis_angle = torch.randn(3, generator=generator, dtype=torch.float64)
    shift = torch.randn(3, generator=generator, dtype=torch.float64)
    return Similarity(0.4 + 0.7 * seed, tf.rotation_exp(axis_angle), shift)


def colors(cloud: GaussianCloud, directions: torch.Tensor) -> torch.Tensor:
    """(G, D, 3) color sums of every Gaussian along every direction, float64."""
    basis = spherical_harmonics(directions, cloud.degree + 1)
    return torch.einsum("dk,gkc->gdc", basis, cloud.harmonics.double())


def covariances(cloud: GaussianCloud) -> torch.Tensor:
    axes = tf.rotation_from_quaternion(cloud.rotations.double())
    axes = axes * cloud.log_scales.double().exp()[:, None]
    return axes @ axes.transpose(-1, -2)


def directions(count: int = 50) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.nn.functional.normalize(
        torch.randn(count, 3, generator=generator, dtype=torch.float64), dim=-1
    )


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_moved_color_along_the_moved_direction_is_the_color_before(degree, seed) -> None:
    cloud, move = random_cloud(degree=degree, seed=seed), similarity(seed)
    moved = cloud.transformed(move)
    before = colors(cloud, directions())
    after = colors(moved, move.apply_directions(directions()))
    # Coefficients are stored as float32; sums of 16 of about 1.
    torch.testing.assert_close(after, before, atol=5e-6, rtol=0)


def test_shape_and_place_follow() -> None:
    cloud, move = random_cloud(), similarity(2)
    moved = cloud.transformed(move)
    torch.testing.assert_close(moved.means, move.apply(cloud.means))
    expected = move.scale**2 * move.rotation @ covariances(cloud) @ move.rotation.T
    torch.testing.assert_close(covariances(moved), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(moved.log_scales, cloud.log_scales + math.log(move.scale))
    torch.testing.assert_close(moved.rotations.norm(dim=1), cloud.rotations.norm(dim=1))
    assert moved.opacity_logits is cloud.opacity_logits


def test_composition_and_inverse() -> None:
    cloud, first, second = random_cloud(), similarity(1), similarity(2)
    twice = cloud.transformed(first).transformed(second)
    once = cloud.transformed(second.compose(first))
    back = twice.transformed(first.inverse().compose(second.inverse()))
    torch.testing.assert_close(once.harmonics, twice.harmonics, atol=2e-5, rtol=0)
    torch.testing.assert_close(once.means, twice.means, atol=2e-5, rtol=0)
    torch.testing.assert_close(covariances(once), covariances(twice), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(back.means, cloud.means, atol=2e-5, rtol=0)
    torch.testing.assert_close(back.harmonics, cloud.harmonics, atol=2e-5, rtol=0)


def test_matrices_of_harmonics_are_a_representation() -> None:
    first, second = similarity(1).rotation, similarity(2).rotation
    product = harmonics_rotation(first @ second, 3)
    parts = zip(harmonics_rotation(first, 3), harmonics_rotation(second, 3), strict=True)
    for band, (left, right) in enumerate(parts):
        identity = torch.eye(2 * band + 1, dtype=torch.float64)
        torch.testing.assert_close(left @ left.T, identity, atol=1e-12, rtol=0)
        torch.testing.assert_close(left @ right, product[band], atol=1e-12, rtol=0)


def test_empty_cloud() -> None:
    cloud = GaussianCloud.empty(degree=2)
    moved = cloud.transformed(similarity(1))
    assert len(moved) == 0 and moved.degree == 2
    assert len(GaussianCloud.concatenate([cloud, moved])) == 0
    assert len(cloud.select(torch.zeros(0, dtype=torch.bool))) == 0


def test_select_and_concatenate() -> None:
    cloud = random_cloud(6)
    mask = torch.tensor([True, False, True, True, False, False])
    parts = [cloud.select(mask), cloud.select(~mask)]
    joined = GaussianCloud.concatenate(parts).select(torch.tensor([0, 3, 1, 2, 4, 5]))
    for first, second in zip(joined.tensors(), cloud.tensors(), strict=True):
        assert torch.equal(first, second)
    assert torch.equal(cloud.select(slice(2, 4)).means, cloud.means[2:4])
    mixed = GaussianCloud.concatenate([random_cloud(2, 0), random_cloud(3, 2)])
    assert mixed.degree == 2 and len(mixed) == 5
    assert not mixed.harmonics[:2, 1:].any() and mixed.harmonics[2:, 1:].any()
    assert torch.equal(mixed.with_degree(0).harmonics, mixed.harmonics[:, :1])


def test_shapes_and_dtypes_are_checked() -> None:
    parts = list(random_cloud(4, 1).tensors())
    with pytest.raises(InputError, match=r"rotations must have shape \(G, 4\) with G = 4"):
        GaussianCloud(parts[0], parts[1][:, :3], *parts[2:])
    with pytest.raises(InputError, match="means must be float32"):
        GaussianCloud(parts[0].double(), *parts[1:])
    with pytest.raises(InputError, match="1, 4, 9 or 16 coefficients; got 3"):
        GaussianCloud(*parts[:4], parts[4][:, :3])
    with pytest.raises(InputError, match="at least one cloud"):
        GaussianCloud.concatenate([])
    with pytest.raises(InputError, match="degree must be 0 to 3; got 4"):
        random_cloud(2).with_degree(4)
    with pytest.raises(InputError, match=r"rows must have shape \(G,\) with G = 2"):
        random_cloud(2).select(torch.ones(3, dtype=torch.bool))
