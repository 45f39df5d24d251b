"""Solids: true signed distances, and meshes that have no inside."""

import sys

import numpy as np
import pytest
import torch

from lumigraph.core.errors import DataError, InputError, MissingExtraError
from lumigraph.datasets.mesh_reading import TriangleMesh
from lumigraph.datasets.targets import Solid, load_solid
from lumigraph.datasets.targets.mesh_checks import edges, merged, signed_volume

pytest.importorskip("warp")
trimesh = pytest.importorskip("trimesh")
CUBE = torch.tensor([[-1.0] * 3, [1.0] * 3])


def box(**options):
    return trimesh.creation.box(extents=(1.0, 0.6, 0.4), **options)


def box_distance(points):
    """Closed form in scene units."""
    q = np.abs(points) - np.array([0.5, 0.3, 0.2])
    return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(axis=1), 0)


def saved(mesh, path):
    mesh.export(path)
    return path


@pytest.mark.parametrize("signs", ["normals", "winding"])
def test_distances_of_a_box_are_exact(signs):
    mesh = box()
    solid = Solid(TriangleMesh.of(mesh.vertices, mesh.faces), CUBE, signs=signs)
    points = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0))
    truth = box_distance(points.double().numpy() * 2 - 1) / 2
    found = solid.distances(points).double().numpy()
    assert np.abs(found - truth).max() < 1e-5
    assert solid.distances(torch.empty(0, 3)).shape == (0,)


def test_points_of_the_surface_lie_on_it_with_their_normals():
    mesh = box()
    solid = Solid(TriangleMesh.of(mesh.vertices, mesh.faces), CUBE)
    points, normals = solid.surface(500, seed=3)
    assert float(solid.distances(points).abs().max()) < 1e-6
    moved = solid.distances(points + 0.01 * normals)
    assert torch.allclose(moved, torch.full((500,), 0.01), atol=1e-5)


def test_a_file_becomes_a_scene_with_cameras_around(tmp_path):
    mesh = box()
    mesh.apply_translation([5.0, 0.0, 1.0])
    scene = load_solid(saved(mesh, tmp_path / "box.obj"), up="z")
    assert scene.center.tolist() == pytest.approx([5, 0, 1]) and scene.name == "box"
    assert scene.side == pytest.approx(1.1)
    pixels, depth = scene.cameras.project(scene.bounds.mean(0)[None], 3)
    assert pixels[0].tolist() == pytest.approx([320, 240], abs=0.01) and float(depth[0]) > 0
    ups = -scene.cameras.camera_to_world[:, :3, 1]
    assert float(ups[:, 2].min()) > 0.9


def test_torn_vertices_are_joined_and_inward_triangles_turned(tmp_path):
    mesh = box()
    torn = TriangleMesh.of(mesh.vertices[mesh.faces.reshape(-1)], np.arange(36).reshape(12, 3))
    vertices, triangles = merged(torn.vertices, torn.triangles)
    assert len(vertices) == 8 and edges(triangles) == (18, 0, 0)
    assert signed_volume(vertices, triangles) == pytest.approx(0.24)
    mesh.invert()
    scene = load_solid(saved(mesh, tmp_path / "in.ply"))
    assert "face inwards" in scene.notes[0]
    assert float(scene.target.distances(torch.full((1, 3), 0.5))) < 0


def test_without_warp_its_extra_is_named(monkeypatch):
    mesh = box()
    monkeypatch.setitem(sys.modules, "warp", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lumigraph\[fitting\]'"):
        Solid(TriangleMesh.of(mesh.vertices, mesh.faces), CUBE)


def test_open_meshes_say_so_and_winding_numbers_close_them(tmp_path):
    mesh = trimesh.creation.icosphere(subdivisions=3)
    mesh.update_faces(np.arange(len(mesh.faces)) > 20)
    path = saved(mesh, tmp_path / "open.ply")
    with pytest.raises(DataError, match=r"open\.ply: \d+ of its .* edges are open.*signs=winding"):
        load_solid(path)
    solid = load_solid(path, signs="winding").target
    assert float(solid.distances(torch.full((1, 3), 0.5))) < -0.3


def test_meshes_without_an_inside_are_refused(tmp_path):
    flat = TriangleMesh.of([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 1]])
    with pytest.raises(DataError, match="has no volume"):
        Solid(flat, CUBE)
    point = TriangleMesh.of([[0, 0, 0]] * 3, [[0, 1, 2]])
    with pytest.raises(DataError, match="no area"):
        Solid(point, CUBE)
    fan = [[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2], [0, 1, 4], [0, 4, 2], [1, 2, 4]]
    corners = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, -1]]
    with pytest.raises(DataError, match="more than two triangles meet"):
        Solid(TriangleMesh.of(corners, fan), CUBE)
    (tmp_path / "empty.obj").write_text("v 0 0 0\n")
    for path, kind, reason in (
        (tmp_path / "empty.obj", DataError, "no triangles|not a readable"),
        (tmp_path / "none.obj", DataError, "no such file"),
        (tmp_path / "mesh.txt", InputError, "unknown kind of mesh"),
        (tmp_path, InputError, "is a folder"),
    ):
        with pytest.raises(kind, match=reason) as caught:
            load_solid(path)
        assert "\n" not in str(caught.value)
