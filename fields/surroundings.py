"""What lies around a surface: a small radiance field of the space outside the unit cube, as in
NeRF++ (Zhang et al. 2020), with the largest coordinate in place of the radius.

With y = 2 p - 1 and r = max |y_i|, which is 1 on the cube's faces, a point p outside is the four
numbers (y / r, 1 / r): where on the cube it is seen, and how near. A grid in four dimensions
encodes them. All positions and distances are in grid space.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lumigraph.cuda.compositing import composite
from lumigraph.cuda.grid import GridLayout, grid_encode
from lumigraph.cuda.harmonics import harmonics_encode
from lumigraph.cuda.mlp import mlp

from .grid_field import TABLE_INIT, initial_weights
from .protocols import TrainedParameter

HIDDEN_WIDTH = 32
GEOMETRY_WIDTH = 16
HARMONICS_DEGREE = 3
FARTHEST = 0.99  # of 0 to 1, which is the way from the cube to infinity
LAST_STEP = 1e3  # behind the last sample nothing is seen through what is dense there
LAYOUT = {"levels": 8, "features": 2, "base_resolution": 8}


def cube_exits(origins: Tensor, directions: Tensor) -> Tensor:
    """(N,) distance at which rays (N, 3) leave the unit cube, or pass its middle where they miss
    it; at least 0."""
    nonzero = torch.where(directions.abs() < 1e-9, 1e-9, directions)
    near, far = (0 - origins) / nonzero, (1 - origins) / nonzero
    enter = torch.minimum(near, far).amax(1)
    leave = torch.maximum(near, far).amin(1)
    passing = ((0.5 - origins) * directions).sum(1)
    return torch.where(leave >= enter, leave, passing).clamp_min(0)


class Surroundings(nn.Module):
    """Colors of rays behind the unit cube.

    Args:
        samples: along each ray.
        log2_table_size: largest number of entries of one level.
        max_resolution: vertices per axis of the finest level.
        seed: of the initial weights.
    """

    def __init__(
        self, *, samples: int, log2_table_size: int, max_resolution: int = 256, seed: int = 0
    ) -> None:
        super().__init__()
        self.samples = samples
        self.layout = GridLayout.from_resolutions(
            LAYOUT["base_resolution"],
            max_resolution,
            levels=LAYOUT["levels"],
            features=LAYOUT["features"],
            dimensions=4,
            log2_table_size=log2_table_size,
        )
        self.density_widths = (self.layout.output_width, HIDDEN_WIDTH, GEOMETRY_WIDTH)
        self.color_widths = (GEOMETRY_WIDTH + HARMONICS_DEGREE**2, HIDDEN_WIDTH, 3)
        generator = torch.Generator().manual_seed(seed)
        table = torch.rand(self.layout.entries, self.layout.features, generator=generator)
        self.table = nn.Parameter((table * 2 - 1) * TABLE_INIT)
        self.density_weights = nn.Parameter(initial_weights(self.density_widths, generator))
        self.color_weights = nn.Parameter(initial_weights(self.color_widths, generator))

    def query(self, positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """(M, 3) outside the unit cube and (M, 3) unit -> density (M,) and sRGB (M, 3)."""
        centred = 2 * positions - 1
        nearness = 1 / centred.abs().amax(1, keepdim=True).clamp_min(1)
        inputs = torch.cat([(centred * nearness + 1) / 2, nearness], 1)
        encoded = grid_encode(inputs.clamp(0, 1), self.table, self.layout)
        geometry = mlp(encoded, self.density_weights, self.density_widths)
        parts = [geometry, harmonics_encode(directions, HARMONICS_DEGREE)]
        color = mlp(
            torch.cat(parts, 1), self.color_weights, self.color_widths, output_activation="sigmoid"
        )
        return torch.exp(geometry[:, 0].clamp(max=15.0)), color

    def colors(self, origins: Tensor, directions: Tensor, jitter: Tensor | None = None) -> Tensor:
        """(N, 3) sRGB of rays (N, 3), black where nothing is met.

        Args:
            jitter: (N,) in [0, 1), where in its part of the way each sample lies; None: the middle.
        """
        count, device = self.samples, origins.device
        exits = cube_exits(origins.detach(), directions.detach())[:, None]
        edges = torch.arange(count + 1, device=device) / count * FARTHEST
        inside = 0.5 if jitter is None else jitter[:, None]
        share = (torch.arange(count, device=device) + inside) / count * FARTHEST
        distances = exits + (share / (1 - share)).expand(len(origins), count)
        far = edges / (1 - edges)
        steps = (far[1:] - far[:-1]).expand(len(origins), count).clone()
        steps[:, -1] = LAST_STEP
        toward = directions.repeat_interleave(count, 0)
        positions = origins.repeat_interleave(count, 0) + distances.reshape(-1, 1) * toward
        density, color = self.query(positions, toward)
        begin = torch.arange(len(origins), device=device) * count
        offsets = torch.stack([begin, torch.full_like(begin, count)], 1)
        flat = distances.reshape(-1).contiguous(), steps.reshape(-1).contiguous()
        return composite(density, color, *flat, offsets, early_stop=0.0).color

    def trained_parameters(self) -> list[TrainedParameter]:
        return [
            TrainedParameter(self.table, is_network=False),
            TrainedParameter(self.density_weights, is_network=True),
            TrainedParameter(self.color_weights, is_network=True),
        ]
