"""A grid encoding and one small network: numbers at points of the unit square or cube.

    x in [0, 1]^D -> grid (hashed or dense levels) -> ReLU layers without bias -> O numbers

The common part of the fields that are fitted to pictures, solids and media.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lumigraph.core.errors import ConfigError
from lumigraph.cuda.grid import GridLayout, grid_encode
from lumigraph.cuda.mlp import mlp

from .grid_field import HIDDEN_WIDTHS, TABLE_INIT, initial_weights
from .protocols import TrainedParameter

CHUNK = {"cpu": 2**17, "cuda": 2**21}
"""Points that are asked about together where no gradients are wanted."""


class GridNetwork(nn.Module):
    """Numbers at points.

    Args:
        layout: levels of the encoding, of any dimension.
        outputs: numbers for each point.
        hidden_width: units of every hidden layer, 16 to 128 in steps of 16.
        hidden_layers: at least 1.
        seed: of the initial weights.

    Raises:
        ConfigError: an impossible shape.

    Example:
        >>> network = GridNetwork(GridLayout(dimensions=2, levels=2, growth=2.0), outputs=3)
        >>> network(torch.rand(5, 2)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        layout: GridLayout,
        *,
        outputs: int,
        hidden_width: int = 64,
        hidden_layers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if hidden_width not in HIDDEN_WIDTHS:
            raise ConfigError(f"hidden_width = {hidden_width}: must be 16 to 128 in steps of 16")
        if hidden_layers < 1:
            raise ConfigError(f"hidden_layers = {hidden_layers}: must be at least 1")
        self.layout = layout
        self.widths = (layout.output_width, *(hidden_width,) * hidden_layers, outputs)
        generator = torch.Generator().manual_seed(seed)
        table = torch.rand(layout.entries, layout.features, generator=generator)
        self.table = nn.Parameter((table * 2 - 1) * TABLE_INIT)
        self.weights = nn.Parameter(initial_weights(self.widths, generator))

    def forward(self, points: Tensor) -> Tensor:
        """(M, D) in [0, 1] -> (M, outputs) float32; points outside are moved to the border."""
        encoded = grid_encode(points, self.table, self.layout, half=points.is_cuda)
        return mlp(encoded, self.weights, self.widths)

    @torch.no_grad()
    def ask(self, points: Tensor) -> Tensor:
        """`forward` without gradients, in chunks."""
        size = CHUNK[points.device.type]
        if len(points) <= size:
            return self.forward(points)
        return torch.cat([self.forward(part) for part in points.split(size)])

    def trained_parameters(self) -> list[TrainedParameter]:
        """Table, network."""
        return [
            TrainedParameter(self.table, is_network=False),
            TrainedParameter(self.weights, is_network=True),
        ]
