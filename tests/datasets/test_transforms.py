"""transforms.json: lenses, missing files, frames of reference, masks, splits, points."""

import numpy as np
import pytest
import torch
from PIL import Image

from lumigraph import datasets
from lumigraph.core.cameras import CameraModel
from lumigraph.core.errors import DataError


def write_ply(path, points: np.ndarray, colors: np.ndarray) -> None:
    header = ["ply", "format ascii 1.0", f"element vertex {len(points)}"]
    header += [f"property float {axis}" for axis in "xyz"]
    header += [f"property uchar {name}" for name in ("red", "green", "blue")]
    rows = [
        " ".join(map(str, [*point, *color])) for point, color in zip(points, colors, strict=True)
    ]
    path.write_text("\n".join([*header, "end_header", *rows]) + "\n")


def test_missing_images_give_one_note(capture) -> None:
    folder = capture.transforms(aabb_scale=2)
    for name in ("001.png", "004.png"):
        (folder / "images" / name).unlink()
    scene = datasets.load(folder)
    assert len(scene.cameras) == len(scene.images) == 4
    assert len(scene.notes) == 1
    assert "2 of 6 images" in scene.notes[0] and "images/001.png" in scene.notes[0]
    assert scene.images.name(1) == "images/002.png"


def test_instant_ngp_cube(capture) -> None:
    scene = datasets.load(capture.transforms(aabb_scale=4))
    assert scene.aabb_scale == 4
    np.testing.assert_allclose(scene.bounds, [[-0.5 / 0.33] * 3, [0.5 / 0.33] * 3], rtol=1e-6)
    np.testing.assert_array_equal(scene.normalization.to_matrix(), np.eye(4))


def test_scale_and_offset_move_the_cube(capture) -> None:
    scene = datasets.load(capture.transforms(scale=0.25, offset=[0.5, 0.25, 0.75]))
    np.testing.assert_allclose(scene.bounds, [[-2.0, -1.0, -3.0], [2.0, 3.0, 1.0]], atol=1e-6)


def test_distortion_and_intrinsics_for_each_image(capture) -> None:
    folder = capture.transforms(aabb_scale=1, k1=0.1, k2=-0.05, p1=0.01, p2=0.02)
    table = capture.read_transforms()
    table["frames"][2].update(k1=0.2, k3=0.03, k4=0.01, k5=0.02, k6=0.005, fl_x=20.0, cx=5.0)
    capture.write_transforms(table)
    cameras = datasets.load(folder).cameras
    assert set(cameras.models.tolist()) == {CameraModel.OPENCV}
    np.testing.assert_allclose(cameras.distortion[0], [0.1, -0.05, 0.01, 0.02, 0, 0, 0, 0])
    np.testing.assert_allclose(
        cameras.distortion[2], [0.2, -0.05, 0.01, 0.02, 0.03, 0.01, 0.02, 0.005]
    )
    assert cameras.intrinsics[2].tolist() == [20.0, 20.0, 5.0, 5.0]
    assert cameras.intrinsics[1].tolist() == [15.0, 15.0, 6.0, 5.0]


@pytest.mark.parametrize(
    ("keys", "model"),
    [
        ({"is_fisheye": True, "k1": 0.1}, CameraModel.FISHEYE),
        ({"camera_model": "OPENCV_FISHEYE", "k1": 0.1}, CameraModel.FISHEYE),
        ({"camera_model": "OPENCV", "k1": 0.1}, CameraModel.OPENCV),
        ({"camera_model": "PINHOLE"}, CameraModel.PINHOLE),
        ({"k1": 0.0, "p1": 0.0}, CameraModel.PINHOLE),
        ({"camera_model": "EQUIRECTANGULAR"}, CameraModel.EQUIRECTANGULAR),
    ],
)
def test_camera_models(capture, keys, model) -> None:
    cameras = datasets.load(capture.transforms(aabb_scale=1, **keys)).cameras
    assert set(cameras.models.tolist()) == {model}
    assert float(cameras.distortion[0, 0]) == pytest.approx(
        keys.get("k1", 0.0) if model != CameraModel.PINHOLE else 0.0
    )


def test_intrinsics_of_full_size_fit_smaller_images(capture) -> None:
    folder = capture.transforms(aabb_scale=1)
    table = capture.read_transforms()
    table.update(w=48, h=40, fl_x=60.0, cx=26.0, cy=18.0)
    capture.write_transforms(table)
    cameras = datasets.load(folder).cameras
    assert cameras.sizes[0].tolist() == [12, 10]
    assert cameras.intrinsics[0].tolist() == [15.0, 15.0, 6.5, 4.5]


def test_applied_transform_leads_back_to_the_capture(capture) -> None:
    """The file's frame is the capture's, turned, shifted and scaled; exports undo all of it."""
    applied = np.array([[0, 1, 0, 0.5], [1, 0, 0, -0.2], [0, 0, -1, 0.1]], dtype=float)
    folder = capture.transforms(applied_transform=applied.tolist(), applied_scale=0.5)
    table = capture.read_transforms()
    for frame, pose in zip(table["frames"], capture.opengl, strict=True):
        moved = np.eye(4)
        moved[:3] = applied @ pose
        moved[:3, 3] *= 0.5
        frame["transform_matrix"] = moved.tolist()
    capture.write_transforms(table)
    scene = datasets.load(folder)
    moved = scene.normalization.apply(torch.from_numpy(capture.points)).float()
    for index in range(6):
        pixels, _ = scene.cameras.project(moved, index)
        np.testing.assert_allclose(pixels, capture.project(capture.points, index), atol=1e-4)


def test_splits_by_list_and_by_label(capture) -> None:
    folder = capture.transforms(aabb_scale=1, test_filenames=["./images/003.png"])
    table = capture.read_transforms()
    table["frames"][5]["split"] = "val"
    capture.write_transforms(table)
    scene = datasets.load(folder)
    assert {name: indices.tolist() for name, indices in scene.splits.items()} == {
        "train": [0, 1, 2, 4],
        "test": [3],
        "val": [5],
    }
    assert datasets.load(folder, split_every=2).splits["test"].tolist() == [0, 2, 4]


def test_masks(capture) -> None:
    folder = capture.transforms(aabb_scale=1)
    table = capture.read_transforms()
    (folder / "masks").mkdir()
    for index, frame in enumerate(table["frames"]):
        mask = np.zeros((10, 12), dtype=np.uint8)
        mask[:, index:] = 255
        Image.fromarray(mask).save(folder / "masks" / f"{index}.png")
        frame["mask_path"] = f"masks/{index}.png"
    capture.write_transforms(table)
    scene = datasets.load(folder)
    assert scene.masks.load(3)[0].tolist() == [False] * 3 + [True] * 9

    del table["frames"][0]["mask_path"]
    capture.write_transforms(table)
    partly = datasets.load(folder)
    assert partly.masks is None and "only 5 of 6 images have a mask" in partly.notes[0]


def test_points_choose_the_placement(capture) -> None:
    folder = capture.transforms(ply_file_path="cloud.ply")
    write_ply(folder / "cloud.ply", capture.points, capture.colors)
    scene = datasets.load(folder)
    np.testing.assert_array_equal(scene.points.colors, capture.colors)
    np.testing.assert_allclose(scene.to_source(scene.points.positions), capture.points, atol=1e-4)
    assert float(scene.points.positions.abs().max()) < 1.0

    (folder / "cloud.ply").unlink()
    without = datasets.load(folder)
    assert without.points is None and "cloud.ply" in without.notes[0]


def test_times_of_frames(capture) -> None:
    folder = capture.transforms(aabb_scale=1)
    table = capture.read_transforms()
    for index, frame in enumerate(table["frames"]):
        frame["time"] = index / 5
    capture.write_transforms(table)
    np.testing.assert_allclose(datasets.load(folder).cameras.times, np.arange(6) / 5)


def test_files_of_neus2(capture) -> None:
    """OpenCV axes, a matrix of intrinsics in each frame, and the cube of scale and offset."""
    folder = capture.transforms(from_na=True, scale=0.5, offset=[0.5, 0.5, 0.5], aabb_scale=1)
    table = capture.read_transforms()
    del table["fl_x"]
    lens = np.eye(4)
    lens[0, 0] = lens[1, 1] = 15.0
    lens[0, 2], lens[1, 2] = 6.25, 4.75
    for frame, pose in zip(table["frames"], capture.poses, strict=True):
        frame["transform_matrix"] = pose.tolist()
        frame["intrinsic_matrix"] = lens.tolist()
    capture.write_transforms(table)
    scene = datasets.load(folder)
    assert scene.bounds.tolist() == [[-1.0] * 3, [1.0] * 3]
    np.testing.assert_allclose(scene.cameras.camera_to_world, capture.poses[:, :4], atol=1e-6)
    assert scene.cameras.intrinsics[3].tolist() == [15.0, 15.0, 6.25, 4.75]
    table["frames"][1]["intrinsic_matrix"] = [[1.0, 2.0]]
    capture.write_transforms(table)
    with pytest.raises(DataError, match=r"frames\[1\].*intrinsic_matrix: matrix shape is 1x2"):
        datasets.load(folder)
