"""COLMAP models: binary against text, every lens, image folders, broken files."""

import numpy as np
import pytest
import torch

from lumigraph import datasets
from lumigraph.core.errors import DataError


def distorted(lens: str, values: tuple, local: np.ndarray) -> np.ndarray:
    """Pixels by COLMAP's own formulas (float64, written out for each lens)."""
    u, v = local[:, 0] / local[:, 2], local[:, 1] / local[:, 2]
    single = lens in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
    fx, fy, cx, cy = (values[0], *values[:3]) if single else values[:4]
    extra = values[3 if single else 4 :]
    k = np.zeros(8)
    k[: len(extra)] = extra
    square = u * u + v * v
    if lens == "OPENCV_FISHEYE":
        radius = np.sqrt(square)
        theta = np.arctan(radius)
        bent = theta * (1 + sum(k[i] * theta ** (2 * i + 2) for i in range(4)))
        return np.stack([fx * u * bent / radius + cx, fy * v * bent / radius + cy], axis=1)
    radial = 1 + k[0] * square + k[1] * square**2 + k[4] * square**3
    radial /= 1 + k[5] * square + k[6] * square**2 + k[7] * square**3
    x = u * radial + 2 * k[2] * u * v + k[3] * (square + 2 * u * u)
    y = v * radial + k[2] * (square + 2 * v * v) + 2 * k[3] * u * v
    return np.stack([fx * x + cx, fy * y + cy], axis=1)


LENSES = [
    ("SIMPLE_PINHOLE", (15.0, 6.2, 4.9)),
    ("PINHOLE", (15.0, 14.0, 6.2, 4.9)),
    ("SIMPLE_RADIAL", (15.0, 6.2, 4.9, 0.1)),
    ("RADIAL", (15.0, 6.2, 4.9, 0.1, -0.05)),
    ("OPENCV", (15.0, 14.0, 6.2, 4.9, 0.1, -0.05, 0.01, -0.02)),
    ("FULL_OPENCV", (15.0, 14.0, 6.2, 4.9, 0.1, -0.05, 0.01, -0.02, 0.01, 0.02, 0.01, 0.005)),
    ("OPENCV_FISHEYE", (15.0, 14.0, 6.2, 4.9, 0.1, -0.05, 0.01, 0.002)),
]


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "text"])
@pytest.mark.parametrize(("model", "values"), LENSES, ids=[lens for lens, _ in LENSES])
def test_lens_projects_as_colmap_says(capture, model, values, binary) -> None:
    scene = datasets.load(capture.colmap(binary=binary, model=model, parameters=values))
    moved = scene.normalization.apply(torch.from_numpy(capture.points)).float()
    for index in (0, 4):
        pose = capture.poses[index]
        local = (capture.points - pose[:3, 3]) @ pose[:3, :3]
        pixels, _ = scene.cameras.project(moved, index)
        np.testing.assert_allclose(pixels, distorted(model, values, local), atol=1e-4)


def test_binary_and_text_agree(capture, tmp_path) -> None:
    binary = datasets.load(capture.colmap())
    capture.root = tmp_path / "text"
    text = datasets.load(capture.colmap(binary=False))
    torch.testing.assert_close(binary.points.positions, text.points.positions)
    torch.testing.assert_close(binary.points.colors, text.points.colors)
    torch.testing.assert_close(binary.cameras.camera_to_world, text.cameras.camera_to_world)


def test_images_are_sorted_by_name(capture) -> None:
    """The binary file lists them backwards."""
    scene = datasets.load(capture.colmap())
    names = [scene.images.name(index) for index in range(6)]
    assert names == sorted(names)
    assert scene.splits["test"].tolist() == [0]


def test_smaller_copies_and_missing_images(capture) -> None:
    folder = capture.colmap()
    (folder / "images").rename(folder / "images_4")
    (folder / "images_4" / "003.png").unlink()
    scene = datasets.load(folder)
    assert len(scene.cameras) == 5 and "1 of 6 images" in scene.notes[0]


def test_model_folder_itself_is_enough(capture) -> None:
    scene = datasets.load(capture.colmap() / "sparse" / "0")
    assert len(scene.cameras) == 6


def test_model_without_points(capture) -> None:
    folder = capture.colmap()
    (folder / "sparse" / "0" / "points3D.bin").unlink()
    assert datasets.load(folder).points is None


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_cut_short(capture, name) -> None:
    folder = capture.colmap()
    file = folder / "sparse" / "0" / name
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(DataError, match=rf"{name}: cut short .* export the model again"):
        datasets.load(folder)


def test_unsupported_lens(capture) -> None:
    folder = capture.colmap(model="FOV", parameters=(15.0, 15.0, 6.0, 5.0, 0.9))
    with pytest.raises(DataError, match=r"camera 7: camera model FOV .*image_undistorter"):
        datasets.load(folder)


def test_text_with_wrong_parameter_count(capture) -> None:
    folder = capture.colmap(binary=False, model="OPENCV", parameters=(15.0, 15.0, 6.0, 5.0))
    with pytest.raises(DataError, match=r"cameras.txt: camera 7 \(OPENCV\) has 4 parameters"):
        datasets.load(folder)


def test_nan_pose(capture) -> None:
    folder = capture.colmap(binary=False)
    file = folder / "sparse" / "0" / "images.txt"
    lines = file.read_text().splitlines()
    row = lines[1].split()
    row[5] = "nan"
    lines[1] = " ".join(row)
    file.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"image 000.png: the pose holds NaN"):
        datasets.load(folder)


def test_camera_that_is_not_there(capture) -> None:
    folder = capture.colmap(binary=False)
    file = folder / "sparse" / "0" / "cameras.txt"
    file.write_text(file.read_text().replace("7 PINHOLE", "8 PINHOLE"))
    with pytest.raises(DataError, match="its camera 7 is not in the model"):
        datasets.load(folder)
