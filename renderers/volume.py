"""Ray marching of volume fields: rays to pixels, cameras to frames.

For a field that offers its networks the whole is one fused pass; any other field, and training
that needs gradients by rays, goes step by step through differentiable operations.

Everything inside is in grid space (fields/protocols.py); frames are in scene units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.core import Cameras, Frame
from lumigraph.core.errors import ConfigError, require
from lumigraph.cuda.compositing import composite
from lumigraph.cuda.marching import march_rays
from lumigraph.cuda.volume_step import VolumePixels, VolumeSettings, volume_render
from lumigraph.fields.protocols import VolumeField, to_grid_space

from .occupancy import OccupancyGrid

RAYS_PER_CHUNK = 2**15
SAMPLES_PER_CHUNK = 2**22
NORMAL_CHUNK = 2**17  # samples whose density gradient is formed at a time
VISIBLE = 0.5  # opacity from which a pixel has a surface


class Cancelled(Exception):
    """A frame was given up because its listener asked so."""


@dataclass(frozen=True)
class RayColors:
    """What a batch of rays sees; differentiable."""

    color: Tensor
    """(N, 3) sRGB, background included."""
    opacity: Tensor
    """(N,)"""
    distance: Tensor
    """(N,) sum of weights times distance, in grid units."""
    distortion: Tensor | None
    """(N,) distortion loss of each ray, where asked for."""
    sample_count: Tensor
    """() samples of all rays."""


class VolumeRenderer:
    """Renders volume fields.

    Args:
        occupancy: cells that may hold something.
        background: (3,) sRGB behind everything in frames.
        near: distance before which there is nothing, in grid units.
        early_stop: a ray ends at this transmittance.
        sampler: "lumigraph", or "nerfacc" for that package's marching and compositing.

    Raises:
        MissingExtraError: nerfacc is asked for and not installed.
    """

    def __init__(
        self,
        occupancy: OccupancyGrid,
        *,
        background: Tensor,
        near: float = 0.0,
        early_stop: float = 1e-4,
        sampler: str = "lumigraph",
    ) -> None:
        if sampler not in ("lumigraph", "nerfacc"):
            raise ConfigError(f"sampler = {sampler!r}: use lumigraph or nerfacc")
        if sampler == "nerfacc":
            require("nerfacc", extra="peers")
        self.occupancy, self.background = occupancy, background
        self.near, self.early_stop, self.sampler = near, early_stop, sampler

    def to(self, device: torch.device) -> VolumeRenderer:
        self.occupancy.to(device)
        self.background = self.background.to(device)
        return self

    def settings(self) -> VolumeSettings:
        return VolumeSettings(
            near=self.near, early_stop=self.early_stop, capacity=SAMPLES_PER_CHUNK
        )

    def render_rays(
        self,
        field: VolumeField,
        origins: Tensor,
        directions: Tensor,
        *,
        jitter: Tensor | None = None,
        background: Tensor | None = None,
        max_samples: int = SAMPLES_PER_CHUNK,
        distortion: bool = False,
    ) -> RayColors:
        """Rays (N, 3) in grid space to colors, differentiable by the field and by the rays.

        Args:
            jitter: (N,) in [0, 1); None starts every ray in the middle of its first step.
            background: (N, 3) or None for black.
            max_samples: room for samples; rays beyond it stay empty.
        """
        if self.sampler == "nerfacc":
            from .nerfacc_sampler import render_rays

            return render_rays(self, field, origins, directions, background, jitter is not None)
        samples = march_rays(
            origins.detach(),
            directions.detach(),
            self.occupancy.march_grid,
            jitter=jitter,
            near=self.near,
            max_samples=max_samples,
        )
        rays = samples.ray_indices.long()
        toward = directions[rays]
        if origins.requires_grad or directions.requires_grad:
            positions = origins[rays] + samples.distances[:, None] * toward
        else:
            positions = samples.positions
        density, color = field.query(positions, toward)
        result = composite(
            density,
            color,
            samples.distances,
            samples.steps,
            samples.ray_offsets,
            background=background,
            early_stop=self.early_stop,
            distortion=distortion,
        )
        count = torch.tensor(len(rays), device=origins.device)
        return RayColors(result.color, result.opacity, result.depth, result.distortion, count)

    @torch.no_grad()
    def _pixels(self, field: VolumeField, origins: Tensor, directions: Tensor) -> VolumePixels:
        background = self.background.expand_as(origins).contiguous()
        networks = field.networks()
        if networks is not None and self.sampler == "lumigraph":
            return volume_render(
                networks,
                self.occupancy.march_grid,
                origins,
                directions,
                background=background,
                settings=self.settings(),
            )
        out = self.render_rays(field, origins, directions, background=background)
        counts = torch.zeros(len(origins), dtype=torch.int32, device=origins.device)
        return VolumePixels(out.color, out.opacity, out.distance, counts)

    def render(
        self,
        field: VolumeField,
        cameras: Cameras,
        *,
        normals: bool = False,
        on_chunk: Callable[[float], bool] | None = None,
    ) -> Frame:
        """Picture of one camera.

        Args:
            cameras: a batch of length 1, on the field's device.
            normals: also compute normals, from the gradient of the density.
            on_chunk: called between chunks with the fraction done; True gives the frame up.

        Raises:
            Cancelled: `on_chunk` asked for it.
        """
        width, height = cameras.size(0)
        rays = cameras.image_rays(0)
        bounds = field.bounds
        side = float(bounds[1, 0] - bounds[0, 0])
        parts: list[tuple[Tensor, ...]] = []
        for begin in range(0, len(rays), RAYS_PER_CHUNK):
            if on_chunk is not None and on_chunk(begin / len(rays)):
                raise Cancelled
            origins = to_grid_space(rays.origins[begin : begin + RAYS_PER_CHUNK], bounds)
            directions = rays.directions[begin : begin + RAYS_PER_CHUNK]
            pixels = self._pixels(field, origins, directions)
            normal = self._normals(field, origins, directions) if normals else origins[:0]
            parts.append((pixels.color, pixels.opacity, pixels.distance, pixels.counts, normal))
        color, opacity, distance, counts, normal = (torch.cat(p) for p in zip(*parts, strict=True))
        mean = distance / opacity.clamp_min(1e-6) * side
        depth = torch.where(opacity > 1e-3, mean * cameras.depth_factors(rays), 0.0)
        shape = (height, width)
        return Frame(
            color=color.reshape(*shape, 3),
            opacity=opacity.clamp(0, 1).reshape(shape),
            depth=depth.reshape(shape),
            normal=normal.reshape(*shape, 3) if normals else None,
            extras={"samples": counts.float().reshape(shape)},
        )

    def _normals(self, field: VolumeField, origins: Tensor, directions: Tensor) -> Tensor:
        """(N, 3) unit normals, 0 where a ray meets no surface: minus the density's gradient,
        averaged with the rays' weights."""
        samples = march_rays(
            origins,
            directions,
            self.occupancy.march_grid,
            near=self.near,
            max_samples=SAMPLES_PER_CHUNK,
        )
        densities, gradients = [], []
        for positions in samples.positions.split(NORMAL_CHUNK):
            with torch.enable_grad():
                points = positions.detach().requires_grad_()
                density = field.density(points)
                (gradient,) = torch.autograd.grad(density.sum(), points)
            densities.append(density.detach())
            gradients.append(-gradient / gradient.norm(dim=1, keepdim=True).clamp_min(1e-12))
        if not densities:
            return torch.zeros_like(origins)
        result = composite(
            torch.cat(densities),
            torch.cat(gradients),
            samples.distances,
            samples.steps,
            samples.ray_offsets,
            early_stop=self.early_stop,
        )
        length = result.color.norm(dim=1, keepdim=True)
        seen = (result.opacity[:, None] > VISIBLE) & (length > 1e-6)
        return torch.where(seen, result.color / length.clamp_min(1e-6), 0.0)
