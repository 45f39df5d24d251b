"""Upkeep of the occupancy grid: kernels against the reference, which draws the same random words,
so cells, values and bits must be equal; and both against what a grid must do."""

import doctest
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.cuda import occupancy as occupancy_module
from lumigraph.cuda.dispatch import backend_override
from lumigraph.cuda.marching import MarchGrid, march_rays
from lumigraph.cuda.occupancy import (
    occupancy_threshold,
    pack_cells,
    pinhole_projection,
    sample_cells,
    update_cells,
    visible_cells,
)
from lumigraph.cuda.reference.occupancy import LARGEST_VALUE

ALL = ["torch", "cpu", "emu", pytest.param("cuda", marks=pytest.mark.gpu)]
KERNELS = ALL[1:]
GRIDS = [(8, 1), (24, 1), (32, 2), (32, 4)]


@pytest.fixture(autouse=True)
def chosen_backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs a test that takes `backend` with that one."""
    if "backend" not in request.fixturenames:
        yield
        return
    with backend_override(request.getfixturevalue("backend")):
        yield


def device_of(backend: str) -> str:
    return "cuda" if backend == "cuda" else "cpu"


def random_values(resolution: int, cascades: int) -> Tensor:
    """In [0, 1), some marked as unseen."""
    generator = torch.Generator().manual_seed(resolution + cascades)
    values = torch.rand(cascades * resolution**3, generator=generator)
    values[torch.rand(len(values), generator=generator) < 0.1] = -1.0
    return values


def unpack(bits: Tensor) -> Tensor:
    return ((bits.cpu().long()[:, None] >> torch.arange(8)) & 1).bool().flatten()


def by_reference(function, *arguments, **options):
    with backend_override("torch"):
        return function(*arguments, **options)


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize(("resolution", "cascades"), GRIDS)
def test_packing_matches_reference(backend: str, resolution: int, cascades: int) -> None:
    values = random_values(resolution, cascades)
    sizes = {"resolution": resolution, "cascades": cascades}
    right = by_reference(pack_cells, values, 0.99, **sizes)
    bits, coarse = pack_cells(values.to(device_of(backend)), 0.99, **sizes)
    assert torch.equal(bits.cpu(), right[0])
    assert torch.equal(coarse.cpu(), right[1])


@pytest.mark.parametrize("backend", ALL)
def test_packing_one_cell(backend: str) -> None:
    """A cell shows in its block, and in every coarser cascade at the same place in space."""
    resolution, cascades = 32, 3
    values = torch.zeros(cascades, *[resolution] * 3, device=device_of(backend))
    values[0, 5, 17, 30] = 0.5  # z, y, x
    bits, coarse = pack_cells(values.flatten(), 0.1, resolution=resolution, cascades=cascades)
    at = unpack(bits).reshape(values.shape).nonzero().tolist()
    # x -> 8 + x / 2, the middle half of the next cascade
    assert at == [[0, 5, 17, 30], [1, 10, 16, 23], [2, 13, 16, 19]]
    blocks = coarse.cpu().reshape(cascades, 4, 4, 4).nonzero().tolist()
    assert blocks == [[0, 0, 2, 3], [1, 1, 2, 2], [2, 1, 2, 2]]


@pytest.mark.parametrize("backend", ALL)
def test_threshold(backend: str) -> None:
    """The smaller of 0.01 and 90 % of the mean over cascade 0; equal cells all stay occupied."""
    values = torch.full((2 * 32**3,), 0.004, device=device_of(backend))
    values[32**3 :] = 5.0
    threshold = occupancy_threshold(values, resolution=32)
    assert float(threshold) == pytest.approx(0.0036, rel=1e-4)
    bits, coarse = pack_cells(values, threshold, resolution=32, cascades=2)
    assert bool((bits == 255).all())
    assert bool((coarse == 1).all())
    values[: 32**3] = 1.0
    assert float(occupancy_threshold(values, resolution=32)) == pytest.approx(0.01)
    values[: 32**3 // 2] = -1.0  # unseen cells count as 0
    assert float(occupancy_threshold(values, resolution=32, most=9.0)) == pytest.approx(0.45)


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize(("resolution", "cascades"), GRIDS)
def test_sampling_matches_reference(backend: str, resolution: int, cascades: int) -> None:
    sizes = {"resolution": resolution, "cascades": cascades}
    bits = by_reference(pack_cells, random_values(resolution, cascades), 0.9, **sizes)[0]
    for uniform, occupied in [(0, 0), (100, 0), (0, 100), (333, 217), (len(bits) * 8, 1)]:
        counts = {"uniform": uniform, "occupied": occupied, "seed": 12345}
        right = by_reference(sample_cells, bits, **sizes, **counts)
        cells, positions = sample_cells(bits.to(device_of(backend)), **sizes, **counts)
        assert torch.equal(cells.cpu(), right[0])
        torch.testing.assert_close(positions.cpu(), right[1], rtol=0, atol=1e-6 * 2**cascades)


@pytest.mark.parametrize("backend", ALL)
def test_drawn_places_lie_in_their_cells(backend: str) -> None:
    """Marching through a grid with only the drawn cell occupied finds the drawn place in it."""
    resolution, cascades = 32, 3
    count = cascades * resolution**3
    bits = torch.zeros(count // 8, dtype=torch.uint8, device=device_of(backend))
    cells, positions = sample_cells(
        bits, resolution=resolution, cascades=cascades, uniform=count, occupied=0, seed=3
    )
    assert torch.equal(cells.cpu(), torch.arange(count, dtype=torch.int32))  # each once
    cascade = cells.cpu().long() // resolution**3
    inside = (positions.cpu() - 0.5) / 2.0 ** cascade[:, None] + 0.5
    at = inside * resolution
    for axis in range(3):
        low = cells.cpu().long() // resolution**axis % resolution
        assert bool((at[:, axis] >= low - 1e-4).all())
        assert bool((at[:, axis] <= low + 1 + 1e-4).all())
    fraction = at - at.floor()
    # Uniform in the cell: mean 1/2 and variance 1/12, within 5 standard errors
    assert float((fraction.mean(0) - 0.5).abs().max()) < 5 / math.sqrt(12 * count)
    assert float((fraction.var(0) - 1 / 12).abs().max()) < 5 * math.sqrt(1 / 180 / count)


@pytest.mark.parametrize("backend", ALL)
def test_occupied_cells_are_drawn_evenly(backend: str) -> None:
    device = device_of(backend)
    chosen = [3, 64, 65, 200, 511]
    bits = torch.zeros(64, dtype=torch.uint8)
    for cell in chosen:
        bits[cell // 8] |= 1 << cell % 8
    sizes = {"resolution": 8, "cascades": 1, "uniform": 0, "seed": 8}
    cells = sample_cells(bits.to(device), occupied=5000, **sizes)[0].cpu()
    counts = [int((cells == cell).sum()) for cell in chosen]
    assert sum(counts) == 5000
    assert all(abs(count - 1000) < 5 * math.sqrt(1000) for count in counts)
    other = sample_cells(bits.to(device), occupied=5000, **{**sizes, "seed": 9})[0].cpu()
    assert not torch.equal(cells, other)
    # With nothing occupied all cells take part
    anywhere = sample_cells(torch.zeros_like(bits).to(device), occupied=5000, **sizes)[0].cpu()
    assert len(anywhere.unique()) > 450


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("decay_all", [True, False])
def test_update_matches_reference(backend: str, decay_all: bool) -> None:
    device = device_of(backend)
    values = random_values(24, 1)
    generator = torch.Generator().manual_seed(1)
    cells = torch.randint(-5, 24**3 + 5, (20000,), generator=generator, dtype=torch.int32)
    densities = torch.randn(20000, generator=generator) * 20
    densities[::50] = math.nan
    densities[1::50] = math.inf
    right, ours = values.clone(), values.clone().to(device)
    options = {"decay": 0.9, "scale": 0.05, "decay_all": decay_all}
    by_reference(update_cells, right, cells, densities, **options)
    update_cells(ours, cells.to(device), densities.to(device), **options)
    assert torch.equal(ours.cpu(), right)
    assert float(right.max()) == LARGEST_VALUE
    assert torch.equal(right < 0, values < 0)


@pytest.mark.parametrize("backend", ALL)
def test_update_by_hand(backend: str) -> None:
    device = device_of(backend)
    before = torch.tensor([1.0, 1.0, 1.0, -1.0, 0.0, 1.0], device=device)
    cells = torch.tensor([0, 1, 1, 3, 4, 4, 99, -1], device=device)
    densities = torch.tensor([0.0, 30, 20, 50, 1, 4, 7, 7], device=device)
    everywhere = before.clone()
    update_cells(everywhere, cells, densities, decay=0.5, scale=0.1)
    torch.testing.assert_close(everywhere.cpu(), torch.tensor([0.5, 3.0, 0.5, -1.0, 0.4, 0.5]))
    drawn = before.clone()
    update_cells(drawn, cells, densities, decay=0.5, scale=0.1, decay_all=False)
    torch.testing.assert_close(drawn.cpu(), torch.tensor([0.5, 3.0, 1.0, -1.0, 0.4, 1.0]))
    none = torch.zeros(0, device=device)
    update_cells(drawn, none.int(), none, decay=0.5, scale=0.1)
    torch.testing.assert_close(drawn.cpu(), torch.tensor([0.25, 1.5, 0.5, -1.0, 0.2, 0.5]))


@pytest.mark.parametrize("backend", ALL)
def test_a_ball_is_found(backend: str) -> None:
    """The whole round: after one look at every cell, rays have samples near the ball only."""
    device = device_of(backend)
    resolution = 32
    values = torch.zeros(resolution**3, device=device)
    bits, _ = pack_cells(values, -1.0, resolution=resolution, cascades=1)
    sizes = {"resolution": resolution, "cascades": 1}
    cells, places = sample_cells(bits, uniform=resolution**3, occupied=0, seed=4, **sizes)
    density = 50.0 * ((places - 0.5).norm(dim=1) < 0.25)
    update_cells(values, cells, density, decay=0.95, scale=math.sqrt(3) / 256)
    packed = pack_cells(values, occupancy_threshold(values, resolution=resolution), **sizes)
    grid = MarchGrid.with_steps(*packed, **sizes, steps=256)
    generator = torch.Generator().manual_seed(0)
    origins = torch.nn.functional.normalize(torch.randn(200, 3, generator=generator), dim=1) * 2
    targets = torch.rand(200, 3, generator=generator) - 0.5
    directions = torch.nn.functional.normalize(targets - origins, dim=1)
    samples = march_rays((origins + 0.5).to(device), directions.to(device), grid, max_samples=2**16)
    radius = (samples.positions - 0.5).norm(dim=1)
    assert float(radius.max()) < 0.25 + math.sqrt(3) / resolution
    # A cell that the ball fills cannot be missed: chords of the ball less a cell are all sampled.
    closest = torch.linalg.cross(origins, directions).norm(dim=1)
    half = (0.25 - math.sqrt(3) / resolution) ** 2 - closest**2
    chord = 2 * half.clamp(min=0).sqrt()
    counts = samples.ray_offsets[:, 1].cpu()
    assert bool((counts >= (chord / grid.minimum_step).floor() - 1).all())
    assert int((chord > 0.2).sum()) > 10


def test_visible_cells_match_projection_of_every_corner() -> None:
    resolution, cascades = 8, 2
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[0, :3, 3] = torch.tensor([0.5, 0.5, -1.5])  # looks along z at the grid
    poses[1, :3, :3] = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    poses[1, :3, 3] = torch.tensor([0.3, 0.2, 0.4])  # inside, looks along x
    poses[2, :3, 3] = torch.tensor([0.5, 0.5, 9.0])  # the grid is behind it
    intrinsics = torch.tensor(  # no corner of a cell falls on the border of an image
        [[61.7, 52.3, 20.1, 15.2], [31.3, 29.9, 19.7, 15.1], [10, 10, 20, 15]]
    )
    sizes = torch.tensor([[40, 30], [40, 30], [40, 30]])
    seen = visible_cells(
        pinhole_projection(poses, intrinsics), sizes, resolution=resolution, cascades=cascades
    )
    cells = torch.arange(cascades * resolution**3)
    expected = torch.zeros(len(cells), dtype=torch.bool)
    for corner in range(8):
        at = torch.stack(
            [cells // resolution**a % resolution + (corner >> a & 1) for a in range(3)]
        )
        scale = 2.0 ** (cells // resolution**3)
        points = ((at.T.double() / resolution - 0.5) * scale[:, None] + 0.5).float()
        for pose, (fx, fy, cx, cy) in zip(poses, intrinsics.tolist(), strict=True):
            x, y, z = (
                torch.linalg.inv(pose) @ torch.cat([points, torch.ones(len(cells), 1)], 1).T
            )[:3]
            u, v = fx * x / z + cx, fy * y / z + cy
            expected |= (z > 0) & (u >= 0) & (u <= 40) & (v >= 0) & (v <= 30)
    assert 0.1 < float(expected.float().mean()) < 0.9
    assert torch.equal(seen, expected)
    wider = visible_cells(
        pinhole_projection(poses, intrinsics),
        sizes,
        resolution=resolution,
        cascades=cascades,
        margin=20.0,
    )
    assert bool((wider | ~seen).all())
    assert int(wider.sum()) > int(seen.sum())


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="bits must have shape"):
        sample_cells(
            torch.zeros(3, dtype=torch.uint8),
            resolution=8, cascades=1, uniform=1, occupied=1, seed=0,
        )  # fmt: skip
    with pytest.raises(InputError, match="must be counts"):
        sample_cells(
            torch.zeros(64, dtype=torch.uint8),
            resolution=8, cascades=1, uniform=-1, occupied=1, seed=0,
        )  # fmt: skip
    with pytest.raises(InputError, match="multiple of 8"):
        pack_cells(torch.zeros(1000), 0.1, resolution=10, cascades=1)
    with pytest.raises(InputError, match="contiguous float32"):
        update_cells(
            torch.zeros(8).double(), torch.zeros(1).int(), torch.zeros(1), decay=1.0, scale=1.0
        )
    with pytest.raises(InputError, match="densities must have shape"):
        update_cells(torch.zeros(8), torch.zeros(1).int(), torch.zeros(2), decay=1.0, scale=1.0)


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(occupancy_module).failed == 0
