"""Surfaces of volumes whose density is known in closed form: in place, closed over bricks, without
what nobody sees."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor, nn

from lumigraph import export
from lumigraph.core import MemoryImages, Scene, Similarity, cube
from lumigraph.core.errors import ConfigError, DataError, InputError
from lumigraph.core.transforms import rotation_exp
from lumigraph.export import MeshOptions
from lumigraph.export.density_mesh import DensityGrid, Occupancy, density_surface
from lumigraph.export.hidden_space import hidden_cells
from lumigraph.export.surface_cleaning import count_components, vertex_normals, without_cavities
from lumigraph.renderers import OccupancyGrid, VolumeRenderer
from lumigraph.training.method import Model

BOUNDS = torch.tensor([[-1.25] * 3, [1.25] * 3])
SIDE = 2.5
MOVE = Similarity(0.25, rotation_exp(torch.tensor([0.3, -0.8, 0.5])), torch.tensor([1.0, 2, 3]))


class Balls(nn.Module):
    """Density 200 on balls (x y z radius, scene units), which grows by e every 0.012 inward; with
    `shell` the balls are hollow but for that thickness. Color is 0.5 + 0.4 times the normal of the
    first ball, and black deep in it."""

    def __init__(self, *balls: tuple[float, ...], shell: float | None = None, cascades: int = 1):
        super().__init__()
        self.bounds, self.cascades = BOUNDS, cascades
        self.balls, self.shell = torch.tensor(balls), shell
        self.asked = 0

    def density(self, positions: Tensor) -> Tensor:
        self.asked += len(positions)
        points = positions * SIDE + self.bounds[0]
        distance = (points[:, None] - self.balls[:, :3]).norm(dim=2) - self.balls[:, 3]
        if self.shell is not None:
            distance = torch.maximum(distance, -self.shell - distance)
        return 200 * torch.exp((-distance.amin(dim=1) / 0.012).clamp(-30, 8))

    def query(self, positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        points = positions * SIDE + self.bounds[0] - self.balls[0, :3]
        color = 0.5 + 0.4 * nn.functional.normalize(points, dim=1)
        deep = points.norm(dim=1, keepdim=True) < self.balls[0, 3] - 0.15
        return self.density(positions), torch.where(deep, 0.0, color)

    def networks(self) -> None:
        return None


def full_grid(cascades: int = 1) -> OccupancyGrid:
    return OccupancyGrid(resolution=32, cascades=cascades, march_steps=256)


def model_of(balls: Balls) -> Model:
    """Nothing is seen that is nearer than 0.25 scene units."""
    renderer = VolumeRenderer(full_grid(balls.cascades), background=torch.ones(3), near=0.1)
    return Model(balls, renderer, torch.device("cpu"))


def surface_of(balls, cells: int, *, reach: float = 1.0, grid=None, **options):
    options = {"level": 200.0, "limit": 1 << 30, **options}
    grid = grid or full_grid(balls.cascades)
    return density_surface(balls, grid, DensityGrid(cells, reach), **options)


def is_closed(surface) -> bool:
    return trimesh.Trimesh(surface.vertices, surface.triangles, process=False).is_watertight


@pytest.mark.parametrize("cells", [64, 150])
def test_a_ball_is_in_place_and_closed_over_bricks(cells):
    ball = (0.013, -0.07, 0.05, 0.8)
    told = []
    surface = surface_of(Balls(ball), cells, on_brick=lambda *place: told.append(place))
    assert told[-1] == ((8, 8) if cells > 128 else (1, 1))
    offset = surface.vertices - ball[:3]
    distance = np.linalg.norm(offset, axis=1)
    assert np.abs(distance - 0.8).max() < 0.05 * SIDE / cells
    assert is_closed(surface) and count_components(surface) == 1
    assert len(np.unique(surface.vertices, axis=0)) == len(surface.vertices)
    assert ((vertex_normals(surface) * offset).sum(axis=1) / distance).min() > 0.99


def test_what_leaves_the_region_is_closed_at_its_border():
    surface = surface_of(Balls((1.0, 0.0, 0.0, 0.6)), 40)
    assert is_closed(surface) and abs(surface.vertices[:, 0].max() - 1.25) < SIDE / 40


def test_surroundings_in_outer_cascades():
    surface = surface_of(Balls((2.0, 0.0, 0.0, 0.3), cascades=2), 96, reach=2.0)
    distance = np.linalg.norm(surface.vertices - [2.0, 0, 0], axis=1)
    assert np.abs(distance - 0.3).max() < 0.1 * 2 * SIDE / 96 and is_closed(surface)


def test_empty_cells_are_not_asked_and_hold_nothing():
    balls = Balls((-0.6, -0.6, -0.6, 0.3), (0.6, 0.6, 0.6, 0.3))
    grid = full_grid()
    axis = torch.arange(32) < 16
    lower = axis[:, None, None] & axis[:, None] & axis
    assert Occupancy(grid).cells.all()
    grid.bits.copy_(morton_bits(lower))
    assert np.array_equal(Occupancy(grid).cells[0], lower.numpy())
    surface = surface_of(balls, 144, grid=grid)
    assert surface.vertices.max() < 0 and len(surface.vertices) > 100
    assert balls.asked <= 80**3


def morton_bits(cells: Tensor) -> Tensor:
    """Cells (x, y, z) as an occupancy grid keeps them, by trial of every bit."""
    from lumigraph.cuda.reference.marching import unpack_bits

    count = cells.numel() // 8
    index = torch.zeros(32, 32, 32, dtype=torch.int64)
    for power in range(15):  # which cell each bit is, one binary digit at a time
        ones = torch.arange(32**3) >> power & 1
        packed = (ones.reshape(count, 8) << torch.arange(8)).sum(dim=1).to(torch.uint8)
        index += unpack_bits(packed, 32, 1)[0].permute(2, 1, 0).long() << power
    chosen = torch.zeros(32**3, dtype=torch.int64)
    chosen[index.reshape(-1)] = cells.reshape(-1).long()
    return (chosen.reshape(count, 8) << torch.arange(8)).sum(dim=1).to(torch.uint8)


def test_the_inside_that_nobody_sees_is_solid(cameras_around):
    """A thick shell has an inner wall, which no camera sees."""
    balls = Balls((0.0, 0.0, 0.0, 0.7), shell=0.15)
    hollow = surface_of(balls, 64)
    assert count_components(hollow) == 2 and count_components(without_cavities(hollow)) == 1
    cameras = cameras_around(20, side=48, focal=55.0)
    hidden = hidden_cells(model_of(balls), cameras, low=BOUNDS[0], side=SIDE, cells=48)
    steps = (np.arange(48) + 0.5) / 48 * SIDE - SIDE / 2
    radius = np.linalg.norm(np.stack(np.meshgrid(steps, steps, steps)), axis=0)
    assert not hidden[radius > 0.7 - 0.5 * SIDE / 48].any() and hidden[radius < 0.58].all()
    solid = surface_of(balls, 64, hidden=hidden)
    assert count_components(solid) == 1 and is_closed(solid)
    assert np.abs(np.linalg.norm(solid.vertices, axis=1) - 0.7).max() < 0.1 * SIDE / 64


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_kernels_agree_on_the_faces_between_bricks(device):
    """A random field crosses the faces between bricks everywhere; any difference in how the two
    bricks see their common voxels would be a hole."""
    from lumigraph.fields import HashGridField

    volume = HashGridField(BOUNDS, levels=3, base_resolution=8, max_resolution=24, seed=3)
    volume.table.data = torch.randn(volume.table.shape, generator=torch.Generator().manual_seed(0))
    volume = volume.to(device)
    with torch.no_grad():
        middle = float(volume.density(torch.rand(4096, 3, device=device)).median())
    surface = surface_of(volume, 144, grid=full_grid().to(device), level=middle)
    assert len(surface.triangles) > 100_000 and is_closed(surface)


def test_limits():
    with pytest.raises(ConfigError, match="would have 4096 cells along a side, expected 8 to 2048"):
        DensityGrid(4096, 1.0)
    with pytest.raises(ConfigError, match=r"more than 0.00 GiB; use a lower --resolution"):
        surface_of(Balls((0.0, 0.0, 0.0, 0.8)), 48, limit=1000)
    assert len(surface_of(Balls((0.0, 0.0, 0.0, 0.8)), 48, level=1e6).vertices) == 0


@dataclass
class VolumeRun:
    """As much of a `training.Run` as a mesh asks for."""

    balls: Balls
    pictured: Scene
    path: Path = Path("runs/x")
    config: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(device="cpu"))

    def model(self, device=None):
        return model_of(self.balls)

    def scene(self):
        return self.pictured


@pytest.fixture
def run(cameras_around) -> VolumeRun:
    cameras = cameras_around(16, side=40, focal=46.0)
    images = MemoryImages([torch.zeros(40, 40, 3, dtype=torch.uint8)] * 16)
    splits = {"train": torch.arange(16)}
    bounds = cube(torch.zeros(3), SIDE)
    scene = Scene("ball", "memory", cameras, splits, bounds, images=images, normalization=MOVE)
    return VolumeRun(Balls((0.1, 0.0, 0.2, 0.6)), scene)


def test_a_run_with_density_becomes_a_colored_mesh_in_the_capture_frame(run, tmp_path):
    stages = []
    report = export.mesh(
        run,
        out=tmp_path / "a.ply",
        options=MeshOptions(resolution=64, level=200.0),
        on_progress=lambda *place: stages.append(place),
    )
    assert report.source == "density" and "by density, from 16 views" in report.line()
    assert stages == [*[("looking", k, 16) for k in range(1, 17)], ("density", 1, 1)]
    found = trimesh.load(tmp_path / "a.ply", process=False)
    points = MOVE.apply(torch.from_numpy(np.array(found.vertices))).numpy()
    offset = points - [0.1, 0.0, 0.2]
    distance = np.linalg.norm(offset, axis=1, keepdims=True)
    assert np.abs(distance - 0.6).max() < 1e-4 * SIDE + 0.05 * SIDE / 64
    assert found.is_watertight and found.volume > 0
    colors = found.visual.vertex_colors[:, :3] / 255
    assert np.abs(colors - (0.5 + 0.4 * offset / distance)).max() < 0.06
    assert report.voxel == pytest.approx(SIDE / 64 / 0.25)


def test_fusion_when_told(run, tmp_path):
    for more in ({"source": "fusion"}, {"depth": "expected"}, {"orbit": 4}):
        options = MeshOptions(resolution=32, overwrite=True, **more)
        assert export.mesh(run, out=tmp_path / "a.ply", options=options).source == "fusion"


def test_no_surface_at_a_level(run, tmp_path):
    run.balls = Balls((0.0, 0.0, 0.0, -1.0))
    with pytest.raises(DataError, match=r"no surface was found in 16 views.*try a lower --level"):
        export.mesh(run, out=tmp_path / "a.ply", options=MeshOptions(resolution=32))
    assert list(tmp_path.iterdir()) == []


def test_a_method_without_density(run, sphere_pictures, tmp_path):
    run.model = lambda device=None: sphere_pictures((0.0, 0.0, 0.0, 0.5))
    with pytest.raises(InputError, match="no density to take a surface from; use --from fusion"):
        export.mesh(run, out=tmp_path / "a.ply", options=MeshOptions(source="density"))
