"""What cameras look like from outside: pyramids from where they stand to the rim of their image,
with a mark at the upper side."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lumigraph.core.camera_models import CameraModel
from lumigraph.core.cameras import Cameras

_WIDEST = 1.5  # Half a side at unit depth; wider lenses would draw larger than their neighbourhood.


class Frusta(NamedTuple):
    """The corners of C pyramids, float64 on the CPU, in the frame of the cameras."""

    apexes: Tensor
    """(C, 3) positions of the cameras."""
    rims: Tensor
    """(C, 4, 3) corners of the images: upper left, upper right, lower right, lower left."""
    marks: Tensor
    """(C, 3, 3) a triangle on the upper side: left, tip, right."""


def frusta(cameras: Cameras, depth: Tensor | float) -> Frusta:
    """Pyramids of cameras of any model; lenses without straight edges show the shape of the image.

    Args:
        cameras: C of them.
        depth: length along the axis in scene units, one for all or (C,).

    >>> cameras = Cameras.from_intrinsics(torch.eye(4), 4, 2, 2.0)
    >>> frusta(cameras, 2.0).rims[0, 2].tolist()
    [2.0, 1.0, 2.0]
    """
    cameras = cameras.to("cpu", dtype=torch.float64)
    sizes = cameras.sizes.double()
    half = sizes / sizes.amax(dim=1, keepdim=True) / 2
    flat = (cameras.models == CameraModel.PINHOLE) | (cameras.models == CameraModel.OPENCV)
    seen = (sizes / (2 * cameras.intrinsics[:, :2])).clamp_max(_WIDEST)
    half = torch.where(flat[:, None], seen, half)
    right, bottom = half.unbind(dim=1)
    left, top, none = -right, -bottom, torch.zeros_like(right)
    rim = [(left, top), (right, top), (right, bottom), (left, bottom)]
    mark = [(left / 2, top), (none, 1.6 * top), (right / 2, top)]
    plane = torch.stack([torch.stack(corner, dim=-1) for corner in rim + mark], dim=1)
    local = torch.cat([plane, torch.ones_like(plane[..., :1])], dim=-1)
    local = local * torch.as_tensor(depth, dtype=torch.float64).reshape(-1, 1, 1)
    poses = cameras.camera_to_world
    corners = local @ poses[:, :3, :3].transpose(1, 2) + poses[:, None, :3, 3]
    return Frusta(cameras.positions, corners[:, :4], corners[:, 4:])
