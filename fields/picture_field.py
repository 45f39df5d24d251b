"""A picture as a field: colors at points of the unit square, whatever the number of pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lumigraph.core.color import linear_to_srgb
from lumigraph.core.errors import ConfigError
from lumigraph.cuda.grid import GridLayout

from .grid_network import GridNetwork


class PictureField(nn.Module):
    """Colors of a picture (the `ColorPlane` protocol).

    Args:
        layout: levels of the encoding, in two dimensions.
        size: width and height of the picture in pixels.
        is_linear: whether values are linear light; else sRGB.
        hidden_width, hidden_layers, seed: as `GridNetwork`.

    Raises:
        ConfigError: an impossible shape.

    Example:
        >>> field = PictureField(GridLayout(dimensions=2, levels=2, growth=2.0), size=(40, 30))
        >>> field.colors(torch.rand(5, 2)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        layout: GridLayout,
        *,
        size: tuple[int, int],
        is_linear: bool = False,
        hidden_width: int = 64,
        hidden_layers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if layout.dimensions != 2:
            raise ConfigError(f"a picture needs a 2-D grid, not {layout.dimensions}-D")
        self.size, self.is_linear = size, is_linear
        self.network = GridNetwork(
            layout, outputs=3, hidden_width=hidden_width, hidden_layers=hidden_layers, seed=seed
        )

    def values(self, uv: Tensor) -> Tensor:
        """(M, 2) in [0, 1], u to the right and v down -> (M, 3): sRGB or linear light, as the
        picture has it, not cut off; differentiable."""
        found: Tensor = self.network(uv)
        return found

    def colors(self, uv: Tensor) -> Tensor:
        """(M, 2) -> sRGB (M, 3) in [0, 1], without gradients."""
        values = self.network.ask(uv).clamp(0, 1)
        return linear_to_srgb(values) if self.is_linear else values

    @torch.no_grad()
    def rows(self, first: int, count: int) -> Tensor:
        """(count, W, 3) values at the middles of the pixels of some rows."""
        width, height = self.size
        device = self.network.table.device
        u = (torch.arange(width, device=device) + 0.5) / width
        v = (torch.arange(first, first + count, device=device) + 0.5) / height
        grid = torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1)
        return self.network.ask(grid.reshape(-1, 2)).reshape(count, width, 3)
