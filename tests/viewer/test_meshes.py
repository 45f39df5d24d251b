"""Meshes stand where their file says, and fetch nothing."""

import json
import struct

import pytest
import torch

from lumigraph.core import Similarity
from lumigraph.core.errors import DataError, InputError
from lumigraph.core.transforms import rotation_exp, rotation_from_quaternion
from lumigraph.viewer.meshes import MeshFile, Placement


def glb(tree: dict) -> bytes:
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<4sIIII", b"glTF", 2, 20 + len(text), len(text), 0x4E4F534A) + text


def boxed(**node) -> dict:
    return {
        "scenes": [{"nodes": [0]}],
        "nodes": [{"children": [1], "translation": [10, 0, 0]}, {"mesh": 0, **node}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "accessors": [{"min": [0, 0, 0], "max": [1, 2, 3]}],
    }


def test_bounds_follow_the_nodes():
    mesh = MeshFile.from_bytes("a.glb", glb(boxed(scale=[2, 2, 2])))
    middle = mesh.bounds().mean(dim=0)
    assert middle.tolist() == [11.0, 2.0, 3.0]
    assert float(mesh.bounds()[1, 0] - mesh.bounds()[0, 0]) == 6.0
    turned = MeshFile.from_bytes("a.glb", glb(boxed(rotation=[0, 0, 2**-0.5, 2**-0.5])))
    assert torch.allclose(turned.bounds().mean(dim=0), torch.tensor([9.0, 0.5, 1.5]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extensionsRequired": ["KHR_draco_mesh_compression"]}, "without compression"),
        ({"images": [{"uri": "https://example.org/x.png"}]}, "in another file"),
        ({"buffers": [{"uri": "geometry.bin"}]}, "embed them"),
    ],
)
def test_what_would_be_fetched_from_elsewhere_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        MeshFile.from_bytes("a.glb", glb({**boxed(), **change}))


@pytest.mark.parametrize("content", [b"", b"glTF", glb({})[:-3], b"x" * 40])
def test_damaged_files(content):
    with pytest.raises(DataError, match="a.glb"):
        MeshFile.from_bytes("a.glb", content)


def test_other_kinds_are_named():
    with pytest.raises(InputError, match=r"use .glb, .obj, .ply"):
        MeshFile.from_bytes("a.stl", b"")


def test_a_file_without_a_mesh_has_no_bounds():
    with pytest.raises(DataError, match="holds no mesh"):
        MeshFile.from_bytes("a.glb", glb({})).bounds()


def test_nodes_in_a_circle_do_not_hang():
    tree = boxed()
    tree["nodes"][1]["children"] = [0]
    MeshFile.from_bytes("a.glb", glb(tree)).bounds()


def test_obj_becomes_glb(tmp_path):
    pytest.importorskip("trimesh")
    file = tmp_path / "a.obj"
    file.write_text("v 0 0 0\nv 2 0 0\nv 0 2 0\nf 1 2 3\n")
    mesh = MeshFile.open(file)
    assert mesh.content[:4] == b"glTF"
    assert mesh.bounds().tolist() == [[0.0, 0.0, -1.0], [2.0, 2.0, 1.0]]
    file.write_text("nothing here")
    with pytest.raises(DataError, match="a.obj"):
        MeshFile.open(file)


def test_ply_with_faces_is_a_mesh_and_keeps_its_colors(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    from lumigraph.core.color import srgb_to_linear
    from lumigraph.viewer import MeshSource, open_source

    corners = [[0, 0, 0], [2, 0, 0], [0, 2, 0]]
    mesh = trimesh.Trimesh(corners, [[0, 1, 2]], vertex_colors=[[128, 64, 255]] * 3, process=False)
    mesh.export(tmp_path / "a.ply")
    source = open_source(tmp_path / "a.ply")
    assert isinstance(source, MeshSource)
    (tmp_path / "a.glb").write_bytes(source.mesh.content)
    gltf = pytest.importorskip("pygltflib").GLTF2().load(tmp_path / "a.glb")
    accessor = gltf.accessors[gltf.meshes[0].primitives[0].attributes.COLOR_0]
    view = gltf.bufferViews[accessor.bufferView]
    begin = view.byteOffset + (accessor.byteOffset or 0)
    color = struct.unpack_from("<3f", gltf.binary_blob(), begin)
    expected = srgb_to_linear(torch.tensor([128, 64, 255]) / 255.0)
    assert torch.allclose(torch.tensor(color), expected, atol=1e-3)


def test_a_placement_moves_points_as_the_similarity_does():
    turn = rotation_exp(torch.tensor([0.3, -0.7, 0.2], dtype=torch.float64))
    similarity = Similarity(2.5, turn, torch.tensor([1.0, 2.0, 3.0]))
    place = Placement.from_similarity(similarity)
    points = torch.randn(5, 3, dtype=torch.float64)
    rotation = rotation_from_quaternion(torch.tensor(place.wxyz, dtype=torch.float64))
    moved = points @ rotation.T * place.scale + torch.tensor(place.position)
    assert torch.allclose(moved, similarity.apply(points))
