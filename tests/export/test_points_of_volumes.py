"""Points where the training cameras of a volume see surfaces, read back by other libraries."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh
from plyfile import PlyData

from lumigraph import export
from lumigraph.core import Scene, Similarity, cube
from lumigraph.core.errors import ConfigError, DataError
from lumigraph.core.transforms import rotation_exp
from lumigraph.export import PointsOptions

BALL = (-0.35, 0.2, -0.2, 0.5)
MOVE = Similarity(0.25, rotation_exp(torch.tensor([0.3, -0.8, 0.5])), torch.tensor([1.0, 2, 3]))


@dataclass
class BallRun:
    """A run of a method without Gaussians."""

    pictures: object
    pictured: Scene
    path: Path = Path("runs/x")
    config: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(method="nerf", device="cpu")
    )

    def model(self, device=None):
        return self.pictures

    def scene(self):
        return self.pictured


@pytest.fixture
def run(sphere_pictures, cameras_around) -> BallRun:
    cameras = cameras_around(12, side=64, focal=70.0)
    splits = {"train": torch.arange(10), "test": torch.tensor([10, 11])}
    scene = Scene("ball", "memory", cameras, splits, cube(torch.zeros(3), 2.5), normalization=MOVE)
    return BallRun(sphere_pictures(BALL), scene)


def test_points_lie_on_the_surface_in_the_capture_frame(run, tmp_path):
    told = []
    report = export.points(run, out=tmp_path / "a.ply", on_view=lambda *place: told.append(place))
    assert told == [(k, 10) for k in range(1, 11)] and "pixels left out" in report.line()
    vertex = PlyData.read(str(tmp_path / "a.ply"))["vertex"]
    places = np.stack([vertex[axis] for axis in "xyz"], axis=1).astype(np.float64)
    assert len(places) == report.count > 2000
    offset = MOVE.apply(torch.from_numpy(places)).numpy() - BALL[:3]
    distance = np.linalg.norm(offset, axis=1, keepdims=True)
    assert np.abs(distance - 0.5).max() < 1e-4 * 2.5
    colors = np.stack([vertex[c] for c in ("red", "green", "blue")], axis=1) / 255
    assert np.abs(colors - (0.5 + 0.4 * offset / distance)).max() < 0.003
    cloud = trimesh.load(tmp_path / "a.ply")
    np.testing.assert_allclose(np.asarray(cloud.vertices), places)
    assert np.array_equal(np.asarray(cloud.colors)[:, :3], np.rint(colors * 255))


def test_the_scene_frame_and_a_limit(run, tmp_path):
    options = PointsOptions(max_points=100, views=3)
    report = export.points(run, out=tmp_path / "a.ply", frame="scene", options=options)
    assert report.count == 100 and run.pictures.calls == 3 and report.left_out > 500
    vertex = PlyData.read(str(tmp_path / "a.ply"))["vertex"]
    places = np.stack([vertex[axis] for axis in "xyz"], axis=1)
    assert np.abs(np.linalg.norm(places - BALL[:3], axis=1) - 0.5).max() < 1e-4


def test_nothing_to_write(run, sphere_pictures, tmp_path):
    run.pictures = sphere_pictures()
    with pytest.raises(DataError, match="not written: no surface was seen in 10 views"):
        export.points(run, out=tmp_path / "a.ply")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="max_points = 0: expected at least 1"):
        PointsOptions(max_points=0)
