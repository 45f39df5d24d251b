"""Points with their true distances that training draws from.

True distances cost more than a step of a small network, so a point serves many steps: the pool is
made of blocks, the oldest of which are replaced step by step. Block k depends on the seed and k
alone, and what is in the pool on the number of blocks that were made: a run that goes on needs no
more than that number.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

BLOCK = 2**12  # points
SURFACE_PART, NEAR_PART = 3 / 8, 1 / 2  # the rest is anywhere
NEAREST, FARTHEST = -11.0, -4.0  # powers of two: spread of points near the surface, grid units


class KnowsDistances(Protocol):
    """A `datasets.targets.Solid`, or what else knows them."""

    def distances(self, points: Tensor) -> Tensor: ...
    def surface(self, count: int, *, seed: int) -> tuple[Tensor, Tensor]: ...


def sampled_points(solid: KnowsDistances, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Points (count, 3) in grid space and their distances (count,): first those on the surface,
    then those near it, then those anywhere in the unit cube."""
    generator = torch.Generator().manual_seed(seed)
    on, near = round(SURFACE_PART * count), round(NEAR_PART * count)
    surface, _ = solid.surface(on + near, seed=seed)
    # evenly spread points come ordered by triangle
    surface = surface[torch.randperm(len(surface), generator=generator)]
    spread = torch.rand(near, 1, generator=generator) * (FARTHEST - NEAREST) + NEAREST
    offsets = torch.randn(near, 3, generator=generator) * 2**spread
    anywhere = torch.rand(count - on - near, 3, generator=generator)
    points = torch.cat([surface[:on], (surface[on:] + offsets).clamp(0, 1), anywhere])
    distances = torch.cat([torch.zeros(on), solid.distances(points[on:])])
    return points, distances


class DistancePool:
    """See the head of this file.

    Args:
        solid: knows true distances.
        samples: points in the pool, rounded up to whole blocks.
        seed: of all points.
        device: where they are kept.
    """

    def __init__(
        self,
        solid: KnowsDistances,
        samples: int,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        self.solid, self.seed = solid, seed
        self.blocks = -(-samples // BLOCK)
        self.points = torch.empty(self.blocks * BLOCK, 3, device=device)
        self.distances = torch.empty(self.blocks * BLOCK, device=device)
        self.made = 0
        """Blocks so far; block k lies at place k modulo `blocks`."""
        for _ in range(self.blocks):
            self.renew()

    def renew(self) -> None:
        """Replace the oldest block."""
        self._make(self.made)
        self.made += 1

    def rebuild(self, made: int) -> None:
        """Become the pool of which so many blocks were made."""
        if made == self.made:
            return
        for block in range(max(made - self.blocks, 0), made):
            self._make(block)
        self.made = made

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random points (count, 3) and their distances (count,)."""
        place = torch.randint(len(self.points), (count,), generator=generator)
        place = place.to(self.points.device)
        return self.points[place], self.distances[place]

    def _make(self, block: int) -> None:
        # one seed for each block of each run; 7919 keeps those of neighboring runs apart
        seed = (self.seed * 7919 + block) % 2**31
        points, distances = sampled_points(self.solid, BLOCK, seed=seed)
        begin = (block % self.blocks) * BLOCK
        self.points[begin : begin + BLOCK] = points.to(self.points.device)
        self.distances[begin : begin + BLOCK] = distances.to(self.points.device)
