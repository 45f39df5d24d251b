"""Neural surfaces: a signed distance on a grid encoding, with a color (NeuS2, Wang et al. 2023).

    [x - 1/2, enc(x)] -> distance network -> y (16 values)     f = y_0 + bias, negative inside
    n = df/dx, not normalized
    [y, harmonics(d), x, n] -> color network -> sigmoid -> sRGB
    s = exp(10 v): how sharp the surface is, the inverse width of the logistic in `renderers`

All lengths are in grid units.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lumigraph.core.errors import ConfigError
from lumigraph.cuda.grid import GridLayout
from lumigraph.cuda.harmonics import harmonics_encode
from lumigraph.cuda.mlp import mlp
from lumigraph.cuda.surface import (
    SurfaceNetworks,
    SurfaceSamples,
    surface_curvature,
    surface_distance,
    surface_query,
)

from .grid_field import HARMONICS_DEGREE, TABLE_INIT, field_extent, initial_weights
from .protocols import TrainedParameter

FEATURES = 16  # outputs of the distance network
SHARPNESS_RATE = 10.0
FIRST_SHARPNESS = 0.3  # of v: the logistic is 1 / 20 of the cube wide
MOST_SHARPNESS = 1.2  # of v: s = 160,000, far from the end of fp32
OUTPUT_NOISE = 1e-5
SOFTPLUS = 100.0  # as in cuda/reference/surface.py
SOFTPLUS_STEEPNESS = 10.0  # hidden sums are this much larger, so that its bend matters less


def progressive_levels(
    step: int, levels: int, *, base_step: int, first_part: float = 0.2, rate: float = 0.02
) -> int:
    """How many levels of the grid are on: coarse ones first, then one more every 1 / rate steps.

    Args:
        step: steps done.
        levels: of the grid.
        base_step: until when nothing is added.
        first_part: of the levels that are on from the start, beside the coarsest.
        rate: levels a step.

    >>> [progressive_levels(step, 14, base_step=200) for step in (0, 200, 201, 260, 10_000)]
    [4, 4, 4, 5, 14]
    """
    finest = math.ceil(round(first_part * levels + rate * max(0, step - base_step), 9))
    return min(levels, finest + 1)


def sphere_weights(
    widths: tuple[int, ...], *, radius: float, softplus: bool, generator: torch.Generator
) -> tuple[Tensor, float]:
    """Weights of a distance network, and the bias, whose distance is that to a sphere about the
    middle of the cube: the geometric initialization of IDR (Atzmon and Lipman 2020).

    The first layer looks along evenly spread directions instead of random ones: with 64 random
    ones the sphere would be dented by a tenth of its radius. It does not see the grid; deeper
    hidden layers begin as the identity.
    """
    inputs, width = widths[0], widths[1]
    steepness = math.sqrt(6 / width) * (SOFTPLUS_STEEPNESS if softplus else 1.0)
    spread = _turned(_spread_directions(width), generator)
    first = torch.zeros(width, inputs)
    first[:, :3] = steepness * spread.float()
    output = 4 / (width * steepness)  # the mean of max(0, cos) over a sphere is 1/4
    noise = torch.randn(FEATURES, width, generator=generator) * OUTPUT_NOISE
    middle = [torch.eye(width) for _ in widths[2:-1]]
    layers = [first, *middle, output + noise]
    bias = -_distance_at(radius, spread * steepness, output, len(middle), softplus)
    return torch.cat([layer.reshape(-1) for layer in layers]), bias


def _distance_at(radius: float, first: Tensor, output: float, middle: int, soft: bool) -> float:
    """Mean of the raw first output over a sphere about the middle."""
    value = radius * _spread_directions(512) @ first.T
    for _ in range(1 + middle):
        value = nn.functional.softplus(value, beta=SOFTPLUS) if soft else torch.relu(value)
    return float(value.sum(1).mean() * output)


def _spread_directions(count: int) -> Tensor:
    """(count, 3) unit vectors on a spiral, float64 (Fibonacci lattice)."""
    place = torch.arange(count, dtype=torch.float64)
    height = 1 - (2 * place + 1) / count
    angle = place * math.pi * (3 - math.sqrt(5))
    ring = (1 - height**2).sqrt()
    return torch.stack([ring * angle.cos(), ring * angle.sin(), height], 1)


def _turned(directions: Tensor, generator: torch.Generator) -> Tensor:
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    return directions @ (q * torch.sign(torch.diagonal(r)))


class NeuralSurface(nn.Module):
    """A surface field of one encoding and two small networks; a sphere to begin with.

    Args:
        bounds: (2, 3) corners of the region of interest, a cube, in scene units.
        layout: levels of the encoding, in three dimensions.
        hidden_width: units of every hidden layer, 32 or 64.
        surface_layers, color_layers: hidden layers of the networks, 1 to 3.
        activation: relu or softplus, of the distance network.
        radius: of the first sphere, in grid units (the cube has side 1).
        seed: of the initial weights.

    Raises:
        ConfigError, InputError: an impossible shape.

    Example:
        >>> field = NeuralSurface(torch.tensor([[-1.0] * 3, [1.0] * 3]), GridLayout(levels=4))
        >>> bool(field.sdf(torch.tensor([[0.5, 0.5, 0.9]])) > 0.2)
        True
    """

    bounds: Tensor

    def __init__(
        self,
        bounds: Tensor,
        layout: GridLayout,
        *,
        hidden_width: int = 64,
        surface_layers: int = 1,
        color_layers: int = 2,
        activation: str = "relu",
        radius: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        corners, _ = field_extent(bounds, layout, 1)
        if hidden_width not in (32, 64):
            raise ConfigError(f"hidden_width = {hidden_width}: must be 32 or 64")
        if not (1 <= surface_layers <= 3 and 1 <= color_layers <= 3):
            raise ConfigError("surface_layers and color_layers: must be 1 to 3")
        if not 0 < radius < 0.5:
            raise ConfigError(f"radius = {radius}: must lie between 0 and 0.5 of the cube's side")
        self.register_buffer("bounds", corners)
        self.layout, self.activation = layout, activation
        self.active_levels: float = layout.levels
        """Levels of the grid that are on."""
        self.hidden_width, self.surface_layers = hidden_width, surface_layers
        hidden = (hidden_width,)
        widths = (3 + layout.output_width, *hidden * surface_layers, FEATURES)
        inputs = FEATURES + HARMONICS_DEGREE**2 + 3 + 3
        self.color_widths = (inputs, *hidden * color_layers, 3)
        generator = torch.Generator().manual_seed(seed)
        table = torch.rand(layout.entries, layout.features, generator=generator)
        self.table = nn.Parameter((table * 2 - 1) * TABLE_INIT)
        weights, self.bias = sphere_weights(
            widths, radius=radius, softplus=activation == "softplus", generator=generator
        )
        self.surface_weights = nn.Parameter(weights)
        self.color_weights = nn.Parameter(initial_weights(self.color_widths, generator))
        self.log_sharpness = nn.Parameter(torch.full((1,), FIRST_SHARPNESS))

    @property
    def sharpness(self) -> Tensor:
        """() s, in 1 / grid unit; differentiable."""
        return torch.exp(SHARPNESS_RATE * self.log_sharpness.clamp(max=MOST_SHARPNESS))[0]

    def networks(self) -> SurfaceNetworks:
        """What the operations of `cuda.surface` take."""
        return SurfaceNetworks(
            layout=self.layout,
            table=self.table,
            weights=self.surface_weights,
            hidden_width=self.hidden_width,
            hidden_layers=self.surface_layers,
            activation=self.activation,
            active_levels=self.active_levels,
            bias=self.bias,
        )

    def sdf(self, positions: Tensor) -> Tensor:
        """(M, 3) in grid space -> (M,) signed distance in grid units, without gradients."""
        return surface_distance(self.networks(), positions)

    def sdf_and_gradient(self, positions: Tensor) -> SurfaceSamples:
        """(M, 3) in grid space -> distance (M,), feature (M, 16) and gradient (M, 3)."""
        return surface_query(self.networks(), positions)

    def color(self, samples: SurfaceSamples, positions: Tensor, directions: Tensor) -> Tensor:
        """sRGB (M, 3) in [0, 1] of places as `sdf_and_gradient` knows them, seen along unit
        `directions` (M, 3)."""
        harmonics = harmonics_encode(directions, HARMONICS_DEGREE)
        parts = [samples.feature, harmonics, positions, samples.gradient]
        widths = self.color_widths
        found = mlp(torch.cat(parts, 1), self.color_weights, widths, output_activation="sigmoid")
        return found

    def query(self, positions: Tensor, directions: Tensor) -> tuple[SurfaceSamples, Tensor]:
        """(M, 3) in grid space and (M, 3) unit -> geometry and color (M, 3)."""
        samples = self.sdf_and_gradient(positions)
        return samples, self.color(samples, positions, directions)

    def curvature(self, positions: Tensor, directions: Tensor, gradient: Tensor) -> Tensor:
        """(M,) second derivative of the distance along unit `directions` (M, 3), over one cell of
        the finest level that is on.

        Args:
            gradient: (M, 3) of the distance at the positions.
        """
        finest = max(math.ceil(self.active_levels), 1) - 1
        step = 1 / self.layout.scales[finest]
        return surface_curvature(
            self.networks(), positions, directions, step=step, gradient=gradient
        )

    def trained_parameters(self) -> list[TrainedParameter]:
        """Table, distance network, color network, sharpness."""
        return [
            TrainedParameter(self.table, is_network=False),
            TrainedParameter(self.surface_weights, is_network=True),
            TrainedParameter(self.color_weights, is_network=True),
            TrainedParameter(self.log_sharpness, is_network=False),
        ]
