"""Rays that meet meshes; which parts of two surfaces are compared."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import trimesh
from scipy import io

from lumigraph.core import MemoryImages, Scene, Similarity, cube
from lumigraph.core.errors import DataError, InputError, MissingExtraError
from lumigraph.export import RegionOptions, camera_regions, mesh_error
from lumigraph.export.mesh_rays import RayCaster
from lumigraph.export.mesh_reading import TriangleMesh
from lumigraph.export.mesh_regions import AbovePlane, ObservedSpace
from lumigraph.export.mesh_targets import TruePoints


def balls(*spheres, fine=4):
    """Spheres of x y z radius in one mesh."""
    parts, start = [], 0
    for x, y, z, radius in spheres:
        shape = trimesh.creation.icosphere(subdivisions=fine)
        parts.append((shape.vertices * radius + (x, y, z), shape.faces + start))
        start += len(shape.vertices)
    return TriangleMesh.of(
        np.concatenate([vertices for vertices, _ in parts]),
        np.concatenate([triangles for _, triangles in parts]),
        name="balls",
    )


BALL = (0.0, 0.0, 0.0, 1.0)


@pytest.fixture
def scene(cameras_around):
    """Cameras all around, in a frame that is half as large as the capture's and moved."""
    move = Similarity(0.5, torch.eye(3), torch.tensor([0.0, 0.0, 0.0]))
    bounds = cube(torch.zeros(3), 2.0)
    splits = {"train": torch.arange(24)}
    return Scene("ring", "memory", cameras_around(24), splits, bounds, normalization=move)


def test_rays_meet_the_nearest_triangle_far_from_the_origin():
    place = np.array([5e6, -3e6, 40.0])
    caster = RayCaster(
        np.array([[0, 0, 1], [4, 0, 1], [0, 4, 1], [0, 0, 2], [4, 0, 2], [0, 4, 2.0]]) + place,
        np.array([[3, 4, 5], [0, 1, 2]]),
    )
    origins = place + np.array([[1, 1, 0], [1, 1, 3], [3, 3, 0], [1, 1, 1.5]])
    directions = np.array([[0, 0, 1], [0, 0, -1], [0, 0, 1], [0, 0, 1.0]])
    hits = caster.first_hits(origins, directions)
    assert hits.triangles.tolist() == [1, 0, -1, 0]
    np.testing.assert_allclose(hits.distances, [1, 1, np.inf, 0.5], atol=1e-5)
    assert caster.first_hits(np.empty((0, 3)), np.empty((0, 3))).triangles.shape == (0,)


def test_the_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "embreex.rtcore_scene", None)
    with pytest.raises(MissingExtraError, match=r"lumigraph\[mesh\]"):
        RayCaster.of(balls(BALL, fine=0))


def test_a_hidden_sphere_does_not_count(scene):
    judged, truth = balls((0, 0, 0, 1.1)), balls(BALL, (0, 0, 0, 0.5))
    hidden = mesh_error(judged, truth, samples=4000).scores
    # the inner sphere has a fifth of the area and lies 0.6 away
    assert hidden.completeness == pytest.approx(0.8 * 0.1 + 0.2 * 0.6, abs=3e-3)
    regions = camera_regions(scene, judged, truth)
    seen = mesh_error(judged, truth, samples=4000, regions=regions).scores
    assert seen.accuracy == pytest.approx(0.1, abs=2e-3)
    assert seen.completeness == pytest.approx(0.1, abs=2e-3)
    assert seen.truth_counted == pytest.approx(0.8, abs=0.01) and seen.mesh_counted > 0.999
    assert seen.normal_degrees < 2 and seen.normal_cosine > 0.999
    assert "seen by 1 or more of 24 training cameras" in regions.words


def test_only_the_side_that_cameras_see_counts(scene):
    """One camera at a distance of 6 radii sees the cap above 1/6 of the ball."""
    one = dataclasses.replace(scene, splits={"train": torch.tensor([3])})
    judged = balls(BALL)
    ball = trimesh.creation.icosphere(subdivisions=4)
    points, _ = trimesh.sample.sample_surface(ball, 5000, seed=0)
    seen = camera_regions(one, judged, judged).mesh(np.asarray(points))
    eye = scene.to_source(scene.cameras.positions[3]).double().numpy()
    toward = points @ eye / np.linalg.norm(eye)
    assert np.linalg.norm(eye) == pytest.approx(6, rel=1e-5)
    rim = ball.edges_unique_length.max() / 2  # where flat triangles end at the horizon
    assert seen[toward > 1 / 6 + rim].all() and not seen[toward < 1 / 6 - rim].any()


def test_points_must_be_seen_by_enough_cameras(scene):
    judged, points = balls(BALL), balls(BALL, fine=3).vertices
    shares = []
    for least in (0, 1, 10, 24):
        regions = camera_regions(scene, judged, judged, options=RegionOptions(seen_by=least))
        shares.append(1.0 if regions.mesh is None else regions.mesh(points).mean())
    assert shares[0] == shares[1] == 1 > shares[2] > shares[3] == 0
    with pytest.raises(InputError, match="seen_by 25: there are 24 training cameras"):
        camera_regions(scene, judged, judged, options=RegionOptions(seen_by=25))


def test_outlines_limit_the_truth_but_not_the_mesh(scene, sphere_pictures):
    """The truth holds a second ball that pictures cut out; the mesh holds a floating part."""
    beside = (2.2, 0, 0, 0.3)
    truth = sphere_pictures((0, 0, 0, 0.5))  # in the scene frame
    frames = [truth.render(scene.cameras[index]) for index in range(24)]
    images = [torch.cat([f.color, f.opacity[..., None]], dim=2) * 255 for f in frames]
    images = MemoryImages([image.to(torch.uint8) for image in images])
    cut_out = dataclasses.replace(scene, images=images, has_alpha=True)
    regions = camera_regions(cut_out, balls(BALL, beside), balls(BALL, beside))
    ball, part = balls(BALL, fine=3).vertices, balls(beside, fine=3).vertices
    assert regions.truth(ball).mean() > 0.99 and not regions.truth(part).any()
    assert regions.mesh(part).mean() > 0.9
    assert "inside the outlines widened by 8 pixels" in regions.words


def test_pixels_that_do_not_count_are_not_looked_at(scene):
    class Masks:
        def __len__(self):
            return 24

        def load(self, index):
            mask = torch.ones(64, 64, dtype=torch.bool)
            mask[:, :32] = False
            return mask

    one = dataclasses.replace(scene, splits={"train": torch.tensor([0])}, masks=Masks())
    judged = balls(BALL)
    seen = camera_regions(one, judged, judged).mesh(judged.vertices)
    pixels, _ = scene.cameras.project(torch.from_numpy(judged.vertices).float() * 0.5, 0)
    assert seen.any() and not seen[(pixels[:, 0] < 31.9).numpy()].any()


def test_clouds_count_where_pictures_show_them(scene):
    one = dataclasses.replace(scene, splits={"train": torch.tensor([3])})
    eye = scene.to_source(scene.cameras.positions[3]).double().numpy()
    # hidden ones too: a cloud hides nothing
    cloud = TruePoints(np.array([0 * eye, 0.1 * eye, -0.1 * eye, 2 * eye]))
    counted = camera_regions(one, balls(BALL), cloud).truth(cloud.positions)
    assert counted.tolist() == [True, True, True, False]


def test_space_observed_in_a_dtu_scan(scene, tmp_path):
    mask = np.zeros((4, 3, 2), np.uint8)
    mask[1, 2, 0] = 1
    box = np.array([[10.0, 20.0, 30.0], [16.0, 24.0, 32.0]])
    io.savemat(tmp_path / "ObsMask.mat", {"ObsMask": mask, "BB": box, "Res": 2.0})
    io.savemat(tmp_path / "Plane.mat", {"P": np.array([[0.0], [0], [1], [-5]])})
    space = ObservedSpace.read(tmp_path / "ObsMask.mat")
    points = np.array([[12, 24, 30], [12.9, 24.9, 29.1], [13.1, 24, 30], [8, 0, 0], [99, 24, 30.0]])
    assert space(points).tolist() == [True, True, False, False, False]
    plane = AbovePlane.read(tmp_path / "Plane.mat")
    assert plane(np.array([[0, 0, 5.1], [0, 0, 4.9]])).tolist() == [True, False]
    options = RegionOptions(0, 0, tmp_path / "ObsMask.mat", tmp_path / "Plane.mat")
    regions = camera_regions(scene, balls(BALL), balls(BALL), options=options)
    assert regions.mesh(points).tolist() == [True, True, False, False, False]
    assert regions.words == "mesh inside ObsMask.mat, truth above Plane.mat"


def test_bad_files_of_observed_space(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        ObservedSpace.read(tmp_path / "x.mat")
    (tmp_path / "x.mat").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"x.mat: not a readable .mat file"):
        ObservedSpace.read(tmp_path / "x.mat")
    io.savemat(tmp_path / "y.mat", {"ObsMask": np.ones((2, 2)), "P": np.full(4, math.nan)})
    with pytest.raises(DataError, match="has no BB, Res"):
        ObservedSpace.read(tmp_path / "y.mat")
    with pytest.raises(DataError, match="four finite numbers"):
        AbovePlane.read(tmp_path / "y.mat")
    values = {"ObsMask": np.ones((2, 2)), "BB": np.zeros((2, 3)), "Res": 1.0}
    io.savemat(tmp_path / "z.mat", values)
    with pytest.raises(DataError, match="ObsMask must be X x Y x Z"):
        ObservedSpace.read(tmp_path / "z.mat")
    with pytest.raises(InputError, match="margin -1"):
        RegionOptions(margin=-1)
