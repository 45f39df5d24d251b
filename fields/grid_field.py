"""Radiance fields on a grid encoding: Instant-NGP's network (Mueller et al. 2022, section 5.4).

    enc(x) -> density network -> o (16 values)      density = exp(o_0) per grid unit
    [o, harmonics(d)] -> color network -> sigmoid -> sRGB

`HashGridField` hashes the fine levels, `DenseGridField` stores every level in full.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lumigraph.core.errors import ConfigError
from lumigraph.core.shapes import check_shapes
from lumigraph.cuda.grid import GridLayout, grid_encode
from lumigraph.cuda.harmonics import harmonics_encode
from lumigraph.cuda.mlp import mlp

from .protocols import GridNetworks, TrainedParameter

GEOMETRY_WIDTH = 16  # outputs of the density network
HARMONICS_DEGREE = 4  # bands 0 to 3, 16 values
TABLE_INIT = 1e-4
HIDDEN_WIDTHS = range(16, 129, 16)


def initial_weights(widths: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Glorot-uniform layers (output, input), flattened one after another."""
    layers = []
    for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
        bound = math.sqrt(6 / (inputs + outputs))
        layers.append((torch.rand(outputs * inputs, generator=generator) * 2 - 1) * bound)
    return torch.cat(layers)


def field_extent(bounds: Tensor, layout: GridLayout, aabb_scale: int) -> tuple[Tensor, int]:
    """Bounds (2, 3) as float32 and the number of cascades of a field with this encoding.

    Raises:
        InputError: bounds of another shape.
        ConfigError: it cannot be the encoding of a radiance field.
    """
    if layout.dimensions != 3:
        raise ConfigError(f"a radiance field needs a 3-D grid, not {layout.dimensions}-D")
    if aabb_scale not in (1, 2, 4, 8, 16, 32, 64, 128):
        raise ConfigError(f"aabb_scale = {aabb_scale}: must be a power of two, 1 to 128")
    corners = torch.as_tensor(bounds, dtype=torch.float32).clone()
    check_shapes(("bounds", corners, "2 3"))
    return corners, int(math.log2(aabb_scale)) + 1


class GridField(nn.Module):
    """A volume field of one encoding and two small networks.

    Args:
        bounds: (2, 3) corners of the region of interest, a cube, in scene units.
        layout: levels of the encoding, in three dimensions.
        aabb_scale: the field covers a cube this many times larger; a power of two, 1 to 128.
        hidden_width: units of every hidden layer, 16 to 128 in steps of 16.
        density_layers, color_layers: hidden layers of the networks.
        seed: of the initial weights.

    Raises:
        ConfigError: an impossible shape.
    """

    bounds: Tensor

    def __init__(
        self,
        bounds: Tensor,
        layout: GridLayout,
        *,
        aabb_scale: int = 1,
        hidden_width: int = 64,
        density_layers: int = 1,
        color_layers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        corners, self.cascades = field_extent(bounds, layout, aabb_scale)
        if hidden_width not in HIDDEN_WIDTHS:
            raise ConfigError(f"hidden_width = {hidden_width}: must be 16 to 128 in steps of 16")
        if min(density_layers, color_layers) < 1:
            raise ConfigError("density_layers and color_layers: must be at least 1")
        self.register_buffer("bounds", corners)
        self.layout = layout
        hidden = (hidden_width,)
        self.density_widths = (layout.output_width, *hidden * density_layers, GEOMETRY_WIDTH)
        self.color_widths = (GEOMETRY_WIDTH + HARMONICS_DEGREE**2, *hidden * color_layers, 3)
        generator = torch.Generator().manual_seed(seed)
        table = torch.rand(layout.entries, layout.features, generator=generator)
        self.table = nn.Parameter((table * 2 - 1) * TABLE_INIT)
        self.density_weights = nn.Parameter(initial_weights(self.density_widths, generator))
        self.color_weights = nn.Parameter(initial_weights(self.color_widths, generator))

    def geometry(self, positions: Tensor) -> Tensor:
        """(M, 3) in grid space -> (M, 16): log of the density, and features for the color."""
        unit = (positions - 0.5) / 2 ** (self.cascades - 1) + 0.5
        half = positions.is_cuda
        encoded = grid_encode(unit, self.table, self.layout, half=half)
        return mlp(encoded, self.density_weights, self.density_widths, half=half)

    def density(self, positions: Tensor) -> Tensor:
        return torch.exp(self.geometry(positions)[:, 0].float().clamp(max=15.0))

    def query(self, positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        geometry = self.geometry(positions).float()
        harmonics = harmonics_encode(directions, HARMONICS_DEGREE)
        inputs = torch.cat([geometry, harmonics], dim=1)
        color = mlp(inputs, self.color_weights, self.color_widths, output_activation="sigmoid")
        return torch.exp(geometry[:, 0].clamp(max=15.0)), color.float()

    def trained_parameters(self) -> list[TrainedParameter]:
        """In the order of `networks().parameters`."""
        return [
            TrainedParameter(self.table, is_network=False),
            TrainedParameter(self.density_weights, is_network=True),
            TrainedParameter(self.color_weights, is_network=True),
        ]

    def networks(self) -> GridNetworks:
        return GridNetworks(
            layout=self.layout,
            table=self.table,
            density_weights=self.density_weights,
            color_weights=self.color_weights,
            density_widths=self.density_widths,
            color_widths=self.color_widths,
            cascades=self.cascades,
        )


class HashGridField(GridField):
    """`GridField` whose fine levels share a hash table (the Instant-NGP field).

    Args:
        levels, features, log2_table_size, base_resolution, max_resolution: of the encoding;
            `max_resolution` is that of the region of interest, so it is multiplied by
            `aabb_scale` for the whole. Other arguments as `GridField`.

    Example:
        >>> field = HashGridField(torch.tensor([[-1.0] * 3, [1.0] * 3]), levels=4)
        >>> density, color = field.query(torch.rand(5, 3), torch.eye(3)[[0, 1, 2, 0, 1]])
        >>> density.shape, color.shape
        (torch.Size([5]), torch.Size([5, 3]))
    """

    dense = False

    def __init__(
        self,
        bounds: Tensor,
        *,
        levels: int = 16,
        features: int = 2,
        log2_table_size: int = 19,
        base_resolution: int = 16,
        max_resolution: int = 2048,
        aabb_scale: int = 1,
        hidden_width: int = 64,
        density_layers: int = 1,
        color_layers: int = 2,
        seed: int = 0,
    ) -> None:
        layout = GridLayout.from_resolutions(
            base_resolution,
            max_resolution * aabb_scale,
            levels=levels,
            features=features,
            log2_table_size=log2_table_size,
            dense=self.dense,
        )
        super().__init__(
            bounds,
            layout,
            aabb_scale=aabb_scale,
            hidden_width=hidden_width,
            density_layers=density_layers,
            color_layers=color_layers,
            seed=seed,
        )


class DenseGridField(HashGridField):
    """`GridField` whose levels are all stored in full: no collisions, memory grows with the cube
    of `max_resolution` (64 to 256 is usual); `log2_table_size` has no effect."""

    dense = True
