"""The fused volume passes against the float64 reference: pixels, loss and every gradient."""

import dataclasses

import pytest
import torch

from lumigraph.cuda.dispatch import backend_override
from lumigraph.cuda.grid import GridLayout
from lumigraph.cuda.marching import MarchGrid
from lumigraph.cuda.volume_step import (
    GridNetworks,
    LossSettings,
    VolumeSettings,
    volume_render,
    volume_train,
)

SCALE = 256.0  # keeps the gradients of single samples in the range of fp16
BACKENDS = [
    "cpu",
    "emu",
    pytest.param("cuda", marks=pytest.mark.gpu),
]


@dataclasses.dataclass
class Case:
    rays: int = 37
    levels: int = 3
    features: int = 2
    width: int = 16
    density_layers: int = 1
    color_layers: int = 2
    cascades: int = 1
    density_scale: float = 1.0
    huber: float = 0.0
    distortion: float = 0.0
    gain: bool = False
    weight: bool = False
    background: bool = True


CASES = {
    "plain": Case(),
    "features 4, one hidden color layer": Case(features=4, width=32, color_layers=1, rays=129),
    "features 8, three hidden layers": Case(features=8, density_layers=2, color_layers=3, rays=9),
    "features 1, encoding padded": Case(features=1, levels=5),
    "cascades, Huber, masks": Case(cascades=3, huber=0.1, weight=True),
    "opaque, exposure": Case(density_scale=30.0, gain=True),
    "distortion, no background": Case(distortion=0.3, background=False),
}


def build(case: Case, dtype: torch.dtype, device: str):
    generator = torch.Generator().manual_seed(5)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    layout = GridLayout(
        levels=case.levels,
        features=case.features,
        log2_table_size=9,
        base_resolution=4,
        growth=2.0,
    )
    hidden = (case.width,)
    density_widths = (layout.output_width, *hidden * case.density_layers, 16)
    color_widths = (32, *hidden * case.color_layers, 3)

    def weights(widths: tuple[int, ...]) -> torch.Tensor:
        parts = [
            (random(a * b) - 0.5) * 3 / a**0.5 for a, b in zip(widths[:-1], widths[1:], strict=True)
        ]
        return torch.cat(parts)

    table = (random(layout.entries, case.features) - 0.5) * 2
    density = weights(density_widths)
    # more of the first output, the log density, without changing its sign
    density[-16 * case.width : -15 * case.width] *= 1 + torch.log(torch.tensor(case.density_scale))
    resolution = 32
    cells = random(case.cascades, resolution, resolution, resolution) < 0.4
    flat = cells.reshape(-1, 8).int()
    bits = (flat << torch.arange(8)).sum(1).to(torch.uint8)
    blocks = cells.reshape(case.cascades, 4, 8, 4, 8, 4, 8).amax((2, 4, 6)).reshape(-1)
    grid = MarchGrid.with_steps(
        bits.to(device),
        blocks.to(torch.uint8).to(device),
        resolution=resolution,
        cascades=case.cascades,
        steps=48,
    )
    origins = random(case.rays, 3) * 0.6 + torch.tensor([0.2, 0.2, -1.0], dtype=torch.float64)
    toward = random(case.rays, 3) * 0.8 + 0.1 - origins
    directions = toward / toward.norm(dim=1, keepdim=True)
    networks = GridNetworks(
        layout,
        table.to(device, dtype),
        density.to(device, dtype),
        weights(color_widths).to(device, dtype),
        density_widths,
        color_widths,
        case.cascades,
    )
    # rounded to float32 first, so that both versions march the same rays
    rays = {
        "origins": origins.float(),
        "directions": directions.float(),
        "jitter": random(case.rays).float(),
        "background": random(case.rays, 3).float() if case.background else None,
    }
    more = {
        "target": random(case.rays, 3).float(),
        "weight": random(case.rays).float() if case.weight else None,
        "gain": random(case.rays, 3).float() + 0.5 if case.gain else None,
    }
    move = lambda group: {  # noqa: E731
        key: None if value is None else value.to(device, dtype) for key, value in group.items()
    }
    return networks, grid, move(rays), move(more)


def train(case: Case, dtype: torch.dtype, device: str, backend: str):
    networks, grid, rays, more = build(case, dtype, device)
    gradients = tuple(torch.zeros_like(p) for p in networks.parameters)
    with backend_override(backend):
        out = volume_train(
            networks,
            grid,
            rays.pop("origins"),
            rays.pop("directions"),
            more.pop("target"),
            gradients,
            **rays,
            **more,
            loss=LossSettings(case.huber, case.distortion, SCALE),
            settings=VolumeSettings(near=0.05, capacity=2**14),
        )
    return out, tuple(gradient / SCALE for gradient in gradients)


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    found, wanted = found.double().cpu(), wanted.double().cpu()
    return float((found - wanted).norm() / wanted.norm().clamp_min(1e-9))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_train_matches_the_reference(case, backend):
    device = "cuda" if backend == "cuda" else "cpu"
    wanted, wanted_gradients = train(case, torch.float64, "cpu", "torch")
    found, gradients = train(case, torch.float32, device, backend)
    exact = backend == "cpu"
    # samples on a cell border may fall on either side of it in float32
    counts = (found.pixels.counts.cpu() - wanted.pixels.counts).abs()
    assert int(counts.max()) <= 2 and float((counts > 0).float().mean()) < 0.1
    assert int(wanted.pixels.counts.sum()) > case.rays
    assert int(found.wanted) >= int(found.pixels.counts.sum())
    tolerance = 1e-4 if exact else 2e-2
    assert relative(found.loss, wanted.loss) < tolerance
    assert relative(found.squared_error, wanted.squared_error) < tolerance
    for name in ("color", "opacity", "distance"):
        error = relative(getattr(found.pixels, name), getattr(wanted.pixels, name))
        assert error < tolerance, (name, error)
    # half-precision networks: gradients agree as vectors to a few percent
    tolerance = 1e-3 if exact else 5e-2
    for name, found_one, wanted_one in zip(
        ["table", "density", "color"], gradients, wanted_gradients, strict=True
    ):
        error = relative(found_one, wanted_one)
        assert error < tolerance, (name, error)
    if case.gain:
        assert relative(found.gain, wanted.gain) < tolerance
        assert float(found.gain.abs().max()) > 1  # carries the scale
    else:
        assert found.gain.shape == (0, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_render_matches_training_pixels(backend):
    device = "cuda" if backend == "cuda" else "cpu"
    trained, _ = train(Case(), torch.float32, device, backend)
    networks, grid, rays, _ = build(Case(), torch.float32, device)
    with backend_override(backend):
        pixels = volume_render(networks, grid, **rays, settings=VolumeSettings(near=0.05))
    torch.testing.assert_close(pixels.color, trained.pixels.color)
    torch.testing.assert_close(pixels.counts, trained.pixels.counts)


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_rays_without_room_count_for_nothing(backend):
    """A GPU pass has room for `capacity` samples: the mean is over the rays that fit."""
    device = "cuda" if backend == "cuda" else "cpu"
    case = Case(gain=True)
    networks, grid, rays, more = build(case, torch.float32, device)
    settings = VolumeSettings(near=0.05, capacity=300)
    gradients = tuple(torch.zeros_like(p) for p in networks.parameters)

    def run(count: int, where: VolumeSettings, into: tuple[torch.Tensor, ...]):
        part = {key: None if v is None else v[:count] for key, v in {**rays, **more}.items()}
        with backend_override(backend):
            return volume_train(networks, grid, gradients=into, settings=where, **part)

    tight = run(case.rays, settings, gradients)
    fitted = int((tight.pixels.counts > 0).nonzero().max()) + 1
    assert 0 < fitted < case.rays and int(tight.wanted) > 300
    same = tuple(torch.zeros_like(p) for p in networks.parameters)
    alone = run(fitted, VolumeSettings(near=0.05, capacity=2**14), same)
    assert relative(tight.loss, alone.loss) < 1e-4
    assert relative(tight.squared_error, alone.squared_error) < 1e-4
    assert float(tight.gain[fitted:].abs().sum()) == 0
    for found, wanted in zip(gradients, same, strict=True):
        assert relative(found, wanted) < 1e-2


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_rays(backend):
    device = "cuda" if backend == "cuda" else "cpu"
    out, gradients = train(Case(rays=0), torch.float32, device, backend)
    assert out.pixels.color.shape == (0, 3) and float(out.loss) == 0
    assert all(float(g.abs().sum()) == 0 for g in gradients)


@pytest.mark.parametrize("backend", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_broken_rays_spoil_nothing(backend):
    device = "cuda" if backend == "cuda" else "cpu"
    networks, grid, rays, _ = build(Case(), torch.float32, device)
    rays["origins"][3] = float("nan")
    rays["directions"][5] = float("inf")
    with backend_override(backend):
        pixels = volume_render(networks, grid, **rays)
    assert bool(torch.isfinite(pixels.color).all())
    assert pixels.counts[3] == 0 and pixels.counts[5] == 0


def test_result_does_not_depend_on_the_number_of_threads():
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(
            train(CASES["features 4, one hidden color layer"], torch.float32, "cpu", "cpu")
        )
    torch.set_num_threads(before)
    for out, gradients in results[1:]:
        assert torch.equal(out.loss, results[0][0].loss)
        for found, wanted in zip(gradients, results[0][1], strict=True):
            assert torch.equal(found, wanted)
