"""What is written lies in the capture's frame within 1e-4 of the scene's size, as other people's
libraries read it: trimesh, pygltflib and plyfile. Cameras are in test_camera_export.py, textures in
test_textures.py."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pygltflib
import pytest
import torch
import trimesh
from plyfile import PlyData

from lumigraph import export
from lumigraph.core import GaussianCloud, Scene, Similarity, cube
from lumigraph.core.transforms import rotation_exp
from lumigraph.export import MeshOptions, PointsOptions

SIDE = 2.5
MOVE = Similarity(
    0.04, rotation_exp(torch.tensor([0.3, -0.8, 0.5])), torch.tensor([4.0, -7.0, 2.0])
)
CAPTURE_SIDE = SIDE / 0.04


@dataclass
class MovedRun:
    """A ball, or Gaussians, in a scene that was moved from its capture."""

    pictured: Scene
    rendered: object
    path: Path = Path("runs/x")
    config: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(method="nerf", device="cpu")
    )

    def model(self, device=None):
        return self.rendered

    def scene(self):
        return self.pictured


@pytest.fixture
def run(sphere_pictures, cameras_around) -> MovedRun:
    cameras = cameras_around(20, side=56, focal=62.0)
    splits = {"train": torch.arange(20)}
    scene = Scene("ball", "memory", cameras, splits, cube(torch.zeros(3), SIDE), normalization=MOVE)
    return MovedRun(scene, sphere_pictures((-0.35, 0.2, -0.2, 0.5)))


def by_trimesh(path: Path) -> np.ndarray:
    loaded = trimesh.load(path, process=False)
    if hasattr(loaded, "geometry"):
        (loaded,) = loaded.geometry.values()
    return np.asarray(loaded.vertices, np.float64)


def by_pygltflib(path: Path) -> np.ndarray:
    file = pygltflib.GLTF2().load(str(path))
    node = file.nodes[file.scenes[file.scene].nodes[0]]
    assert node.matrix is None or np.allclose(node.matrix, np.eye(4).ravel())
    accessor = file.accessors[file.meshes[0].primitives[0].attributes.POSITION]
    view = file.bufferViews[accessor.bufferView]
    start = (view.byteOffset or 0) + (accessor.byteOffset or 0)
    content = file.binary_blob()[start : start + 12 * accessor.count]
    return np.frombuffer(content, np.float32).reshape(-1, 3).astype(np.float64)


def by_plyfile(path: Path) -> np.ndarray:
    vertex = PlyData.read(str(path))["vertex"]
    return np.stack([vertex[axis] for axis in "xyz"], axis=1).astype(np.float64)


@pytest.mark.parametrize(
    ("suffix", "read"),
    [
        (".ply", by_trimesh),
        (".ply", by_plyfile),
        (".obj", by_trimesh),
        (".glb", by_trimesh),
        (".glb", by_pygltflib),
    ],
)
def test_meshes(run, tmp_path, suffix, read):
    options = MeshOptions(resolution=40)
    export.mesh(run, out=tmp_path / "exact.ply", frame="scene", options=options)
    export.mesh(run, out=tmp_path / f"a{suffix}", options=options)
    exact = torch.from_numpy(by_plyfile(tmp_path / "exact.ply"))
    expected = MOVE.inverse().apply(exact).numpy()
    found = read(tmp_path / f"a{suffix}")
    assert found.shape == expected.shape and len(found) > 1000
    assert np.abs(found - expected).max() < 1e-4 * CAPTURE_SIDE


@pytest.mark.parametrize("read", [by_trimesh, by_plyfile])
def test_points(run, tmp_path, read):
    options = PointsOptions(max_points=500)
    export.points(run, out=tmp_path / "exact.ply", frame="scene", options=options)
    export.points(run, out=tmp_path / "a.ply", options=options)
    exact = torch.from_numpy(by_plyfile(tmp_path / "exact.ply"))
    found = read(tmp_path / "a.ply")
    assert np.abs(found - MOVE.inverse().apply(exact).numpy()).max() < 1e-4 * CAPTURE_SIDE


def test_gaussians(run, random_cloud, tmp_path):
    cloud: GaussianCloud = random_cloud(200)
    run.rendered = SimpleNamespace(field=SimpleNamespace(cloud=lambda: cloud))
    run.config.method, run.config.antialiased = "gaussians", False
    expected = MOVE.inverse().apply(cloud.means.double()).numpy()
    export.splats(run, out=tmp_path / "a.ply")
    assert np.abs(by_plyfile(tmp_path / "a.ply") - expected).max() < 1e-4 * CAPTURE_SIDE
    export.points(run, out=tmp_path / "b.ply", options=PointsOptions(least_opacity=0.0))
    assert np.abs(by_trimesh(tmp_path / "b.ply") - expected).max() < 1e-4 * CAPTURE_SIDE
