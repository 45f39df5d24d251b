"""Light in a medium, by chance: where photons collide, and how much light comes through.

Free flights by delta tracking (Woodcock et al. 1965): tentative collisions come as in a medium as
dense as the majorant everywhere, and one at x counts with probability density(x) / majorant. Ratio
tracking (Novak et al. 2014) weighs light by 1 - density / majorant there instead. Both are right in
the mean for any number of samples. Each cell has a majorant of its own; between cells flights start
anew, which an exponential distribution allows. Everything is in grid space. Letters: N rays, C
cells.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lumigraph.fields.protocols import MediumLike

from .sphere_tracing import unit_cube_crossing

Visit = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Told rays (K,), positions (K, 3), distances (K,) and majorants (K,) of tentative collisions;
returns (K,) bool: which of them fly on."""
SMALLEST = 1e-12  # of a direction, lest a flight take for ever to the next wall


def fly(
    majorants: Tensor,
    origins: Tensor,
    directions: Tensor,
    *,
    visit: Visit,
    generator: torch.Generator,
) -> None:
    """Move rays (N, 3) through the unit cube from one tentative collision to the next until they
    leave it or `visit` stops them.

    Args:
        majorants: (C, C, C) by x, y, z, per grid unit.
        generator: on the rays' device.
    """
    count = len(majorants)
    entry, leave = unit_cube_crossing(origins, directions)
    alive = (entry < leave).nonzero()[:, 0]
    forward = torch.where(directions < 0, -1, 1)
    safe = torch.where(directions.abs() < SMALLEST, SMALLEST * forward, directions)
    travelled = entry.clone()
    start = origins + entry[:, None] * directions
    cell = (start * count).floor().long().clamp(0, count - 1)
    flat = majorants.reshape(-1)
    while len(alive):
        at, o, d, way = cell[alive], origins[alive], safe[alive], forward[alive]
        walls = ((at + (way > 0)) / count - o) / d
        wall, axis = walls.min(dim=1)
        most = flat[(at[:, 0] * count + at[:, 1]) * count + at[:, 2]]
        chance = torch.rand(len(alive), device=origins.device, generator=generator)
        step = -torch.log1p(-chance) / most  # infinite where nothing is
        t = travelled[alive] + step
        crossing = ~(t < wall)
        travelled[alive] = torch.where(crossing, torch.maximum(wall, travelled[alive]), t)
        one = torch.nn.functional.one_hot(axis, 3) * way
        at = torch.where(crossing[:, None], at + one, at)
        cell[alive] = at
        keep = ((at >= 0) & (at < count)).all(dim=1)
        stopped = (~crossing).nonzero()[:, 0]
        if len(stopped):
            rays = alive[stopped]
            positions = origins[rays] + t[stopped, None] * directions[rays]
            keep[stopped] = visit(rays, positions.clamp(0, 1), t[stopped], most[stopped])
        alive = alive[keep]


def collisions(
    medium: MediumLike, origins: Tensor, directions: Tensor, *, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Where rays (N, 3) collide first by delta tracking: distance (N,), infinite where they leave
    the cube, and the albedo there (N, 3)."""
    distance = torch.full_like(origins[:, 0], torch.inf)
    albedo = torch.zeros_like(origins)

    def visit(rays: Tensor, positions: Tensor, at: Tensor, most: Tensor) -> Tensor:
        density, shade = medium.density_and_albedo(positions)
        chance = torch.rand(len(rays), device=rays.device, generator=generator)
        hit = chance * most < density
        distance[rays[hit]], albedo[rays[hit]] = at[hit], shade[hit]
        return ~hit

    fly(medium.majorants, origins, directions, visit=visit, generator=generator)
    return distance, albedo


def transmittances(
    medium: MediumLike, origins: Tensor, directions: Tensor, *, generator: torch.Generator
) -> Tensor:
    """(N,) light that comes through along rays (N, 3) to the end of the cube, by ratio tracking."""
    through = torch.ones_like(origins[:, 0])

    def visit(rays: Tensor, positions: Tensor, at: Tensor, most: Tensor) -> Tensor:
        density, _ = medium.density_and_albedo(positions)
        through[rays] *= 1 - density / most
        return through[rays] > 0

    fly(medium.majorants, origins, directions, visit=visit, generator=generator)
    return through
