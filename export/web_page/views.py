"""Where a page looks from: the cameras of a capture, or a guess for Gaussians of a file.

Everything is in the capture's own frame and unit, less `origin`: the page computes in 32 bits, map
coordinates need more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lumigraph.core import GaussianCloud, Scene
from lumigraph.core.axes import AxisName
from lumigraph.core.errors import DataError
from lumigraph.core.path_shapes import fields_of_view, focus, spread_tour, upward
from lumigraph.core.transforms import axis_of, look_at
from lumigraph.export.splat_files import FILE_UP

_FIELD_OF_VIEW = 50.0  # degrees
_LEAST_OPACITY = 0.1  # of Gaussians that say where the scene is


@dataclass(frozen=True, eq=False)
class PageViews:
    """Named views; the first is where the page begins."""

    origin: Tensor
    """(3,) float64 in the capture's frame: what the cameras look at."""
    up: Tensor
    """(3,) float64 unit vector."""
    names: list[str]
    poses: Tensor
    """(N, 4, 4) float64 camera to world, less the origin."""
    fields_of_view: list[float]
    """Degrees across the shorter side."""

    def with_up(self, up: Tensor) -> PageViews:
        """The same with another way up."""
        return replace(self, up=up)

    def to_dict(self) -> dict[str, Any]:
        """For the page. `distance` leads from a camera to the point that it turns about."""
        views = [
            {
                "name": name,
                "pose": [[round(x, 7) for x in row] for row in pose[:3].tolist()],
                "field_of_view": angle,
                "distance": distance,
            }
            for name, pose, angle, distance in zip(
                self.names, self.poses, self.fields_of_view, self._distances(), strict=True
            )
        ]
        return {"origin": self.origin.tolist(), "up": self.up.tolist(), "views": views}

    def _distances(self) -> list[float]:
        """Along each optical axis to beside the origin; where that lies behind, its distance."""
        positions, forwards = self.poses[:, :3, 3], self.poses[:, :3, 2]
        along = -(positions * forwards).sum(dim=1)
        away = positions.norm(dim=1).clamp_min(1e-9)
        return torch.where(along > 0.05 * away, along, away).tolist()


def views_of_scene(scene: Scene, count: int) -> PageViews:
    """Up to `count` cameras spread over a capture, in its own frame."""
    back = scene.normalization.inverse()
    cameras = scene.cameras.to("cpu")
    chosen = sorted(spread_tour(cameras, count))
    origin = back.apply(focus(scene))
    poses = back.apply_poses(cameras.camera_to_world[chosen].double())
    poses[:, :3, 3] -= origin
    images = scene.images
    names = [f"{i:04d}" if images is None else images.name(i) for i in chosen]
    angles = fields_of_view(cameras)[chosen].tolist()
    up = back.apply_directions(upward(cameras))
    return PageViews(origin, up / up.norm(), names, poses, angles)


def views_of_cloud(cloud: GaussianCloud, up: AxisName = FILE_UP) -> PageViews:
    """One view of all of a file's Gaussians but a few far off, along z, or y where z is up.

    Raises:
        DataError: there is no Gaussian, or none with a position.
    """
    finite = cloud.means.isfinite().all(dim=1)
    opaque = finite & (cloud.opacity_logits.sigmoid() >= _LEAST_OPACITY)
    means = cloud.means[opaque if bool(opaque.any()) else finite].double().numpy()
    if not len(means):
        raise DataError(f"none of {len(cloud):,} Gaussians has a position; nothing to show")
    low, high = np.quantile(means, [0.02, 0.98], axis=0)
    radius = max(float(np.linalg.norm(high - low)) / 2, 1e-6)
    upward_axis = axis_of(up)
    forward = axis_of("y" if up.endswith("z") else "z")
    distance = 1.15 * radius / np.tan(np.radians(_FIELD_OF_VIEW) / 2)
    eye = distance * (0.2 * upward_axis - forward)
    pose = look_at(eye, torch.zeros(3, dtype=torch.float64), up=upward_axis)
    return PageViews(
        torch.from_numpy((low + high) / 2), upward_axis, ["all"], pose[None], [_FIELD_OF_VIEW]
    )
