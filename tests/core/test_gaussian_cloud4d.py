"""Clouds of Gaussians in space and time: checks, rows, and moves that leave what is seen."""

import doctest
import math

import pytest
import torch

from lumigraph.core import GaussianCloud, GaussianCloud4D, InputError
from lumigraph.core import gaussian_cloud4d as module
from lumigraph.core.rotors import rotation_from_rotor
from lumigraph.core.transforms import Similarity, rotation_exp


def make_cloud(count: int = 9, degree: int = 1, *, plateaus: bool = False) -> GaussianCloud4D:
    generator = torch.Generator().manual_seed(5)
    sizes = ((count, 3), (count,), (count, 8), (count, 4), (count,), (count, (degree + 1) ** 2, 3))
    tensors = [torch.randn(size, generator=generator) for size in sizes]
    rest = torch.randn(count, generator=generator) if plateaus else None
    return GaussianCloud4D(*tensors, rest)


def covariances(cloud: GaussianCloud4D) -> torch.Tensor:
    root = rotation_from_rotor(cloud.rotors.double()) * cloud.log_scales.double().exp()[:, None]
    return root @ root.transpose(1, 2)


@pytest.mark.parametrize("plateaus", [False, True])
def test_rows_are_chosen_and_joined(plateaus):
    cloud = make_cloud(plateaus=plateaus)
    mask = torch.arange(9) % 2 == 0
    parts = [cloud.select(mask), cloud.select(~mask), cloud.select(slice(0, 0))]
    joined = GaussianCloud4D.concatenate(parts)
    back = joined.select(torch.tensor([0, 5, 1, 6, 2, 7, 3, 8, 4]))
    for ours, given in zip(back.tensors(), cloud.tensors(), strict=True):
        assert (ours is None and given is None) or torch.equal(ours, given)
    assert (joined.log_plateaus is None) != plateaus


def test_degrees_grow_and_shrink():
    cloud = make_cloud(degree=1)
    grown = cloud.with_degree(3)
    assert grown.harmonics.shape == (9, 16, 3) and not grown.harmonics[:, 4:].any()
    assert torch.equal(grown.with_degree(1).harmonics, cloud.harmonics)
    joined = GaussianCloud4D.concatenate([cloud, cloud.with_degree(2)])
    assert joined.degree == 2 and len(joined) == 18


def test_static_clouds_are_lifted():
    generator = torch.Generator().manual_seed(6)
    sizes = ((4, 3), (4, 4), (4, 3), (4,), (4, 4, 3))
    cloud = GaussianCloud(*(torch.randn(size, generator=generator) for size in sizes))
    lifted = GaussianCloud4D.from_static(cloud, times=torch.linspace(0, 1, 4), duration=0.1)
    assert lifted.times.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert lifted.log_scales[:, 3].tolist() == pytest.approx([math.log(0.1)] * 4)
    assert not lifted.rotors[:, 4:].any() and lifted.log_plateaus is None
    assert len(GaussianCloud4D.empty(degree=2, plateaus=True)) == 0


@pytest.mark.parametrize("scale", [1.0, 3.0, 0.02])
def test_moving_a_cloud_moves_its_covariances(scale):
    cloud = make_cloud(30)
    turn = rotation_exp(torch.tensor([0.4, -0.9, 1.3], dtype=torch.float64))
    similarity = Similarity(
        rotation=turn.float(), translation=torch.tensor([1.0, 2, 3]), scale=scale
    )
    moved = cloud.transformed(similarity)
    change = torch.eye(4, dtype=torch.float64)
    change[:3, :3] = scale * turn
    expected = change @ covariances(cloud) @ change.T
    found = covariances(moved)
    size = expected.abs().amax((1, 2), keepdim=True)
    assert float(((found - expected) / size).abs().amax()) < 1e-5
    assert torch.allclose(moved.means, similarity.apply(cloud.means), atol=1e-5)
    assert torch.equal(moved.times, cloud.times)


def test_still_ones_stay_still_when_they_are_moved():
    generator = torch.Generator().manual_seed(7)
    sizes = ((6, 3), (6, 4), (6, 3), (6,), (6, 4, 3))
    cloud = GaussianCloud(*(torch.randn(size, generator=generator) for size in sizes))
    similarity = Similarity(
        rotation=rotation_exp(torch.tensor([0.4, -0.9, 1.3])), translation=torch.zeros(3), scale=2.0
    )
    ours = GaussianCloud4D.from_static(cloud).transformed(similarity)
    other = GaussianCloud4D.from_static(cloud.transformed(similarity))
    for mine, theirs in zip(ours.tensors()[:6], other.tensors()[:6], strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_bad_input_is_named():
    cloud = make_cloud()
    tensors = list(cloud.tensors())
    for place, name in enumerate(("means", "times", "rotors", "log_scales", "opacity_logits")):
        wrong = [t[:, None] if i == place else t for i, t in enumerate(tensors)]
        with pytest.raises(InputError, match=name):
            GaussianCloud4D(*wrong)
    with pytest.raises(InputError, match="log_plateaus must have shape"):
        GaussianCloud4D(*tensors[:6], torch.zeros(3))
    with pytest.raises(InputError, match="1, 4, 9 or 16"):
        GaussianCloud4D(*tensors[:5], torch.zeros(9, 2, 3))
    with pytest.raises(InputError, match="at least one"):
        GaussianCloud4D.concatenate([])
    with pytest.raises(InputError, match="all have log_plateaus or none"):
        GaussianCloud4D.concatenate([cloud, make_cloud(plateaus=True)])
    with pytest.raises(InputError, match="duration must be finite and above 0"):
        GaussianCloud4D.from_static(GaussianCloud.empty(), duration=0.0)
    with pytest.raises(InputError, match="bool mask or int64"):
        cloud.select(torch.zeros(9))


def test_examples_in_docstrings():
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("plateaus", [False, True])
def test_another_unit_of_time_changes_nothing_that_is_seen(plateaus):
    cloud = make_cloud(plateaus=plateaus)
    moved = cloud.retimed(12.5)
    stretch = torch.tensor([1.0, 1.0, 1.0, 12.5], dtype=torch.float64)
    wanted = covariances(cloud) * stretch[:, None] * stretch
    assert torch.allclose(covariances(moved), wanted, rtol=1e-4, atol=1e-4)
    assert torch.allclose(moved.times, cloud.times * 12.5)
    if plateaus:
        assert torch.allclose(moved.log_plateaus, cloud.log_plateaus + math.log(12.5))
    back = moved.retimed(1 / 12.5)
    assert torch.allclose(covariances(back), covariances(cloud), rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match="above 0"):
        cloud.retimed(0.0)


def test_a_shear_adds_velocities_and_leaves_the_shape_of_a_moment():
    cloud = make_cloud()
    more = torch.randn(9, 3, generator=torch.Generator().manual_seed(8))
    before, after = covariances(cloud), covariances(cloud.sheared(more))

    def conditional(whole: torch.Tensor) -> torch.Tensor:
        across = whole[:, :3, 3:]
        return whole[:, :3, :3] - across @ across.transpose(1, 2) / whole[:, 3:, 3:]

    assert torch.allclose(conditional(after), conditional(before), rtol=1e-3, atol=1e-4)
    assert torch.allclose(after[:, 3, 3], before[:, 3, 3], rtol=1e-4)
    velocities = [whole[:, :3, 3] / whole[:, 3, 3:] for whole in (before, after)]
    assert torch.allclose(velocities[1], velocities[0] + more, rtol=1e-3, atol=1e-3)
    assert len(GaussianCloud4D.empty().sheared(torch.zeros(0, 3))) == 0
