"""A solid as a field: the signed distance at points of the unit cube, by a grid and one network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lumigraph.core.errors import ConfigError
from lumigraph.core.shapes import check_shapes
from lumigraph.cuda.grid import GridLayout

from .grid_network import GridNetwork


class SolidField(nn.Module):
    """Signed distances (the `DistanceField` protocol).

    Args:
        bounds: (2, 3) corners of the cube that the solid lies in, in scene units.
        layout: levels of the encoding, in three dimensions.
        hidden_width, hidden_layers, seed: as `GridNetwork`.

    Raises:
        ConfigError, InputError: an impossible shape.

    Example:
        >>> field = SolidField(torch.tensor([[-1.0] * 3, [1.0] * 3]), GridLayout(levels=2))
        >>> field.sdf(torch.rand(5, 3)).shape
        torch.Size([5])
    """

    bounds: Tensor

    def __init__(
        self,
        bounds: Tensor,
        layout: GridLayout,
        *,
        hidden_width: int = 64,
        hidden_layers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if layout.dimensions != 3:
            raise ConfigError(f"a solid needs a 3-D grid, not {layout.dimensions}-D")
        corners = torch.as_tensor(bounds, dtype=torch.float32).clone()
        check_shapes(("bounds", corners, "2 3"))
        self.register_buffer("bounds", corners)
        self.network = GridNetwork(
            layout, outputs=1, hidden_width=hidden_width, hidden_layers=hidden_layers, seed=seed
        )

    def distances(self, positions: Tensor) -> Tensor:
        """(M, 3) in grid space -> (M,) signed distance in grid units; differentiable."""
        found: Tensor = self.network(positions)
        return found[:, 0]

    def sdf(self, positions: Tensor) -> Tensor:
        return self.network.ask(positions)[:, 0]
