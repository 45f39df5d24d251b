"""The tiny-cuda-nn field: without a GPU through a stand-in for the package whose modules follow
its options in plain torch, as its documentation describes them."""

import sys
import types

import pytest
import torch

from lumigraph.core.errors import BackendError, ConfigError, MissingExtraError
from lumigraph.cuda.grid import GridLayout, grid_encode
from lumigraph.cuda.mlp import mlp
from lumigraph.fields import GridField, TinyCudaField, VolumeField
from lumigraph.fields import tinycudann_field as module

BOUNDS = torch.tensor([[-1.0, -1.0, -1.0], [3.0, 3.0, 3.0]])
LAYOUT = GridLayout(levels=3, features=2, log2_table_size=8, base_resolution=4, growth=1.7)
SHAPE = {"hidden_width": 32, "density_layers": 1, "color_layers": 2, "aabb_scale": 2}
CPU = torch.device("cpu")


class Encoding(torch.nn.Module):
    def __init__(self, n_input_dims, encoding_config, seed=1337):
        super().__init__()
        options = dict(encoding_config)
        assert options.pop("otype") == "Grid"
        kind, interpolation = options.pop("type"), options.pop("interpolation")
        self.layout = GridLayout(
            dimensions=n_input_dims,
            levels=options.pop("n_levels"),
            features=options.pop("n_features_per_level"),
            log2_table_size=options.pop("log2_hashmap_size"),
            base_resolution=options.pop("base_resolution"),
            growth=options.pop("per_level_scale"),
            smooth={"Linear": False, "Smoothstep": True}[interpolation],
            dense={"Hash": False, "Dense": True}[kind],
        )
        assert not options
        generator = torch.Generator().manual_seed(seed)
        table = torch.rand(self.layout.entries * self.layout.features, generator=generator)
        self.params = torch.nn.Parameter((table - 0.5) * 2e-4)

    def forward(self, x):
        assert len(x) and bool(((x >= 0) & (x <= 1)).all())
        table = self.params.reshape(self.layout.entries, self.layout.features)
        return grid_encode(x, table, self.layout).half()


class Network(torch.nn.Module):
    def __init__(self, n_input_dims, n_output_dims, network_config, seed=1337):
        super().__init__()
        assert network_config["otype"] == "FullyFusedMLP"
        assert network_config["activation"] == "ReLU"
        hidden = [network_config["n_neurons"]] * network_config["n_hidden_layers"]
        self.widths = (n_input_dims, *hidden, n_output_dims)
        self.output_activation = network_config["output_activation"].lower()
        generator = torch.Generator().manual_seed(seed)
        count = sum(a * b for a, b in zip(self.widths[:-1], self.widths[1:], strict=True))
        self.params = torch.nn.Parameter((torch.rand(count, generator=generator) - 0.5) * 0.6)

    def forward(self, x):
        assert len(x)
        result = mlp(x.float(), self.params, self.widths, output_activation=self.output_activation)
        return result.half()


@pytest.fixture
def stand_in(monkeypatch):
    library = types.SimpleNamespace(Encoding=Encoding, Network=Network)
    monkeypatch.setattr(module, "tinycudann_library", lambda device: library)


def points(count: int = 100) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(count, 3, generator=generator)
    positions = torch.rand(count, 3, generator=generator) * 2 - 0.5
    return positions, directions / directions.norm(dim=1, keepdim=True)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("layout", [LAYOUT, GridLayout(levels=2, base_resolution=4, dense=True)])
def test_equal_parameters_give_the_values_of_our_field(layout):
    """Shapes, order of the inputs and activations are those of `GridField`."""
    ours = GridField(BOUNDS, layout, **SHAPE)
    theirs = TinyCudaField(BOUNDS, layout, device=CPU, **SHAPE)
    assert isinstance(theirs, VolumeField) and theirs.networks() is None
    assert theirs.cascades == ours.cascades == 2
    with torch.no_grad():
        ours.table *= 1e4
        pairs = zip(theirs.trained_parameters(), ours.trained_parameters(), strict=True)
        for their, our in pairs:
            assert their.is_network == our.is_network
            their.tensor.copy_(our.tensor.reshape(-1))
    positions, directions = points()
    density, color = theirs.query(positions, directions)
    wanted_density, wanted_color = ours.query(positions, directions)
    assert density.dtype == color.dtype == torch.float32
    assert torch.allclose(density, wanted_density, rtol=1e-2)
    assert torch.allclose(color, wanted_color, atol=1e-2)
    assert torch.equal(theirs.density(positions), density)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("count", [0, 7])
def test_gradients_flow_with_and_without_points(count):
    field = TinyCudaField(BOUNDS, LAYOUT, device=CPU, **SHAPE)
    positions, directions = points(count)
    positions.requires_grad_()
    density, color = field.query(positions, directions)
    assert density.shape == (count,) and color.shape == (count, 3)
    (density.sum() + color.sum()).backward()
    assert positions.grad.shape == (count, 3)
    for parameter in field.trained_parameters():
        if count:
            assert float(parameter.tensor.grad.abs().max()) > 0


@pytest.mark.usefixtures("stand_in")
def test_state_round_trip_and_seeds():
    first = TinyCudaField(BOUNDS, LAYOUT, device=CPU, seed=1, **SHAPE)
    second = TinyCudaField(BOUNDS, LAYOUT, device=CPU, seed=2, **SHAPE)
    assert not torch.equal(first.encoding.params, second.encoding.params)
    second.load_state_dict(first.state_dict())
    for one, another in zip(first.query(*points()), second.query(*points()), strict=True):
        assert torch.equal(one, another)


@pytest.mark.usefixtures("stand_in")
def test_what_its_networks_cannot_do_is_refused():
    with pytest.raises(ConfigError, match="hidden_width = 48: networks of tinycudann have 16, 32"):
        TinyCudaField(BOUNDS, LAYOUT, device=CPU, hidden_width=48)
    with pytest.raises(ConfigError, match="aabb_scale = 3"):
        TinyCudaField(BOUNDS, LAYOUT, device=CPU, aabb_scale=3)


def test_a_cpu_is_refused():
    with pytest.raises(BackendError, match="needs an NVIDIA GPU and the device is cpu; use"):
        TinyCudaField(BOUNDS, LAYOUT, device=CPU)


def test_what_is_missing_is_named(monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.setitem(sys.modules, "tinycudann", None)
    with pytest.raises(MissingExtraError, match="tinycudann is not installed.*or use --encoder"):
        module.tinycudann_library(gpu)

    def broken(name):
        raise OSError("Unknown compute capability. Ensure PyTorch\nis installed")

    monkeypatch.setattr(module.importlib, "import_module", broken)
    with pytest.raises(BackendError, match=r"cannot be used \(Unknown compute capability") as info:
        module.tinycudann_library(gpu)
    assert "\n" not in str(info.value)


@pytest.mark.gpu
def test_gpu_values_match_our_field():
    pytest.importorskip("tinycudann")
    gpu = torch.device("cuda")
    field = TinyCudaField(BOUNDS, LAYOUT, device=gpu, **SHAPE).to(gpu)
    ours = GridField(BOUNDS, LAYOUT, **SHAPE).to(gpu)
    with torch.no_grad():
        ours.table *= 1e4
        field.encoding.params.copy_(ours.table.reshape(-1))
    positions = points()[0].to(gpu).clamp(0.05, 0.95)
    encoded = field.encoding((positions - 0.5) / 2 + 0.5).float()
    wanted = grid_encode((positions - 0.5) / 2 + 0.5, ours.table, LAYOUT)
    assert float((encoded - wanted).abs().max()) < 5e-3
    density, color = field.query(positions, points()[1].to(gpu))
    (density.sum() + color.sum()).backward()
    for parameter in field.trained_parameters():
        assert float(parameter.tensor.grad.abs().max()) > 0
