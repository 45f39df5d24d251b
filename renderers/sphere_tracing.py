"""Sphere tracing of signed distances: a ray may always go on by the distance that it is told.

    t <- t + f(o + t d)   until |f| < tolerance (a hit) or the ray leaves the unit cube

Then the normal by differences of the distance, and the shading of plain clay: a lamp, light from
above, and less of it in hollows, looked at along the normal. Everything inside is in grid space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lumigraph.core import Cameras, Frame
from lumigraph.core.color import linear_to_srgb
from lumigraph.fields.protocols import DistanceField, to_grid_space

RAYS_PER_CHUNK = {"cpu": 2**16, "cuda": 2**20}
TOLERANCE = 5e-4  # grid units: a distance below it is a hit
CAUGHT = 4 * TOLERANCE  # so near after the last step, a ray has hit all the same
CAUTION = 0.95  # of a learnt distance, which may be a little too large
NORMAL_STEP = 1e-3  # grid units to both sides
HOLLOW_STEPS = (0.01, 0.03, 0.07)  # grid units along the normal
CLAY = (0.62, 0.55, 0.48)  # linear


class Hits(NamedTuple):
    """Where rays end. Letter: N rays."""

    distance: Tensor
    """(N,) along the ray in grid units; infinite where it meets nothing."""
    queries: Tensor
    """(N,) int32, how often each ray asked for a distance."""


@dataclass(frozen=True)
class SolidLight:
    """Lamp and sky of the shading, in scene axes."""

    lamp: Tensor
    """(3,) unit vector towards the lamp."""
    up: Tensor
    """(3,) unit vector towards the sky."""

    @classmethod
    def from_up(cls, up: Tensor) -> SolidLight:
        """A lamp half way up, to one side."""
        up = up.float()
        side = torch.eye(3)[int(up.abs().argmin())]
        side = side - (side @ up) * up
        across = torch.linalg.cross(up, side)
        return cls(torch.nn.functional.normalize(0.9 * up + 0.8 * side + 0.5 * across, dim=0), up)

    def to(self, device: torch.device) -> SolidLight:
        return SolidLight(self.lamp.to(device), self.up.to(device))


class SphereTracer:
    """Renders fields of signed distances.

    Args:
        background: (3,) sRGB around the solid.
        light: of the shading.
        most_steps: a ray that has met nothing after so many ends.
    """

    def __init__(self, *, background: Tensor, light: SolidLight, most_steps: int = 128) -> None:
        self.background, self.light, self.most_steps = background, light, most_steps

    def to(self, device: torch.device) -> SphereTracer:
        self.background, self.light = self.background.to(device), self.light.to(device)
        return self

    @torch.no_grad()
    def trace(self, field: DistanceField, origins: Tensor, directions: Tensor) -> Hits:
        """Where rays (N, 3) in grid space with unit directions meet the surface first."""
        entry, leave = unit_cube_crossing(origins, directions)
        travelled = entry.clone()
        distance = torch.full_like(entry, torch.inf)
        queries = torch.zeros(len(entry), dtype=torch.int32, device=entry.device)
        alive = (entry < leave).nonzero()[:, 0]
        for step in range(self.most_steps):
            if len(alive) == 0:
                break
            t = travelled[alive]
            value = field.sdf(origins[alive] + t[:, None] * directions[alive])
            queries[alive] += 1
            near = value.abs() < (TOLERANCE if step + 1 < self.most_steps else CAUGHT)
            distance[alive[near]] = t[near]
            t = (t + CAUTION * value).maximum(entry[alive])
            travelled[alive] = t
            alive = alive[~near & (t < leave[alive])]
        return Hits(distance, queries)

    @torch.no_grad()
    def render(self, field: DistanceField, cameras: Cameras, *, normals: bool = False) -> Frame:
        """Picture of one camera (a batch of length 1), on the field's device. Normals take no
        extra time; the extra images are `median_depth`, the depth itself, and `samples`, how often
        each ray asked."""
        width, height = cameras.size(0)
        rays = cameras.image_rays(0)
        size = RAYS_PER_CHUNK[rays.origins.device.type]
        origins = to_grid_space(rays.origins, field.bounds)
        chunks = zip(origins.split(size), rays.directions.split(size), strict=True)
        parts = [self._shaded(field, *chunk) for chunk in chunks]
        color, normal, distance, queries = map(torch.cat, zip(*parts, strict=True))
        hit = torch.isfinite(distance)
        side = float(field.bounds[1, 0] - field.bounds[0, 0])
        depth = torch.where(hit, distance * side * cameras.depth_factors(rays), 0.0)
        shape = (height, width)
        return Frame(
            color=color.reshape(*shape, 3),
            opacity=hit.float().reshape(shape),
            depth=depth.reshape(shape),
            normal=normal.reshape(*shape, 3) if normals else None,
            extras={
                "median_depth": depth.reshape(shape),
                "samples": queries.float().reshape(shape),
            },
        )

    def _shaded(
        self, field: DistanceField, origins: Tensor, directions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Color (N, 3), normal (N, 3), distance and queries (N,)."""
        hits = self.trace(field, origins, directions)
        color = self.background.expand_as(origins).clone()
        normal = torch.zeros_like(origins)
        hit = torch.isfinite(hits.distance).nonzero()[:, 0]
        if len(hit):
            points = origins[hit] + hits.distance[hit, None] * directions[hit]
            found = distance_normals(field, points)
            normal[hit] = found
            color[hit] = self._clay(field, points, found, directions[hit])
        return color, normal, hits.distance, hits.queries

    def _clay(
        self, field: DistanceField, points: Tensor, normal: Tensor, directions: Tensor
    ) -> Tensor:
        """sRGB (M, 3) of points of the surface."""
        open_sky = torch.ones_like(points[:, 0])
        for step in HOLLOW_STEPS:
            missing = (step - field.sdf(points + step * normal)).clamp(min=0) / step
            open_sky = open_sky - 0.3 * missing
        open_sky = open_sky.clamp(0, 1)
        lamp = (normal @ self.light.lamp).clamp(min=0) * (0.3 + 0.7 * open_sky)
        sky = (0.5 + 0.5 * normal @ self.light.up) * open_sky
        facing = -(normal * directions).sum(1).clamp(max=0)
        light = 0.75 * lamp + 0.4 * sky + 0.3 * facing
        return linear_to_srgb(light[:, None] * points.new_tensor(CLAY)).clamp(0, 1)


def unit_cube_crossing(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) distances at which rays (N, 3) enter the unit cube, 0 within it, and leave it; a ray
    that misses it leaves before it enters.

    >>> unit_cube_crossing(torch.tensor([[-1.0, 0.5, 0.5]]), torch.tensor([[1.0, 0.0, 0.0]]))
    (tensor([1.]), tensor([2.]))
    """
    # A ray along a wall would be 0 times infinity.
    small = directions.abs() < 1e-12
    safe = torch.where(small, torch.where(directions < 0, -1e-12, 1e-12), directions)
    first, second = (0 - origins) / safe, (1 - origins) / safe
    entry = torch.minimum(first, second).amax(dim=1).clamp(min=0)
    return entry, torch.maximum(first, second).amin(dim=1)


def distance_normals(
    field: DistanceField, positions: Tensor, *, step: float = NORMAL_STEP
) -> Tensor:
    """(M, 3) unit gradients of the distance at positions (M, 3) in grid space, by differences to
    both sides; 0 where the distance is flat."""
    offsets = torch.eye(3, device=positions.device) * step
    around = torch.stack([positions + sign * axis for axis in offsets for sign in (1, -1)])
    values = field.sdf(around.reshape(-1, 3)).reshape(3, 2, -1)
    return torch.nn.functional.normalize((values[:, 0] - values[:, 1]).T, dim=1)
