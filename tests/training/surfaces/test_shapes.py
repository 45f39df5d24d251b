"""Surfaces learnt from pictures of shapes that are known exactly."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from lumigraph.core import Similarity
from lumigraph.export import MeshOptions, mesh
from lumigraph.training import evaluate, train

CELLS = 96


def surface_points(field, side: float) -> np.ndarray:
    """Vertices of the zero set, in the scene frame, whose middle is that of the bounds."""
    measure = pytest.importorskip("skimage.measure")
    axis = torch.linspace(0, 1, CELLS)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    distance = field.sdf(grid).reshape(CELLS, CELLS, CELLS).numpy()
    vertices, *_ = measure.marching_cubes(distance, 0.0)
    return vertices / (CELLS - 1) * side - side / 2


def chamfer(field, shape) -> float:
    """Mean of both directions, over the diameter of the bounding sphere."""
    found = surface_points(field, shape.scene.side)
    accuracy = shape.distance(torch.from_numpy(found).float()).abs().mean()
    completeness = cKDTree(found).query(shape.points.positions.numpy())[0].mean()
    return (float(accuracy) + float(completeness)) / 2 / shape.scene.side


@pytest.mark.parametrize("name", ["ball", "ring"])
def test_shapes_are_learnt_from_their_pictures(name, shapes, quick, tmp_path):
    shape = shapes[name]
    scene = shape.scene
    config = dataclasses.replace(quick, steps=400)
    run = train(scene, config, out=tmp_path / "run")
    model = run.model("cpu")
    assert chamfer(model.field, shape) < 0.01
    frame = model.render(scene.cameras[16], channels=("color", "normal"))
    truth, known = scene.images.load(16)[..., 3] > 0, scene.depths.load(16)
    assert float(((frame.opacity > 0.5) == truth).float().mean()) > 0.97
    met = (frame.extras["median_depth"] > 0) & truth
    error = (frame.extras["median_depth"] - known)[met].abs().median()
    assert float(met.sum()) > 0.9 * float(truth.sum()) and float(error) < 0.02 * scene.side
    assert evaluate(run)["psnr"] > 22


def test_the_mesh_of_a_run_is_its_zero_set_in_the_unit_of_the_capture(shapes, quick, tmp_path):
    trimesh = pytest.importorskip("trimesh")
    shape = shapes["ball"]
    larger = Similarity(scale=0.5, rotation=torch.eye(3), translation=torch.tensor([1.0, 2.0, 3.0]))
    scene = dataclasses.replace(shape.scene, normalization=larger)
    run = train(scene, dataclasses.replace(quick, steps=150), out=tmp_path / "run")
    told = []
    options = MeshOptions(resolution=64, components=1)
    report = mesh(
        run, out=tmp_path / "x.ply", options=options, on_progress=lambda *done: told.append(done)
    )
    assert told == [("distance", 1, 1)] and report.components == 1
    assert report.source == "distance"
    found = trimesh.load(tmp_path / "x.ply", process=False)
    assert found.is_watertight and found.volume > 0
    vertices = torch.from_numpy(np.asarray(found.vertices))
    assert float(shape.distance(larger.apply(vertices).float()).abs().mean()) < 0.03 * scene.side
    plain = mesh(
        run, out=tmp_path / "y.ply", options=dataclasses.replace(options, depth="expected")
    )
    assert plain.triangles > 0 and plain.source == "fusion"


@pytest.mark.gpu
def test_shapes_are_learnt_on_a_gpu(shapes, quick, tmp_path):
    config = dataclasses.replace(quick, steps=400, device="cuda")
    run = train(shapes["ring"].scene, config, out=tmp_path / "run")
    assert chamfer(run.model("cpu").field, shapes["ring"]) < 0.01
    frame = run.model("cuda").render(shapes["ring"].scene.cameras[16])
    same = run.model("cpu").render(shapes["ring"].scene.cameras[16])
    assert float((frame.color - same.color).abs().mean()) < 0.02
