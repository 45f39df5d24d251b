"""Gaussians as ellipsoids: which ones, and their triangles."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lumigraph.core import GaussianCloud
from lumigraph.core.harmonics import Y_0
from lumigraph.core.transforms import rotation_from_quaternion

Points = NDArray[np.float64]

LEAST_OPACITY = 0.1
"""Gaussians below it are not drawn."""
FINE = 4000
"""So many, the largest, are drawn with 320 triangles each, the others with 80."""
_LARGEST = 0.12  # Longest deviation as a share of the box; longer ones are surroundings.


class Ellipsoids(NamedTuple):
    """Triangles of all of them."""

    vertices: Points
    """(V, 3)"""
    triangles: NDArray[np.int64]
    """(T, 3)"""
    normals: NDArray[np.float32]
    """(V, 3) unit, outward."""
    colors: NDArray[np.uint8]
    """(V, 3) sRGB."""


def chosen_gaussians(cloud: GaussianCloud, most: int, bounds: Tensor | None) -> GaussianCloud:
    """Those with the largest product of opacity and area seen, from large to small.

    Args:
        bounds: (2, 3) where they must lie; None takes the box around most of them.
    """
    cloud = cloud.to("cpu")
    if len(cloud) == 0:
        return cloud
    means = cloud.means.double().numpy()
    low, high = robust_box(means) if bounds is None else bounds.double().cpu().numpy()
    scales = cloud.log_scales.double().exp()
    opacity = torch.sigmoid(cloud.opacity_logits.double())
    inside = torch.from_numpy(((means >= low) & (means <= high)).all(axis=1))
    small = scales.amax(dim=1) <= _LARGEST * float((high - low).max())
    good = (inside & small & (opacity >= LEAST_OPACITY)).nonzero()[:, 0]
    area = scales.topk(2, dim=1).values.prod(dim=1)
    order = (area * opacity)[good].argsort(descending=True)[:most]
    return cloud.select(good[order])


def ellipsoids(cloud: GaussianCloud, pyvista: Any, *, sigmas: float, splits: int) -> Ellipsoids:
    """Triangles of G ellipsoids.

    Args:
        sigmas: half axes in standard deviations.
        splits: how often the 20 triangles of an icosahedron are split in four.
    """
    ball = pyvista.Icosphere(nsub=splits)
    corners = torch.from_numpy(np.asarray(ball.points, np.float64))
    corners = corners / corners.norm(dim=1, keepdim=True)
    faces = np.asarray(ball.faces, np.int64).reshape(-1, 4)[:, 1:]
    axes = rotation_from_quaternion(cloud.rotations.double())
    scales = cloud.log_scales.double().exp() * sigmas
    vertices = torch.einsum("gij,gj,bj->gbi", axes, scales, corners) + cloud.means.double()[:, None]
    # Normals of a stretched ball are stretched the other way; flat ones must not divide by 0.
    slopes = scales.amax(dim=1, keepdim=True) / scales.clamp_min(1e-12)
    normals = torch.einsum("gij,gj,bj->gbi", axes, slopes, corners)
    normals = torch.nn.functional.normalize(normals, dim=-1)
    starts = len(corners) * np.arange(len(cloud))[:, None, None]
    return Ellipsoids(
        vertices.reshape(-1, 3).numpy(),
        (faces + starts).reshape(-1, 3),
        normals.reshape(-1, 3).float().numpy(),
        base_colors(cloud).repeat(len(corners), axis=0),
    )


def tips(cloud: GaussianCloud, *, sigmas: float) -> Points:
    """(6 G, 3) ends of the axes of the ellipsoids."""
    axes = rotation_from_quaternion(cloud.rotations.double())
    arms = axes * (cloud.log_scales.double().exp() * sigmas)[:, None]
    ends = cloud.means.double()[:, :, None] + torch.cat([arms, -arms], dim=2)
    return np.asarray(ends.transpose(1, 2).reshape(-1, 3).numpy())


def base_colors(cloud: GaussianCloud) -> NDArray[np.uint8]:
    """(G, 3) sRGB as seen from all sides together."""
    colors = (0.5 + Y_0 * cloud.harmonics[:, 0].double()).clamp(0, 1)
    return np.asarray((colors * 255 + 0.5).to(torch.uint8).cpu().numpy())


def robust_box(points: Points) -> tuple[Points, Points]:
    """Lower and upper corner of a box around most of the points (N, 3): the middle 96% along each
    axis and a fifth of that more on both sides."""
    low, high = np.quantile(points[:: max(1, len(points) // 100_000)], (0.02, 0.98), axis=0)
    room = 0.2 * (high - low) + 1e-12
    return np.maximum(low - room, points.min(axis=0)), np.minimum(high + room, points.max(axis=0))
