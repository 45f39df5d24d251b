"""Storage of Gaussians: round trips with clouds, harmonics that grow, rows that are replaced."""

import pytest
import torch

from lumigraph.core import InputError
from lumigraph.core.gaussian_cloud import GaussianCloud
from lumigraph.fields import Gaussians, GaussianTensors, PrimitiveField


def make_cloud(count: int = 7, degree: int = 1) -> GaussianCloud:
    generator = torch.Generator().manual_seed(3)
    sizes = ((count, 3), (count, 4), (count, 3), (count,), (count, (degree + 1) ** 2, 3))
    return GaussianCloud(*(torch.randn(size, generator=generator) for size in sizes))


def test_a_cloud_comes_back_as_it_was():
    cloud = make_cloud()
    field = Gaussians.from_cloud(cloud)
    assert len(field) == 7 and field.degree == field.active_degree == 1
    for given, kept in zip(cloud.tensors(), field.cloud().tensors(), strict=True):
        assert torch.equal(given, kept) and not kept.requires_grad
    # a copy: training must not change what was given
    with torch.no_grad():
        field.means += 1
    assert not torch.equal(cloud.means, field.means)


def test_it_is_a_primitive_field_the_same_at_every_time():
    field = Gaussians(make_cloud())
    assert isinstance(field, PrimitiveField)
    for time in (None, 0.0, 0.7):
        tensors = field.gaussians_at(time)
        assert isinstance(tensors, GaussianTensors)
        assert tensors.means is field.means and tensors.harmonics is field.harmonics


def test_five_parameters_and_no_more():
    field = Gaussians(make_cloud())
    assert [name for name, _ in field.named_parameters()] == list(GaussianTensors._fields)
    assert set(field.state_dict()) == set(GaussianTensors._fields)


@pytest.mark.parametrize("degree", [2, 3])
def test_grown_harmonics_keep_their_values_and_start_at_zero(degree):
    field = Gaussians(make_cloud(degree=1))
    before = field.harmonics.detach().clone()
    field.grow_harmonics(degree)
    assert field.degree == field.active_degree == degree
    assert field.harmonics.shape == (7, (degree + 1) ** 2, 3)
    assert torch.equal(field.harmonics[:, :4], before)
    assert not field.harmonics[:, 4:].any() and field.harmonics.is_contiguous()


def test_less_can_be_shown_than_is_stored():
    field = Gaussians(make_cloud(degree=3), active_degree=0)
    shown = field.gaussians_at(None).harmonics
    assert shown.shape == (7, 1, 3) and field.degree == 3
    shown.sum().backward()
    assert field.harmonics.grad is not None
    assert bool((field.harmonics.grad[:, 0] == 1).all()) and not field.harmonics.grad[:, 1:].any()
    parameter = field.harmonics
    field.grow_harmonics(2)
    assert field.harmonics is parameter and field.gaussians_at(None).harmonics.shape == (7, 9, 3)


def test_rows_are_replaced_without_copies():
    field = Gaussians(make_cloud())
    fewer = GaussianTensors(*(tensor[:3].detach().clone() for tensor in field.tensors))
    field.set_tensors(fewer)
    assert len(field) == 3 and field.means.data_ptr() == fewer.means.data_ptr()
    assert all(isinstance(p, torch.nn.Parameter) for p in field.tensors)
    rotations = field.rotations
    field.set_tensors(field.tensors._replace(means=torch.zeros(3, 3)))
    assert field.rotations is rotations


def test_none_at_all_is_legal():
    field = Gaussians(GaussianCloud.empty(degree=0))
    field.grow_harmonics(3)
    assert field.harmonics.shape == (0, 16, 3)


def test_impossible_degrees_are_refused():
    with pytest.raises(InputError, match="active_degree must be 0 to 1; got 2"):
        Gaussians(make_cloud(degree=1), active_degree=2)
    with pytest.raises(InputError, match="degree must be 0 to 3; got 4"):
        Gaussians(make_cloud()).grow_harmonics(4)
