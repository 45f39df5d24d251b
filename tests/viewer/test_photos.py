"""Photographs seen through the viewer's camera."""

import pytest
import torch

from lumigraph.core import CameraModel, Cameras, MemoryImages, Scene, cube
from lumigraph.core.transforms import look_at
from lumigraph.viewer.photos import photo_in_view

WIDTH, HEIGHT = 40, 30


def scene(**lens) -> Scene:
    """One photograph whose red is x and whose green is y."""
    pose = look_at(torch.tensor([0.0, -3.0, 0.5]), torch.zeros(3), up=[0.0, 0.0, 1.0])
    x = torch.arange(WIDTH).float().expand(HEIGHT, WIDTH) * 6
    y = torch.arange(HEIGHT).float()[:, None].expand(HEIGHT, WIDTH) * 6
    image = torch.stack([x, y, torch.zeros_like(x)], dim=-1).to(torch.uint8)
    cameras = Cameras.from_intrinsics(pose, WIDTH, HEIGHT, 35.0, **lens)
    splits = {"train": torch.tensor([0])}
    images = MemoryImages([image])
    return Scene("one", "memory", cameras, splits, cube(torch.zeros(3), 2.0), images=images)


def test_the_same_camera_sees_the_photograph_itself():
    one = scene()
    photo = photo_in_view(one, 0, one.cameras)
    expected = one.images.load(0).float() / 255
    assert photo.inside.all()
    assert torch.allclose(photo.color, expected, atol=1e-4)


def test_a_wider_view_has_the_photograph_in_its_middle():
    one = scene()
    wide = Cameras.from_intrinsics(one.cameras.camera_to_world, 80, 60, 35.0)
    photo = photo_in_view(one, 0, wide)
    assert int(photo.inside.sum()) == WIDTH * HEIGHT
    expected = one.images.load(0).float() / 255
    assert torch.allclose(photo.color[15:45, 20:60], expected, atol=1e-4)


def test_a_lens_is_undone():
    bent = scene(model=CameraModel.OPENCV, distortion=[-0.2, 0.03])
    photo = photo_in_view(bent, 0, scene().cameras)
    rays = scene().cameras.image_rays(0)
    points = rays.origins + rays.directions
    pixels, _ = bent.cameras.project(points, 0)
    red = ((pixels[:, 0] - 0.5) * 6 / 255).reshape(HEIGHT, WIDTH)
    inner = (slice(4, -4), slice(4, -4))
    assert torch.allclose(photo.color[inner][..., 0], red[inner], atol=2e-3)


@pytest.mark.parametrize("moved", [0.1, -0.5])
def test_from_another_place_there_is_nothing_to_compare(moved):
    one = scene()
    pose = one.cameras.camera_to_world.clone()
    pose[:, 0, 3] += moved
    assert photo_in_view(one, 0, one.cameras.with_poses(pose)) is None


def test_alpha_is_laid_over_the_background():
    one = scene()
    clear = torch.zeros(HEIGHT, WIDTH, 4, dtype=torch.uint8)
    glass = Scene(
        "glass", "memory", one.cameras, one.splits, one.bounds, images=MemoryImages([clear])
    )
    assert float(photo_in_view(glass, 0, one.cameras).color.min()) == 1.0
