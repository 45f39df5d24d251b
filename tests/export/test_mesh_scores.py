"""Meshes read from files, and held against the truth."""

import numpy as np
import pytest
import trimesh
from plyfile import PlyData, PlyElement

from lumigraph.core.errors import DataError, InputError, MissingExtraError
from lumigraph.datasets.mesh_sampling import sample_surface
from lumigraph.export.isosurface import Surface
from lumigraph.export.mesh_files import write_mesh
from lumigraph.export.mesh_reading import TriangleMesh, read_mesh
from lumigraph.export.mesh_scores import Regions, mesh_error
from lumigraph.export.mesh_targets import Target, TruePoints
from lumigraph.export.mesh_truth import read_truth


def ball(radius=1.0, *, fine=4):
    shape = trimesh.creation.icosphere(subdivisions=fine)
    return TriangleMesh.of(shape.vertices * radius, shape.faces)


def test_a_larger_sphere_errs_by_the_difference_of_radii():
    error = mesh_error(ball(1.1), ball(), samples=20_000)
    np.testing.assert_allclose(error.vertex_distances, 0.1, atol=1e-6)
    scores = error.scores
    assert scores.accuracy == pytest.approx(0.1, abs=1e-3)
    assert scores.completeness == pytest.approx(0.1, abs=1e-3)
    assert scores.chamfer == pytest.approx((scores.accuracy + scores.completeness) / 2)
    assert (scores.precision, scores.recall, scores.f_score) == (0, 0, 0)
    assert mesh_error(ball(1.1), ball(), samples=5000, threshold=0.11).scores.f_score == 1
    assert dict(scores.lines())["accuracy"].startswith("0.09")


def test_what_is_missing_lowers_recall_alone():
    whole = ball()
    upper = whole.vertices[whole.triangles][:, :, 2].mean(axis=1) > 0
    half = TriangleMesh.of(whole.vertices, whole.triangles[upper])
    scores = mesh_error(half, whole, samples=20_000, threshold=0.02).scores
    assert scores.precision == 1 and scores.accuracy < 1e-4
    assert scores.recall == pytest.approx(0.5, abs=0.03)
    # The mean over a missing hemisphere of the distance to its rim, times one half.
    angle = np.linspace(0, np.pi / 2, 2001)
    gap = np.trapezoid(2 * np.sin(angle / 2) * np.cos(angle), angle)
    assert scores.completeness == pytest.approx(gap / 2, rel=0.05)


def test_distances_beyond_the_cap_are_left_out_and_told():
    """Half of the area lies 0.1 away, the other half far off."""
    judged = TriangleMesh([*ball().parts, *ball(1.0).parts])
    moved = judged.vertices + np.repeat([[0, 0, 0], [100.0, 0, 0]], len(judged.vertices) // 2, 0)
    judged = TriangleMesh.of(moved, judged.triangles)
    scores = mesh_error(judged, ball(1.1), samples=5000, cap=2, threshold=0.2).scores
    assert scores.accuracy == pytest.approx(0.1, abs=2e-3)
    assert scores.mesh_beyond == pytest.approx(0.5, abs=1e-3) and scores.truth_beyond == 0
    assert scores.precision == pytest.approx(0.5, abs=1e-3)  # which nothing is left out of
    assert "50.00% beyond 2 left out" in dict(scores.lines())["accuracy"]
    assert mesh_error(judged, ball(1.1), samples=5000).scores.accuracy > 40
    with pytest.raises(DataError, match="no point of it lies within the cap of 0.01"):
        mesh_error(ball(), ball(1.1), samples=500, cap=0.01)


def test_normals_turn_by_the_known_angle():
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.0]])
    angle = np.radians(30)
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), 0.866]])
    flat = TriangleMesh.of(corners, [[0, 1, 2]])
    turned = TriangleMesh.of(corners @ tilt.T, [[0, 2, 1]])  # the other side, which is the same
    scores = mesh_error(turned, flat, samples=500).scores
    assert scores.normal_degrees == pytest.approx(30, abs=0.01)
    assert scores.normal_cosine == pytest.approx(np.cos(angle), abs=1e-4)
    assert dict(scores.lines())["normals"].startswith("30.0")


def test_spacing_gives_the_number_of_points():
    side = TriangleMesh.of([[0, 0, 0], [4, 0, 0], [0, 4, 0]], [[0, 1, 2]])
    assert mesh_error(side, side, spacing=0.1).scores.samples == 800
    with pytest.raises(InputError, match="spacing 1e-05: mesh would take .* at least 0.00063"):
        mesh_error(side, side, spacing=1e-5)


def test_regions_restrict_both_sides():
    """Of two plates one half 1 apart and one half 3 apart, only the first counts."""
    truth = TriangleMesh.of([[0, 0, 0], [1, 0, 0], [0, 1, 0], [9, 0, 0], [10, 0, 0], [9, 1, 0]],
                            [[0, 1, 2], [3, 4, 5]])  # fmt: skip
    shift = np.repeat([[0, 0, 1.0], [0, 0, 3.0]], 3, axis=0)
    judged = TriangleMesh.of(truth.vertices + shift, truth.triangles)
    left = Regions(lambda points: points[:, 0] < 5, lambda points: points[:, 0] < 5)
    assert mesh_error(judged, truth, samples=500).scores.chamfer == pytest.approx(2, abs=0.01)
    error = mesh_error(judged, truth, samples=500, regions=left)
    assert error.scores.chamfer == pytest.approx(1) and error.scores.mesh_counted == 0.5
    assert error.scores.diagonal < 1.5  # of what counts
    assert np.isnan(error.vertex_distances).tolist() == [False] * 3 + [True] * 3
    assert len(error.truth_points) == len(error.truth_distances) == 250
    nothing = Regions(None, lambda points: points[:, 0] > 99)
    with pytest.raises(DataError, match="truth file: none of it lies where it would count"):
        truth = TriangleMesh.of(truth.vertices, truth.triangles, name="truth file")
        mesh_error(judged, truth, samples=500, regions=nothing)


def test_sparse_points_say_nothing_of_accuracy():
    random = np.random.default_rng(0)
    directions = random.normal(size=(400_000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    few = mesh_error(ball(1.02), directions[:200], samples=5000, threshold=0.05).scores
    # 4 pi 1.02^2 / 200, square root
    assert few.gap == pytest.approx(0.2557, rel=0.01) and few.sparse
    assert few.completeness == pytest.approx(0.02, abs=1e-3) and few.recall == 1
    told = few.to_dict()
    assert told["accuracy"] is told["chamfer"] is told["f_score"] is None
    assert told["completeness_median"] == pytest.approx(0.02, abs=1e-3)
    assert "gaps, not errors" in dict(few.lines())["accuracy"] and "sparse" in few.short()
    many = mesh_error(
        ball(1.02), TruePoints(directions, directions), samples=5000, threshold=0.05
    ).scores
    assert not many.sparse and many.accuracy == pytest.approx(0.02, abs=2e-3)
    assert many.f_score == 1 and many.normal_degrees < 3
    assert many.to_dict()["accuracy"] == many.accuracy
    assert mesh_error(ball(), directions[:50], samples=500).scores.normal_degrees is None


def test_truth_from_files(tmp_path):
    points = np.array([(0, 0, 0, 0, 0, 2), (1, 0, 0, 0, 0, 0), (0, 1, 0, 1, 1, 0)], np.float32)
    names = [(name, "f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
    vertex = np.array([tuple(row) for row in points], dtype=names)
    PlyData([PlyElement.describe(vertex, "vertex")]).write(str(tmp_path / "scan.ply"))
    cloud = read_truth(tmp_path / "scan.ply")
    assert isinstance(cloud, TruePoints) and cloud.name.endswith("scan.ply")
    half = np.sqrt(0.5)
    np.testing.assert_allclose(cloud.normals, [[0, 0, 1], [0, 0, 0], [half, half, 0]], atol=1e-6)
    trimesh.creation.box().export(tmp_path / "box.ply")
    assert isinstance(read_truth(tmp_path / "box.ply"), TriangleMesh)
    PlyData([PlyElement.describe(vertex[:0], "vertex")]).write(str(tmp_path / "empty.ply"))
    for name, message in (
        ("empty.ply", r"empty.ply holds no points"),
        ("gone.ply", "gone.ply: no such file"),
        ("x.spz", "holds Gaussians"),
        ("x.stl", "unknown kind of mesh"),
        ("damaged.ply", "not a PLY file"),
    ):
        if name not in ("empty.ply", "gone.ply"):
            (tmp_path / name).write_bytes(b"\x00nothing")
        with pytest.raises((DataError, InputError), match=message):
            read_truth(tmp_path / name)


def test_distances_to_triangles_are_exact():
    random = np.random.default_rng(3)
    cube = trimesh.creation.box(extents=(2, 2, 2))
    target = Target.of(TriangleMesh.of(cube.vertices, cube.faces), samples=2000, seed=0)
    points = random.uniform(-3, 3, (500, 3))
    outside = np.linalg.norm(np.maximum(np.abs(points) - 1, 0), axis=1)
    inside = (1 - np.abs(points)).min(axis=1)
    expected = np.where(outside > 0, outside, inside)
    np.testing.assert_allclose(target.distances(points), expected, atol=1e-9)


def test_points_as_truth_and_triangles_without_area():
    points = np.array([[0.0, 0, 0], [1, 0, 0]])
    moved = points + np.array([0, 0.25, 0])
    np.testing.assert_allclose(Target.of(points, samples=9, seed=0).distances(moved), 0.25)
    flat = TriangleMesh.of([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2], [0, 0, 1]])
    assert mesh_error(flat, flat, samples=500).vertex_distances.max() < 1e-9


def test_samples_are_spread_by_area():
    mesh = TriangleMesh.of(
        [[0, 0, 0], [3, 0, 0], [0, 1, 0], [0, 0, 5], [1, 0, 5], [0, 1, 5]], [[0, 1, 2], [3, 4, 5]]
    )
    points, triangles = sample_surface(mesh, 4000, seed=1)
    assert (triangles == 0).mean() == pytest.approx(0.75, abs=1e-3)
    np.testing.assert_allclose(points[triangles == 0].mean(axis=0), [1, 1 / 3, 0], atol=0.03)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
def test_written_meshes_come_back_with_their_colors(tmp_path, suffix):
    shape = trimesh.creation.box()
    colors = np.random.default_rng(0).integers(0, 256, (8, 3)).astype(np.uint8)
    surface = Surface(np.asarray(shape.vertices, float), np.asarray(shape.faces, int), colors)
    write_mesh(surface, tmp_path / f"box{suffix}")
    mesh = read_mesh(tmp_path / f"box{suffix}")
    np.testing.assert_allclose(mesh.vertices, surface.vertices, atol=1e-6)
    np.testing.assert_array_equal(mesh.triangles, surface.triangles)
    np.testing.assert_array_equal(mesh.parts[0].colors, colors)


def test_textures_and_nodes_are_kept(tmp_path):
    from PIL import Image

    image = Image.fromarray(np.full((4, 4, 3), (200, 30, 30), np.uint8))
    plane = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], process=False)
    uv = np.array([[0, 0], [1, 0], [0, 1]])
    plane.visual = trimesh.visual.TextureVisuals(uv=uv, image=image)
    scene = trimesh.Scene()
    scene.add_geometry(plane, transform=trimesh.transformations.translation_matrix([0, 0, 7]))
    scene.add_geometry(plane.copy())
    (tmp_path / "two.glb").write_bytes(scene.export(file_type="glb"))
    mesh = read_mesh(tmp_path / "two.glb")
    assert len(mesh.parts) == 2 and mesh.triangles.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert sorted(mesh.vertices[:, 2].tolist()) == [0, 0, 0, 7, 7, 7]
    part = mesh.parts[0]
    assert part.colors is None and (part.texture == (200, 30, 30)).all()
    np.testing.assert_allclose(part.uv, uv)


def test_bad_meshes_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"x.stl: unknown kind"):
        read_mesh(tmp_path / "x.stl")
    with pytest.raises(DataError, match="no such file"):
        read_mesh(tmp_path / "x.ply")
    (tmp_path / "x.glb").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"x.glb: not a readable GLB"):
        read_mesh(tmp_path / "x.glb")
    (tmp_path / "empty.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    with pytest.raises(DataError, match=r"empty.obj: (holds no triangles|not a readable)"):
        read_mesh(tmp_path / "empty.obj")
    with pytest.raises(DataError, match="1 of 3 vertices are not finite"):
        TriangleMesh.of([[0, 0, np.nan], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]])
    with pytest.raises(DataError, match="not there"):
        TriangleMesh.of([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 3]])
    with pytest.raises(DataError, match="no area"):
        sample_surface(TriangleMesh.of([[0, 0, 0]], [[0, 0, 0]]), 9, seed=0)
    for bad in (np.zeros((0, 3)), np.full((2, 3), np.nan)):
        with pytest.raises(DataError, match="holds no points"):
            mesh_error(ball(), bad, samples=100)
    with pytest.raises(InputError, match="threshold -1"):
        mesh_error(ball(), ball(), samples=100, threshold=-1)


def test_the_missing_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "x.obj").write_text("v 0 0 0\nf 1 1 1\n")
    monkeypatch.setitem(__import__("sys").modules, "trimesh", None)
    with pytest.raises(MissingExtraError, match=r"lumigraph\[mesh\]"):
        read_mesh(tmp_path / "x.obj")
