"""A medium as a field: density and albedo at points of the unit cube, by a grid and one network.

    [density / peak, albedo] = network(x)      density = min(peak * relu, majorant of the cell)

The majorants come from the data: they bound what the network says, so that tracking, which needs
such a bound, is exact for this field, and where the data is empty nothing has to be asked.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lumigraph.core.errors import ConfigError
from lumigraph.core.shapes import check_shapes
from lumigraph.cuda.grid import GridLayout

from .grid_network import GridNetwork


class MediumField(nn.Module):
    """Density and albedo (the `MediumLike` protocol).

    Args:
        bounds: (2, 3) corners of the cube that the medium lies in, in scene units.
        layout: levels of the encoding, in three dimensions.
        majorants: (C, C, C) by x, y, z: largest density of each cell of the cube, per grid unit.
        hidden_width, hidden_layers, seed: as `GridNetwork`.

    Raises:
        ConfigError, InputError: an impossible shape.

    Example:
        >>> cube = torch.tensor([[-1.0] * 3, [1.0] * 3])
        >>> field = MediumField(cube, GridLayout(levels=2), majorants=torch.ones(4, 4, 4))
        >>> density, albedo = field.density_and_albedo(torch.rand(5, 3))
        >>> density.shape, albedo.shape
        (torch.Size([5]), torch.Size([5, 3]))
    """

    bounds: Tensor
    majorants: Tensor

    def __init__(
        self,
        bounds: Tensor,
        layout: GridLayout,
        *,
        majorants: Tensor,
        hidden_width: int = 64,
        hidden_layers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if layout.dimensions != 3:
            raise ConfigError(f"a medium needs a 3-D grid, not {layout.dimensions}-D")
        corners = torch.as_tensor(bounds, dtype=torch.float32).clone()
        check_shapes(("bounds", corners, "2 3"), ("majorants", majorants, "C C C"))
        self.register_buffer("bounds", corners)
        self.register_buffer("majorants", majorants.float().clone())
        self.network = GridNetwork(
            layout, outputs=4, hidden_width=hidden_width, hidden_layers=hidden_layers, seed=seed
        )

    @property
    def peak(self) -> Tensor:
        """() the largest density, per grid unit."""
        return self.majorants.max()

    def raw(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """(M, 3) in grid space -> density over its peak (M,) and albedo (M, 3) without any bound;
        differentiable. Training sees these: a bound would leave no slope to learn by."""
        found = self.network(positions)
        return found[:, 0], found[:, 1:]

    def density_and_albedo(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        found = self.network.ask(positions)
        most = cell_values(self.majorants, positions)
        density = torch.minimum(found[:, 0].clamp(min=0) * self.peak, most)
        return density, found[:, 1:].clamp(0, 1)


def cell_values(cells: Tensor, positions: Tensor) -> Tensor:
    """(M,) values of the cells (C, C, C) by x, y, z that hold positions (M, 3) of the unit cube."""
    count = len(cells)
    x, y, z = (positions * count).long().clamp(0, count - 1).unbind(1)
    return cells[x, y, z]
