"""A picture on a flat rectangle in space: cameras to frames.

The rectangle lies in the plane z = 0 about the origin, its longer side 1 in scene units, x to the
right and y down. A pixel that covers many pixels of the picture is a mean over rays through it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lumigraph.core import CameraModel, Cameras, Frame
from lumigraph.core.color import linear_to_srgb, srgb_to_linear
from lumigraph.fields.protocols import ColorPlane

MOST_RAYS_ACROSS = 3
"""Rays along a side of a pixel."""
PIXELS_PER_CHUNK = 2**16


class PlaneRenderer:
    """Renders the pictures of fields; both sides of the rectangle show it.

    Args:
        background: (3,) sRGB around the picture.
    """

    def __init__(self, *, background: Tensor) -> None:
        self.background = background

    def to(self, device: torch.device) -> PlaneRenderer:
        self.background = self.background.to(device)
        return self

    @torch.no_grad()
    def render(self, field: ColorPlane, cameras: Cameras, *, normals: bool = False) -> Frame:
        """Picture of one camera (a batch of length 1), on the field's device."""
        width, height = cameras.size(0)
        across = rays_across(field.size, cameras)
        fine = cameras if across == 1 else cameras.resized_to(width * across, height * across)
        rows = max(1, PIXELS_PER_CHUNK // max(width * across * across, 1))
        parts = [
            self._strip(field, fine.cropped(0, first * across, width * across, count * across))
            for first in range(0, height, rows)
            for count in [min(rows, height - first)]
        ]
        light, opacity, depth = (
            _averaged(torch.cat(strips), across) for strips in zip(*parts, strict=True)
        )
        color = linear_to_srgb(light + (1 - opacity) * srgb_to_linear(self.background))
        normal = None
        if normals:
            toward = -torch.sign(cameras.camera_to_world[0, 2, 2])
            normal = torch.zeros_like(color)
            normal[..., 2] = torch.where(opacity[..., 0] > 0.5, toward, 0.0)
        opacity, depth = opacity[..., 0], depth[..., 0]
        return Frame(color, opacity, depth / opacity.clamp_min(1e-6), normal)

    def _strip(self, field: ColorPlane, cameras: Cameras) -> tuple[Tensor, Tensor, Tensor]:
        """Linear light (H, W, 3), opacity and depth (H, W, 1), both times opacity."""
        width, height = cameras.size(0)
        rays = cameras.image_rays(0)
        distance = -rays.origins[:, 2] / rays.directions[:, 2]
        places = rays.origins[:, :2] + distance[:, None] * rays.directions[:, :2]
        longest = max(field.size)
        sides = places.new_tensor([side / longest for side in field.size])
        uv = places / sides + 0.5
        inside = torch.isfinite(distance) & (distance > 0) & ((uv >= 0) & (uv <= 1)).all(dim=1)
        light = torch.zeros_like(rays.directions)
        light[inside] = srgb_to_linear(field.colors(uv[inside]))
        depth = torch.where(inside, distance * cameras.depth_factors(rays), 0.0)
        opacity = inside.to(light.dtype)
        shape = (height, width, -1)
        return light.reshape(shape), opacity.reshape(shape), depth.reshape(shape)


def rays_across(size: tuple[int, int], cameras: Cameras) -> int:
    """Rays along a side of a camera's pixels, so that none of the picture's pixels is passed over
    where the camera looks straight at it; at most `MOST_RAYS_ACROSS`.

    >>> pose = torch.eye(4)
    >>> pose[2, 3] = -1.0
    >>> rays_across((20, 20), Cameras.from_intrinsics(pose, 10, 10, 10.0))
    2
    """
    flat = int(cameras.models[0]) == CameraModel.ORTHOGRAPHIC
    away = 1.0 if flat else float(cameras.camera_to_world[0, 2, 3].abs())
    pixels = max(size) * away / float(cameras.intrinsics[0, :2].min())
    return max(1, min(math.ceil(pixels - 1e-3), MOST_RAYS_ACROSS))


def _averaged(image: Tensor, across: int) -> Tensor:
    """(H, W, C) means over blocks of pixels."""
    height, width, channels = image.shape
    blocks = image.reshape(height // across, across, width // across, across, channels)
    return blocks.mean(dim=(1, 3))
