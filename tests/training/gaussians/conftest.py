"""Small clouds and scenes for the tests of method `gaussians`."""

import math

import pytest
import torch

from lumigraph.core import Cameras, Scene
from lumigraph.core.scene import MemoryImages, PointCloud, cube
from lumigraph.core.transforms import look_at
from lumigraph.training import GaussiansConfig, train_config

SIDE = 24


def ring(views: int, *, radius: float = 3.0) -> Cameras:
    poses = []
    for i in range(views):
        angle = 2 * math.pi * i / views
        eye = torch.tensor([radius * math.cos(angle), radius * math.sin(angle), math.sin(2.5 * i)])
        poses.append(look_at(eye, torch.zeros(3), up=(0.0, 0.0, 1.0)))
    return Cameras.from_intrinsics(torch.stack(poses), SIDE, SIDE, 1.2 * SIDE)


@pytest.fixture
def make_scene():
    return build_scene


def build_scene(views: int = 6, *, alpha: bool = False, **parts) -> Scene:
    """Pictures of a colored square; with alpha, nothing around it."""
    images = []
    for i in range(views):
        image = torch.zeros(SIDE, SIDE, 4 if alpha else 3, dtype=torch.uint8)
        image[8:16, 8:16, 0] = 200
        image[8:16, 8:16, 1] = 20 * i
        if alpha:
            image[8:16, 8:16, 3] = 255
        images.append(image)
    values = {
        "name": "square",
        "source": "memory",
        "cameras": ring(views),
        "images": MemoryImages(images),
        "splits": {"train": torch.arange(views)},
        "bounds": cube(torch.zeros(3), 2.0),
        "has_alpha": alpha,
    }
    return Scene(**{**values, **parts})


@pytest.fixture
def some_points():
    return random_cloud


def random_cloud(count: int = 40) -> PointCloud:
    generator = torch.Generator().manual_seed(1)
    positions = torch.rand(count, 3, generator=generator) - 0.5
    return PointCloud(positions, torch.full((count, 3), 128, dtype=torch.uint8))


@pytest.fixture
def small_config():
    return build_config


def build_config(**options) -> GaussiansConfig:
    values = {
        "steps": 20,
        "device": "cpu",
        "max_gaussians": 80,
        "initial_gaussians": 40,
        "harmonics_degree": 1,
        "harmonics_every": 6,
        "refine_start": 3,
        "refine_every": 4,
        "resolution_start": 0.5,
        "resolution_doubles_every": 8,
        "log_every": 5,
    }
    return train_config("gaussians", "tiny", **{**values, **options})
