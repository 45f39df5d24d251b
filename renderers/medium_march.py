"""The quick preview of a medium: even steps along the ray, lit through a grid of shadows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.fields.protocols import MediumLike

from .sphere_tracing import unit_cube_crossing

STEPS = 64  # along a ray
SHADOW_CELLS = 32  # along an axis
SHADOW_STEPS = 32  # towards the sun
OFTEN = 4  # copies of the sun: light that scatters 1, 2, ... times
WEAKER, CLEARER = 0.55, 0.4  # each copy than the one before: in strength, in optical depth
OPEN_SKY = 0.5  # part of the sky that a place within sees, by this guess


@dataclass(frozen=True)
class SunShadows:
    """Optical depth towards the sun at the middles of cells."""

    depths: Tensor
    """(1, 1, Z, Y, X)"""

    @classmethod
    def of(cls, medium: MediumLike, sun: Tensor) -> SunShadows:
        """Ask the medium once for each cell, then add up along the way to the sun."""
        device = medium.bounds.device
        line = (torch.arange(SHADOW_CELLS, device=device) + 0.5) / SHADOW_CELLS
        z, y, x = torch.meshgrid(line, line, line, indexing="ij")
        middles = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
        density, _ = medium.density_and_albedo(middles)
        grid = density.reshape(1, 1, *(SHADOW_CELLS,) * 3)
        toward = sun.expand_as(middles)
        _, leave = unit_cube_crossing(middles, toward)
        total = torch.zeros_like(leave)
        for step in range(SHADOW_STEPS):
            places = middles + (leave * (step + 0.5) / SHADOW_STEPS)[:, None] * toward
            total += _between(grid, places)
        return cls((total * leave / SHADOW_STEPS).reshape(grid.shape))

    def at(self, positions: Tensor) -> Tensor:
        """(M,) at positions (M, 3) in grid space."""
        return _between(self.depths, positions)


def marched(
    medium: MediumLike,
    origins: Tensor,
    directions: Tensor,
    *,
    shadows: SunShadows,
    sun: Tensor,
    sky: Tensor,
    phase: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Linear light (N, 3), opacity and mean distance (N,) of rays (N, 3) in grid space.

    Args:
        sun, sky: (3,) irradiance and radiance.
        phase: (N,) phase function between each ray and the sun.
    """
    entry, leave = unit_cube_crossing(origins, directions)
    step = (leave - entry).clamp(min=0) / STEPS
    middles = entry[:, None] + (torch.arange(STEPS, device=step.device) + 0.5) * step[:, None]
    places = origins[:, None] + middles[..., None] * directions[:, None]
    flat = places.reshape(-1, 3).clamp(0, 1)
    count = len(medium.majorants)
    x, y, z = (flat * count).long().clamp(0, count - 1).unbind(1)
    full = (medium.majorants[x, y, z] > 0) & (step > 0).repeat_interleave(STEPS)
    asked = full.nonzero()[:, 0]
    density = torch.zeros(len(flat), device=flat.device)
    albedo = torch.zeros_like(flat)
    density[asked], albedo[asked] = medium.density_and_albedo(flat[asked])
    depth = density.reshape(-1, STEPS) * step[:, None]
    before = depth.cumsum(dim=1) - depth
    weights = torch.exp(-before) * -torch.expm1(-depth)
    towards = torch.zeros(len(flat), device=flat.device)
    towards[asked] = shadows.at(flat[asked])
    through = sum(WEAKER**k * torch.exp(-(CLEARER**k) * towards) for k in range(OFTEN))
    lit = (through * phase.repeat_interleave(STEPS))[:, None] * sun + OPEN_SKY * sky
    source = (albedo * lit).reshape(-1, STEPS, 3)
    left = torch.exp(-depth.sum(dim=1))
    light = (weights[..., None] * source).sum(dim=1) + left[:, None] * sky
    opacity = 1 - left
    distance = (weights * middles).sum(dim=1) / weights.sum(dim=1).clamp_min(1e-6)
    return light, opacity, distance


def _between(grid: Tensor, positions: Tensor) -> Tensor:
    """(M,) trilinear values of a grid (1, 1, Z, Y, X) over the unit cube."""
    found = torch.nn.functional.grid_sample(
        grid,
        (positions * 2 - 1).reshape(1, 1, 1, -1, 3),
        padding_mode="border",
        align_corners=False,
    )
    return found.reshape(-1)
