"""Pictures of scenes, runs and files: what is recognised, drawn, said and refused."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh
from plyfile import PlyData, PlyElement

from lumigraph import viewer
from lumigraph.core import GaussianCloud, GaussianCloud4D, Similarity
from lumigraph.core.errors import DataError, InputError
from lumigraph.core.transforms import rotation_exp
from lumigraph.export import MovingSplats, write_moving, write_splats
from lumigraph.fields import Gaussians
from lumigraph.training import Run
from lumigraph.viewer.pictures.items import CamerasItem, PointsItem
from lumigraph.viewer.pictures.sources import _scene_items, kind_of

SMALL = viewer.PictureOptions(size=(160, 120))


def cloud(count=30) -> GaussianCloud:
    random = torch.Generator().manual_seed(1)
    return GaussianCloud(
        torch.rand(count, 3, generator=random) - 0.5,
        torch.randn(count, 4, generator=random),
        torch.full((count, 3), -3.0),
        torch.full((count,), 2.0),
        torch.rand(count, 1, 3, generator=random),
    )


@pytest.fixture
def files(tmp_path) -> Path:
    """A folder with a ball and a larger one, points, and Gaussians."""
    shape = trimesh.creation.icosphere(subdivisions=3)
    shape.export(tmp_path / "ball.ply")
    shape.apply_scale(1.1)
    shape.export(tmp_path / "large.obj")
    rows = np.zeros(50, dtype=[(axis, "<f4") for axis in "xyz"])
    for axis in "xyz":
        rows[axis] = np.random.default_rng(0).normal(size=50)
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(tmp_path / "points.ply"))
    for suffix in ("ply", "splat", "spz"):
        write_splats(cloud(), tmp_path / f"splats.{suffix}")
    return tmp_path


def test_files_are_known_by_their_content(files):
    names = ("ball.ply", "large.obj", "points.ply", "splats.ply", "splats.splat", "splats.spz")
    kinds = [kind_of(files / name) for name in names]
    assert kinds == ["mesh", "mesh", "points", "Gaussians", "Gaussians", "Gaussians"]


@pytest.mark.parametrize("name", ["ball.ply", "points.ply", "splats.spz"])
def test_files_are_drawn(files, name):
    out = files / "x.png"
    report = viewer.picture_of_file(files / name, out=out, options=SMALL)
    assert report.numbers["picture"] == str(out) and out.stat().st_size > 1000
    assert report.kind == report.numbers["kind"] == kind_of(files / name)
    # Something other than the background is in the middle.
    assert np.ptp(report.picture.image[40:90, 50:110].astype(int), axis=(0, 1)).max() > 40


def test_a_mesh_is_judged_by_the_truth(files):
    report = viewer.picture_of_file(
        files / "large.obj",
        truth=files / "ball.ply",
        options=SMALL,
        subject=viewer.SubjectOptions(threshold=0.2),
    )
    scores = report.numbers["scores"]
    assert scores["accuracy"] == pytest.approx(0.1, abs=2e-3)
    assert scores["f_score"] == 1 and scores["threshold"] == 0.2
    assert [name for name, _ in report.facts][-2:] == ["F-score", "normals"]
    to_points = viewer.picture_of_file(
        files / "large.obj", truth=files / "points.ply", options=SMALL
    )
    assert to_points.numbers["scores"]["samples"] == 50


def test_cameras_are_drawn_in_the_frame_of_the_file(ring_scene):
    move = Similarity(0.5, rotation_exp(torch.tensor([0.3, -0.2, 0.9])), torch.tensor([1.0, 2, 3]))
    scene = replace(ring_scene(), normalization=move)
    points, cameras, bounds = _scene_items(scene, move=move.inverse())
    assert isinstance(cameras, CamerasItem) and isinstance(points, PointsItem)
    expected = scene.to_source(scene.cameras.positions.double())
    torch.testing.assert_close(cameras.cameras.positions, expected)
    assert len(points.points) == 2  # one of three is far away
    assert bounds.legend()[0].text == "bounds, side 4"


def test_a_file_with_cameras_is_seen_through_one(files, ring_scene):
    report = viewer.picture_of_file(
        files / "ball.ply",
        scene=ring_scene(),
        options=SMALL,
        subject=viewer.SubjectOptions(camera=0),
    )
    np.testing.assert_allclose(report.picture.view.position, [4, 0, 1.5], atol=1e-6)
    with pytest.raises(InputError, match="no capture is given"):
        viewer.picture_of_file(
            files / "ball.ply", options=SMALL, subject=viewer.SubjectOptions(camera=0)
        )


def test_files_of_what_moves_are_drawn_half_way(tmp_path):
    still = cloud()
    moving = GaussianCloud4D.from_static(still, times=0.5, duration=0.05)
    gone = GaussianCloud4D.from_static(still, times=0.9, duration=0.05)
    both = GaussianCloud4D.concatenate([moving, gone])
    splats = MovingSplats(both, GaussianCloud.empty(), torch.linspace(0, 1, 5))
    write_moving(splats, tmp_path / "a.lg4d")
    report = viewer.picture_of_file(tmp_path / "a.lg4d", options=SMALL)
    assert report.numbers["gaussians"] == len(still)
    assert "60 of them move" in dict(report.facts)["Gaussians"]


def fake_run(scene, field, method):
    """A run that lies on no disk."""
    config = SimpleNamespace(method=method)
    run = Run(Path("runs/ring"), config, scene)
    model = SimpleNamespace(field=field, moments=None)
    object.__setattr__(run, "model", lambda device: model)
    return run


def test_runs_show_what_they_learnt(ring_scene):
    run = fake_run(ring_scene(), Gaussians(cloud()), "gaussians")
    report = viewer.picture_of_run(run, options=replace(SMALL, size=(320, 240)))
    assert report.numbers["gaussians"] == 30 and ("primitives", "30 Gaussians") in report.facts
    without = viewer.picture_of_run(
        fake_run(ring_scene(), torch.nn.Module(), "nerf"), options=replace(SMALL, size=(320, 240))
    )
    assert without.facts == [("primitives", "none: method nerf has no Gaussians to draw")]
    assert (report.picture.image != without.picture.image).any()


def test_bad_files_are_refused(files):
    with pytest.raises(DataError, match=r"nothing.ply: no such file"):
        viewer.picture_of_file(files / "nothing.ply")
    (files / "x.stl").write_text("solid")
    with pytest.raises(InputError, match=r"x.stl: cannot be drawn"):
        viewer.picture_of_file(files / "x.stl")
    (files / "cut.ply").write_bytes((files / "ball.ply").read_bytes()[:900])
    with pytest.raises(DataError, match=r"cut.ply: cut short"):
        viewer.picture_of_file(files / "cut.ply")
    with pytest.raises(InputError, match="holds points, and only a mesh"):
        viewer.picture_of_file(files / "points.ply", truth=files / "ball.ply")
    with pytest.raises(InputError, match="holds Gaussians; the truth must be"):
        viewer.picture_of_file(files / "ball.ply", truth=files / "splats.spz")
    (files / "empty.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nproperty float y\n"
        "property float z\nend_header\n"
    )
    with pytest.raises(DataError, match=r"empty.ply: holds no points"):
        viewer.picture_of_file(files / "empty.ply")
    text = (files / "large.obj").read_text()
    (files / "nan.obj").write_text(text.replace(text.split("\nv ")[1].split()[0], "nan", 1))
    with pytest.raises(DataError, match=r"nan.obj: 1 of 642 vertices are not finite"):
        viewer.picture_of_file(files / "nan.obj")
