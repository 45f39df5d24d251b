"""Fog and clouds to frames: paths of light by delta tracking, or a quick preview by ray marching.

With samples, a pixel is the mean of so many paths: a path collides, scatters towards the sun (ratio
tracking says how much of it gets there) and on in a random direction, until it leaves for the sky
or is swallowed. That is right in the mean, with noise that falls with the root of their number.
Without, the medium is marched in even steps and lit through a small grid of shadows, with weaker,
less shadowed copies of the sun in place of light that scatters often (Wrenninge et al. 2013): no
noise, but a guess.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.core import Cameras, Frame
from lumigraph.core.color import linear_to_srgb
from lumigraph.fields.protocols import MediumLike, to_grid_space

from .medium_flight import collisions, transmittances
from .medium_march import SunShadows, marched

RAYS_PER_CHUNK = {"cpu": 2**17, "cuda": 2**20}
MOST_SCATTERINGS = 256  # a path that has not been swallowed by then ends; none does
ROULETTE_AFTER = 3  # scatterings; from then on a path may end as soon as it carries little


@dataclass(frozen=True)
class MediumLight:
    """Sun and sky. Colors are linear."""

    sun: Tensor
    """(3,) unit vector towards the sun, in scene axes."""
    sun_color: Tensor
    """(3,) irradiance across its direction."""
    sky_color: Tensor
    """(3,) radiance from everywhere else, also behind the medium."""

    @classmethod
    def from_up(cls, up: Tensor) -> MediumLight:
        """A warm sun rather low on one side, a blue sky."""
        up = up.float()
        side = torch.eye(3)[int(up.abs().argmin())]
        side = side - (side @ up) * up
        sun = torch.nn.functional.normalize(0.7 * up + side, dim=0)
        return cls(sun, torch.tensor([8.0, 7.2, 6.0]), torch.tensor([0.22, 0.34, 0.55]))

    def to(self, device: torch.device) -> MediumLight:
        parts = (self.sun, self.sun_color, self.sky_color)
        return MediumLight(*(part.to(device) for part in parts))


class MediumRenderer:
    """Renders media.

    Args:
        light: sun and sky.
        anisotropy: mean cosine of the angle that light scatters by, above -1 and below 1
            (Henyey and Greenstein 1941); 0 scatters evenly.
        samples_per_pixel: paths of a pixel; 0 marches a preview.
        seed: of the paths; the same picture twice is the same.
    """

    def __init__(
        self,
        *,
        light: MediumLight,
        anisotropy: float = 0.0,
        samples_per_pixel: int = 0,
        seed: int = 0,
    ) -> None:
        self.light, self.anisotropy = light, anisotropy
        self.samples_per_pixel, self.seed = samples_per_pixel, seed

    def to(self, device: torch.device) -> MediumRenderer:
        self.light = self.light.to(device)
        return self

    @torch.no_grad()
    def render(self, field: MediumLike, cameras: Cameras, *, normals: bool = False) -> Frame:
        """Picture of one camera (a batch of length 1), on the field's device. Media have no
        normals; `depth` is the mean depth of what is seen first."""
        width, height = cameras.size(0)
        rays = cameras.image_rays(0)
        if self.samples_per_pixel:
            light, opacity, distance = self._sampled(field, cameras)
        else:
            light, opacity, distance = self._marched(field, rays.origins, rays.directions)
        side = float(field.bounds[1, 0] - field.bounds[0, 0])
        depth = distance * side * cameras.depth_factors(rays)
        shape = (height, width)
        return Frame(
            color=linear_to_srgb(light).clamp(0, 1).reshape(*shape, 3),
            opacity=opacity.reshape(shape),
            depth=torch.where(opacity > 1e-3, depth, 0.0).reshape(shape),
            normal=torch.zeros(*shape, 3, device=light.device) if normals else None,
        )

    def radiance(
        self,
        field: MediumLike,
        origins: Tensor,
        directions: Tensor,
        *,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """One path along each ray (N, 3) in grid space: linear light (N, 3), and the distance (N,)
        of its first collision, infinite where there is none."""
        light = torch.zeros_like(origins)
        carried = torch.ones_like(origins)
        rays = torch.arange(len(origins), device=origins.device)
        first = torch.full_like(origins[:, 0], torch.inf)
        for order in range(MOST_SCATTERINGS):
            distance, albedo = collisions(field, origins, directions, generator=generator)
            gone = torch.isinf(distance)
            light[rays[gone]] += carried[gone] * self.light.sky_color
            if order == 0:
                first[rays] = distance
            rays, directions, distance = rays[~gone], directions[~gone], distance[~gone]
            carried = carried[~gone] * albedo[~gone]
            if len(rays) == 0:
                break
            origins = origins[~gone] + distance[:, None] * directions
            sun = self.light.sun.expand_as(directions)
            through = transmittances(field, origins, sun, generator=generator)
            phase = henyey_greenstein((directions * sun).sum(1), self.anisotropy)
            light[rays] += carried * self.light.sun_color * (through * phase)[:, None]
            directions = scattered(directions, self.anisotropy, generator=generator)
            if order >= ROULETTE_AFTER:
                survival = carried.amax(dim=1).clamp(1e-6, 1)
                chance = torch.rand(len(rays), device=rays.device, generator=generator)
                kept = chance < survival
                carried = (carried / survival[:, None])[kept]
                rays, origins, directions = rays[kept], origins[kept], directions[kept]
        return light, first

    def _sampled(self, field: MediumLike, cameras: Cameras) -> tuple[Tensor, Tensor, Tensor]:
        """Mean light (N, 3), opacity and mean distance (N,) over the paths of each pixel, which
        start at random places of it."""
        device = field.bounds.device
        generator = torch.Generator(device).manual_seed(self.seed)
        width, height = cameras.size(0)
        y, x = torch.meshgrid(
            torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
        )
        corners = torch.stack([x, y], dim=-1).reshape(-1, 2)
        paths = self.samples_per_pixel
        parts = []
        for part in corners.split(max(1, RAYS_PER_CHUNK[device.type] // paths)):
            # all paths of a pixel together: few go on for long, and those should not be alone
            pixels = part.repeat_interleave(paths, dim=0)
            shift = torch.rand(pixels.shape, device=device, generator=generator)
            zero = torch.zeros(len(pixels), dtype=torch.int64, device=device)
            rays = cameras.rays(zero, pixels + shift)
            origins = to_grid_space(rays.origins, field.bounds)
            light, first = self.radiance(field, origins, rays.directions, generator=generator)
            seen = torch.isfinite(first)
            columns = [light, seen[:, None], torch.where(seen, first, 0.0)[:, None]]
            parts.append(torch.cat(columns, dim=1).reshape(len(part), paths, 5).mean(dim=1))
        mean = torch.cat(parts)
        opacity = mean[:, 3]
        return mean[:, :3], opacity, mean[:, 4] / opacity.clamp_min(1e-6)

    def _marched(
        self, field: MediumLike, origins: Tensor, directions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The preview: light (N, 3), opacity and mean distance (N,)."""
        shadows = SunShadows.of(field, self.light.sun)
        size = RAYS_PER_CHUNK[origins.device.type] // 8
        parts = []
        for begin in range(0, len(origins), size):
            ahead = directions[begin : begin + size]
            phase = henyey_greenstein(ahead @ self.light.sun, self.anisotropy)
            out = marched(
                field,
                to_grid_space(origins[begin : begin + size], field.bounds),
                ahead,
                shadows=shadows,
                sun=self.light.sun_color,
                sky=self.light.sky_color,
                phase=phase,
            )
            parts.append(out)
        light, opacity, distance = map(torch.cat, zip(*parts, strict=True))
        return light, opacity, distance


def henyey_greenstein(cosine: Tensor, anisotropy: float) -> Tensor:
    """Phase function of the cosine (...) between the directions before and after; it integrates to
    1 over the sphere.

    >>> henyey_greenstein(torch.tensor([1.0]), 0.0)
    tensor([0.0796])
    """
    g = anisotropy
    return (1 - g * g) / (4 * math.pi * (1 + g * g - 2 * g * cosine).clamp_min(1e-9) ** 1.5)


def scattered(directions: Tensor, anisotropy: float, *, generator: torch.Generator) -> Tensor:
    """(N, 3) random unit directions after directions (N, 3), spread as the phase function."""
    g, device = anisotropy, directions.device
    chance = torch.rand(2, len(directions), device=device, generator=generator)
    if abs(g) < 1e-3:
        cosine = 2 * chance[0] - 1
    else:
        cosine = (1 + g * g - ((1 - g * g) / (1 - g + 2 * g * chance[0])) ** 2) / (2 * g)
    sine = (1 - cosine**2).clamp(min=0).sqrt()
    angle = 2 * math.pi * chance[1]
    spare = torch.eye(3, device=device)[directions.abs().argmin(dim=1)]
    first = torch.nn.functional.normalize(torch.linalg.cross(directions, spare), dim=1)
    second = torch.linalg.cross(directions, first)
    around = torch.cos(angle)[:, None] * first + torch.sin(angle)[:, None] * second
    out = cosine[:, None] * directions + sine[:, None] * around
    return torch.nn.functional.normalize(out, dim=1)
