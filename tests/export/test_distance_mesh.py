"""Meshes straight from signed distances: closed, exact, oriented, colored, in bricks."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from lumigraph.core.errors import ConfigError
from lumigraph.cuda.surface import SurfaceSamples
from lumigraph.export.distance_mesh import distance_surface, has_distance, unseen_cells
from lumigraph.renderers import OccupancyGrid
from lumigraph.training import Model

trimesh = pytest.importorskip("trimesh")
pytest.importorskip("skimage")

BOUNDS = torch.tensor([[-1.0, -2.0, -3.0], [3.0, 2.0, 1.0]])
LIMIT = 1 << 30


@dataclass
class Ring:
    """A torus about the middle of grid space, painted by place; distances are `slope` too steep."""

    large: float = 0.25
    small: float = 0.1
    slope: float = 1.0
    bounds: Tensor = field(default_factory=lambda: BOUNDS)
    sharpness: Tensor = field(default_factory=lambda: torch.tensor(100.0))
    asked: int = 0

    def sdf(self, positions: Tensor) -> Tensor:
        self.asked += len(positions)
        offset = positions - 0.5
        around = offset[:, :2].norm(dim=1) - self.large
        return self.slope * (torch.stack([around, offset[:, 2]], 1).norm(dim=1) - self.small)

    def sdf_and_gradient(self, positions: Tensor) -> SurfaceSamples:
        with torch.enable_grad():
            places = positions.detach().requires_grad_()
            distance = self.sdf(places)
            (gradient,) = torch.autograd.grad(distance.sum(), places)
        return SurfaceSamples(distance.detach(), positions.new_zeros(len(positions), 16), gradient)

    def color(self, samples: SurfaceSamples, positions: Tensor, directions: Tensor) -> Tensor:
        facing = (samples.gradient * directions).sum(1) < -0.9 * self.slope
        return torch.where(facing[:, None], positions, 0.0)


@pytest.mark.parametrize("slope", [0.5, 1.0, 1.8])
@pytest.mark.parametrize("cells", [100, 150])  # one brick, and eight with a part of one
def test_a_ring_is_closed_exact_and_outward(cells, slope):
    ring = Ring(slope=slope)
    found = distance_surface(ring, cells, limit=LIMIT)
    mesh = trimesh.Trimesh(found.vertices, found.triangles, process=False)
    assert mesh.is_watertight and mesh.euler_number == 0
    side = 4.0
    volume = 2 * np.pi**2 * ring.large * ring.small**2 * side**3
    assert mesh.volume == pytest.approx(volume, rel=5e-3)  # above 0: outward
    places = torch.from_numpy((found.vertices - BOUNDS[0].numpy()) / side).float()
    assert float(Ring().sdf(places).abs().max()) < 0.1 / cells  # straight lines between voxels
    wanted = (places * 255).round().numpy()
    assert np.abs(found.colors - wanted).max() <= 1
    # places far from the surface are not asked one by one
    assert ring.asked < 0.5 * cells**3


def test_bricks_are_told_and_nothing_is_nothing():
    told = []
    distance_surface(Ring(), 150, limit=LIMIT, on_brick=lambda *done: told.append(done))
    assert told == [(k, 8) for k in range(1, 9)]
    nothing = distance_surface(Ring(small=-0.1), 64, limit=LIMIT)
    assert nothing.vertices.shape == (0, 3) and nothing.triangles.shape == (0, 3)


def test_what_leaves_the_cube_or_is_unseen_is_cut_and_closed():
    large = distance_surface(Ring(large=0.45), 64, limit=LIMIT)
    mesh = trimesh.Trimesh(large.vertices, large.triangles, process=False)
    assert mesh.is_watertight
    inside = (mesh.vertices >= BOUNDS[0].numpy()) & (mesh.vertices <= BOUNDS[1].numpy())
    assert inside.all()
    occupancy = OccupancyGrid(resolution=16, cascades=1, march_steps=64)
    cells = occupancy.values.reshape(16, 16, 16)  # z, y, x
    cells[:, :, 8:] = -1.0  # nobody sees the right half
    unseen = unseen_cells(occupancy)
    assert unseen[8:].all() and not unseen[:8].any()
    half = distance_surface(Ring(), 64, limit=LIMIT, unseen=unseen)
    mesh = trimesh.Trimesh(half.vertices, half.triangles, process=False)
    assert mesh.is_watertight and mesh.vertices[:, 0].max() < 1.0 + 4 / 64
    assert mesh.volume == pytest.approx(np.pi**2 * 0.25 * 0.1**2 * 64, rel=0.05)


def test_bad_sizes_are_refused():
    for cells in (4, 4096):
        with pytest.raises(ConfigError, match="expected 8 to 2048"):
            distance_surface(Ring(), cells, limit=LIMIT)
    with pytest.raises(ConfigError, match="more than 0.00 GiB; use a lower"):
        distance_surface(Ring(), 64, limit=1000)


def test_models_with_distances_are_known():
    assert has_distance(Model(Ring(), None, torch.device("cpu")))
    assert not has_distance(Model(torch.nn.Linear(1, 1), None, torch.device("cpu")))
