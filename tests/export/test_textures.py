"""Textured meshes: what texels show, and files that other libraries read back."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pygltflib
import pytest
import torch
import trimesh
from PIL import Image

from lumigraph import export
from lumigraph.cli import main
from lumigraph.core import MemoryImages, Scene, Similarity, cube
from lumigraph.core.errors import InputError, MissingExtraError
from lumigraph.core.transforms import rotation_exp
from lumigraph.export import MeshOptions
from lumigraph.export.isosurface import Surface
from lumigraph.export.texture_atlas import PADDING, Atlas, covered, unwrapped
from lumigraph.export.texture_baking import _filled

BALL = (-0.2, 0.1, 0.0, 0.6)
MOVE = Similarity(0.25, rotation_exp(torch.tensor([0.3, -0.8, 0.5])), torch.tensor([1.0, 2, 3]))
OPTIONS = {"resolution": 40, "triangles": 1500, "texture": 256}


@dataclass
class BallRun:
    """A ball whose photographs are darker than its renderings by half."""

    pictures: object
    pictured: Scene
    path: Path = Path("runs/x")
    config: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(device="cpu"))

    def model(self, device=None):
        return self.pictures

    def scene(self):
        return self.pictured

    def add_timing(self, stage, seconds):
        pass


@pytest.fixture
def run(sphere_pictures, cameras_around) -> BallRun:
    cameras = cameras_around(30, side=72, focal=80.0)
    ball = sphere_pictures(BALL)
    images = []
    for index in range(30):
        frame = ball.render(cameras[index])
        alpha = frame.opacity[..., None]
        images.append((torch.cat([frame.color * 0.5, alpha], dim=2) * 255).round().byte())
    scene = Scene(
        "ball", "memory", cameras, {"train": torch.arange(30)}, cube(torch.zeros(3), 2.0),
        images=MemoryImages(images), has_alpha=True, background="white", normalization=MOVE,
    )  # fmt: skip
    return BallRun(ball, scene)


def shown(mesh: trimesh.Trimesh, image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Points of the scene frame within the triangles, and the colors there, 0 to 1."""
    uv, faces = np.asarray(mesh.visual.uv), np.asarray(mesh.faces)
    middle = uv[faces].mean(axis=1)
    pixels = np.asarray(image.convert("RGB")) / 255
    height, width = pixels.shape[:2]
    column = np.clip((middle[:, 0] * width).astype(int), 0, width - 1)
    row = np.clip(((1 - middle[:, 1]) * height).astype(int), 0, height - 1)
    points = torch.from_numpy(np.asarray(mesh.vertices)[faces].mean(axis=1))
    return MOVE.apply(points).numpy(), pixels[row, column]


def expected(points: np.ndarray) -> np.ndarray:
    offset = points - BALL[:3]
    return 0.5 + 0.4 * offset / np.linalg.norm(offset, axis=1, keepdims=True)


@pytest.mark.parametrize("colors", ["photographs", "renderings"])
@pytest.mark.parametrize("name", ["a.glb", "my ball.obj"])
def test_texels_show_what_cameras_see(run, tmp_path, name, colors):
    options = MeshOptions(texture_colors=colors, **OPTIONS)
    report = export.mesh(run, out=tmp_path / name, options=options)
    assert max(report.texture) == 256 and "texture of 25" in report.line()
    loaded = trimesh.load(tmp_path / name, process=False)
    if name.endswith("glb"):
        (loaded,) = loaded.geometry.values()
        image = loaded.visual.material.baseColorTexture
    else:
        image = loaded.visual.material.image
        assert {path.name for path in tmp_path.iterdir()} == {name, "my_ball.mtl", "my_ball.png"}
    assert image.size == report.texture
    points, found = shown(loaded, image)
    assert np.abs(np.linalg.norm(points - BALL[:3], axis=1) - 0.6).max() < 0.04
    error = np.abs(found - expected(points) * (0.5 if colors == "photographs" else 1.0))
    assert np.quantile(error, 0.98) < 0.035 and error.max() < 0.15


def test_a_glb_for_another_library(run, tmp_path):
    report = export.mesh(run, out=tmp_path / "a.glb", options=MeshOptions(**OPTIONS))
    file = pygltflib.GLTF2().load(str(tmp_path / "a.glb"))
    (primitive,) = file.meshes[0].primitives
    accessor = file.accessors[primitive.attributes.POSITION]
    view = file.bufferViews[accessor.bufferView]
    start = (view.byteOffset or 0) + (accessor.byteOffset or 0)
    content = file.binary_blob()[start : start + 12 * accessor.count]
    vertices = np.frombuffer(content, np.float32).reshape(-1, 3).astype(float)
    assert len(vertices) == report.vertices and accessor.min == vertices.min(axis=0).tolist()
    points = MOVE.apply(torch.from_numpy(vertices)).numpy()
    assert np.abs(np.linalg.norm(points - BALL[:3], axis=1) - 0.6).max() < 0.04
    assert primitive.attributes.TEXCOORD_0 is not None and primitive.attributes.COLOR_0 is None
    material = file.materials[primitive.material]
    assert "KHR_materials_unlit" in material.extensions
    texture = file.textures[material.pbrMetallicRoughness.baseColorTexture.index]
    assert file.images[texture.source].mimeType == "image/png"


def test_stages_say_what_is_slow(run, tmp_path):
    stages = []
    export.mesh(
        run,
        out=tmp_path / "a.glb",
        options=MeshOptions(views=3, **OPTIONS),
        on_progress=lambda *place: stages.append(place),
    )
    assert stages[6:] == [
        ("unwrapping by xatlas, up to minutes", 0, 1),
        *[("texture", k, 3) for k in (1, 2, 3)],
    ]


def test_what_no_camera_sees_keeps_the_colors_of_vertices(run, tmp_path):
    """One camera sees less than half of the ball; the surface comes from all of them."""
    from lumigraph.export.texture_baking import baked

    run.pictures.calls = 0
    options = MeshOptions(views=1, texture_colors="renderings")
    ball = trimesh.creation.icosphere(3, 0.6)
    gray = np.full((len(ball.vertices), 3), 77, np.uint8)
    surface = Surface(ball.vertices + BALL[:3], np.asarray(ball.faces, np.int64), gray)
    textured = baked(
        unwrapped(surface, size=128), surface, run.pictures, run.pictured, options, voxel=0.02
    )
    middle = textured.coordinates[textured.triangles].mean(axis=1)
    height, width = textured.image.shape[:2]
    row = ((1 - middle[:, 1]) * height).astype(int)
    color = textured.image[row, (middle[:, 0] * width).astype(int)]
    points = textured.vertices[textured.triangles].mean(axis=1)
    toward = run.pictured.cameras.positions[0].numpy() - points
    outward = points - BALL[:3]
    cosine = (toward * outward).sum(axis=1) / np.linalg.norm(toward, axis=1) / 0.6
    assert (color[cosine < 0.0] == 77).all() and run.pictures.calls == 1
    assert np.abs(color[cosine > 0.5] / 255 - expected(points[cosine > 0.5])).max() < 0.1


def test_charts_do_not_touch():
    box = trimesh.creation.box()
    surface = Surface(box.vertices, np.asarray(box.faces), np.zeros((8, 3), np.uint8))
    atlas = unwrapped(surface, size=200)
    assert atlas.triangles.shape == (12, 3) and max(atlas.shape) == 200
    texels = covered(atlas)
    which = np.full(atlas.shape, -1)
    which[texels.rows, texels.columns] = texels.triangles
    assert (np.bincount(texels.triangles, minlength=12) > 500).all()
    # no chart within a few texels of another; the two triangles of a side are one chart
    for shift in range(1, PADDING - 2):
        for first, second in (
            (which[shift:], which[:-shift]),
            (which[:, shift:], which[:, :-shift]),
        ):
            both = (first >= 0) & (second >= 0)
            normal = np.asarray(box.face_normals)
            assert np.allclose(normal[first[both]], normal[second[both]])


def test_texels_of_a_known_triangle():
    atlas = Atlas(
        np.arange(3), np.array([[0, 1, 2]]), np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), (8, 8)
    )
    texels = covered(atlas)
    place = {
        (int(r), int(c)): w
        for r, c, w in zip(texels.rows, texels.columns, texels.weights, strict=True)
    }
    assert len(place) == len(texels.rows)
    assert (7, 0) in place and (0, 0) in place and (0, 7) not in place
    np.testing.assert_allclose(place[7, 0], [7 / 8, 1 / 16, 1 / 16])  # lower left texel
    np.testing.assert_allclose(place[7, 7], [0.0, 15 / 16, 1 / 16], atol=0.04)
    assert len(place) < 8 * 8 - 10


def test_gaps_take_the_nearest_color():
    from lumigraph.export.texture_atlas import Texels

    texels = Texels(np.array([0, 3]), np.array([0, 3]), np.zeros(2, int), np.zeros((2, 3)))
    image = _filled(texels, np.array([[9, 0, 0], [0, 9, 0]], np.uint8), (4, 4))
    assert image[1, 0].tolist() == [9, 0, 0] and image[2, 3].tolist() == [0, 9, 0]
    assert (image.sum(axis=2) == 9).all()


def test_what_cannot_have_a_texture(run, tmp_path, monkeypatch):
    options = MeshOptions(**OPTIONS)
    with pytest.raises(InputError, match="a.ply: a textured mesh must end in .glb or .obj"):
        export.mesh(run, out=tmp_path / "a.ply", options=options)
    (tmp_path / "a.png").write_bytes(b"a picture of mine")
    with pytest.raises(InputError, match="a.png: exists already; replace it with --overwrite"):
        export.mesh(run, out=tmp_path / "a.obj", options=options)
    assert (tmp_path / "a.png").read_bytes() == b"a picture of mine"
    monkeypatch.setitem(__import__("sys").modules, "xatlas", None)
    with pytest.raises(MissingExtraError, match=r"xatlas.*pip install 'lumigraph\[mesh\]'"):
        export.mesh(run, out=tmp_path / "a.glb", options=replace(options, overwrite=True))
    assert run.pictures.calls == 30


def test_the_command(run, tmp_path, monkeypatch, capsys):
    from lumigraph import training

    monkeypatch.setitem(vars(training), "Run", SimpleNamespace(open=lambda path: run))
    monkeypatch.chdir(tmp_path)
    words = "export mesh runs/x --out a.glb --resolution 32 --triangles 500 --texture 128 --from"
    assert main([*words.split(), "fusion", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["source"] == "fusion" and max(result["texture"]) == 128
    assert main([*words.split(), "density", "--overwrite"]) == 2
    assert "use --from fusion" in capsys.readouterr().err
    assert main(["export", "points", "x", "--out", "b.ply", "--from", "density"]) == 2
    assert "--from is for mesh, not for points" in capsys.readouterr().err
