"""Ray marching of volume fields: rays to pixels, cameras to frames.

For a field that offers its networks the whole is one fused pass; any other field, and training
that needs gradients by rays, goes step by step through differentiable operations.

Everything inside is in grid space (fields/protocols.py); frames are in scene units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.core import Cameras, Frame
from lumigraph.core.errors import ConfigError, require
from lumigraph.cuda.compositing import composite
from lumigraph.cuda.marching import MarchedSamples, march_rays
from lumigraph.cuda.volume_step import VolumePixels, VolumeSettings, volume_render
from lumigraph.fields.protocols import VolumeField, to_grid_space

from .occupancy import OccupancyGrid

RAYS_PER_CHUNK = {"cpu": 2**15, "cuda": 2**20}
"""Few on a CPU, which looks between chunks whether to go on; on a GPU a chunk of 2^15 rays costs
more of the host than of the GPU (1280x720 pixels on one H100: 23 ms, against 6 ms in one chunk)."""
SAMPLES_PER_CHUNK = 2**22  # of a fused pass
QUERIES_PER_CHUNK = 2**20  # samples of a field that is asked step by step
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
    counts: Tensor
    """(N,) int32, samples of each ray in front of the early stop."""
    sample_count: Tensor
    """() samples that the field was asked about."""


class VolumeRenderer:
    """Renders volume fields.

    Args:
        occupancy: cells that may hold something.
        background: (3,) sRGB behind everything in frames.
        near: distance before which there is nothing, in grid units.
        early_stop: a ray ends at this transmittance.
        sampler: "lumigraph", or "nerfacc" for that package's marching and compositing.

    Raises:
        ConfigError: there is no such sampler.
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
        """Move everything.

        Raises:
            BackendError: the sampler cannot work there.
        """
        if self.sampler == "nerfacc":
            from .nerfacc_sampler import nerfacc_library

            nerfacc_library(torch.device(device))
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

            options = {"jitter": jitter, "background": background}
            return render_rays(self, field, origins, directions, distortion=distortion, **options)
        samples = march_rays(
            origins.detach(),
            directions.detach(),
            self.occupancy.march_grid,
            jitter=jitter,
            near=self.near,
            max_samples=max_samples,
        )
        return self._shade(field, samples, origins, directions, background, distortion)

    def _shade(
        self,
        field: VolumeField,
        samples: MarchedSamples,
        origins: Tensor,
        directions: Tensor,
        background: Tensor | None,
        distortion: bool,
    ) -> RayColors:
        rays = samples.ray_indices.long()
        toward = directions[rays]
        positions = samples.positions
        if origins.requires_grad or directions.requires_grad:
            positions = origins[rays] + samples.distances[:, None] * toward
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
        return RayColors(
            color=result.color,
            opacity=result.opacity,
            distance=result.depth,
            distortion=result.distortion,
            counts=result.counts,
            sample_count=torch.tensor(len(rays), device=origins.device),
        )

    def _marched(
        self, origins: Tensor, directions: Tensor
    ) -> Iterator[tuple[slice, MarchedSamples]]:
        """All rays, as many at a time as have room for their samples."""
        begin, size = 0, len(origins)
        while begin < len(origins):
            tried = slice(begin, begin + size)
            samples = march_rays(
                origins[tried],
                directions[tried],
                self.occupancy.march_grid,
                near=self.near,
                max_samples=QUERIES_PER_CHUNK,
            )
            fitted = max(int(samples.counter[2]), 1)  # the room holds any single ray
            part = samples._replace(ray_offsets=samples.ray_offsets[:fitted])
            yield slice(begin, begin + fitted), part
            begin, size = begin + fitted, 2 * fitted

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
        if self.sampler == "lumigraph":
            parts = [
                self._shade(
                    field, samples, origins[rays], directions[rays], background[rays], False
                )
                for rays, samples in self._marched(origins, directions)
            ]
        else:
            parts = [self.render_rays(field, origins, directions, background=background)]
        return VolumePixels(
            torch.cat([part.color for part in parts]),
            torch.cat([part.opacity for part in parts]),
            torch.cat([part.distance for part in parts]),
            torch.cat([part.counts for part in parts]),
        )

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
        chunk = RAYS_PER_CHUNK[rays.origins.device.type]
        for begin in range(0, len(rays), chunk):
            if on_chunk is not None and on_chunk(begin / len(rays)):
                raise Cancelled
            origins = to_grid_space(rays.origins[begin : begin + chunk], bounds)
            directions = rays.directions[begin : begin + chunk]
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
        parts = [self._group_normals(field, part) for _, part in self._marched(origins, directions)]
        return torch.cat(parts) if parts else torch.zeros_like(origins)

    def _group_normals(self, field: VolumeField, samples: MarchedSamples) -> Tensor:
        densities, gradients = [], []
        for positions in samples.positions.split(NORMAL_CHUNK):
            with torch.enable_grad():
                points = positions.detach().requires_grad_()
                density = field.density(points)
                (gradient,) = torch.autograd.grad(density.sum(), points)
            densities.append(density.detach())
            gradients.append(-gradient / gradient.norm(dim=1, keepdim=True).clamp_min(1e-12))
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
