"""The camera models and, for each, the map between camera axes and lens coordinates.

A projection takes points in camera axes (N, 3) to lens coordinates (N, 2); an unprojection takes
lens coordinates to directions in camera axes (N, 3) of any length. Pixels are then
``centre + focal * lens coordinates``. Both also take distortion (N or 1, 8) and the lens limits
(N or 1,) of lenses.py, which are None where no camera of the batch needs them.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

import torch
from torch import Tensor

from lumigraph.core import lenses

LensFunction = Callable[[Tensor, Tensor, Tensor | None], Tensor]

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


def _project_pinhole(points: Tensor, distortion: Tensor, limits: Tensor | None) -> Tensor:
    return points[:, :2] / points[:, 2:].clamp_min(_SMALLEST_DEPTH)


def _project_opencv(points: Tensor, distortion: Tensor, limits: Tensor | None) -> Tensor:
    assert limits is not None
    return lenses.distort_opencv(_project_pinhole(points, distortion, None), distortion, limits)


def _project_fisheye(points: Tensor, distortion: Tensor, limits: Tensor | None) -> Tensor:
    assert limits is not None
    plane = points[:, :2]
    # The gradient of a norm at 0 is not a number: the tiny constant stands in on the axis.
    radius = (plane.square().sum(dim=-1) + 1e-30).sqrt()
    theta = torch.atan2(radius, points[:, 2])
    return plane * (lenses.distort_fisheye(theta, distortion, limits) / radius)[:, None]


def _project_sphere(points: Tensor, distortion: Tensor, limits: Tensor | None) -> Tensor:
    x, y, z = points.unbind(-1)
    radius = (x * x + z * z + 1e-30).sqrt()
    return torch.stack([torch.atan2(x, z), torch.atan2(y, radius)], dim=-1)


def _project_parallel(points: Tensor, distortion: Tensor, limits: Tensor | None) -> Tensor:
    return points[:, :2]


def _unproject_pinhole(plane: Tensor, distortion: Tensor, limits: Tensor | None) -> Tensor:
    return torch.cat([plane, torch.ones_like(plane[:, :1])], dim=-1)


def _unproject_opencv(plane: Tensor, distortion: Tensor, limits: Tensor | None) -> Tensor:
    assert limits is not None
    straight = lenses.undistort_opencv(plane, distortion, limits)
    return _unproject_pinhole(straight, distortion, None)


def _unproject_fisheye(plane: Tensor, distortion: Tensor, limits: Tensor | None) -> Tensor:
    assert limits is not None
    radius = (plane.square().sum(dim=-1) + 1e-30).sqrt()
    theta = lenses.undistort_fisheye(radius, distortion, limits)
    sideways = plane * (torch.sin(theta) / radius)[:, None]
    return torch.cat([sideways, torch.cos(theta)[:, None]], dim=-1)


def _unproject_sphere(plane: Tensor, distortion: Tensor, limits: Tensor | None) -> Tensor:
    longitude, latitude = plane.unbind(-1)
    level = torch.cos(latitude)
    return torch.stack(
        [level * torch.sin(longitude), torch.sin(latitude), level * torch.cos(longitude)], dim=-1
    )


def _unproject_parallel(plane: Tensor, distortion: Tensor, limits: Tensor | None) -> Tensor:
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
