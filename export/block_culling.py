"""Which blocks of voxels a depth picture has something to say about, found without looking at
their voxels.

The pixels that a block can cover lie in a square; pyramids of the nearest and farthest depths tell
for such squares whether the block is wholly in front of the surface, wholly behind it, or near it
(hierarchical depth, Greene et al. 1993). Letters: B blocks, H W image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lumigraph.core import CameraModel, Cameras

from .depth_views import DepthView

_STRETCH = 1.5  # lenses magnify unevenly
_BORDER = 1.5  # pixels: interpolation looks at neighbours
_NOWHERE = -1e30


class Culled(NamedTuple):
    """Rows of blocks by what is to be done with them; all others are behind or out of view."""

    near: Tensor
    """(n,) int64: voxels must be looked at."""
    empty: Tensor
    """(m,) int64: the whole block is in front of everything seen."""
    empty_weight: Tensor
    """(m,) weight of that word."""


def cull(view: DepthView, centers: Tensor, *, radius: float, truncation: float) -> Culled:
    """Sort blocks by a depth picture.

    Args:
        centers: (B, 3) middles of the blocks in the scene frame.
        radius: of a sphere around each that holds its voxels, scene units.
        truncation: distance from the surface up to which voxels count, scene units.
    """
    pixels, depth = view.camera.project(centers, 0)
    extent = _extent(view.camera, centers, depth, radius)
    low, high = pixels - extent[:, None], pixels + extent[:, None]
    size = view.camera.sizes[0].to(pixels.dtype)
    seen = (high > 0).all(dim=1) & (low < size).all(dim=1) & (depth + radius > 0)
    rows = seen.nonzero()[:, 0]
    low, high, depth = low[rows], high[rows], depth[rows]
    reach = truncation / (view.stretch * view.cosine)
    nearest = torch.where(view.known, view.depth - reach, _NOWHERE)
    farthest = torch.where(view.known, view.depth + reach, _NOWHERE)
    pyramid = _Pyramid(-nearest, farthest)
    bounds, covered = pyramid.largest(low, high)
    inside = (low >= 0).all(dim=1) & (high <= size).all(dim=1)
    empty = covered & inside & (-bounds[:, 0] >= depth + radius)
    behind = covered & (bounds[:, 1] <= depth - radius)
    place = pixels[rows[empty]].long()
    weight = view.weight[place[:, 1], place[:, 0]]
    return Culled(rows[~(empty | behind)], rows[empty], weight)


def _extent(camera: Cameras, centers: Tensor, depth: Tensor, radius: float) -> Tensor:
    """(B,) pixels from the middle of a block to its farthest; many where it is at the camera."""
    focal = float(camera.intrinsics[0, :2].max())
    model = int(camera.models[0])
    if model == CameraModel.ORTHOGRAPHIC:
        return torch.full_like(depth, focal * radius * _STRETCH + _BORDER)
    distance = (centers - camera.positions[0]).norm(dim=1)
    ahead = distance if model == CameraModel.FISHEYE else depth
    oblique = distance / ahead.clamp_min(1e-6)
    spread = focal * radius / (ahead - radius).clamp_min(1e-6) * oblique
    # a block behind or at the camera may be seen anywhere
    return torch.where(ahead > 1.5 * radius, spread * _STRETCH + _BORDER, 1e9)


class _Pyramid:
    """Largest values over squares of 1, 2, 4, ... pixels, of two pictures (H, W)."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        level = torch.stack([first, second])
        levels = [level]
        while max(level.shape[1:]) > 1:
            level = torch.nn.functional.max_pool2d(level[None], 2, ceil_mode=True)[0]
            levels.append(level)
        device = first.device
        self.values = torch.cat([each.flatten(1) for each in levels], dim=1)
        sizes = [each.shape[1] * each.shape[2] for each in levels]
        starts = [sum(sizes[:index]) for index in range(len(sizes))]
        self.starts = torch.tensor(starts, device=device)
        self.sides = torch.tensor([each.shape[:0:-1] for each in levels], device=device)

    def largest(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Over the part inside the pictures of squares from `low` to `high` (n, 2), x y in pixels:
        an upper bound (n, 2) for each picture, and whether the pyramid reaches that far (n,)."""
        side = (high - low)[:, 0]
        level = side.clamp_min(1).log2().ceil().long()
        covered = level < len(self.starts)
        level = level.clamp_max(len(self.starts) - 1)
        scale = torch.exp2(level.to(low.dtype))[:, None]
        last = self.sides[level] - 1
        ends = [
            torch.minimum((end / scale).floor().clamp_min(0).to(last.dtype), last)
            for end in (low, high)
        ]
        found = []
        for x in ends:
            for y in ends:
                place = self.starts[level] + y[:, 1] * self.sides[level, 0] + x[:, 0]
                found.append(self.values[:, place])
        return torch.stack(found).amax(dim=0).T, covered
