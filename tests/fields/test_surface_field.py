"""The neural surface: a sphere at first, levels that come on one by one, gradients that are those
of its distances."""

import dataclasses

import pytest
import torch

from lumigraph.core.errors import ConfigError, InputError
from lumigraph.cuda.grid import GridLayout
from lumigraph.fields import NeuralSurface, SurfaceField, progressive_levels
from lumigraph.fields.surface_field import MOST_SHARPNESS

BOUNDS = torch.tensor([[-1.0] * 3, [1.0] * 3])
LAYOUT = GridLayout(levels=4, log2_table_size=12, base_resolution=8, growth=1.5)


def surface(**options) -> NeuralSurface:
    return NeuralSurface(BOUNDS, LAYOUT, **options)


def directions(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)


@pytest.mark.parametrize("activation", ["relu", "softplus"])
@pytest.mark.parametrize(("width", "layers"), [(64, 1), (64, 3), (32, 1)])
@pytest.mark.parametrize("radius", [0.1, 0.3])
def test_it_begins_as_a_sphere(activation, width, layers, radius):
    field = surface(activation=activation, hidden_width=width, surface_layers=layers, radius=radius)
    toward = directions(2000)
    found = torch.full((2000,), radius)
    for _ in range(10):  # Newton along each direction
        at = field.sdf_and_gradient(0.5 + toward * found[:, None])
        found = found - (at.distance / (at.gradient * toward).sum(1)).detach()
    # 64 directions stand for all: 0.4 % of the radius (32: 1 %), 1.6 % at most
    error = (found - radius) / radius
    assert float(error.square().mean().sqrt()) < (0.01 if width == 64 else 0.015)
    assert float(error.abs().max()) < (0.02 if width == 64 else 0.04)
    assert float(at.gradient.detach().norm(dim=1).mean()) == pytest.approx(1, abs=0.02)
    near, far = field.sdf(torch.tensor([[0.5, 0.5, 0.51], [0.5, 0.5, 0.99]]))
    assert float(near) < 0 < float(far)


def test_seeds_turn_the_first_sphere_and_are_repeated():
    a, b, c = surface(seed=1), surface(seed=1), surface(seed=2)
    assert torch.equal(a.surface_weights, b.surface_weights)
    assert not torch.equal(a.surface_weights, c.surface_weights)


def test_progressive_levels_follow_the_schedule_of_the_paper():
    # L = 14, base step 200: indices 0 to 3 first, then one level every 50 steps, all by step 760
    counts = [progressive_levels(step, 14, base_step=200) for step in range(900)]
    assert counts[:201] == [4] * 201
    assert counts[201:210] == [4] * 9 and counts[211] == 5
    assert sorted(counts) == counts and counts[660] == 13 and counts[761] == 14
    assert progressive_levels(10**6, 6, base_step=0) == 6
    assert progressive_levels(0, 1, base_step=0) == 1


def test_levels_that_are_off_change_nothing_and_learn_nothing():
    field = surface()
    with torch.no_grad():
        field.table.normal_(std=0.1)
        field.surface_weights.add_(torch.randn_like(field.surface_weights) * 0.1)
    field.active_levels = 2
    positions = torch.rand(50, 3)
    samples = field.sdf_and_gradient(positions)
    (samples.distance.sum() + samples.gradient.square().sum()).backward()
    off = sum(LAYOUT.sizes[:2])
    assert float(field.table.grad[:off].abs().max()) > 0
    assert float(field.table.grad[off:].abs().max()) == 0
    with torch.no_grad():
        field.table[off:] += 1
    assert torch.equal(field.sdf(positions), samples.distance.detach())
    field.active_levels = 3
    assert not torch.equal(field.sdf(positions), samples.distance.detach())


def test_gradients_are_those_of_the_distances():
    field = surface()
    with torch.no_grad():
        field.table.normal_(std=0.02)
        field.surface_weights.add_(torch.randn_like(field.surface_weights) * 0.05)
    positions = torch.rand(200, 3) * 0.9 + 0.05
    gradient = field.sdf_and_gradient(positions).gradient
    step = 1e-3
    for axis in range(3):
        shift = torch.zeros(3)
        shift[axis] = step
        rate = (field.sdf(positions + shift) - field.sdf(positions - shift)) / (2 * step)
        # faces of grid cells and kinks of ReLU lie between some of the pairs
        close = (rate - gradient[:, axis]).abs() < 0.02
        assert float(close.float().mean()) > 0.8


def test_color_takes_feature_view_place_and_gradient():
    field = surface()
    with torch.no_grad():  # at first the network does not look at the grid
        field.surface_weights.add_(torch.randn_like(field.surface_weights) * 0.05)
    positions, toward = torch.rand(30, 3), directions(30)
    samples, color = field.query(positions, toward)
    assert color.shape == (30, 3) and bool(((color > 0) & (color < 1)).all())
    turned = field.color(samples, positions, -toward)
    moved = field.color(samples, 1 - positions, toward)
    bent = field.color(samples._replace(gradient=-samples.gradient), positions, toward)
    for other in (turned, moved, bent):
        assert not torch.allclose(other, color, atol=1e-3)
    color.sum().backward()
    for parameter in (field.table, field.surface_weights, field.color_weights):
        assert bool(parameter.grad.isfinite().all()) and float(parameter.grad.abs().max()) > 0


def test_sharpness_begins_at_20_and_never_overflows():
    field = surface().requires_grad_(False)
    assert float(field.sharpness) == pytest.approx(20.0855, rel=1e-4)
    field.log_sharpness.fill_(50.0)
    assert float(field.sharpness) == pytest.approx(torch.e ** (10 * MOST_SHARPNESS), rel=1e-4)
    assert isinstance(field, SurfaceField)


def test_curvature_of_the_first_sphere():
    field = surface(hidden_width=64, radius=0.2)
    toward = directions(400)
    across = torch.linalg.cross(toward, directions(400).flip(0), dim=1)
    across = torch.nn.functional.normalize(across, dim=1)
    positions = 0.5 + 0.3 * toward
    gradient = field.sdf_and_gradient(positions).gradient
    bend = field.curvature(positions, across, gradient)
    # 1 / radius along tangents, over steps of the finest cell
    assert float(bend.mean()) == pytest.approx(1 / 0.3, rel=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_width": 48}, "must be 32 or 64"),
        ({"surface_layers": 4}, "must be 1 to 3"),
        ({"color_layers": 0}, "must be 1 to 3"),
        ({"radius": 0.5}, "between 0 and 0.5"),
    ],
)
def test_impossible_shapes(options, message):
    with pytest.raises(ConfigError, match=message):
        surface(**options)


def test_impossible_layouts_and_activations():
    with pytest.raises(ConfigError, match="3-D grid"):
        NeuralSurface(BOUNDS, dataclasses.replace(LAYOUT, dimensions=2))
    with pytest.raises(InputError, match="activation relu or softplus"):
        surface(activation="sine").networks()
