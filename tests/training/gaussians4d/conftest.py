"""A ball that moves and one that stands still, seen by a ring of cameras at a few moments."""

import math

import pytest
import torch

from lumigraph.core import Cameras, MemoryImages, Scene
from lumigraph.core.gaussian_cloud import GaussianCloud
from lumigraph.core.gaussian_cloud4d import GaussianCloud4D
from lumigraph.core.rotors import rotor_from_rotation
from lumigraph.core.scene import cube
from lumigraph.core.transforms import look_at
from lumigraph.fields import Gaussians4D
from lumigraph.renderers import SplatRenderer
from lumigraph.training import Gaussians4DConfig, train_config

SIDE, VIEWS, MOMENTS = 24, 5, 4
TRAVEL = 0.8  # of the moving ball, from one end of the clip to the other


def ring() -> Cameras:
    poses = []
    for i in range(VIEWS):
        angle = 2 * math.pi * i / VIEWS
        eye = torch.tensor([2.4 * math.cos(angle), 2.4 * math.sin(angle), math.sin(2.5 * i)])
        poses.append(look_at(eye, torch.zeros(3), up=(0.0, 0.0, 1.0)))
    return Cameras.from_intrinsics(torch.stack(poses), SIDE, SIDE, 1.2 * SIDE)


def tilted_rotor(velocity: float) -> torch.Tensor:
    """(8,) of a Gaussian that moves along x."""
    angle = math.atan(velocity)
    turn = torch.eye(4, dtype=torch.float64)
    turn[0, 0] = turn[3, 3] = math.cos(angle)
    turn[0, 3], turn[3, 0] = math.sin(angle), -math.sin(angle)
    return rotor_from_rotation(turn[None])[0].float()


def two_balls() -> GaussianCloud4D:
    """Row 0 moves along x by `TRAVEL` and is there throughout, as is row 1, which rests."""
    spatial = GaussianCloud(
        torch.tensor([[0.0, 0.3, 0.0], [0.0, -0.5, 0.0]]),
        torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(2, 1),
        torch.full((2, 3), math.log(0.15)),
        torch.full((2,), 3.0),
        torch.tensor([[[1.5, -1.0, -1.0]], [[-1.0, 1.0, -1.0]]]),
    )
    cloud = GaussianCloud4D.from_static(spatial, duration=20.0)
    cloud.rotors[0] = tilted_rotor(TRAVEL)
    return cloud


def cameras_over_time() -> Cameras:
    times = torch.linspace(0, 1, MOMENTS)
    return Cameras.concatenate([ring().at_time(float(time)) for time in times])


def build_scene(*, alpha: bool = False, **parts) -> Scene:
    """Pictures of `two_balls`; the second view of every moment is held out."""
    cameras = cameras_over_time()
    assert cameras.times is not None
    field, renderer = Gaussians4D(two_balls()), SplatRenderer(background=torch.zeros(3))
    images = []
    for i in range(len(cameras)):
        frame = renderer.render(field, cameras[i])
        color = frame.color
        if alpha:
            opacity = torch.where(frame.opacity < 0.02, 0.0, frame.opacity)[..., None]
            color = torch.cat([color / opacity.clamp_min(0.02), opacity], dim=2)
        images.append((color.clamp(0, 1) * 255).round().to(torch.uint8))
    places = torch.arange(len(cameras))
    values = {
        "name": "balls",
        "source": "memory",
        "cameras": cameras,
        "images": MemoryImages(images),
        "splits": {"train": places[places % VIEWS != 1], "test": places[places % VIEWS == 1]},
        "bounds": cube(torch.zeros(3), 2.0),
        "background": "black",
        "has_alpha": alpha,
    }
    return Scene(**{**values, **parts})


@pytest.fixture
def make_scene():
    return build_scene


@pytest.fixture
def balls() -> GaussianCloud4D:
    return two_balls()


def build_config(**options) -> Gaussians4DConfig:
    values = {
        "steps": 20,
        "device": "cpu",
        "max_gaussians": 80,
        "initial_gaussians": 40,
        "harmonics_degree": 1,
        "harmonics_every": 6,
        "refine_start": 3,
        "refine_every": 4,
        "log_every": 5,
        "consistency_weight": 0.0,
        "consistency_rows": 30,
    }
    return train_config("gaussians4d", "tiny", **{**values, **options})


@pytest.fixture
def small_config():
    return build_config
