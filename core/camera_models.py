"""The camera models and, for each, the map between camera axes and lens coordinates.

A projection takes points in camera axes (N, 3) to lens coordinates (N, 2); an unprojection takes
lens coordinates to directions in camera axes (N, 3) of any length. Pixels are then
``centre + focal * lens coordinates``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from lumigraph.core import lenses

_SMALLEST_DEPTH = 1e-6  # points nearer than this, or behind, are pushed far out of the image


class CameraModel(IntEnum):
    """How a camera maps directions to its image."""

    PINHOLE = 0
    """Straight lines stay straight."""
    OPENCV = 1
    """A pinhole with radial and tangential distortion."""
    FISHEYE = 2
    """OpenCV fisheye: the image radius is a polynomial of the angle to the axis."""
    EQUIRECTANGULAR = 3
    """Longitude and latitude of the whole sphere."""
    ORTHOGRAPHIC = 4
    """Parallel rays."""


@dataclass(frozen=True, eq=False)
class Lens:
    """The distortion of N rays: numbers where all share one lens, tensors (N,) where not."""

    coefficients: Sequence[Tensor | float]
    """k1 k2 p1 p2 k3 k4 k5 k6 for OPENCV, k1 k2 k3 k4 0 0 0 0 for FISHEYE."""
    limits: Tensor | float
    """Squared radius (OPENCV) or angle (FISHEYE) up to which the polynomial holds."""


LensFunction = Callable[[Tensor, Lens], Tensor]


def _project_pinhole(points: Tensor, lens: Lens) -> Tensor:
    return points[:, :2] / points[:, 2:].clamp_min(_SMALLEST_DEPTH)


def _project_opencv(points: Tensor, lens: Lens) -> Tensor:
    return lenses.distort_opencv(_project_pinhole(points, lens), lens.coefficients, lens.limits)


def _project_fisheye(points: Tensor, lens: Lens) -> Tensor:
    plane = points[:, :2]
    # The gradient of a norm at 0 is not a number: the tiny constant stands in on the axis.
    radius = (plane.square().sum(dim=-1) + 1e-30).sqrt()
    theta = torch.atan2(radius, points[:, 2])
    scale = lenses.distort_fisheye(theta, lens.coefficients, lens.limits) / radius
    return plane * scale[:, None]


def _project_sphere(points: Tensor, lens: Lens) -> Tensor:
    x, y, z = points.unbind(-1)
    radius = (x * x + z * z + 1e-30).sqrt()
    return torch.stack([torch.atan2(x, z), torch.atan2(y, radius)], dim=-1)


def _project_parallel(points: Tensor, lens: Lens) -> Tensor:
    return points[:, :2]


def _unproject_pinhole(plane: Tensor, lens: Lens) -> Tensor:
    return torch.cat([plane, torch.ones_like(plane[:, :1])], dim=-1)


def _unproject_opencv(plane: Tensor, lens: Lens) -> Tensor:
    straight = lenses.undistort_opencv(plane, lens.coefficients, lens.limits)
    return _unproject_pinhole(straight, lens)


def _unproject_fisheye(plane: Tensor, lens: Lens) -> Tensor:
    radius = (plane.square().sum(dim=-1) + 1e-30).sqrt()
    theta = lenses.undistort_fisheye(radius, lens.coefficients, lens.limits)
    sideways = plane * (torch.sin(theta) / radius)[:, None]
    return torch.cat([sideways, torch.cos(theta)[:, None]], dim=-1)


def _unproject_sphere(plane: Tensor, lens: Lens) -> Tensor:
    longitude, latitude = plane.unbind(-1)
    level = torch.cos(latitude)
    return torch.stack(
        [level * torch.sin(longitude), torch.sin(latitude), level * torch.cos(longitude)], dim=-1
    )


def _unproject_parallel(plane: Tensor, lens: Lens) -> Tensor:
    return torch.zeros_like(plane[:, :1]) + plane.new_tensor([0.0, 0.0, 1.0])


PROJECTIONS: dict[CameraModel, LensFunction] = {
    CameraModel.PINHOLE: _project_pinhole,
    CameraModel.OPENCV: _project_opencv,
    CameraModel.FISHEYE: _project_fisheye,
    CameraModel.EQUIRECTANGULAR: _project_sphere,
    CameraModel.ORTHOGRAPHIC: _project_parallel,
}

UNPROJECTIONS: dict[CameraModel, LensFunction] = {
    CameraModel.PINHOLE: _unproject_pinhole,
    CameraModel.OPENCV: _unproject_opencv,
    CameraModel.FISHEYE: _unproject_fisheye,
    CameraModel.EQUIRECTANGULAR: _unproject_sphere,
    CameraModel.ORTHOGRAPHIC: _unproject_parallel,
}
