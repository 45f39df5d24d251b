"""What lies outside of a box is gone, inside nothing changes."""

import torch

from lumigraph.core import Cameras, GaussianCloud
from lumigraph.core.transforms import look_at
from lumigraph.fields import Gaussians
from lumigraph.renderers import SplatRenderer
from lumigraph.training import Model
from lumigraph.viewer.cropping import can_crop, cropped

HALF = torch.tensor([[-2.0, -2.0, -2.0], [0.0, 2.0, 2.0]])  # x < 0
ALL = torch.tensor([[-9.0, -9.0, -9.0], [9.0, 9.0, 9.0]])


def above() -> Cameras:
    """From high above; x goes right in the picture."""
    pose = look_at(torch.tensor([0.0, 0.0, 4.0]), torch.zeros(3), up=[0.0, 1.0, 0.0])
    return Cameras.from_intrinsics(pose, 64, 64, 80.0)


def two_balls() -> Model:
    cloud = GaussianCloud(
        means=torch.tensor([[-0.8, 0.0, 0.0], [0.8, 0.0, 0.0]]),
        rotations=torch.tensor([[1.0, 0.0, 0.0, 0.0]] * 2),
        log_scales=torch.full((2, 3), -2.0),
        opacity_logits=torch.full((2,), 4.0),
        harmonics=torch.zeros(2, 1, 3),
    )
    renderer = SplatRenderer(background=torch.ones(3))
    return Model(Gaussians(cloud), renderer, torch.device("cpu"))


def check(model: Model) -> None:
    assert can_crop(model)
    whole, half = (m.render(above()).opacity for m in (model, cropped(model, HALF)))
    assert float(whole[:, 40:].max()) > 0.5
    assert float(half[:, 40:].max()) < 0.05
    assert float(half[:, :24].max()) > 0.5
    assert torch.equal(cropped(model, ALL).render(above()).color, model.render(above()).color)
    assert torch.equal(model.render(above()).opacity, whole)


def test_gaussians():
    check(two_balls())


def test_volume(nerf_run):
    check(nerf_run.model("cpu"))


def test_gaussians_of_a_run(splat_run):
    check(splat_run.model("cpu"))
