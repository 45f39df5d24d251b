"""The same cameras written in every format come back as the same cameras."""

import numpy as np
import pytest
import torch

from lumigraph import datasets
from lumigraph.core.cameras import CameraModel

WRITERS = ("blender", "transforms", "llff", "neus", "colmap")


def camera_of(scene, name: str) -> int:
    names = [scene.images.name(index) for index in range(len(scene.images))]
    return next(index for index, found in enumerate(names) if found.endswith(name))


def pixels_of(scene, points: np.ndarray, index: int) -> np.ndarray:
    """Pixels of points in the capture's frame."""
    moved = scene.normalization.apply(torch.from_numpy(points)).float()
    pixels, _ = scene.cameras.project(moved, index)
    return pixels.numpy()


@pytest.mark.parametrize("writer", WRITERS)
def test_cameras_project_as_written(capture, writer) -> None:
    scene = datasets.load(getattr(capture, writer)())
    for number in range(6):
        index = camera_of(scene, f"{number}.png")
        np.testing.assert_allclose(
            pixels_of(scene, capture.points, index),
            capture.project(capture.points, number),
            atol=1e-4,
        )
        np.testing.assert_array_equal(scene.images.load(index), capture.pixels[number])


@pytest.mark.parametrize("writer", WRITERS)
def test_reduced_images_keep_rays(capture, writer) -> None:
    scene = datasets.load(getattr(capture, writer)(), image_scale=0.5)
    index = camera_of(scene, "3.png")
    assert scene.cameras.sizes[index].tolist() == [6, 5]
    assert tuple(scene.images.load(index).shape) == (5, 6, 3)
    np.testing.assert_allclose(
        pixels_of(scene, capture.points, index),
        0.5 * capture.project(capture.points, 3),
        atol=1e-4,
    )


@pytest.mark.parametrize("writer", WRITERS)
def test_bounds_hold_the_points_and_surroundings_the_cameras(capture, writer) -> None:
    scene = datasets.load(getattr(capture, writer)())
    points = scene.normalization.apply(torch.from_numpy(capture.points)).float()
    assert bool((points > scene.bounds[0]).all() and (points < scene.bounds[1]).all())
    distance = (scene.cameras.camera_to_world[:, :3, 3] - scene.center).norm(dim=1)
    assert scene.near < float(distance.min()) - 0.5 * scene.side


def test_to_source_undoes_the_normalization(capture) -> None:
    scene = datasets.load(capture.colmap())
    back = scene.to_source(scene.points.positions).numpy()
    np.testing.assert_allclose(back, capture.points, atol=1e-5)
    np.testing.assert_array_equal(scene.points.colors.numpy(), capture.colors)


def test_blender_splits_background_and_order(alpha_capture) -> None:
    scene = datasets.load(alpha_capture.blender())
    assert {name: indices.tolist() for name, indices in scene.splits.items()} == {
        "train": [0, 1, 2, 3],
        "val": [4],
        "test": [5],
    }
    assert scene.has_alpha and scene.background == "white"
    assert scene.bounds.tolist() == [[-1.5] * 3, [1.5] * 3]
    assert scene.images.load(4).shape[2] == 4


def test_photographs_have_no_background(capture) -> None:
    scene = datasets.load(capture.blender())
    assert not scene.has_alpha and scene.background is None


def test_smaller_llff_images_scale_the_intrinsics(capture) -> None:
    folder = capture.llff()
    rows = np.load(folder / "poses_bounds.npy")
    rows[:, [4, 9, 14]] *= 8.0
    np.save(folder / "poses_bounds.npy", rows)
    (folder / "images").rename(folder / "images_8")
    scene = datasets.load(folder)
    np.testing.assert_allclose(
        pixels_of(scene, capture.points, 1), capture.project(capture.points, 1), atol=1e-4
    )


def test_neus_masks_and_unit_sphere(capture) -> None:
    folder = capture.neus(radius=2.0)
    capture.images("mask", "{:02d}.png")
    scene = datasets.load(folder)
    assert scene.normalization.scale == pytest.approx(0.5)
    assert scene.bounds.tolist() == [[-1.0] * 3, [1.0] * 3]
    grey = np.round(capture.pixels[2].astype(float) @ [0.299, 0.587, 0.114])
    mask = scene.masks.load(2)
    assert mask.dtype == torch.bool
    clear = np.abs(grey - 127.5) > 2
    np.testing.assert_array_equal(mask.numpy()[clear], (grey > 127)[clear])


def test_naming_a_file_or_a_format_chooses_the_reader(capture) -> None:
    folder = capture.blender()
    capture.neus()
    assert len(datasets.load(folder).splits["val"]) == 1
    assert "format=neus" in " ".join(datasets.load(folder).notes)
    as_neus = datasets.load(folder, format="neus")
    by_file = datasets.load(folder / "cameras_sphere.npz")
    for scene in (as_neus, by_file):
        assert "val" not in scene.splits
        assert scene.normalization.scale == pytest.approx(1 / 1.5)
        assert set(scene.cameras.models.tolist()) == {CameraModel.PINHOLE}


def test_folder_with_several_image_folders(capture) -> None:
    folder = capture.colmap()
    (folder / "images").rename(folder / "pictures")
    scene = datasets.load(folder, image_folder="pictures")
    assert scene.images.name(0) == "pictures/000.png"
