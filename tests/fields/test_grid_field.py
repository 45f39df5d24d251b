"""Grid fields: shapes, seeds, the torch twins, gradients, and what is refused."""

import copy

import pytest
import torch

from lumigraph.core.errors import ConfigError, InputError
from lumigraph.cuda.dispatch import backend_override
from lumigraph.cuda.grid import GridLayout
from lumigraph.fields import DenseGridField, GridField, HashGridField, VolumeField, to_grid_space

BOUNDS = torch.tensor([[-1.0, -1.0, -1.0], [3.0, 3.0, 3.0]])
SHAPE = {
    "levels": 4,
    "features": 2,
    "log2_table_size": 8,
    "base_resolution": 4,
    "max_resolution": 32,
    "hidden_width": 16,
}


def build(kind: type[HashGridField] = HashGridField, *, lively: bool = True, **options):
    field = kind(BOUNDS, **{**SHAPE, **options})
    if lively:
        with torch.no_grad():
            field.table *= 1e4
    return field


def points(count: int = 50, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(count, 3, generator=generator)
    return (
        torch.rand(count, 3, generator=generator),
        directions / directions.norm(dim=1, keepdim=True),
    )


@pytest.mark.parametrize("kind", [HashGridField, DenseGridField])
@pytest.mark.parametrize("count", [0, 1, 37])
def test_shapes_and_ranges(kind, count):
    field = build(kind)
    assert isinstance(field, VolumeField)
    positions, directions = points(count)
    density, color = field.query(positions, directions)
    assert density.shape == (count,) and color.shape == (count, 3)
    assert density.dtype == color.dtype == torch.float32
    assert bool((density >= 0).all()) and bool(((color >= 0) & (color <= 1)).all())
    assert torch.equal(field.density(positions), density)


def test_the_same_seed_gives_the_same_field():
    first, second, other = build(seed=4), build(seed=4), build(seed=5)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    for one, another in zip(first.parameters(), other.parameters(), strict=True):
        assert not torch.equal(one, another)


def test_a_new_field_is_thin_and_grey():
    positions, directions = points(1000)
    with torch.no_grad():
        density, color = build(lively=False).query(positions, directions)
    assert float((density - 1).abs().max()) < 1e-2
    assert float((color - 0.5).abs().max()) < 0.4


@pytest.mark.parametrize("kind", [HashGridField, DenseGridField])
@pytest.mark.parametrize("aabb_scale", [1, 4])
def test_values_and_gradients_match_the_torch_twins(kind, aabb_scale):
    field = build(kind, aabb_scale=aabb_scale)
    positions, directions = points(200)
    positions = (positions - 0.5) * aabb_scale + 0.5
    results = []
    for backend in ("cpu", "torch"):
        copied = copy.deepcopy(field)
        x = positions.clone().requires_grad_()
        with backend_override(backend):
            density, color = copied.query(x, directions)
            (density.log().sum() + (color * torch.arange(3)).sum()).backward()
        gradients = [parameter.grad for parameter in copied.parameters()]
        results.append([density.detach(), color.detach(), x.grad, *gradients])
    for found, wanted in zip(*results, strict=True):
        assert float(wanted.norm()) > 0
        assert float((found - wanted).norm() / wanted.norm()) < 1e-4


@pytest.mark.gpu
def test_gpu_values_match_the_cpu():
    field, (positions, directions) = build(), points(300)
    wanted = field.query(positions, directions)
    moved = copy.deepcopy(field).to("cuda")
    found = moved.query(positions.cuda(), directions.cuda())
    for one, another in zip(found, wanted, strict=True):
        assert float((one.cpu() - another).norm() / another.norm()) < 1e-2


def test_the_field_covers_the_surroundings():
    """With aabb_scale 4 the encoding reaches from -1.5 to 2.5 of grid space, and not beyond."""
    field = build(aabb_scale=4)
    assert field.cascades == 3
    assert field.layout.resolutions[-1] == 4 * SHAPE["max_resolution"]
    middle = torch.tensor([[0.5, 0.5, 0.5]])
    axis = torch.tensor([[1.0, 0.0, 0.0]])
    edge = field.density(middle + 2.0 * axis)
    assert torch.equal(field.density(middle + 5.0 * axis), edge)
    assert not torch.equal(field.density(middle + 1.9 * axis), edge)


def test_gradient_by_positions_is_the_slope_of_the_density():
    field = build(levels=1, base_resolution=4, max_resolution=4)
    start = torch.tensor([[0.43, 0.52, 0.61]])  # away from cell borders
    x = start.clone().requires_grad_()
    (slope,) = torch.autograd.grad(field.density(x).sum(), x)
    for axis in range(3):
        shift = torch.zeros(1, 3)
        shift[0, axis] = 1e-3
        difference = (field.density(start + shift) - field.density(start - shift)).detach()
        assert float(slope[0, axis]) == pytest.approx(float(difference) / 2e-3, abs=2e-3)


def test_density_stays_finite():
    field = build()
    with torch.no_grad():
        field.density_weights *= 1e4
    density, _ = field.query(*points(100))
    assert bool(torch.isfinite(density).all())
    assert float(density.detach().max()) <= torch.exp(torch.tensor(15.0)) * 1.001


def test_positions_that_are_not_finite_do_no_harm():
    positions = torch.tensor([[float("nan"), 0.5, 0.5], [float("inf"), -5.0, 1e30]])
    density, color = build().query(positions, torch.eye(3)[:2])
    assert bool(torch.isfinite(density).all()) and bool(torch.isfinite(color).all())


def test_state_round_trip(tmp_path):
    first, second = build(seed=1), build(seed=2)
    torch.save(first.state_dict(), tmp_path / "field.pt")
    assert set(first.state_dict()) == {"bounds", "table", "density_weights", "color_weights"}
    second.load_state_dict(torch.load(tmp_path / "field.pt", weights_only=True))
    for one, another in zip(first.query(*points()), second.query(*points()), strict=True):
        assert torch.equal(one, another)


def test_networks_share_the_parameters_of_training():
    field = build()
    networks, trained = field.networks(), field.trained_parameters()
    assert [p.tensor for p in trained] == list(field.parameters())
    for one, another in zip(networks.parameters, trained, strict=True):
        assert one is another.tensor
    assert [p.is_network for p in trained] == [False, True, True]


def test_a_dense_field_has_no_collisions():
    dense, hashed = build(DenseGridField), build(HashGridField)
    assert dense.layout.entries > sum(n**3 for n in dense.layout.resolutions[:-1])
    assert hashed.layout.entries <= 4 * 2 ** SHAPE["log2_table_size"]
    # all of the finest level can be told apart: its gradient touches 8 entries a point
    positions, _ = points(1)
    dense.density(positions).sum().backward()
    assert int((dense.table.grad.abs().sum(dim=1) > 0).sum()) == 8 * SHAPE["levels"]


def test_impossible_shapes_are_refused():
    with pytest.raises(ConfigError, match="aabb_scale = 3: must be a power of two, 1 to 128"):
        build(aabb_scale=3)
    with pytest.raises(ConfigError, match="needs a 3-D grid, not 2-D"):
        GridField(BOUNDS, GridLayout(dimensions=2, levels=2))
    with pytest.raises(InputError, match="features must be 1, 2, 4 or 8; got 3"):
        build(features=3)
    with pytest.raises(InputError, match="max_resolution"):
        build(base_resolution=64)
    with pytest.raises(ConfigError, match="hidden_width = 20: must be 16 to 128 in steps of 16"):
        build(hidden_width=20)
    with pytest.raises(ConfigError, match="must be at least 1"):
        build(color_layers=0)
    with pytest.raises(InputError, match=r"bounds must have shape \(2, 3\); got \(3, 2\)"):
        HashGridField(BOUNDS.reshape(3, 2), **SHAPE)


def test_wrong_arguments_are_named():
    positions, directions = points(5)
    with pytest.raises(InputError, match=r"must have shape \(.*\); got \(5, 2\)"):
        build().density(positions[:, :2])
    with pytest.raises(InputError, match="directions must have shape"):
        build().query(positions, directions[:, :2])


def test_to_grid_space_maps_the_bounds_to_the_unit_cube():
    assert torch.equal(to_grid_space(BOUNDS, BOUNDS), torch.tensor([[0.0] * 3, [1.0] * 3]))
