"""Meshes of runs: files read back by other readers, in the frame of the capture, whole or not at
all."""

import json
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh
from plyfile import PlyData

from lumigraph import export
from lumigraph.cli import main
from lumigraph.core import MemoryImages, Scene, Similarity, cube
from lumigraph.core.color import srgb_to_linear
from lumigraph.core.errors import ConfigError, DataError, InputError, MissingExtraError
from lumigraph.core.transforms import rotation_exp
from lumigraph.export import MeshOptions, depth_fusion
from lumigraph.export.isosurface import Surface
from lumigraph.export.mesh_files import write_mesh
from lumigraph.export.surface_cleaning import count_components, decimated, largest_components

LARGE, SMALL = (-0.35, 0.2, -0.2, 0.5), (0.6, -0.5, 0.5, 0.22)
MOVE = Similarity(0.25, rotation_exp(torch.tensor([0.3, -0.8, 0.5])), torch.tensor([1.0, 2, 3]))
COARSE = {"resolution": 48}


@dataclass
class FakeRun:
    """As much of a `training.Run` as a mesh asks for."""

    pictures: object
    ring: Scene
    path: Path = Path("runs/x")
    config: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(device="cpu"))
    stages: list[str] = field(default_factory=list)

    def model(self, device=None):
        return self.pictures

    def scene(self):
        return self.ring

    def add_timing(self, stage, seconds):
        self.stages.append(stage)


@pytest.fixture
def run(sphere_pictures, cameras_around) -> FakeRun:
    """Two spheres, in a scene that was moved from its capture."""
    cameras = cameras_around(40, side=64, focal=70.0)
    images = MemoryImages([torch.zeros(64, 64, 3, dtype=torch.uint8)] * 40)
    train = torch.tensor([index for index in range(40) if index not in (6, 13)])
    splits = {"train": train, "test": torch.tensor([6, 13])}
    bounds = cube(torch.zeros(3), 2.5)
    scene = Scene("two", "memory", cameras, splits, bounds, images=images, normalization=MOVE)
    return FakeRun(sphere_pictures(LARGE, SMALL), scene)


def read(path: Path) -> tuple[trimesh.Trimesh, np.ndarray]:
    """The mesh as trimesh reads it, and its sRGB colors (V, 3) from 0 to 1."""
    loaded = trimesh.load(path, process=False)
    if path.suffix == ".glb":
        (loaded,) = loaded.geometry.values()
        linear = torch.from_numpy(np.array(loaded.visual.vertex_attributes["color"]))
        back = torch.linspace(0, 1, 256)
        nearest = torch.searchsorted(srgb_to_linear(back), linear[:, :3].contiguous())
        return loaded, back[nearest.clamp_max(255)].numpy()
    return loaded, loaded.visual.vertex_colors[:, :3] / 255


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb", ".PLY"])
def test_files_are_in_the_capture_frame_for_other_readers(run, tmp_path, suffix):
    out = tmp_path / f"a{suffix}"
    report = export.mesh(run, out=out, options=MeshOptions(**COARSE))
    found, colors = read(out)
    assert report.vertices == len(found.vertices) and report.triangles == len(found.faces)
    assert report.components == 2 and report.views == 38 and report.bytes == out.stat().st_size
    assert report.voxel == pytest.approx(2.5 / 48 / 0.25)  # in the capture's unit
    points = MOVE.apply(torch.from_numpy(np.array(found.vertices))).numpy()
    offsets = points[None] - np.array([LARGE, SMALL])[:, None, :3]
    distance = np.linalg.norm(offsets, axis=2) - np.array([[0.5], [0.22]])
    nearest = np.abs(distance).argmin(axis=0)
    assert np.sqrt((distance.min(axis=0) ** 2).mean()) < 0.1 * 2.5 / 48
    # outward, counter-clockwise, and in the right colors
    normals = offsets[nearest, np.arange(len(points))]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    turned = MOVE.apply_directions(torch.from_numpy(np.array(found.vertex_normals))).numpy()
    assert (turned * normals).sum(axis=1)[nearest == 0].min() > 0.97
    assert found.is_watertight and found.volume > 0
    assert np.abs(colors - (0.5 + 0.4 * normals))[nearest == 0].max() < 0.03


def test_the_scene_frame_is_that_of_training(run, tmp_path):
    report = export.mesh(run, out=tmp_path / "a.ply", frame="scene", options=MeshOptions(**COARSE))
    found, _ = read(tmp_path / "a.ply")
    distance = np.linalg.norm(found.vertices - np.array(LARGE[:3]), axis=1)
    assert distance.min() == pytest.approx(0.5, abs=0.03)
    assert report.voxel == pytest.approx(2.5 / 48)


def test_a_voxel_is_in_the_unit_of_the_frame(run, tmp_path):
    options = MeshOptions(voxel=2.5 / 32 / 0.25)
    assert export.mesh(run, out=tmp_path / "a.ply", options=options).voxel == options.voxel
    options = MeshOptions(voxel=2.5 / 32)
    fine = export.mesh(run, out=tmp_path / "b.ply", frame="scene", options=options)
    assert fine.voxel == pytest.approx(2.5 / 32)
    assert len(read(tmp_path / "a.ply")[0].faces) == fine.triangles


def test_a_ply_says_what_it_holds(run, tmp_path):
    export.mesh(run, out=tmp_path / "a.ply", options=MeshOptions(**COARSE))
    data = PlyData.read(str(tmp_path / "a.ply"))
    names = [prop.name for prop in data["vertex"].properties]
    assert names[:6] == ["x", "y", "z", "nx", "ny", "nz"]
    assert {"red", "green", "blue"} <= set(names)
    assert all(len(face) == 3 for face in data["face"]["vertex_indices"])


def test_a_glb_is_shown_without_lamps(run, tmp_path):
    export.mesh(run, out=tmp_path / "a.glb", options=MeshOptions(**COARSE))
    content = (tmp_path / "a.glb").read_bytes()
    (length,) = struct.unpack_from("<I", content, 12)
    tree = json.loads(content[20 : 20 + length])
    (primitive,) = tree["meshes"][0]["primitives"]
    assert set(primitive["attributes"]) == {"POSITION", "NORMAL", "COLOR_0"}
    accessor = tree["accessors"][primitive["attributes"]["COLOR_0"]]
    assert (accessor["componentType"], accessor["type"]) == (5126, "VEC3")
    assert "KHR_materials_unlit" in tree["materials"][primitive["material"]]["extensions"]
    assert tree["extensionsUsed"] == ["KHR_materials_unlit"]


def test_parts_are_chosen_by_size(run, tmp_path):
    one = export.mesh(run, out=tmp_path / "a.ply", options=MeshOptions(components=1, **COARSE))
    assert (one.components, one.dropped) == (1, 1) and "left out: 1 small part" in one.line()
    options = MeshOptions(least_triangles=one.triangles, **COARSE)
    assert export.mesh(run, out=tmp_path / "b.ply", options=options).dropped == 1
    two = export.mesh(run, out=tmp_path / "c.ply", options=MeshOptions(**COARSE))
    assert two.components == 2 and two.triangles > one.triangles


def test_simplified_meshes_keep_place_and_color(run, tmp_path):
    options = MeshOptions(components=1, triangles=600, **COARSE)
    report = export.mesh(run, out=tmp_path / "a.ply", frame="scene", options=options)
    assert 300 < report.triangles <= 600
    found, colors = read(tmp_path / "a.ply")
    offset = found.vertices - np.array(LARGE[:3])
    distance = np.linalg.norm(offset, axis=1, keepdims=True)
    assert np.abs(distance - 0.5).max() < 0.06
    assert np.abs(colors - (0.5 + 0.4 * offset / distance)).max() < 0.1


def test_views_are_chosen_evenly_and_an_orbit_joins(run):
    positions = run.scene().cameras.positions[run.scene().split("train")]
    few = depth_fusion.fusion_cameras(run.scene(), MeshOptions(views=3))
    assert torch.equal(few.positions, positions[[0, 18, 37]])
    more = depth_fusion.fusion_cameras(run.scene(), MeshOptions(views=500, orbit=7))
    assert len(more) == 45 and torch.equal(more.positions[:38], positions)


def test_the_orbit_stays_at_the_moment_of_the_views(run):
    scene = run.scene()
    still = replace(scene, cameras=scene.cameras.at_time(0.4))
    cameras = depth_fusion.fusion_cameras(still, MeshOptions(views=3, orbit=5))
    assert len(cameras) == 8 and cameras.times.unique().tolist() == [pytest.approx(0.4)]


def test_voxels_are_as_large_as_pixels_unless_told(run):
    grid = depth_fusion.voxel_grid(
        run.scene(), MeshOptions(reach=2.0), scale=4.0, device=torch.device("cpu")
    )
    # 3 units away, with a focal length of 70 pixels; at least 64 in 2.5 units
    assert grid.voxel == pytest.approx(2.5 / 64)
    assert (grid.bounds[1] - grid.bounds[0]).tolist() == [5.0, 5.0, 5.0]


def test_progress_is_told(run, tmp_path):
    seen = []
    export.mesh(
        run,
        out=tmp_path / "a.ply",
        options=MeshOptions(views=4, **COARSE),
        on_progress=lambda *place: seen.append(place),
    )
    assert seen == [("fusing", index, 8) for index in range(1, 9)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.stl", "unknown suffix '.stl'; a mesh must end in .ply, .obj, .glb"),
        ("a", "unknown suffix ''"),
        ("there.ply", "exists already; replace it with --overwrite"),
        ("folder.ply", "is a folder"),
    ],
)
def test_bad_targets_are_refused_before_work(run, tmp_path, name, message):
    (tmp_path / "there.ply").write_bytes(b"earlier")
    (tmp_path / "folder.ply").mkdir()
    with pytest.raises(InputError, match=message):
        export.mesh(run, out=tmp_path / name)
    assert run.pictures.calls == 0
    assert (tmp_path / "there.ply").read_bytes() == b"earlier"


def test_an_empty_result_writes_nothing(run, sphere_pictures, tmp_path):
    (tmp_path / "a.ply").write_bytes(b"earlier")
    run.pictures = sphere_pictures()
    with pytest.raises(DataError, match="a.ply: not written: no surface was found in 38 views"):
        export.mesh(run, out=tmp_path / "a.ply", options=MeshOptions(overwrite=True, **COARSE))
    assert (tmp_path / "a.ply").read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["a.ply"]


def test_a_failed_write_leaves_the_earlier_file(run, tmp_path, monkeypatch):
    (tmp_path / "a.ply").write_bytes(b"earlier")

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="cannot be written .No space left"):
        export.mesh(run, out=tmp_path / "a.ply", options=MeshOptions(overwrite=True, **COARSE))
    assert (tmp_path / "a.ply").read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["a.ply"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resolution": 4}, "resolution = 4: expected 8 to 8192"),
        ({"voxel": 0.0}, "voxel = 0.0: expected a number above 0"),
        ({"voxel": float("nan")}, "voxel = nan"),
        ({"voxel": 0.1, "resolution": 64}, "give one of them"),
        ({"truncation": 1.0}, "truncation = 1.0: expected 2 to 8"),
        ({"views": 0}, "views = 0"),
        ({"depth": "mode"}, "expected median or expected"),
        ({"source": "cloud"}, "source = 'cloud': expected fusion or density"),
        ({"source": "density", "depth": "median"}, "depth is for a fusion"),
        ({"source": "density", "orbit": 3}, "orbit is for a fusion"),
        ({"level": 0.0}, "level = 0.0"),
        ({"texture": 32}, "texture = 32: expected 64 to 16384"),
        ({"components": 0}, "components = 0"),
        ({"reach": -1.0}, "reach = -1.0"),
        ({"memory_budget_gib": -1.0}, "memory_budget_gib"),
    ],
)
def test_bad_options(values, message):
    with pytest.raises(ConfigError, match=message):
        MeshOptions(**values)


def test_a_missing_extra_is_named(run, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lumigraph\[mesh\]'"):
        export.mesh(run, out=tmp_path / "a.ply")
    assert run.pictures.calls == 0


def test_large_coordinates_are_remarked(run, tmp_path):
    far = Similarity(1.0, torch.eye(3), torch.tensor([-4.5e6, 3e5, 0.0]))
    run.ring = Scene(
        "far", "memory", run.ring.cameras, run.ring.splits, run.ring.bounds, normalization=far
    )
    report = export.mesh(run, out=tmp_path / "a.ply", options=MeshOptions(**COARSE))
    assert report.rounding > 1 and "--frame scene keeps the digits" in report.line()
    near = export.mesh(run, out=tmp_path / "b.ply", frame="scene", options=MeshOptions(**COARSE))
    assert "digits" not in near.line()


def patch(side: int, shift: float) -> Surface:
    """A flat sheet of 2 side^2 triangles."""
    grid = np.stack(np.meshgrid(*[np.arange(side + 1.0)] * 2, indexing="ij"), axis=-1)
    vertices = np.concatenate([grid.reshape(-1, 2), np.full(((side + 1) ** 2, 1), shift)], axis=1)
    corner = (np.arange(side)[:, None] * (side + 1) + np.arange(side)).reshape(-1, 1)
    triangles = [corner + steps for steps in ([0, side + 1, 1], [1, side + 1, side + 2])]
    return Surface(vertices, np.concatenate(triangles), np.zeros((len(vertices), 3), np.uint8))


def together(*parts: Surface) -> Surface:
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    triangles = [part.triangles + start for part, start in zip(parts, starts, strict=False)]
    columns = zip(*parts, strict=True)
    vertices, _, colors = (np.concatenate(column) for column in columns)
    return Surface(vertices, np.concatenate(triangles), colors)


def test_components_keep_their_vertices_only():
    whole = together(patch(2, 0.0), patch(5, 1.0), patch(3, 2.0))
    assert count_components(whole) == 3
    kept, dropped = largest_components(whole, most=2, least_triangles=0)
    assert (len(kept.triangles), dropped) == (68, 1) and len(kept.vertices) == 36 + 16
    kept, dropped = largest_components(whole, most=None, least_triangles=18)
    assert dropped == 1 and set(kept.vertices[:, 2]) == {1.0, 2.0}
    assert len(decimated(kept, 40).triangles) <= 40
    assert decimated(kept, 68) is kept


def test_written_meshes_survive_without_a_run(tmp_path):
    surface = patch(3, 0.5)
    surface.colors[:] = (10, 128, 250)
    for suffix in (".ply", ".obj", ".glb"):
        write_mesh(surface, tmp_path / f"a{suffix}")
        found, colors = read(tmp_path / f"a{suffix}")
        np.testing.assert_allclose(found.vertices, surface.vertices, atol=1e-6)
        assert np.array_equal(found.faces, surface.triangles)
        np.testing.assert_allclose(colors * 255, surface.colors, atol=1.0)


def test_the_command(run, tmp_path, monkeypatch, capsys):
    from lumigraph import training

    monkeypatch.setitem(vars(training), "Run", SimpleNamespace(open=lambda path: run))
    monkeypatch.chdir(tmp_path)
    words = ["export", "mesh", "runs/x", "--out", "a.glb", "--resolution", "48"]
    assert main([*words, "--components", "1", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["out"] == "a.glb" and printed["components"] == 1
    assert (tmp_path / "a.glb").stat().st_size == printed["bytes"] and run.stages == ["mesh"]
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--degree", "1"]) == 2
    assert "--degree is for splats and page, not for mesh" in capsys.readouterr().err
