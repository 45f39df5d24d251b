"""Rendered frames as a fusion of depths takes them: which pixels show a surface, which show that
there is nothing, and how far each may be trusted.

A pixel shows a surface where it is at least half opaque, its depth does not jump to a neighbour's
and the surface is not seen edge-on; it shows empty space where it and its neighbours are
transparent; all others are unknown. Letters: H W image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lumigraph.core import Cameras, Frame
from lumigraph.core.errors import InputError

DepthKind = Literal["median", "expected"]

SURFACE_OPACITY = 0.5
EMPTY_OPACITY = 0.05
EMPTY_DEPTH = 1e6
"""Stands for the depth of a pixel that looks through everything, scene units."""
LEAST_COSINE = 0.17
"""Of the angle between surface normal and ray: surfaces seen flatter than 80 degrees are left
out."""
STEEPEST = 5.7
"""Tangent of that angle: what two neighbouring pixels of one surface differ by at most, as a
multiple of their distance across the view."""
LEAST_FACTOR = 0.05
"""Cosine of the angle to the optical axis from which a depth says where a point is."""


@dataclass(frozen=True, eq=False)
class DepthView:
    """What one camera says about space."""

    camera: Cameras
    """A batch of one."""
    depth: Tensor
    """(H, W) along the optical axis, `EMPTY_DEPTH` where nothing is seen, 0 where unknown."""
    stretch: Tensor
    """(H, W) length along the ray for a difference in depth."""
    cosine: Tensor
    """(H, W) of the angle between ray and surface normal, 1 where there is no surface."""
    weight: Tensor
    """(H, W) opacity times squared cosine of the viewing angle, 0 where unknown."""
    color: Tensor
    """(H, W, 3) sRGB in [0, 1]."""
    points: Tensor
    """(N, 3) points of the surface in the scene frame, in no order."""
    spacing: float
    """Median distance of neighbouring pixels at the surface, scene units; 0 without surface."""

    @property
    def known(self) -> Tensor:
        """(H, W) bool."""
        return self.depth > 0


def depth_view(
    frame: Frame, camera: Cameras, *, kind: DepthKind | None, truncation: float
) -> DepthView:
    """Judge the pixels of a frame.

    Args:
        frame: what `camera` sees, on its device.
        camera: a batch of one.
        kind: which depth is taken: "median", the depth where half of the light is gone, or
            "expected", its mean; None takes the first where the frame has it.
        truncation: steps in depth below it are noise, not edges; scene units.

    Raises:
        InputError: the frame has no median depth.
    """
    rays = camera.image_rays(0)
    shape = frame.opacity.shape
    factor = camera.depth_factors(rays).reshape(shape)
    depth = _chosen_depth(frame, kind)
    surface = (frame.opacity >= SURFACE_OPACITY) & torch.isfinite(depth) & (depth > 0)
    surface = surface & (factor > LEAST_FACTOR)
    distance = torch.where(surface, depth / factor.clamp_min(LEAST_FACTOR), 0.0)
    origins, directions = (x.reshape(*shape, 3) for x in (rays.origins, rays.directions))
    points = torch.addcmul(origins, directions, distance[..., None])
    normal, broken, spacing = _tangents(points, directions, distance, surface, truncation)
    cosine = (normal * directions).sum(dim=-1).abs()
    surface = surface & ~broken & (cosine >= LEAST_COSINE)
    most = torch.nn.functional.max_pool2d(frame.opacity[None], 3, stride=1, padding=1)[0]
    empty = most < EMPTY_OPACITY
    zero = torch.zeros_like(depth)
    return DepthView(
        camera=camera,
        depth=torch.where(surface, depth, torch.where(empty, EMPTY_DEPTH, zero)),
        stretch=1 / factor.clamp_min(LEAST_FACTOR),
        cosine=torch.where(surface, cosine, 1.0),
        weight=torch.where(surface, frame.opacity * cosine**2, torch.where(empty, 1.0, zero)),
        color=torch.nan_to_num(frame.color).clamp(0, 1),
        points=points[surface],
        spacing=float(spacing[surface].median()) if bool(surface.any()) else 0.0,
    )


def _chosen_depth(frame: Frame, kind: DepthKind | None) -> Tensor:
    if kind == "expected" or (kind is None and "median_depth" not in frame.extras):
        return frame.depth
    if "median_depth" not in frame.extras:
        raise InputError(
            "depth = 'median': this method renders no median depth; use --depth expected"
        )
    return frame.extras["median_depth"]


def _tangents(
    points: Tensor, directions: Tensor, distance: Tensor, surface: Tensor, truncation: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normals (H, W, 3), 0 where there is none, of either sign; which pixels lie at a jump (H, W);
    the distance to the neighbours across the view (H, W)."""
    broken = torch.zeros_like(surface)
    spacing = torch.zeros_like(distance)
    tangents = []
    for axis in (0, 1):
        count = surface.shape[axis] - 1
        first, second = (slice(0, count), slice(1, count + 1))
        a, b = (first, second) if axis == 0 else ((slice(None), s) for s in (first, second))
        step = points[b] - points[a]
        gap = (distance[b] - distance[a]).abs()
        # the points at equal distance: how far apart two pixels look there
        across = step - directions[b] * distance[b][..., None]
        across = across + directions[a] * distance[a][..., None]
        middle = 0.5 * (distance[a] + distance[b])[..., None]
        width = (across + (directions[b] - directions[a]) * middle).norm(dim=-1)
        both = surface[a] & surface[b]
        jump = both & (gap > (STEEPEST * width).clamp_min(truncation))
        broken[a] |= jump
        broken[b] |= jump
        smooth = torch.where((both & ~jump)[..., None], step, 0.0)
        tangent = torch.zeros_like(points)
        tangent[a] += smooth
        tangent[b] += smooth
        tangents.append(tangent)
        for side in (a, b):
            spacing[side] = torch.maximum(spacing[side], width)
    normal = torch.linalg.cross(*tangents)
    length = normal.norm(dim=-1, keepdim=True)
    normal = torch.where(length > 0, normal / length.clamp_min(1e-30), 0.0)
    return normal, broken, spacing
