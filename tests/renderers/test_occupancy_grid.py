"""Occupancy grids: cells follow a density, fade, and are emptied where no camera looks."""

import pytest
import torch

from lumigraph.core import Cameras
from lumigraph.core.errors import InputError
from lumigraph.core.transforms import look_at
from lumigraph.renderers import OccupancyGrid

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def ball(positions: torch.Tensor) -> torch.Tensor:
    return 1000.0 * ((positions - 0.5).norm(dim=1) < 0.25)


def nothing(positions: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(positions[:, 0])


def build(resolution: int = 32, cascades: int = 1, steps: int = 256) -> OccupancyGrid:
    return OccupancyGrid(resolution=resolution, cascades=cascades, march_steps=steps)


def update(grid: OccupancyGrid, density=ball, *, decay=0.5, seed=0, **options) -> None:
    options = {"count": 0, "every_cell": True, **options}
    generator = torch.Generator().manual_seed(seed)
    grid.update(density, decay=decay, generator=generator, **options)


def cells(grid: OccupancyGrid) -> torch.Tensor:
    """(K, G, G, G) booleans z, y, x."""
    flat = (grid.bits[:, None].cpu() >> torch.arange(8, dtype=torch.uint8)) & 1
    return flat.bool().reshape(grid.cascades, *[grid.resolution] * 3)


def centers(resolution: int, cascade: int = 0) -> torch.Tensor:
    line = ((torch.arange(resolution) + 0.5) / resolution - 0.5) * 2**cascade
    return torch.stack(torch.meshgrid(line, line, line, indexing="ij"), -1)


@pytest.mark.parametrize("device", DEVICES)
def test_update_finds_what_is_there(device):
    grid = build().to(device)
    assert grid.occupied_fraction() == 1
    update(grid)
    radius = centers(32).norm(dim=-1)
    half_diagonal = 0.5 * 3**0.5 / 32
    found = cells(grid)[0]
    assert bool(found[radius < 0.25 - half_diagonal].all())
    assert not bool(found[radius > 0.25 + half_diagonal].any())
    volume = 4 / 3 * torch.pi * 0.25**3
    assert grid.occupied_fraction() == pytest.approx(volume, rel=0.15)


def test_coarse_blocks_cover_the_bits():
    grid = build()
    update(grid)
    blocks = cells(grid).reshape(4, 8, 4, 8, 4, 8).amax((1, 3, 5))
    assert torch.equal(grid.coarse.reshape(4, 4, 4).bool(), blocks)
    assert 0 < int(grid.coarse.sum()) < 64


def test_values_fade_when_looked_at_and_rise_again():
    grid = build()
    update(grid)
    peak = float(grid.values.max())
    assert peak == pytest.approx(1000 * grid.minimum_step, rel=1e-5)
    update(grid, nothing, decay=0.5)
    assert float(grid.values.max()) == pytest.approx(peak / 2, rel=1e-5)
    assert grid.occupied_fraction() > 0  # still above the threshold
    for _ in range(12):
        update(grid, nothing, decay=0.5)
    assert grid.occupied_fraction() > 0  # all alike, relative to their mean
    update(grid, nothing, decay=0.0)
    assert grid.occupied_fraction() == 0
    update(grid)
    assert float(grid.values.max()) == pytest.approx(peak, rel=1e-5)


def test_cells_that_nobody_looked_at_do_not_fade():
    grid = build()
    update(grid)
    before = grid.values.clone()
    update(grid, nothing, decay=0.5, count=64, every_cell=False)
    changed = grid.values != before
    assert 0 < int(changed.sum()) <= 128
    assert torch.allclose(grid.values[changed], 0.5 * before[changed])


def test_occupied_cells_are_drawn_as_often_as_all_cells():
    grid = build()
    update(grid)
    seen = []

    def note(positions):
        seen.append(positions)
        return ball(positions)

    update(grid, note, count=500, every_cell=False)
    positions = torch.cat(seen)
    inside = float(((positions - 0.5).norm(dim=1) < 0.3).float().mean())
    assert positions.shape == (1000, 3) and 0.5 < inside < 0.6


def test_the_same_seed_draws_the_same_cells():
    grids = [build(), build(), build()]
    for grid, seed in zip(grids, (1, 1, 2), strict=True):
        update(grid, lambda p: p[:, 0], seed=seed, count=300, every_cell=False)
    assert torch.equal(grids[0].values, grids[1].values)
    assert not torch.equal(grids[0].values, grids[2].values)


@pytest.mark.parametrize("device", DEVICES)
def test_cascades(device):
    grid = build(cascades=3).to(device)

    def shell(positions):  # a far wall, and a thing in the middle
        offset = positions - 0.5
        return 1000.0 * ((offset[:, 0] > 1.5) | (offset.abs().amax(dim=1) < 0.1))

    update(grid, shell)
    found = cells(grid)
    assert bool(found[2][centers(32, 2)[..., 2] > 1.6].all())
    # what the finest cascade holds is in the coarser ones too
    for cascade in (0, 1, 2):
        size = 2.0**cascade / 32
        inside = centers(32, cascade).abs().amax(dim=-1) < 0.1 - size / 2
        assert bool(found[cascade][inside].all()), cascade
    middle = centers(32, 1).abs().amax(dim=-1)
    assert not bool(found[1][(middle > 0.2) & (middle < 0.9)].any())


def test_bits_come_back_from_the_values():
    grid = build(cascades=2)
    update(grid)
    other = build(cascades=2)
    assert set(grid.state_dict()) == {"values"}
    other.load_state_dict(grid.state_dict())
    assert not torch.equal(other.bits, grid.bits)
    other.refresh()
    assert torch.equal(other.bits, grid.bits) and torch.equal(other.coarse, grid.coarse)


def test_cells_that_no_camera_sees_stay_empty():
    grid = build(steps=128)
    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])
    # one narrow camera looks along x through the middle
    pose = look_at(torch.tensor([-3.0, 0.0, 0.0]), torch.zeros(3), up=(0.0, 0.0, 1.0))
    grid.mark_unseen(Cameras.from_intrinsics(pose, 100, 100, 1500.0), bounds)
    # 0.033 to each side per unit of distance, and the margin of a coarse cell and its neighbour
    across = centers(32)[..., [1, 0]].abs().amax(dim=-1) * 2
    before = cells(grid)[0]
    assert bool(before[across < 0.05].all())
    assert not bool(before[across > 0.6].any())
    update(grid, lambda p: torch.full_like(p[:, 0], 1e4))
    assert torch.equal(cells(grid)[0], before)
    assert 0 < grid.occupied_fraction() <= 0.25


def test_impossible_sizes_are_refused():
    with pytest.raises(InputError, match="resolution must be a multiple of 8"):
        update(build(resolution=12))
