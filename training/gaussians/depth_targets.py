"""Known depths of a view: from the scene's depth maps, or from its points seen by the camera.

They are those that the rasteriser blends: along the optical axis, for FISHEYE along the ray.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lumigraph.core import CameraModel, Cameras, Scene

CELL = 16  # pixels; points are compared with the nearest one in such a square
LEAST_COSINE = 0.05  # to the optical axis; flatter rays have no depth to speak of
BEHIND = 1.1  # a point so many times deeper than the nearest one nearby may be hidden


def depth_target(scene: Scene, index: int, camera: Cameras) -> Tensor:
    """(H, W) float32 depth in scene units as the rasteriser has it, 0 where unknown.

    Args:
        scene: with depths or points.
        index: camera of the scene.
        camera: the same one, a batch of one on the CPU, at the size that is wanted.
    """
    width, height = camera.size(0)
    if scene.depths is not None:
        depth = _nearest_pixels(scene.depths.load(index).float(), width, height)
    else:
        assert scene.points is not None
        depth = _projected(scene.points.positions.float().cpu(), camera)
    if camera.kinds != (CameraModel.FISHEYE,):
        return depth
    factors = camera.depth_factors(camera.image_rays(0)).reshape(height, width)
    return torch.where(factors > LEAST_COSINE, depth / factors.clamp_min(LEAST_COSINE), 0.0)


def _nearest_pixels(depth: Tensor, width: int, height: int) -> Tensor:
    """Single pixels: a mean over an edge would be a depth where nothing is."""
    if depth.shape == (height, width):
        return depth
    rows = ((torch.arange(height) + 0.5) * depth.shape[0] / height).long()
    columns = ((torch.arange(width) + 0.5) * depth.shape[1] / width).long()
    return depth[rows[:, None], columns]


def _projected(points: Tensor, camera: Cameras) -> Tensor:
    """Depths of the nearest point at each pixel; those that others nearby may hide are left out."""
    width, height = camera.size(0)
    points = points[camera.in_view(points, 0)]
    pixels, depth = camera.project(points, 0)
    front = depth > 0
    pixels, depth = pixels[front].long(), depth[front]
    column, row = pixels[:, 0].clamp(0, width - 1), pixels[:, 1].clamp(0, height - 1)
    cells = (row // CELL) * (-(-width // CELL)) + column // CELL
    nearest = torch.full((int(cells.max()) + 1 if len(cells) else 0,), torch.inf)
    nearest.scatter_reduce_(0, cells, depth, "amin")
    shown = depth <= BEHIND * nearest[cells]
    image = torch.full((height * width,), torch.inf)
    image.scatter_reduce_(0, (row * width + column)[shown], depth[shown], "amin")
    return torch.where(torch.isfinite(image), image, 0.0).reshape(height, width)
