"""Fields whose pictures are known in closed form, and cameras that look at them."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from lumigraph.core import Cameras
from lumigraph.core.transforms import look_at
from lumigraph.renderers import OccupancyGrid, VolumeRenderer

CENTER, SIDE = torch.tensor([1.0, -2.0, 0.5]), 4.0
BOUNDS = torch.stack([CENTER - SIDE / 2, CENTER + SIDE / 2])  # anything but the unit cube
COLOR = torch.tensor([0.8, 0.3, 0.1])


@dataclass
class AnalyticField:
    """A volume field of a given density about the middle of grid space, of one color.

    `kind` "box": constant `density` where |p - 0.5| < `size` along every axis;
    "gaussian": density * exp(-r^2 / (2 size^2)); "ball": a ball of radius `size` whose edge is
    `edge` soft.
    """

    kind: str
    density_scale: float
    size: float
    edge: float = 0.003
    cascades: int = 1
    bounds: Tensor = BOUNDS

    def density(self, positions: Tensor) -> Tensor:
        offset = positions - 0.5
        if self.kind == "box":
            inside = (offset.abs() < self.size).all(dim=1)
            return inside * self.density_scale + 0 * offset.sum(dim=1)
        if self.kind == "gaussian":
            square = offset.square().sum(dim=1)
            return self.density_scale * torch.exp(-square / (2 * self.size**2))
        radius = offset.norm(dim=1)
        return self.density_scale * torch.sigmoid((self.size - radius) / self.edge)

    def query(self, positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        return self.density(positions), COLOR.to(positions).expand_as(positions)

    def networks(self) -> None:
        return None


@pytest.fixture
def analytic() -> type[AnalyticField]:
    return AnalyticField


def build_renderer(
    *, steps: int = 1024, cascades: int = 1, background: float = 0.0, **options
) -> VolumeRenderer:
    resolution = 16 if cascades == 1 else 32
    occupancy = OccupancyGrid(resolution=resolution, cascades=cascades, march_steps=steps)
    return VolumeRenderer(occupancy, background=torch.full((3,), background), **options)


@pytest.fixture
def make_renderer():
    """A renderer whose cells are all occupied."""
    return build_renderer


def build_camera(pixels: int = 9, focal: float | None = None, **options) -> Cameras:
    eye = CENTER + torch.tensor([0.0, 0.0, -6.0])
    pose = look_at(eye, CENTER, up=(0.0, -1.0, 0.0))
    return Cameras.from_intrinsics(pose, pixels, pixels, focal or 2.0 * pixels, **options)


@pytest.fixture
def make_camera():
    """A camera 6 in front of the middle of the bounds, looking along z."""
    return build_camera
