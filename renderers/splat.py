"""Splatting of primitive fields: Gaussians and a camera to a frame.

Everything is in the scene frame. Depths of FISHEYE cameras come as distances along the ray, since
such a lens may see behind itself; frames have depths along the optical axis like all others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lumigraph.core import CameraModel, Cameras, Frame
from lumigraph.core.rays import Rays
from lumigraph.core.transforms import rotation_from_quaternion
from lumigraph.cuda.ops import SplatCamera, SplatImages, SplatOptions, render_gaussians
from lumigraph.fields.protocols import (
    GaussianTensors,
    PrimitiveField,
    ShownGaussians,
    SplattedField,
)

from .volume import Cancelled

COVERED = 1e-3  # opacity from which a pixel has a depth
VISIBLE = 0.5  # opacity from which a pixel has a surface

Sky = Callable[[Tensor], Tensor]
"""Unit directions (N, 3) in the scene frame to sRGB colors (N, 3)."""


class SplatRenderer:
    """Renders Gaussians.

    Args:
        background: (3,) sRGB behind everything in frames, or a color for each direction.
        antialiased: take opacity from Gaussians smaller than a pixel; as in training.
        near: depth before which nothing is seen, scene units; None takes the rasteriser's.

    Example:
        >>> from lumigraph.core.gaussian_cloud import GaussianCloud
        >>> from lumigraph.fields import Gaussians
        >>> renderer = SplatRenderer(background=torch.ones(3))
        >>> camera = Cameras.from_intrinsics(torch.eye(4), 4, 2, 4.0)
        >>> renderer.render(Gaussians(GaussianCloud.empty()), camera).color.shape
        torch.Size([2, 4, 3])
    """

    def __init__(
        self, *, background: Tensor | Sky, antialiased: bool = False, near: float | None = None
    ) -> None:
        self.background, self.antialiased, self.near = background, antialiased, near

    def camera(self, cameras: Cameras) -> SplatCamera:
        """A batch of one camera as the rasteriser takes it.

        Raises:
            InputError: a camera model that cannot be splatted.
        """
        if self.near is None:
            return SplatCamera.from_cameras(cameras)
        return SplatCamera.from_cameras(cameras, near=self.near)

    @torch.no_grad()
    def render(
        self,
        field: PrimitiveField,
        cameras: Cameras,
        *,
        normals: bool = False,
        on_chunk: Callable[[float], bool] | None = None,
    ) -> Frame:
        """Picture of one camera.

        Args:
            cameras: a batch of length 1, on the field's device; its time is the one shown.
            normals: also show the shortest axes of the Gaussians, turned to the camera.
            on_chunk: called before the work, which is one piece, with 0.0; True gives the frame up.

        Returns:
            Frame with the mean depth of what is seen, and in `extras` the depth at which half of
            a pixel's opacity is reached, `median_depth`.

        Raises:
            Cancelled: `on_chunk` asked for it.
            InputError: a camera model that cannot be splatted.
        """
        if on_chunk is not None and on_chunk(0.0):
            raise Cancelled
        shown = _shown(field, cameras)
        camera = self.camera(cameras)
        fixed = self.background if isinstance(self.background, Tensor) else None
        images = shown.render(
            camera,
            SplatOptions(raw=True, antialiased=self.antialiased, depth=True),
            background=fixed,
            extras=facing_axes(shown, camera) if normals else None,
        )
        return self._frame(images, camera, cameras)

    @torch.no_grad()
    def optical_flow(self, field: PrimitiveField, cameras: Cameras, step: float) -> Tensor:
        """Where what a camera shows goes within a time, the camera standing still.

        Args:
            field, cameras: as in `render`.
            step: time from the camera's own on; may be negative.

        Returns:
            (H, W, 2) pixels to the right and down, blended over the Gaussians of a pixel (Duan et
            al. 2024); 0 where there is nothing.
        """
        shown = _shown(field, cameras)
        here = shown.means()
        there = here + step * shown.velocities()
        (now, _), (then, depth) = (cameras.project(points, 0) for points in (here, there))
        moved = torch.where((depth > 0)[:, None], then - now, 0.0).nan_to_num(0.0, 0.0, 0.0)
        options = SplatOptions(raw=True, antialiased=self.antialiased)
        images = shown.render(self.camera(cameras), options, extras=moved)
        assert images.extras is not None
        opacity = images.opacity[..., None]
        return torch.where(opacity > COVERED, images.extras / opacity.clamp_min(COVERED), 0.0)

    def _frame(self, images: SplatImages, camera: SplatCamera, cameras: Cameras) -> Frame:
        assert images.depth is not None and images.median_depth is not None
        opacity = images.opacity.clamp(0, 1)
        mean = images.depth / images.opacity.clamp_min(1e-6)
        factors, color = None, images.color
        fisheye = camera.model == CameraModel.FISHEYE
        if fisheye or not isinstance(self.background, Tensor):
            rays = cameras.image_rays(0)
            if fisheye:
                factors = cameras.depth_factors(rays).reshape(opacity.shape)
            color = self._over_sky(color, opacity, rays)
        covered = opacity > COVERED
        return Frame(
            color=color.clamp(0, 1),
            opacity=opacity,
            depth=_depth(mean, covered, factors),
            normal=None if images.extras is None else _unit(images.extras, opacity),
            extras={"median_depth": _depth(images.median_depth, covered, factors)},
        )

    def _over_sky(self, color: Tensor, opacity: Tensor, rays: Rays) -> Tensor:
        if isinstance(self.background, Tensor):
            return color
        sky = self.background(rays.directions).reshape(color.shape)
        return color + (1 - opacity)[..., None] * sky


class _Unmoved(NamedTuple):
    """Gaussians that a field gives as tensors, as `ShownGaussians`."""

    gaussians: GaussianTensors

    def means(self) -> Tensor:
        return self.gaussians.means

    def velocities(self) -> Tensor:
        return torch.zeros_like(self.gaussians.means)

    def shortest_axes(self) -> Tensor:
        axes = rotation_from_quaternion(self.gaussians.rotations)
        shortest = self.gaussians.log_scales.argmin(dim=1)
        return axes.gather(2, shortest[:, None, None].expand(-1, 3, 1))[..., 0]

    def render(
        self,
        camera: SplatCamera,
        options: SplatOptions,
        *,
        background: Tensor | None = None,
        extras: Tensor | None = None,
    ) -> SplatImages:
        return render_gaussians(
            *self.gaussians, camera, options, background=background, extras=extras
        )


def _shown(field: PrimitiveField, cameras: Cameras) -> ShownGaussians:
    """The field's Gaussians at the time of a camera."""
    time = None if cameras.times is None else float(cameras.times[0])
    if isinstance(field, SplattedField):
        return field.shown_at(time)
    return _Unmoved(field.gaussians_at(time))


def facing_axes(shown: ShownGaussians, camera: SplatCamera) -> Tensor:
    """(A, 3) unit shortest axes of Gaussians in the scene frame, turned to the camera."""
    normal = shown.shortest_axes()
    pose = camera.world_to_camera
    if camera.model == CameraModel.ORTHOGRAPHIC:
        toward = -pose[2, :3].expand_as(normal)
    else:
        toward = -(pose[:, :3].T @ pose[:, 3]) - shown.means()
    return torch.where((normal * toward).sum(dim=1, keepdim=True) < 0, -normal, normal)


def _depth(depth: Tensor, covered: Tensor, factors: Tensor | None) -> Tensor:
    along = depth if factors is None else depth * factors
    return torch.where(covered, along, 0.0)


def _unit(blended: Tensor, opacity: Tensor) -> Tensor:
    length = blended.norm(dim=2, keepdim=True)
    seen = (opacity[..., None] > VISIBLE) & (length > 1e-6)
    return torch.where(seen, blended / length.clamp_min(1e-6), 0.0)
