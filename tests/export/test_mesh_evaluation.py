"""The mesh of a run scored against the true surface: spheres of known radii, in the unit of the
capture."""

import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh

from lumigraph import export
from lumigraph.core import Frame, MemoryImages, Scene, Similarity, cube
from lumigraph.core.errors import ConfigError, DataError, InputError
from lumigraph.core.transforms import rotation_exp
from lumigraph.export import MeshOptions, MeshScoreOptions, RegionOptions, TriangleMesh
from lumigraph.export.mesh_evaluation import normal_error
from lumigraph.training.report import write_report

MOVE = Similarity(0.25, rotation_exp(torch.tensor([0.3, -0.8, 0.5])), torch.tensor([1.0, 2, 3]))
"""A unit of the capture is a quarter of one of the scene."""


class Tilted:
    """Pictures of a ball around the origin whose normals are turned by some degrees about an axis
    across each of them."""

    def __init__(self, pictures, degrees):
        self.pictures, self.angle = pictures, math.radians(degrees)

    def render(self, camera, channels=()):
        frame = self.pictures.render(camera)
        rays = camera.image_rays(0)
        distance = frame.depth.reshape(-1) / camera.depth_factors(rays)
        normal = torch.nn.functional.normalize(rays.points(distance), dim=1)
        other = torch.tensor([0.3, 0.5, 0.8]).expand_as(normal)
        axis = torch.nn.functional.normalize(torch.linalg.cross(normal, other), dim=1)
        across = torch.linalg.cross(axis, normal)
        turned = normal * math.cos(self.angle) + across * math.sin(self.angle)
        turned = turned.reshape(*frame.depth.shape, 3)
        return Frame(frame.color, frame.opacity, frame.depth, normal=turned)


@dataclasses.dataclass
class Run:
    path: object
    given: Scene
    pictures: object
    config: object = dataclasses.field(default_factory=lambda: SimpleNamespace(device="cpu"))

    def scene(self):
        return self.given

    def model(self, device=None):
        return self.pictures

    def evaluation(self):
        file = self.path / "evaluate.json"
        return json.loads(file.read_text()) if file.is_file() else None

    def add_timing(self, stage, seconds):
        self.timed = stage


def ball_in_capture(radius, fine=4):
    """A ball around the origin of the scene, by its radius there, in the frame of the capture."""
    shape = trimesh.creation.icosphere(subdivisions=fine)
    vertices = MOVE.inverse().apply(torch.from_numpy(shape.vertices * radius)).numpy()
    return trimesh.Trimesh(vertices, shape.faces)


@pytest.fixture
def run(tmp_path, sphere_pictures, cameras_around):
    cameras = cameras_around(26, side=64, focal=70.0)
    images = MemoryImages([torch.zeros(64, 64, 3, dtype=torch.uint8)] * 26)
    splits = {"train": torch.arange(24), "test": torch.tensor([24, 25])}
    bounds = cube(torch.zeros(3), 2.4)
    scene = Scene("ball", "data", cameras, splits, bounds, images=images, normalization=MOVE)
    (tmp_path / "run").mkdir()
    return Run(tmp_path / "run", scene, Tilted(sphere_pictures((0, 0, 0, 0.8)), 20))


COARSE = MeshOptions(resolution=48)
QUICK = MeshScoreOptions(samples=4000, threshold=0.3)


def test_a_run_is_scored_in_the_unit_of_the_capture(run, tmp_path):
    (run.path / "evaluate.json").write_text('{"psnr": 30.0}')
    ball_in_capture(0.9).export(tmp_path / "truth.ply")
    stages = []
    found = export.evaluate_mesh(
        run,
        tmp_path / "truth.ply",
        options=QUICK,
        mesh_options=COARSE,
        on_progress=lambda stage, done, total: stages.append(stage),
    )
    scores = found.error.scores
    # 0.1 in the scene, less what the voxels of the mesh err by
    assert scores.accuracy == pytest.approx(0.4, abs=0.05)
    assert scores.completeness == pytest.approx(0.4, abs=0.05)
    assert scores.normal_degrees < 6
    assert (scores.f_score, scores.mesh_counted) == (0, 1)
    kept = json.loads((run.path / "evaluate.json").read_text())
    assert kept["psnr"] == 30 and kept["mesh"]["chamfer"] == scores.chamfer
    assert kept["mesh"]["truth"].endswith("truth.ply")
    truth = export.read_truth(tmp_path / "truth.ply")
    assert kept["mesh"]["normal_error_degrees"] == normal_error(run.pictures, run.scene(), truth)
    assert "seen by 1 or more of 24 training cameras" in kept["mesh"]["protocol"]
    np.testing.assert_allclose(
        np.linalg.norm(found.mesh.vertices - MOVE.inverse().translation.numpy(), axis=1),
        3.2,
        atol=0.15,
    )
    assert (run.path / "renders" / "mesh.ply").is_file()
    assert {"fusing", "looking", "normals"} <= set(stages) and run.timed == "mesh evaluation"
    facts = dict(found.lines())
    assert facts["truth"] == "truth.ply" and "2 test views" in facts["rendered normals"]
    assert facts["accuracy"].startswith("0.")


def test_another_mesh_is_judged_in_place_of_the_runs(run, tmp_path):
    ball_in_capture(1.0).export(tmp_path / "own.glb")
    ball_in_capture(0.9).export(tmp_path / "truth.ply")
    given = {"mesh_file": tmp_path / "own.glb", "options": QUICK}
    found = export.evaluate_mesh(run, tmp_path / "truth.ply", **given)
    assert found.error.scores.chamfer == pytest.approx(0.4, abs=0.01)
    assert found.name == "own.glb" and "normal_error_degrees" not in found.numbers
    assert not (run.path / "renders" / "mesh.ply").exists()
    with pytest.raises(InputError, match=r"own.glb: is judged as it is"):
        export.evaluate_mesh(run, tmp_path / "truth.ply", mesh_options=COARSE, **given)


def test_sparse_points_tell_their_distance_to_the_mesh(run, tmp_path):
    points = ball_in_capture(0.9, fine=1).vertices
    trimesh.PointCloud(points).export(tmp_path / "sfm.ply")
    ball_in_capture(1.0).export(tmp_path / "own.ply")
    found = export.evaluate_mesh(
        run, tmp_path / "sfm.ply", mesh_file=tmp_path / "own.ply", options=QUICK
    )
    assert found.error.scores.sparse and found.numbers["accuracy"] is None
    assert found.numbers["completeness_median"] == pytest.approx(0.4, abs=0.01)
    assert "not told" in dict(found.lines())["accuracy"]


@pytest.mark.parametrize("degrees", [0, 35])
def test_rendered_normals_err_by_the_known_angle(run, degrees):
    truth = ball_in_capture(0.8, fine=5)
    mesh = TriangleMesh.of(truth.vertices, truth.faces[:, ::-1])  # inside out: makes no difference
    run.pictures.angle = math.radians(degrees)
    found = normal_error(run.pictures, run.scene(), mesh)
    assert found["median"] == pytest.approx(degrees, abs=1.5) and found["pixels"] > 1000
    assert normal_error(run.pictures.pictures, run.scene(), mesh) is None  # renders no normals
    assert normal_error(run.pictures, run.scene(), mesh, split="val") is None


def test_normals_count_inside_the_outline(run):
    truth = ball_in_capture(0.8, fine=3)
    mesh = TriangleMesh.of(truth.vertices, truth.faces)
    image = torch.zeros(64, 64, 4, dtype=torch.uint8)
    image[:, 30:34, 3] = 255
    whole = normal_error(run.pictures, run.scene(), mesh)
    images = MemoryImages([image] * 26)
    cut = dataclasses.replace(run.scene(), images=images, has_alpha=True)
    inside = normal_error(run.pictures, cut, mesh)
    assert 0 < inside["pixels"] < whole["pixels"] / 5


@pytest.mark.parametrize(
    ("shift", "scale"), [((500.0, 0, 0), 1.0), ((0, 0, 0), 1000.0), ((0, 0, 0), 1e-3)]
)
def test_a_truth_in_another_frame_or_unit_is_refused_before_work(run, tmp_path, shift, scale):
    truth = ball_in_capture(0.8)
    middle = truth.vertices.mean(axis=0)
    truth.vertices = (truth.vertices - middle) * scale + middle + shift
    truth.export(tmp_path / "truth.ply")
    (run.path / "renders").mkdir()
    with pytest.raises(DataError, match=r"truth.ply: does not lie on the bounds .* units differ"):
        export.evaluate_mesh(run, tmp_path / "truth.ply", options=QUICK)
    assert not list((run.path / "renders").iterdir()) and run.evaluation() is None


def test_a_truth_that_no_camera_sees_is_refused(run, tmp_path):
    inner = ball_in_capture(0.1)
    inner.export(tmp_path / "own.ply")
    behind = dataclasses.replace(
        run.scene(), cameras=run.scene().cameras.cropped(0, 0, 1, 1), images=None
    )
    with pytest.raises(DataError, match=r"own.ply: none of it lies where it would count"):
        export.evaluate_mesh(
            dataclasses.replace(run, given=behind),
            tmp_path / "own.ply",
            mesh_file=tmp_path / "own.ply",
            options=QUICK,
        )


def test_bad_options():
    for values, message in (
        ({"samples": 5}, "samples 5"),
        ({"cap": -1}, "cap -1"),
        ({"spacing": 0}, "spacing 0"),
        ({"threshold": math.nan}, "threshold nan"),
    ):
        with pytest.raises(InputError, match=message):
            MeshScoreOptions(**values)
    with pytest.raises(InputError, match="seen_by -1"):
        RegionOptions(seen_by=-1)
    with pytest.raises(ConfigError, match="resolution"):
        MeshOptions(resolution=2)


def test_the_report_shows_the_scores(run, tmp_path):
    ball_in_capture(0.9, fine=2).export(tmp_path / "truth.ply")
    (run.path / "config.yaml").write_text("method: neus\n")
    export.evaluate_mesh(
        run, tmp_path / "truth.ply", mesh_file=tmp_path / "truth.ply", options=QUICK
    )
    text = write_report(run.path).read_text()
    assert "Mesh against the truth" in text and "what counts" in text and "mesh, F-score" in text
    assert str(tmp_path) not in text.split("Settings")[0]  # a report may be sent on
    picture = np.zeros((8, 16, 3), np.uint8)
    from PIL import Image

    (run.path / "renders").mkdir()
    Image.fromarray(picture).save(run.path / "renders" / "mesh_error.png")
    assert 'alt="errors of the mesh"' in write_report(run.path).read_text()
    # a picture of earlier scores goes with them
    export.evaluate_mesh(
        run, tmp_path / "truth.ply", mesh_file=tmp_path / "truth.ply", options=QUICK
    )
    assert not (run.path / "renders" / "mesh_error.png").exists()
