"""Marching kernels against the reference on random grids, and both against closed forms.

A sample within rounding (1e-6 of the unit cube) of the border of a cell may fall on either side.
Random rays have some 1e5 samples with a border every few steps, so about one in 1e4 is in doubt:
counts are compared at 1e-3. Everywhere else the answer is exact to the rounding of fp32.
"""

import doctest
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.cuda import marching as marching_module
from lumigraph.cuda.dispatch import backend_override
from lumigraph.cuda.marching import (
    RUNS,
    MarchedSamples,
    MarchGrid,
    full_grid,
    march_rays,
    march_rays_padded,
)
from lumigraph.cuda.reference.marching import Lattice

ALL = ["torch", "cpu", "emu", pytest.param("cuda", marks=pytest.mark.gpu)]
KERNELS = ALL[1:]
IN_DOUBT = 1e-3
ROOM = 2**18


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


def grid_of(cells: Tensor, *, steps: int, device: str = "cpu") -> MarchGrid:
    """From booleans (K, G, G, G), indexed [cascade, z, y, x]."""
    cascades, resolution = cells.shape[:2]
    place = 1 << torch.arange(8)
    bits = (cells.reshape(-1, 8) * place).sum(1).to(torch.uint8)
    blocks = resolution // 8
    coarse = cells.reshape(cascades, blocks, 8, blocks, 8, blocks, 8).amax((2, 4, 6))
    return MarchGrid.with_steps(
        bits.to(device),
        coarse.flatten().to(torch.uint8).to(device),
        resolution=resolution,
        cascades=cascades,
        steps=steps,
    )


def full(resolution: int, cascades: int, *, steps: int, device: str) -> MarchGrid:
    bits, coarse = (part.to(device) for part in full_grid(resolution, cascades))
    return MarchGrid.with_steps(bits, coarse, resolution=resolution, cascades=cascades, steps=steps)


def random_cells(resolution: int, cascades: int, share: float) -> Tensor:
    """Occupied at random, with whole blocks empty too."""
    generator = torch.Generator().manual_seed(resolution + cascades)
    cells = torch.rand(cascades, *[resolution] * 3, generator=generator) < share
    blocks = torch.rand(cascades, *[resolution // 8] * 3, generator=generator) < 0.5
    for axis in (1, 2, 3):
        blocks = blocks.repeat_interleave(8, axis)
    return cells & blocks


def random_rays(count: int, cascades: int, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Origins in and around the grid, directions to places in it, jitter."""
    generator = torch.Generator().manual_seed(count + cascades)
    extent = 2.0 ** (cascades - 1)
    origins = torch.randn(count, 3, generator=generator) * extent + 0.5
    targets = (torch.rand(count, 3, generator=generator) - 0.5) * extent + 0.5
    directions = torch.nn.functional.normalize(targets - origins, dim=1)
    jitter = torch.rand(count, generator=generator)
    return origins.to(device), directions.to(device), jitter.to(device)


def one_ray(origin: list[float], direction: list[float], device: str) -> tuple[Tensor, Tensor]:
    toward = torch.nn.functional.normalize(torch.tensor([direction]), dim=1)
    return torch.tensor([origin]).to(device), toward.to(device)


def check_consistent(samples: MarchedSamples, origins: Tensor, directions: Tensor) -> None:
    """Packing, order, and positions that lie on their rays."""
    rays = samples.ray_indices.long()
    counts = samples.ray_offsets[:, 1].long()
    assert torch.equal(
        rays, torch.arange(len(counts), device=rays.device).repeat_interleave(counts)
    )
    assert torch.equal(samples.ray_offsets[:, 0].long(), counts.cumsum(0) - counts)
    same = rays[1:] == rays[:-1]
    assert bool((samples.distances.diff()[same] > 0).all())
    points = origins[rays] + samples.distances[:, None] * directions[rays]
    torch.testing.assert_close(samples.positions, points, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize(
    ("resolution", "cascades", "share", "steps"),
    [(8, 1, 0.5, 40), (40, 1, 0.3, 256), (64, 1, 0.02, 384), (32, 2, 0.3, 100), (32, 5, 0.4, 200)],
)
def test_matches_reference(
    backend: str, resolution: int, cascades: int, share: float, steps: int
) -> None:
    cells = random_cells(resolution, cascades, share)
    rays = random_rays(301, cascades)
    device = device_of(backend)
    origins, directions, jitter = (part.to(device) for part in rays)
    grid = grid_of(cells, steps=steps, device=device)
    ours = march_rays(origins, directions, grid, jitter=jitter, max_samples=ROOM)
    check_consistent(ours, origins, directions)
    with backend_override("torch"):
        exact = [part.double() for part in rays]
        right = march_rays(
            *exact[:2], grid_of(cells, steps=steps), jitter=exact[2], max_samples=ROOM
        )
    counts = ours.ray_offsets[:, 1].cpu()
    differ = (counts - right.ray_offsets[:, 1]).abs()
    assert len(right.distances) > 500
    assert int(differ.sum()) <= math.ceil(IN_DOUBT * len(right.distances))
    agree = differ == 0
    mine, theirs = agree[ours.ray_indices.cpu().long()], agree[right.ray_indices.long()]
    gap = (ours.distances.cpu()[mine] - right.distances[theirs]).abs()
    # Two samples of one ray may be in doubt and cancel in its count.
    assert float((gap > 2e-5 * 2**cascades).double().mean()) <= 2 * IN_DOUBT
    gap = (ours.steps.cpu()[mine] - right.steps[theirs]).abs()
    assert float((gap > 1e-6 * 2**cascades).double().mean()) <= 2 * IN_DOUBT


@pytest.mark.parametrize("backend", ALL)
def test_constant_steps_in_a_full_grid(backend: str) -> None:
    """Sample i stands at entry + (i + jitter) dt, for all that lie before the exit."""
    device = device_of(backend)
    grid = full(16, 1, steps=100, device=device)
    origins, directions = one_ray([-1.3, 0.21, 0.37], [1.0, 0.13, 0.05], device)
    for jitter in (0.0, 0.25, 0.99):
        samples = march_rays(
            origins, directions, grid, jitter=torch.tensor([jitter], device=device), max_samples=500
        )
        along = float(directions[0, 0])
        enter, leave, step = 1.3 / along, 2.3 / along, math.sqrt(3) / 100
        count = math.ceil((leave - enter) / step - jitter)
        expected = enter + (torch.arange(count) + jitter) * step
        torch.testing.assert_close(samples.distances.cpu(), expected, rtol=0, atol=1e-6)
        assert bool((samples.steps == torch.tensor(step)).all())
        check_consistent(samples, origins, directions)


@pytest.mark.parametrize("backend", ALL)
def test_no_jitter_is_half_a_step(backend: str) -> None:
    device = device_of(backend)
    grid = full(8, 1, steps=64, device=device)
    origins, directions, _ = random_rays(20, 1, device)
    half = torch.full((20,), 0.5, device=device)
    without = march_rays(origins, directions, grid, max_samples=ROOM)
    given = march_rays(origins, directions, grid, jitter=half, max_samples=ROOM)
    assert all(map(torch.equal, without, given))


@pytest.mark.parametrize("backend", ALL)
def test_growing_steps(backend: str) -> None:
    """With a cone the lattice is linear, then geometric with ratio 1 + c, then linear again."""
    device = device_of(backend)
    grid = full(32, 4, steps=512, device=device)
    origins, directions = one_ray([-3.4, 0.5, 0.5], [1.0, 0.01, 0.02], device)
    samples = march_rays(origins, directions, grid, max_samples=5000)
    t = samples.distances.cpu().double()
    step = samples.steps.cpu().double()
    torch.testing.assert_close(
        step, (t * grid.cone).clamp(grid.minimum_step, grid.maximum_step), rtol=1e-6, atol=0
    )
    base = math.log1p(grid.cone)
    near, far = grid.minimum_step / base, grid.maximum_step / base
    assert float(t[0]) < near < 2 < float(t[-1]) < far  # both pieces are met
    linear, grown = t[t < near], t[t > near]
    torch.testing.assert_close(
        linear, (torch.arange(len(linear)) + 0.5).double() * grid.minimum_step, rtol=1e-5, atol=0
    )
    torch.testing.assert_close(
        grown.diff() / grown[:-1], torch.full_like(grown[1:], grid.cone), rtol=2e-3, atol=0
    )
    steps_on_the_way = 1 / base + math.log((3.4 + 4.5) / near / directions[0, 0].item()) / base
    assert abs(len(t) - steps_on_the_way) <= 1


def test_lattice_is_inverted_and_smooth() -> None:
    """Distance and count are inverses, and their slope is the step within 0.4 % (log(1 + c)
    against c), over all three pieces."""
    lattice = Lattice(minimum_step=0.002, maximum_step=0.05, cone=1 / 256)
    t = torch.linspace(0, 40, 20001, dtype=torch.float64)
    count = lattice.count(t)
    torch.testing.assert_close(lattice.distance(count), t)
    slope = t.diff() / count.diff()
    torch.testing.assert_close(slope, lattice.step((t[1:] + t[:-1]) / 2), rtol=4e-3, atol=0)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_parallel_rays_through_a_slab(backend: str, axis: int, sign: float) -> None:
    """Samples are the lattice points inside the slab of occupied cells, and no others."""
    device = device_of(backend)
    cells = torch.zeros(1, 32, 32, 32, dtype=torch.bool)
    index = [slice(None)] * 4
    index[3 - axis] = slice(12, 19)  # x is the last
    cells[tuple(index)] = True
    grid = grid_of(cells, steps=300, device=device)
    origin = [0.33, 0.33, 0.33]
    origin[axis] = 0.5 - 2 * sign
    direction = [0.0, 0.0, 0.0]
    direction[axis] = sign
    origins, directions = one_ray(origin, direction, device)
    samples = march_rays(origins, directions, grid, max_samples=1000)
    lattice = 1.5 + (torch.arange(1000) + 0.5) * grid.minimum_step
    place = 0.5 - 2 * sign + sign * lattice
    expected = lattice[(place > 12 / 32) & (place < 19 / 32)]
    torch.testing.assert_close(samples.distances.cpu(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", ALL)
def test_camera_inside(backend: str) -> None:
    device = device_of(backend)
    grid = full(8, 1, steps=50, device=device)
    origins, directions = one_ray([0.4, 0.5, 0.6], [0.0, 0.0, 1.0], device)
    samples = march_rays(origins, directions, grid, max_samples=100)
    expected = (torch.arange(12) + 0.5) * grid.minimum_step  # 0.4 / 0.0346 = 11.55
    torch.testing.assert_close(samples.distances.cpu(), expected)


@pytest.mark.parametrize("backend", ALL)
def test_near_and_far(backend: str) -> None:
    device = device_of(backend)
    grid = full(8, 1, steps=50, device=device)
    origins, directions, jitter = random_rays(50, 1, device)
    near = torch.linspace(0, 2, 50, device=device)
    samples = march_rays(
        origins, directions, grid, jitter=jitter, near=near, far=near + 0.4, max_samples=ROOM
    )
    begin = near[samples.ray_indices.long()]
    assert len(samples.distances) > 100
    assert bool((samples.distances >= begin).all())
    assert bool((samples.distances < begin + 0.4).all())
    numbers = march_rays(origins, directions, grid, near=0.3, far=0.9, max_samples=ROOM)
    each = march_rays(
        origins,
        directions,
        grid,
        near=torch.full_like(near, 0.3),
        far=torch.full_like(near, 0.9),
        max_samples=ROOM,
    )
    assert all(map(torch.equal, numbers, each))


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("cascades", [1, 3])
def test_skipping_stays_on_the_lattice(backend: str, cascades: int) -> None:
    """What a sparse grid samples is, bit by bit, a part of what a full grid samples."""
    device = device_of(backend)
    origins, directions, jitter = random_rays(100, cascades, device)
    sparse = grid_of(random_cells(32, cascades, 0.1), steps=200, device=device)
    some = march_rays(origins, directions, sparse, jitter=jitter, max_samples=ROOM)
    every = march_rays(
        origins,
        directions,
        full(32, cascades, steps=200, device=device),
        jitter=jitter,
        max_samples=ROOM,
    )
    pairs = {*zip(every.ray_indices.tolist(), every.distances.tolist(), strict=True)}
    assert 100 < len(some.distances) < len(every.distances) / 2
    assert pairs.issuperset(zip(some.ray_indices.tolist(), some.distances.tolist(), strict=True))


@pytest.mark.parametrize("backend", ALL)
def test_many_separate_runs(backend: str) -> None:
    """Every second layer is occupied: more runs a ray than the CUDA kernel keeps."""
    device = device_of(backend)
    cells = torch.zeros(1, 64, 64, 64, dtype=torch.bool)
    cells[..., ::2] = True
    grid = grid_of(cells, steps=400, device=device)
    origins, directions = one_ray([-0.5, 0.51, 0.51], [1.0, 0.1, 0.07], device)
    origins, directions = origins.repeat(3, 1), directions.repeat(3, 1)
    samples = march_rays(origins, directions, grid, max_samples=ROOM)
    check_consistent(samples, origins, directions)
    layers = (samples.positions[:, 0] * 64).long().cpu()
    assert bool((layers % 2 == 0).all())
    assert len(layers.unique()) == 32 > RUNS
    along = float(directions[0, 0])
    lattice = 0.5 / along + (torch.arange(1000) + 0.5) * grid.minimum_step
    place = lattice * along - 0.5
    inside = (place < 1) & (((place * 64).floor() % 2) == 0)
    torch.testing.assert_close(
        samples.distances.cpu(), lattice[inside].repeat(3), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("backend", ALL)
def test_overflow_drops_whole_rays(backend: str) -> None:
    device = device_of(backend)
    grid = full(8, 1, steps=64, device=device)
    origins, directions, jitter = random_rays(40, 1, device)
    every = march_rays(origins, directions, grid, jitter=jitter, max_samples=ROOM)
    wanted = every.ray_offsets[:, 1].cpu()
    room = int(wanted[:20].sum()) + int(wanted[20]) // 2
    samples = march_rays(origins, directions, grid, jitter=jitter, max_samples=room)
    kept = int(wanted[:20].sum())
    assert samples.counter.tolist() == [kept, int(wanted.sum()), 20]
    assert every.counter.tolist() == [int(wanted.sum()), int(wanted.sum()), 40]
    assert torch.equal(samples.ray_offsets[:20], every.ray_offsets[:20])
    assert not samples.ray_offsets[20:, 1].any()
    assert bool((samples.ray_offsets.sum(1) <= kept).all())
    assert torch.equal(samples.distances, every.distances[:kept])
    nothing = march_rays(origins, directions, grid, jitter=jitter, max_samples=0)
    assert len(nothing.distances) == 0
    assert not nothing.ray_offsets.any()


@pytest.mark.parametrize("backend", ALL)
def test_most_samples_of_a_ray(backend: str) -> None:
    device = device_of(backend)
    cells = random_cells(32, 1, 0.5)
    grid = grid_of(cells, steps=200, device=device)
    origins, directions, jitter = random_rays(60, 1, device)
    every = march_rays(origins, directions, grid, jitter=jitter, max_samples=ROOM)
    few = march_rays(
        origins, directions, grid, jitter=jitter, max_samples=ROOM, max_samples_per_ray=7
    )
    assert int(every.ray_offsets[:, 1].max()) > 7
    assert torch.equal(few.ray_offsets[:, 1], every.ray_offsets[:, 1].clamp(max=7))
    for (start, count), (all_start, _) in zip(
        few.ray_offsets.tolist(), every.ray_offsets.tolist(), strict=True
    ):
        expected = every.distances[all_start : all_start + count]
        assert torch.equal(few.distances[start : start + count], expected)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("room", [50, 4000])
def test_padding(backend: str, room: int) -> None:
    device = device_of(backend)
    grid = full(8, 1, steps=64, device=device)
    origins, directions, jitter = random_rays(40, 1, device)
    cut = march_rays(origins, directions, grid, jitter=jitter, max_samples=room)
    padded = march_rays_padded(origins, directions, grid, jitter=jitter, max_samples=room)
    kept = len(cut.distances)
    assert 0 < kept < room == len(padded.distances)
    assert all(torch.equal(a, b[:kept]) for a, b in zip(cut[:4], padded[:4], strict=True))
    assert all(map(torch.equal, cut[4:], padded[4:]))
    assert bool((padded.ray_indices[kept:] == -1).all())
    assert bool((padded.steps[kept:] == 0).all())
    assert bool((padded.distances[kept:] == 0).all())
    assert bool((padded.positions[kept:] == 0.5).all())


@pytest.mark.parametrize("backend", ALL)
def test_rays_without_samples(backend: str) -> None:
    """Misses, rays that lead away, and numbers that are none."""
    device = device_of(backend)
    grid = full(32, 2, steps=64, device=device)
    nan, infinite = math.nan, math.inf
    rays = [
        ([-3.0, 2.0, 0.5], [1.0, 0.0, 0.0]),  # passes by
        ([-3.0, 0.5, 0.5], [-1.0, 0.0, 0.0]),  # leads away
        ([nan, 0.5, 0.5], [1.0, 0.0, 0.0]),
        ([infinite, 0.5, 0.5], [-1.0, 0.0, 0.0]),
        ([0.5, 0.5, 0.5], [nan, 0.0, 1.0]),
        ([0.5, 0.5, 0.5], [0.0, infinite, 0.0]),
        ([0.5, 0.5, 0.5], [0.0, 0.0, 0.0]),
        ([1e30, 0.5, 0.5], [-1.0, 0.0, 0.0]),
        ([0.5, 0.5, -1.0], [0.0, 0.0, 1.0]),  # the only good one
    ]
    origins = torch.tensor([origin for origin, _ in rays], device=device)
    directions = torch.tensor([direction for _, direction in rays], device=device)
    samples = march_rays(origins, directions, grid, max_samples=ROOM)
    counts = samples.ray_offsets[:, 1].tolist()
    assert counts[:-1] == [0] * (len(rays) - 1)
    assert counts[-1] > 50
    good = (origins[-1:], directions[-1:])
    for name in ("jitter", "near", "far"):
        bad = {name: torch.tensor([nan], device=device)}
        assert len(march_rays(*good, grid, max_samples=ROOM, **bad).distances) == 0
    assert len(march_rays(*good, grid, near=5.0, max_samples=ROOM).distances) == 0


@pytest.mark.parametrize("backend", ALL)
def test_empty(backend: str) -> None:
    device = device_of(backend)
    none = torch.zeros(0, 3, device=device)
    samples = march_rays(none, none, full(8, 1, steps=64, device=device), max_samples=10)
    assert [len(part) for part in samples] == [0, 0, 0, 0, 0, 3]
    assert not samples.counter.any()
    padded = march_rays_padded(none, none, full(8, 1, steps=64, device=device), max_samples=10)
    assert padded.ray_indices.tolist() == [-1] * 10
    origins, directions, _ = random_rays(5, 1, device)
    empty = grid_of(torch.zeros(1, 8, 8, 8, dtype=torch.bool), steps=64, device=device)
    samples = march_rays(origins, directions, empty, max_samples=10)
    assert samples.counter.tolist() == [0, 0, 5]
    assert not samples.ray_offsets.any()


def test_same_for_any_number_of_threads() -> None:
    grid = grid_of(random_cells(32, 2, 0.4), steps=300)
    origins, directions, jitter = random_rays(2000, 2)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(march_rays(origins, directions, grid, jitter=jitter, max_samples=ROOM))
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, *results))


def test_bad_input_is_named() -> None:
    bits, coarse = full_grid(8, 1)
    grid = MarchGrid.with_steps(bits, coarse, resolution=8, cascades=1)
    rays = torch.zeros(2, 3)
    with pytest.raises(InputError, match="directions must have shape"):
        march_rays(rays, torch.zeros(3, 3), grid, max_samples=10)
    with pytest.raises(InputError, match="max_samples"):
        march_rays(rays, rays, grid, max_samples=-1)
    with pytest.raises(InputError, match="fewer rays"):
        march_rays(rays, rays, grid, max_samples=10, max_samples_per_ray=2**30)
    with pytest.raises(InputError, match="multiple of 32"):
        MarchGrid.with_steps(*full_grid(8, 2), resolution=8, cascades=2)
    with pytest.raises(InputError, match="bits must have shape"):
        MarchGrid.with_steps(bits[1:], coarse, resolution=8, cascades=1)
    with pytest.raises(InputError, match="minimum_step"):
        MarchGrid(bits, coarse, 8, 1, minimum_step=0.0, maximum_step=0.1, cone=0.0)


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(marching_module).failed == 0
