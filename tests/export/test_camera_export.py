"""Cameras written for other programs: read back by our readers and by pycolmap, in the capture's
frame."""

import dataclasses
import json
import math
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from lumigraph import datasets, export
from lumigraph.cli import main
from lumigraph.core import CameraModel, Cameras, MemoryImages, PointCloud, Scene, Similarity, cube
from lumigraph.core.errors import DataError, InputError
from lumigraph.core.transforms import look_at, rotation_exp

FAR = torch.tensor([300.0, -200.0, 50.0], dtype=torch.float64)
MOVE = Similarity(0.02, rotation_exp(torch.tensor([0.3, -0.8, 0.5])), -0.02 * FAR)
SIZES = {"pinhole": (60, 40), "opencv": (64, 48), "full": (64, 48), "fisheye": (50, 50)}
LENSES = {
    "pinhole": (CameraModel.PINHOLE, ()),
    "opencv": (CameraModel.OPENCV, (0.05, -0.01, 0.002, -0.003)),
    "full": (CameraModel.OPENCV, (0.05, -0.01, 0.002, -0.003, 0.01, 0.02, -0.01, 0.004)),
    "fisheye": (CameraModel.FISHEYE, (0.02, -0.004, 0.001, 0.0005)),
}


def captured(folder: Path, kinds=("pinhole", "opencv", "full", "fisheye"), *, times=False) -> Scene:
    """Twelve cameras around a place far from the origin, whose pictures lie in files, as a reader
    would give them: moved to the scene frame."""
    from lumigraph.datasets.images import ImageFiles

    angles = torch.arange(12) * (2 * math.pi / 12)
    eyes = torch.stack([angles.cos() * 4, angles.sin() * 4, 0.3 * angles], dim=1)
    poses = look_at(eyes, torch.zeros(3), up=[0.0, 0.0, 1.0])
    parts, files = [], []
    for index in range(12):
        kind = kinds[index % len(kinds)]
        model, distortion = LENSES[kind]
        width, height = SIZES[kind]
        parts.append(
            Cameras.from_intrinsics(
                poses[index], width, height, 41.25, 40.5, width / 2 + 1.5, height / 2 - 0.25,
                model=model, distortion=distortion, times=index / 11 if times else None,
            )
        )  # fmt: skip
        file = folder / ("left" if index % 2 else "right") / f"view_{index:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        imageio.imwrite(file, np.full((height, width, 3), 20 * index, np.uint8))
        files.append(file)
    generator = torch.Generator().manual_seed(0)
    points = PointCloud(
        torch.rand(50, 3, generator=generator) - 0.5,
        (torch.rand(50, 3, generator=generator) * 255).byte(),
    )
    splits = {
        "train": torch.tensor([i for i in range(12) if i % 4]),
        "test": torch.arange(0, 12, 4),
    }
    return Scene(
        "ring", folder, Cameras.concatenate(parts), splits, cube(torch.zeros(3), 2.0),
        images=ImageFiles(files), points=points, normalization=MOVE,
    )  # fmt: skip


def in_capture(scene: Scene) -> np.ndarray:
    """(C, 4, 4) poses in the capture's frame."""
    return scene.normalization.inverse().apply_poses(scene.cameras.camera_to_world.double()).numpy()


def assert_same(read: Scene, scene: Scene, *, points: bool = True) -> None:
    """The same cameras in the same order within 1e-4 of the scene's size."""
    side = scene.side / scene.normalization.scale
    found, given = in_capture(read), in_capture(scene)
    assert np.abs(found[:, :3, 3] - given[:, :3, 3]).max() < 1e-4 * side
    assert np.abs(found[:, :3, :3] - given[:, :3, :3]).max() < 1e-5
    torch.testing.assert_close(read.cameras.intrinsics, scene.cameras.intrinsics)
    torch.testing.assert_close(read.cameras.distortion, scene.cameras.distortion)
    assert torch.equal(read.cameras.sizes, scene.cameras.sizes)
    assert torch.equal(read.cameras.models, scene.cameras.models)
    if points:
        assert read.points is not None and torch.equal(read.points.colors, scene.points.colors)
        gap = read.to_source(read.points.positions.double()) - scene.to_source(
            scene.points.positions.double()
        )
        assert float(gap.abs().max()) < 1e-4 * side
    for index in range(len(scene.cameras)):
        assert torch.equal(read.images.load(index), scene.images.load(index))


@pytest.mark.parametrize("frame", ["capture", "scene"])
@pytest.mark.parametrize("kinds", [("full",), ("pinhole", "opencv", "full", "fisheye")])
def test_transforms_json_reads_back(tmp_path, frame, kinds):
    scene = captured(tmp_path / "data", kinds, times=True)
    report = export.cameras(scene, out=tmp_path / "out" / "transforms.json", frame=frame)
    assert (report.count, report.points, report.written_images) == (12, 50, 0)
    read = datasets.load(tmp_path / "out")
    assert_same(read, scene)
    torch.testing.assert_close(read.cameras.times, scene.cameras.times)
    assert {n: i.tolist() for n, i in read.splits.items() if len(i)} == {
        n: i.tolist() for n, i in scene.splits.items()
    }
    table = json.loads((tmp_path / "out" / "transforms.json").read_text())
    assert ("fl_x" in table) == (len(kinds) == 1) and ("applied_scale" in table) == (
        frame == "scene"
    )
    assert table["frames"][0]["file_path"] == "../data/right/view_00.png"


def test_axes_are_those_of_opengl(tmp_path):
    scene = captured(tmp_path / "data", ("pinhole",))
    export.cameras(scene, out=tmp_path / "a.json")
    table = json.loads((tmp_path / "a.json").read_text())
    pose = np.array(table["frames"][3]["transform_matrix"])
    ahead = scene.normalization.inverse().apply_directions(scene.cameras.forwards[3]).numpy()
    np.testing.assert_allclose(pose[:3, 2], -ahead, atol=1e-6)
    np.testing.assert_allclose(pose[3], [0, 0, 0, 1])
    assert table["w"] == 60 and table["camera_model"] == "PINHOLE" and "k1" not in table


def test_a_colmap_model_reads_back(tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    scene = captured(tmp_path / "data")
    report = export.cameras(scene, out=tmp_path / "out", copy_images=True)
    assert report.images == (tmp_path / "out" / "images").resolve()
    # by our reader, which sorts by name
    read = datasets.load(tmp_path / "out", format="colmap")
    order = sorted(range(12), key=lambda index: f"{'left' if index % 2 else 'right'}{index:02}")
    assert_same(read, scene.select(order))
    # and by COLMAP's own
    model = pycolmap.Reconstruction(str(tmp_path / "out" / "sparse" / "0"))
    assert model.num_images() == 12 and len(model.cameras) == 4 and model.num_points3D() == 50
    side = scene.side / scene.normalization.scale
    poses = {Path(scene.images.path(i)).name: pose for i, pose in enumerate(in_capture(scene))}
    for image in model.images.values():
        found = image.cam_from_world()
        pose = poses[Path(image.name).name]
        center = -found.rotation.matrix().T @ found.translation
        assert np.abs(center - pose[:3, 3]).max() < 1e-4 * side
        np.testing.assert_allclose(found.rotation.matrix().T, pose[:3, :3], atol=1e-5)
        index = int(Path(image.name).stem[-2:])
        # COLMAP shows a point where we do
        point = scene.points.positions[:1]
        pixel = image.project_point(scene.to_source(point.double()).numpy()[0])
        expected, _ = scene.cameras.to(dtype=torch.float64).project(point, index)
        np.testing.assert_allclose(pixel, expected[0].numpy(), atol=0.01)
    colors = np.array([model.points3D[i].color for i in sorted(model.points3D)])
    assert np.array_equal(colors, scene.points.colors.numpy())


def test_names_without_copies_are_relative_to_the_pictures(tmp_path):
    scene = captured(tmp_path / "data")
    report = export.cameras(scene, out=tmp_path / "out")
    assert report.images == (tmp_path / "data").resolve() and report.written_images == 0
    text = (tmp_path / "out" / "sparse" / "0" / "images.txt").read_text()
    assert "1 right/view_00.png\n" in text
    assert not (tmp_path / "out" / "images").exists()


def test_intrinsics_are_those_of_the_files_where_the_scene_was_reduced(tmp_path):
    scene = captured(tmp_path / "data", ("opencv",))
    export.cameras(scene, out=tmp_path / "a" / "transforms.json")
    half = datasets.load(tmp_path / "a", image_scale=0.5)
    assert half.cameras.size(0) == (32, 24)
    export.cameras(half, out=tmp_path / "b" / "transforms.json")
    assert_same(datasets.load(tmp_path / "b"), scene)


def test_pictures_in_memory_are_written(tmp_path):
    poses = look_at(torch.randn(5, 3) * 0.1 + 4, torch.zeros(3), up=[0.0, 0.0, 1.0])
    cameras = Cameras.from_intrinsics(poses, 8, 6, 9.0)
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 256, (6, 8, 4), generator=generator, dtype=torch.uint8) for _ in range(5)
    ]
    splits = {"train": torch.arange(4), "test": torch.tensor([4])}
    scene = Scene(
        "five", "memory", cameras, splits, cube(torch.zeros(3), 2.0),
        images=MemoryImages(images, names=[f"n{i}" for i in range(5)]),
    )  # fmt: skip
    seen = []
    report = export.cameras(
        scene, out=tmp_path / "transforms.json", on_image=lambda *place: seen.append(place)
    )
    assert report.written_images == 5 and seen[-1] == (5, 5)
    assert_same(datasets.load(tmp_path), scene, points=False)
    with pytest.raises(InputError, match="transforms.json: exists already"):
        export.cameras(scene, out=tmp_path / "transforms.json")
    with pytest.raises(InputError, match="images: exists already; add --overwrite"):
        export.cameras(scene, out=tmp_path / "other.json")
    export.cameras(scene, out=tmp_path / "transforms.json", overwrite=True)


def test_what_cannot_be_written(tmp_path, monkeypatch):
    scene = captured(tmp_path / "data", ("pinhole",))
    flat = dataclasses.replace(
        scene.cameras, models=torch.full((12,), int(CameraModel.ORTHOGRAPHIC))
    )
    (tmp_path / "there").write_text("")
    bare = dataclasses.replace(scene, images=None)
    for source, out, options, message in (
        (scene, "a.txt", {}, "a.txt: cameras are written to a .json file, or to a folder"),
        (scene, "there", {}, "there: is a file; name a folder"),
        (scene, "a", {"frame": "scene"}, "a COLMAP model has one frame alone; write a .json"),
        (bare, "a.json", {}, "has no pictures"),
        (dataclasses.replace(scene, cameras=flat), "a", {}, "no orthographic cameras"),
    ):
        with pytest.raises(InputError, match=message):
            export.cameras(source, out=tmp_path / out, **options)
    (tmp_path / "data").rename(tmp_path / "images")
    moved = captured(tmp_path / "images", ("pinhole",))
    with pytest.raises(InputError, match="images: is where the pictures come from"):
        export.cameras(moved, out=tmp_path / "a.json", copy_images=True, overwrite=True)
    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(DataError, match="cannot be written .No space left"):
        export.cameras(moved, out=tmp_path / "a")
    assert not (tmp_path / "a" / "sparse" / "0").exists()
    assert list((tmp_path / "a" / "sparse").iterdir()) == []


def full_disk(path, text):
    raise OSError(28, "No space left on device")


def test_the_command(tmp_path, monkeypatch, capsys):
    scene = captured(tmp_path / "data", ("opencv",))
    export.cameras(scene, out=tmp_path / "first" / "transforms.json")
    monkeypatch.chdir(tmp_path)
    assert main(["export", "cameras", "first", "--out", "second.json", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["out"] == "second.json" and result["cameras"] == 12 and result["points"] == 50
    assert_same(datasets.load("second.json"), scene)
    assert main(["export", "cameras", "first", "--out", "model", "--copy-images"]) == 0
    assert "COLMAP model, 12 cameras, 50 points" in capsys.readouterr().out
    assert main(["export", "cameras", "nowhere", "--out", "x.json"]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
    assert main(["export", "cameras", "first", "--out", "y.json", "--texture", "512"]) == 2
    assert "--texture is for mesh, not for cameras" in capsys.readouterr().err
