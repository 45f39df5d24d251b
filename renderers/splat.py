"""Splatting of primitive fields: Gaussians and a camera to a frame.

Everything is in the scene frame. Depths of FISHEYE cameras come as distances along the ray, since
such a lens may see behind itself; frames have depths along the optical axis like all others.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lumigraph.core import CameraModel, Cameras, Frame
from lumigraph.core.rays import Rays
from lumigraph.core.transforms import rotation_from_quaternion
from lumigraph.cuda.ops import SplatCamera, SplatImages, SplatOptions, render_gaussians
from lumigraph.fields.protocols import GaussianTensors, PrimitiveField

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
        gaussians = field.gaussians_at(None if cameras.times is None else float(cameras.times[0]))
        camera = self.camera(cameras)
        fixed = self.background if isinstance(self.background, Tensor) else None
        images = render_gaussians(
            *gaussians,
            camera,
            options=SplatOptions(raw=True, antialiased=self.antialiased, depth=True),
            background=fixed,
            extras=facing_axes(gaussians, camera) if normals else None,
        )
        return self._frame(images, camera, cameras)

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


def facing_axes(gaussians: GaussianTensors, camera: SplatCamera) -> Tensor:
    """(G, 3) unit shortest axes of Gaussians in the scene frame, turned to the camera."""
    axes = rotation_from_quaternion(gaussians.rotations)
    shortest = gaussians.log_scales.argmin(dim=1)
    normal = axes.gather(2, shortest[:, None, None].expand(-1, 3, 1))[..., 0]
    pose = camera.world_to_camera
    if camera.model == CameraModel.ORTHOGRAPHIC:
        toward = -pose[2, :3].expand_as(normal)
    else:
        toward = -(pose[:, :3].T @ pose[:, 3]) - gaussians.means
    return torch.where((normal * toward).sum(dim=1, keepdim=True) < 0, -normal, normal)


def _depth(depth: Tensor, covered: Tensor, factors: Tensor | None) -> Tensor:
    along = depth if factors is None else depth * factors
    return torch.where(covered, along, 0.0)


def _unit(blended: Tensor, opacity: Tensor) -> Tensor:
    length = blended.norm(dim=2, keepdim=True)
    seen = (opacity[..., None] > VISIBLE) & (length > 1e-6)
    return torch.where(seen, blended / length.clamp_min(1e-6), 0.0)
