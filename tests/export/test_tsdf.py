"""Fusion of exact depths: the surface must come back where it is, closed, turned outward and in its
colors, on every device; what one picture alone claims must vanish."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import trimesh

from lumigraph.core import CameraModel, Cameras, Frame
from lumigraph.core.errors import ConfigError, InputError
from lumigraph.core.transforms import look_at
from lumigraph.export.block_culling import cull
from lumigraph.export.depth_views import EMPTY_DEPTH, depth_view
from lumigraph.export.isosurface import extract
from lumigraph.export.mesh_export import MeshOptions, fuse
from lumigraph.export.tsdf import (
    BLOCK,
    BlockCollector,
    TsdfVolume,
    VoxelGrid,
    forecast,
    pack,
    unpack,
)

SPHERE = (0.1, 0.05, -0.08, 0.8)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def grid_of(resolution: int, device: str = "cpu") -> VoxelGrid:
    """Over the cube from -1.25 to 1.25."""
    bounds = torch.tensor([[-1.25] * 3, [1.25] * 3], device=device)
    return VoxelGrid(torch.zeros(3, device=device), 2.5 / resolution, bounds)


def fused(model, cameras: Cameras, resolution: int, *, device: str = "cpu", **options):
    grid = grid_of(resolution, device)
    return fuse(model, cameras, grid, options=MeshOptions(**options)), grid.voxel


def off_sphere(points: np.ndarray, sphere=SPHERE) -> np.ndarray:
    return np.linalg.norm(points - np.array(sphere[:3]), axis=1) - sphere[3]


def as_trimesh(surface) -> trimesh.Trimesh:
    return trimesh.Trimesh(surface.vertices, surface.triangles, process=False)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("depth", ["median", "expected"])
def test_a_sphere_comes_back(sphere_pictures, cameras_around, device, depth):
    model, cameras = sphere_pictures(SPHERE), cameras_around(24, side=96)
    surface, voxel = fused(model, cameras, 96, device=device, depth=depth)
    error = off_sphere(surface.vertices) / voxel
    assert np.sqrt((error**2).mean()) < 0.03
    assert np.abs(error).max() < 0.1
    found = as_trimesh(surface)
    assert found.is_watertight and found.is_winding_consistent
    assert found.euler_number == 2
    assert found.volume == pytest.approx(4 / 3 * np.pi * 0.8**3, rel=0.01)
    normal = (surface.vertices - np.array(SPHERE[:3])) / 0.8
    assert (found.vertex_normals * normal).sum(axis=1).min() > 0.99
    assert np.abs(surface.colors / 255 - (0.5 + 0.4 * normal)).max() < 0.01


def test_bricks_are_joined_without_cracks(sphere_pictures, cameras_around):
    """At this resolution the sphere reaches over 2 x 2 x 2 bricks of 128 cells."""
    model, cameras = sphere_pictures(SPHERE), cameras_around(16, side=96)
    surface, _ = fused(model, cameras, 160)
    found = as_trimesh(surface)
    assert found.is_watertight and found.euler_number == 2
    assert len(np.unique(surface.vertices, axis=0)) == len(surface.vertices)


@pytest.mark.parametrize(
    "lens",
    [
        {"model": CameraModel.OPENCV, "distortion": [0.1, -0.05, 0.01, -0.02]},
        {"model": CameraModel.FISHEYE, "distortion": [0.05, 0.01]},
        {"model": CameraModel.ORTHOGRAPHIC, "focal": 26.0},
    ],
    ids=["opencv", "fisheye", "orthographic"],
)
def test_lenses_need_no_undistorting(sphere_pictures, cameras_around, lens):
    surface, voxel = fused(sphere_pictures(SPHERE), cameras_around(24, **lens), 64)
    error = off_sphere(surface.vertices) / voxel
    assert np.sqrt((error**2).mean()) < 0.05 and as_trimesh(surface).is_watertight


def test_the_built_in_object_comes_back():
    from lumigraph.datasets import builtin, object_model, object_pictures

    class Exact:
        def render(self, camera, *, channels=()):
            seen = object_pictures.trace_geometry(parts, builtin.pinhole_view(camera, 0))
            depth = torch.from_numpy(seen.depth)
            color = 0.5 + 0.4 * torch.from_numpy(seen.normal)
            return Frame(color, (depth > 0).float(), depth, extras={"median_depth": depth})

    parts = object_model.model()
    cameras = builtin._cameras()[torch.arange(0, 100, 4)].resized(0.5)
    surface, voxel = fused(Exact(), cameras, 96)
    points = surface.vertices.T.astype(np.float32)
    distance = np.min([part.distance(part.to_local(points)) for part in parts], axis=0) / voxel
    assert len(surface.vertices) > 10_000
    assert np.sqrt((distance**2).mean()) < 0.2
    # colors tell the normals: of those fused, and of the triangles
    normals = as_trimesh(surface).vertex_normals
    told = (surface.colors / 255 - 0.5) / 0.4
    assert np.median((normals * told).sum(axis=1)) > 0.97


def test_what_one_view_invents_is_carved_away(sphere_pictures, cameras_around):
    """A blob that a single picture shows in free space leaves nothing; one that all show stays."""

    class Inventive(sphere_pictures):
        def render(self, cameras, *, channels=()):
            self.spheres = told if bool((cameras.positions == liar).all()) else true
            return super().render(cameras)

    blob, cameras = (0.9, -0.3, 0.6, 0.15), cameras_around(24)
    true, told = torch.tensor([SPHERE]), torch.tensor([SPHERE, blob])
    liar = cameras.positions[5]
    surface, voxel = fused(Inventive(SPHERE), cameras, 64)
    assert np.abs(off_sphere(surface.vertices)).max() < voxel
    surface, _ = fused(sphere_pictures(SPHERE, blob), cameras, 64)
    assert (np.abs(off_sphere(surface.vertices, blob)) < 0.03).sum() > 100


def test_edges_and_unseen_sides_make_no_surface(sphere_pictures, cameras_around):
    """From one side alone: no skirt hangs from the rim, nothing closes the back."""
    cameras = cameras_around(24)[torch.arange(5)]  # all from above
    small = (0.0, 0.0, 0.6, 0.3)
    spheres = (small, (0.0, 0.0, -0.7, 0.5))
    surface, voxel = fused(sphere_pictures(*spheres), cameras, 80)
    nearest = np.minimum(*(np.abs(off_sphere(surface.vertices, sphere)) for sphere in spheres))
    assert len(surface.vertices) > 500 and nearest.max() < 1.5 * voxel
    assert surface.vertices[np.abs(off_sphere(surface.vertices, small)) < voxel, 2].min() > 0.3


def test_surfaces_that_all_see_at_a_slant_have_no_holes(sphere_pictures, cameras_around):
    """A floor seen by people who walk on it: a huge sphere, 72 to 78 degrees from its normal."""
    floor = (0.0, 0.0, -100.0, 100.0)
    angles = torch.arange(12) * (math.pi / 6)
    eyes = torch.stack([2.8 * angles.cos(), 2.8 * angles.sin(), torch.full((12,), 0.75)], dim=1)
    poses = look_at(eyes, torch.zeros(3), up=[0.0, 0.0, 1.0])
    cameras = Cameras.from_intrinsics(poses, 80, 80, 96.0)
    surface, voxel = fused(sphere_pictures(floor), cameras, 100, reach=1.0)
    assert np.abs(off_sphere(surface.vertices, floor)).max() < 0.2 * voxel
    found = as_trimesh(surface)
    middle = np.linalg.norm(found.triangles_center[:, :2], axis=1) < 0.5
    assert found.area_faces[middle].sum() == pytest.approx(np.pi * 0.25, rel=0.02)


def plate(opacity: float = 1.0, depth: float = 2.0) -> Frame:
    """A fronto-parallel gray plate over 12 x 16 pixels."""
    shape = (12, 16)
    far = torch.full(shape, depth)
    return Frame(
        torch.full((*shape, 3), 0.25),
        torch.full(shape, opacity),
        far,
        extras={"median_depth": far + 0.125},
    )


@pytest.fixture
def camera() -> Cameras:
    return Cameras.from_intrinsics(torch.eye(4), 16, 12, 16.0)


def test_pixels_are_judged(camera):
    whole = plate()
    view = depth_view(whole, camera, kind="expected", truncation=0.1)
    assert (view.depth == 2).all() and (view.weight > 0.7).all()
    torch.testing.assert_close(view.points[:, 2], torch.full((192,), 2.0))
    assert view.spacing == pytest.approx(2 / 16, rel=0.1)
    median = depth_view(whole, camera, kind="median", truncation=0.1)
    assert (median.depth == 2.125).all()
    # half transparent pixels are unknown, clear ones empty, but for their border
    opacity = torch.ones(12, 16)
    opacity[:, 8:] = 0.0
    opacity[:, 7] = 0.4
    view = depth_view(dataclasses.replace(whole, opacity=opacity), camera, kind="expected",
                      truncation=0.1)  # fmt: skip
    assert (view.depth[:, :7] == 2).all() and (view.depth[:, 7:9] == 0).all()
    assert (view.depth[:, 9:] == EMPTY_DEPTH).all() and (view.weight[:, 7:9] == 0).all()


def test_depth_edges_and_oblique_surfaces_are_left_out(camera):
    depth = torch.full((12, 16), 2.0)
    depth[:, 8:] = 4.0
    view = depth_view(
        dataclasses.replace(plate(), depth=depth), camera, kind="expected", truncation=0.1
    )
    assert (view.depth[:, 7:9] == 0).all() and (view.depth[:, :7] == 2).all()
    assert (view.depth[:, 9:] == 4).all()
    # steps below the truncation are noise of one surface
    step = torch.where(depth > 3, 2.05, 2.0)
    view = depth_view(
        dataclasses.replace(plate(), depth=step), camera, kind="expected", truncation=0.1
    )
    assert view.known.all()
    ramp = 2 * torch.exp(0.5 * torch.arange(16.0)).expand(12, 16)  # 8 pixel widths a pixel
    view = depth_view(
        dataclasses.replace(plate(), depth=ramp), camera, kind="expected", truncation=0.1
    )
    assert not view.known.any()
    assert len(view.points) == 0 and view.spacing == 0


def test_broken_frames_say_nothing(camera):
    for bad in (torch.nan, torch.inf, -1.0, 0.0):
        frame = dataclasses.replace(plate(), depth=torch.full((12, 16), bad))
        view = depth_view(frame, camera, kind="expected", truncation=0.1)
        assert not view.known.any() and torch.isfinite(view.stretch).all()
    frame = dataclasses.replace(plate(), extras={})
    with pytest.raises(InputError, match="renders no median depth; use --depth expected"):
        depth_view(frame, camera, kind="median", truncation=0.1)


def test_keys_go_there_and_back():
    places = torch.randint(-(2**19), 2**19, (1000, 3))
    assert torch.equal(unpack(pack(places)), places)
    ordered = sorted(places.tolist())
    assert unpack(pack(places).sort().values).tolist() == ordered


@pytest.mark.parametrize("reach", [0.05, 0.31, 0.4, 0.9])
def test_blocks_hold_the_surroundings_of_points(reach):
    grid = dataclasses.replace(grid_of(32), voxel=0.1)  # blocks of 0.8
    points = torch.rand(200, 3) * 2 - 1
    keys = grid.blocks_near(points, reach)
    shifts = torch.cartesian_prod(*[torch.linspace(-reach, reach, 21)] * 3)
    around = (points[:, None] + shifts).reshape(-1, 3)
    around = around[(around.abs() < 1.25).all(dim=1)]
    needed = torch.unique(pack((around / 0.8).floor().long()))
    assert torch.isin(needed, keys).all()
    assert torch.equal(keys, torch.unique(keys))
    inside = unpack(keys) * 0.8
    assert ((inside + 0.8 > -1.25) & (inside < 1.25)).all()


def test_culling_changes_nothing(sphere_pictures, cameras_around):
    """Fusing only the blocks that culling leaves is the same as fusing all of them."""
    small = (0.5, -0.6, 0.4, 0.3)
    model, grid = sphere_pictures(SPHERE, small), grid_of(48)
    every = pack(torch.cartesian_prod(*[torch.arange(-4, 4)] * 3))
    culled, whole = (TsdfVolume(grid, every, truncation=3) for _ in range(2))
    rows = torch.arange(len(every))
    for index in (0, 7, 15):
        camera = cameras_around(24, radius=[3.0, 1.2, 0.5][index // 7])[index]
        view = depth_view(model.render(camera), camera, kind="median", truncation=0.15)
        # with equal weights the word on a whole block is that on each of its voxels
        view = dataclasses.replace(view, weight=view.known.float())
        culled.integrate(view)
        whole.integrate_blocks(view, rows)
    first, second = culled.values(rows), whole.values(rows)
    torch.testing.assert_close(first.distance, second.distance, atol=1e-5, rtol=0)
    torch.testing.assert_close(first.near_weight, second.near_weight, atol=1e-5, rtol=0)
    assert float(culled.empty_sum.sum()) > 0
    centers = culled.positions(culled.blocks * BLOCK + 3.5)
    found = cull(view, centers, radius=0.31, truncation=0.15)
    assert len(found.near) + len(found.empty) < len(every)


def test_too_fine_voxels_are_refused_before_they_take_memory(sphere_pictures, cameras_around):
    model, cameras = sphere_pictures(SPHERE), cameras_around(4)
    with pytest.raises(ConfigError) as refused:
        fused(model, cameras, 400, memory_budget_gib=0.05)
    message = str(refused.value)
    assert "the budget is 0.05 GiB" in message and "\n" not in message
    assert "--voxel at least" in message and "--resolution" in message
    assert model.calls < 4
    with pytest.raises(ConfigError, match="too small for a region of 2.5 scene units"):
        grid_of(10**8)


def test_the_forecast_covers_what_a_volume_takes():
    count = 500
    volume = TsdfVolume(grid_of(64), torch.arange(count), truncation=4)
    tensors = [value for value in vars(volume).values() if isinstance(value, torch.Tensor)]
    held = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert held < forecast(count, torch.device("cpu")) < 3 * held + count * 512 * 120


def test_the_collector_keeps_each_block_once():
    collector = BlockCollector(grid_of(64), limit=2**30, place="here")
    points = torch.rand(50, 3)
    collector.add(points, 0.1)
    first = collector.keys
    collector.add(points, 0.1)
    assert torch.equal(collector.keys, first)


def test_nothing_seen_is_an_empty_surface(sphere_pictures, cameras_around):
    surface, _ = fused(sphere_pictures(), cameras_around(3, side=16), 32)
    assert surface.vertices.shape == surface.triangles.shape == surface.colors.shape == (0, 3)
    empty = TsdfVolume(grid_of(32), torch.empty(0, dtype=torch.int64), truncation=4)
    assert len(extract(empty).vertices) == 0
