"""Ray marching of surface fields: rays to pixels, cameras to frames with depths and normals.

Samples lie in the occupied cells of the grid. A first look without gradients finds those that light
reaches (transmittance of at least `early_stop` in front of them); only these are differentiated and
colored. Everything inside is in grid space (fields/protocols.py); frames are in scene units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.core import Cameras, Frame
from lumigraph.cuda.compositing import Composite, composite
from lumigraph.cuda.marching import MarchedSamples, march_rays
from lumigraph.cuda.surface import SurfaceSamples
from lumigraph.fields.protocols import RayBackground, SurfaceField, to_grid_space

from .occupancy import OccupancyGrid
from .surface_alpha import logistic_density, surface_distances, surface_thickness
from .volume import Cancelled

RAYS_PER_CHUNK = {"cpu": 2**13, "cuda": 2**18}
SAMPLES_PER_CHUNK = {"cpu": 2**18, "cuda": 2**22}
OCCUPANCY_MARGIN = 1.0
"""Sides of a cell by which places looked at count as nearer to the surface than they are: they need
not be the nearest of their cell, and the surface moves between two looks."""
VISIBLE = 0.5  # opacity from which a pixel has a surface


@dataclass(frozen=True)
class SurfaceRays:
    """What a batch of rays sees, in grid units; all but counts and crossing are differentiable.
    Letters: N rays that had room for their samples, M samples that light reaches."""

    color: Tensor
    """(N, 3) sRGB, background included."""
    opacity: Tensor
    """(N,)"""
    distance: Tensor
    """(N,) sum of weights times distance along the ray."""
    normal: Tensor | None
    """(N, 3) sum of weights times unit normals; None where nobody asked."""
    crossing: Tensor | None
    """(N,) distance at which the ray enters the surface; infinite where it does not. None where
    nobody asked."""
    counts: Tensor
    """(N,) int32, samples of each ray."""
    positions: Tensor
    """(M, 3)"""
    samples: SurfaceSamples
    """Geometry at the positions."""
    weights: Tensor
    """(M,) share of each sample in its pixel."""
    marched: int
    """Samples of all rays, those of the rays without room and behind surfaces too."""


class SurfaceRenderer:
    """Renders surface fields.

    Args:
        occupancy: of one cascade; cells that the surface may lie in.
        background: (3,) sRGB behind everything in frames.
        surroundings: what is behind everything instead; moves with its owner.
        near: distance before which there is nothing, in grid units.
        early_stop: a ray ends at this transmittance.
    """

    def __init__(
        self,
        occupancy: OccupancyGrid,
        *,
        background: Tensor,
        surroundings: RayBackground | None = None,
        near: float = 0.0,
        early_stop: float = 1e-4,
    ) -> None:
        self.occupancy, self.background = occupancy, background
        self.surroundings = surroundings
        self.near, self.early_stop = near, early_stop

    def to(self, device: torch.device) -> SurfaceRenderer:
        self.occupancy.to(device)
        self.background = self.background.to(device)
        return self

    def density(
        self, field: SurfaceField, *, margin: float = OCCUPANCY_MARGIN
    ) -> Callable[[Tensor], Tensor]:
        """What the occupancy grid follows: the logistic density of the distance, looked at with a
        margin (in sides of a cell), so that a cell counts that the surface only touches."""
        reach = margin / self.occupancy.resolution
        sharpness = field.sharpness.detach()

        def density(positions: Tensor) -> Tensor:
            away = (field.sdf(positions).abs() - reach).clamp(min=0)
            return logistic_density(away, sharpness)

        return density

    def render_rays(
        self,
        field: SurfaceField,
        origins: Tensor,
        directions: Tensor,
        *,
        jitter: Tensor | None = None,
        background: Tensor | None = None,
        max_samples: int | None = None,
        annealing: float = 1.0,
        geometry: bool = True,
    ) -> SurfaceRays:
        """Rays (N, 3) in grid space to what they see, differentiable by the field and the rays.

        Args:
            jitter: (N,) in [0, 1); None starts every ray in the middle of its first step.
            background: (N, 3) or None for black; surroundings take its place.
            max_samples: room for samples. The first ray beyond it and all behind it are left out
                of the result: ask for them again.
            annealing: rho of `surface_alpha`.
            geometry: find normals and crossings of the rays too.
        """
        march = march_rays(
            origins.detach(),
            directions.detach(),
            self.occupancy.march_grid,
            jitter=jitter,
            near=self.near,
            max_samples=max_samples or SAMPLES_PER_CHUNK[origins.device.type],
        )
        fitted, marched = int(march.counter[2]), int(march.counter[1])
        march = march._replace(ray_offsets=march.ray_offsets[:fitted])
        with torch.no_grad():
            known = field.sdf_and_gradient(march.positions)
            thickness = self._thickness(field, known, march, directions, annealing)
            reached = self._blend(thickness, torch.zeros_like(known.gradient), march).counts
        keep, march = _front(march, reached)
        rays = march.ray_indices.long()
        toward, positions = directions[rays], march.positions
        if origins.requires_grad or directions.requires_grad:
            positions = origins[rays] + march.distances[:, None] * toward
        if torch.is_grad_enabled():
            samples = field.sdf_and_gradient(positions)
        else:
            samples = SurfaceSamples(*(value[keep] for value in known))
        thickness = self._thickness(field, samples, march, directions, annealing)
        color = field.color(samples, positions, toward)
        behind = None if background is None else background[:fitted]
        if self.surroundings is not None:
            shift = None if jitter is None else jitter[:fitted]
            behind = self.surroundings.colors(origins[:fitted], directions[:fitted], shift)
        pixels = self._blend(thickness, color, march, behind)
        normal = crossing = None
        if geometry:
            normal, crossing = _ray_geometry(pixels, samples, march, toward)
        return SurfaceRays(
            color=pixels.color,
            opacity=pixels.opacity,
            distance=pixels.depth,
            normal=normal,
            crossing=crossing,
            counts=pixels.counts,
            positions=positions,
            samples=samples,
            weights=pixels.weights,
            marched=marched,
        )

    def _thickness(
        self,
        field: SurfaceField,
        samples: SurfaceSamples,
        march: MarchedSamples,
        directions: Tensor,
        annealing: float,
    ) -> Tensor:
        cosine = (samples.gradient * directions[march.ray_indices.long()]).sum(1)
        return surface_thickness(
            samples.distance, cosine, march.steps, field.sharpness, annealing=annealing
        )

    def _blend(
        self,
        thickness: Tensor,
        color: Tensor,
        march: MarchedSamples,
        background: Tensor | None = None,
    ) -> Composite:
        return composite(
            thickness,
            color,
            march.distances,
            torch.ones_like(march.steps),  # the thickness is that of whole steps
            march.ray_offsets,
            background=background,
            early_stop=self.early_stop,
        )

    @torch.no_grad()
    def render(
        self,
        field: SurfaceField,
        cameras: Cameras,
        *,
        normals: bool = True,
        on_chunk: Callable[[float], bool] | None = None,
    ) -> Frame:
        """Picture of one camera. `depth` is the mean depth along each ray; the extra image
        `median_depth` is the depth of the surface itself, where the distance passes zero and half
        of the light is gone, 0 where a ray meets none.

        Args:
            cameras: a batch of length 1, on the field's device.
            normals: whether to keep the normals; they take no extra time.
            on_chunk: called between chunks with the fraction done; True gives the frame up.

        Raises:
            Cancelled: `on_chunk` asked for it.
        """
        width, height = cameras.size(0)
        rays = cameras.image_rays(0)
        bounds, parts, begin = field.bounds, [], 0
        most = RAYS_PER_CHUNK[rays.origins.device.type]
        size = most
        while begin < len(rays):
            if on_chunk is not None and on_chunk(begin / len(rays)):
                raise Cancelled
            chosen = slice(begin, begin + size)
            origins = to_grid_space(rays.origins[chosen], bounds)
            background = self.background.expand_as(origins)
            out = self.render_rays(field, origins, rays.directions[chosen], background=background)
            assert out.normal is not None and out.crossing is not None
            parts.append(
                (out.color, out.opacity, out.distance, out.normal, out.crossing, out.counts)
            )
            done = max(len(out.color), 1)  # the room holds any single ray
            begin, size = begin + done, min(2 * done, most)
        color, opacity, distance, normal, crossing, counts = map(
            torch.cat, zip(*parts, strict=True)
        )
        factors = cameras.depth_factors(rays) * float(bounds[1, 0] - bounds[0, 0])
        mean = distance / opacity.clamp_min(1e-6) * factors
        surface = torch.where(crossing.isfinite(), crossing * factors, 0.0)
        length = normal.norm(dim=1, keepdim=True)
        seen = (opacity[:, None] > VISIBLE) & (length > 1e-6)
        unit = torch.where(seen, normal / length.clamp_min(1e-6), 0.0)
        shape = (height, width)
        return Frame(
            color=color.reshape(*shape, 3),
            opacity=opacity.clamp(0, 1).reshape(shape),
            depth=torch.where(opacity > 1e-3, mean, 0.0).reshape(shape),
            normal=unit.reshape(*shape, 3) if normals else None,
            extras={
                "median_depth": surface.reshape(shape),
                "samples": counts.float().reshape(shape),
            },
        )


def _front(march: MarchedSamples, reached: Tensor) -> tuple[Tensor, MarchedSamples]:
    """Which samples are the first `reached` (N,) of their ray, and these alone."""
    begin, rays = march.ray_offsets[:, 0], march.ray_indices.long()
    place = torch.arange(len(rays), device=rays.device)
    known = (rays >= 0) & (rays < len(begin))
    ray = rays.clamp(0, max(len(begin) - 1, 0))
    keep = (known & (place < begin[ray] + reached[ray])).nonzero()[:, 0]
    offsets = torch.stack([reached.cumsum(0) - reached, reached], 1).int()
    return keep, MarchedSamples(
        march.positions[keep],
        march.distances[keep],
        march.steps[keep],
        march.ray_indices[keep],
        offsets,
        march.counter,
    )


def _ray_geometry(
    pixels: Composite, samples: SurfaceSamples, march: MarchedSamples, toward: Tensor
) -> tuple[Tensor, Tensor]:
    """Normals (N, 3) and crossings (N,) of rays."""
    rays, gradient = march.ray_indices.long(), samples.gradient
    unit = gradient / (gradient.square().sum(1, keepdim=True) + 1e-12).sqrt()
    normal = torch.zeros_like(pixels.color, dtype=unit.dtype)
    normal = normal.index_add(0, rays, pixels.weights[:, None] * unit)
    with torch.no_grad():
        cosine = (gradient * toward).sum(1)
        crossing = surface_distances(
            pixels.weights,
            march.ray_offsets,
            rays,
            distance=samples.distance,
            cosine=cosine,
            middles=march.distances,
            steps=march.steps,
        )
    return normal, crossing
