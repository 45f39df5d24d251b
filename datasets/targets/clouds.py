"""Media that need no file: a cloud and a bank of fog, made of seeded noise."""

from __future__ import annotations

import torch
from torch import Tensor

BUILTIN_MEDIA = ("cloud", "fog")
"""Names, without the prefix."""
CELLS = 64  # along an axis
OCTAVES = 5
FIRST_CELLS = 3  # waves along an axis of the coarsest octave


def built_in_grid(name: str, *, seed: int) -> tuple[Tensor, Tensor]:
    """Density (64, 64, 64) up to 20 over the side, and albedo (64, 64, 64, 3); z points up."""
    noise = fractal_noise(CELLS, generator=torch.Generator().manual_seed(seed))
    line = (torch.arange(CELLS) + 0.5) / CELLS * 2 - 1
    x, y, z = torch.meshgrid(line, line, line, indexing="ij")
    edge = 5 * (1 - torch.stack([x.abs(), y.abs(), z.abs()]).amax(dim=0)).clamp(0, 0.2)
    if name == "cloud":
        puffs = ((0.0, 0.0, 0.0, 0.75), (0.5, 0.15, -0.2, 0.48), (-0.45, -0.2, -0.15, 0.52))
        inside = torch.stack(
            [1 - ((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2).sqrt() / r for a, b, c, r in puffs]
        ).amax(dim=0)
        density = 20 * edge * (1.8 * (inside - 0.15 + 2.6 * (noise - 0.5))).clamp(0, 1)
    else:
        height = ((z + 0.9) / 0.9).clamp(min=0)
        density = 12 * edge * torch.exp(-4 * height**2) * (5 * noise - 1.8).clamp(0, 1)
    # cooler below than above, so that there is an albedo to learn
    warmth = ((z + 1) / 2)[..., None]
    cool, warm = torch.tensor([0.80, 0.87, 0.95]), torch.tensor([0.98, 0.95, 0.90])
    return density, cool + warmth * (warm - cool)


def fractal_noise(cells: int, *, generator: torch.Generator) -> Tensor:
    """(cells, cells, cells) in [0, 1], about 0.5 in the mean: octaves of smooth random values, each
    twice as fine and half as strong as the one before."""
    total, weight = torch.zeros(cells, cells, cells), 0.0
    for octave in range(OCTAVES):
        coarse = FIRST_CELLS * 2**octave + 1
        values = torch.rand(1, 1, coarse, coarse, coarse, generator=generator)
        fine = torch.nn.functional.interpolate(
            values, (cells, cells, cells), mode="trilinear", align_corners=True
        )
        total += 0.5**octave * fine[0, 0]
        weight += 0.5**octave
    return total / weight
