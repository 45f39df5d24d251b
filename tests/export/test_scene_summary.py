"""What `inspect` says and draws, on scenes whose content is known."""

import dataclasses
import json

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from lumigraph.core import CameraModel, Cameras, MemoryImages, PointCloud, Scene, cube
from lumigraph.core.transforms import look_at
from lumigraph.export import draw_scene, summarize_scene


@pytest.fixture
def scene() -> Scene:
    eyes = torch.tensor([[4.0, 0, 0], [0, 3.0, 0], [0, 0.1, 5.0], [-4.0, 0, 0]])
    poses = look_at(eyes, torch.zeros(3), up=(0.0, 0.0, 1.0))
    cameras = Cameras.from_intrinsics(
        poses,
        [8, 8, 8, 6],
        [6, 6, 6, 8],
        10.0,
        model=[CameraModel.PINHOLE, CameraModel.PINHOLE, CameraModel.FISHEYE, CameraModel.PINHOLE],
    )
    images = [torch.zeros(6, 8, 3, dtype=torch.uint8)] * 3
    images.append(torch.zeros(8, 6, 3, dtype=torch.uint8))
    splits = {"train": torch.tensor([0, 1, 2]), "test": torch.tensor([3])}
    points = PointCloud(torch.rand(50, 3) - 0.5)
    return Scene(
        name="four",
        source="memory",
        cameras=cameras,
        splits=splits,
        bounds=cube(torch.zeros(3), 2.0),
        images=MemoryImages(images),
        points=points,
        notes=["one image is missing"],
    )


def test_facts(scene):
    facts = summarize_scene(scene)
    assert facts["images"] == 4 and facts["splits"] == {"train": 3, "test": 1}
    assert facts["sizes"] == {"8x6": 3, "6x8": 1}
    assert facts["camera_models"] == {"pinhole": 3, "fisheye": 1}
    assert facts["camera_distance"] == pytest.approx([3.0, 5.001], abs=1e-3)
    assert facts["bounds"] == [[-1.0] * 3, [1.0] * 3]
    assert facts["points"] == 50 and facts["notes"] == ["one image is missing"]
    assert json.loads(json.dumps(facts)) == facts


def test_picture_shows_training_and_other_cameras(scene, tmp_path):
    picture = imageio.imread(draw_scene(scene, tmp_path / "deep" / "four.png"))[..., :3]
    blue = (picture == (0x25, 0x63, 0xEB)).all(axis=2)
    orange = (picture == (0xD9, 0x73, 0x0D)).all(axis=2)
    assert blue.sum() > 50 and orange.sum() > 10
    half = picture.shape[1] // 2
    assert blue[:, :half].any() and blue[:, half:].any()


@pytest.mark.parametrize("points", [None, PointCloud(torch.zeros(0, 3))])
def test_scene_without_points_or_images(scene, tmp_path, points):
    bare = dataclasses.replace(scene, points=points, images=None)
    assert summarize_scene(bare)["images"] == 0
    assert np.ptp(imageio.imread(draw_scene(bare, tmp_path / "bare.png"))) > 0
