"""Meshes trimmed to the outlines of the object."""

import numpy as np
import pytest
import torch

from lumigraph import export
from lumigraph.core import MemoryImages, Scene, cube
from lumigraph.core.errors import ConfigError, DataError
from lumigraph.export import MeshOptions, read_mesh
from lumigraph.export.visual_hull import outside_hull

OBJECT, FLOATER = (-0.3, 0.0, 0.0, 0.5), (0.75, 0.3, 0.2, 0.15)


class Run:
    """Renders object and floater; its pictures know the object alone."""

    def __init__(self, scene, pictures):
        self._scene, self._pictures = scene, pictures
        self.config = type("Config", (), {"device": "cpu"})

    def scene(self):
        return self._scene

    def model(self, device=None):
        return self._pictures


class Masks:
    def __init__(self, masks):
        self._masks = masks

    def __len__(self):
        return len(self._masks)

    def load(self, index):
        return self._masks[index]


@pytest.fixture
def run(sphere_pictures, cameras_around):
    cameras = cameras_around(24, side=96, focal=110.0)
    truth = sphere_pictures(OBJECT)
    frames = [truth.render(cameras[index]) for index in range(24)]
    images = [torch.cat([f.color, f.opacity[..., None]], dim=2) * 255 for f in frames]
    scene = Scene(
        "ball",
        "memory",
        cameras,
        {"train": torch.arange(24)},
        cube(torch.zeros(3), 2.4),
        images=MemoryImages([image.to(torch.uint8) for image in images]),
        has_alpha=True,
    )
    return Run(scene, sphere_pictures(OBJECT, FLOATER))


def test_a_floater_is_trimmed_and_the_object_is_not(run, tmp_path):
    plain = MeshOptions(resolution=56, least_triangles=0)
    whole = export.mesh(run, out=tmp_path / "whole.ply", options=plain)
    assert read_mesh(tmp_path / "whole.ply").vertices[:, 0].max() > 0.8 and whole.trimmed == 0
    options = MeshOptions(resolution=56, least_triangles=0, trim_hull=4)
    report = export.mesh(run, out=tmp_path / "trimmed.ply", options=options)
    left = read_mesh(tmp_path / "trimmed.ply").vertices
    assert left[:, 0].max() < 0.3 and report.trimmed > 50
    assert "trimmed to the outlines" in report.line() and report.to_dict()["trimmed"] > 50
    assert report.triangles + report.trimmed == whole.triangles
    np.testing.assert_allclose(np.linalg.norm(left - OBJECT[:3], axis=1), 0.5, atol=0.05)


def points_of_rays(run, index, pixel, distance):
    rays = run.scene().cameras.rays(torch.tensor([index]), torch.tensor([pixel]))
    return rays.points(torch.tensor([distance])).double().numpy()


def test_outlines_are_widened_by_pixels_and_views_may_disagree(run):
    scene = run.scene().select([0])
    outline = scene.outline(0)
    row = int(outline.any(dim=1).nonzero()[:, 0].float().mean())
    edge = int(outline[row].nonzero()[-1])  # the last pixel of the object in this row
    beside = points_of_rays(run, 0, [edge + 3.5, row + 0.5], 3.0)
    assert outside_hull(scene, beside, pixels=2).tolist() == [True]
    assert outside_hull(scene, beside, pixels=3).tolist() == [False]
    assert outside_hull(scene, beside, pixels=0, allowed=1).tolist() == [False]
    out_of_view = points_of_rays(run, 0, [-40.0, 20.0], 3.0)
    assert outside_hull(scene, out_of_view, pixels=0).tolist() == [False]


def test_masks_serve_as_well_as_alpha(run):
    scene = run.scene()
    masks = Masks([scene.outline(index) for index in range(24)])
    plain = MemoryImages([scene.images.load(index)[..., :3] for index in range(24)])
    masked = Scene(
        "m", "memory", scene.cameras, scene.splits, scene.bounds, images=plain, masks=masks
    )
    points = np.random.default_rng(0).uniform(-1, 1, (500, 3))
    expected = outside_hull(scene, points, pixels=1)
    assert 0.5 < expected.mean() < 1
    np.testing.assert_array_equal(outside_hull(masked, points, pixels=1), expected)


def test_what_cannot_be_trimmed_is_refused_before_work(run, tmp_path):
    scene = run.scene()
    bare = Scene("bare", "some/data", scene.cameras, scene.splits, scene.bounds)
    with pytest.raises(DataError, match="some/data: has no alpha and no masks"):
        export.mesh(
            Run(bare, None), out=tmp_path / "x.ply", options=MeshOptions(resolution=9, trim_hull=1)
        )
    with pytest.raises(ConfigError, match="trim_hull = -1"):
        MeshOptions(trim_hull=-1)
    with pytest.raises(ConfigError, match="trim_allowed is for trim_hull"):
        MeshOptions(trim_allowed=2)


def test_nothing_left_says_why(run, sphere_pictures, tmp_path):
    only_floater = Run(run.scene(), sphere_pictures(FLOATER))
    with pytest.raises(DataError, match="all else outside the outlines"):
        options = MeshOptions(resolution=32, trim_hull=2)
        export.mesh(only_floater, out=tmp_path / "x.ply", options=options)
    assert not (tmp_path / "x.ply").exists()
