"""The arithmetic of a processor: what it would output, bit for bit in its number formats.

Features of the tables are 8- or 16-bit integers with one scale a level, or fp16, or float32; corner
weights are fixed point with as many bits; networks multiply in 8-bit integers with a scale for each
layer and accumulate in int32, or in fp16 with float32 sums, or in float32. With float32 throughout
the result is that of the field itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumigraph.core.errors import ConfigError

from .cycle.addresses import corner_indices
from .workloads import Encoding

Values = NDArray[np.float32]
FORMATS = (8, 16, 32)


@dataclass(frozen=True)
class NumberFormats:
    """Bits of the features and of the networks: 8 (integers with scales), 16 (fp16) or 32."""

    feature_bits: int = 32
    data_bits: int = 32

    def __post_init__(self) -> None:
        for name, bits in (("feature_bits", self.feature_bits), ("data_bits", self.data_bits)):
            if bits not in FORMATS:
                raise ConfigError(f"{name} = {bits}; use one of 8, 16, 32")


def quantized(values: Values, bits: int) -> Values:
    """Values as a format holds them, with one scale for all.

    >>> quantized(np.float32([1.0, 0.5, 0.001]), 8).round(4).tolist()
    [1.0, 0.5039, 0.0]
    """
    if bits == 32:
        return values
    if bits == 16:
        return values.astype(np.float16).astype(np.float32)
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0:
        return values
    step = np.float32(largest / 127)
    return (np.clip(np.rint(values / step), -127, 127) * step).astype(np.float32)


def quantized_table(table: Values, encoding: Encoding, bits: int) -> Values:
    """A table (entries, F) with a scale for each level, as it would be loaded."""
    parts, begin = [], 0
    for size in encoding.sizes:
        parts.append(quantized(table[begin : begin + size], bits))
        begin += size
    return np.concatenate(parts)


def encode(positions: Values, table: Values, encoding: Encoding, formats: NumberFormats) -> Values:
    """Features (n, L F) of positions (n, D) in [0, 1].

    Args:
        table: (entries, F), already in its format.
    """
    columns, begin = [], 0
    for level, size in enumerate(encoding.sizes):
        cells, weights = _weights(positions, encoding, level)
        if formats.feature_bits != 32:  # fixed point with as many bits as the features
            steps = np.float32(2**formats.feature_bits)
            weights = (np.rint(weights * steps) / steps).astype(np.float32)
        index, _ = corner_indices(cells, encoding, level)
        columns.append((table[begin + index] * weights[..., None]).sum(1, dtype=np.float32))
        begin += size
    return np.concatenate(columns, 1).astype(np.float32)


def _weights(positions: Values, encoding: Encoding, level: int) -> tuple[NDArray[np.int64], Values]:
    """Cells (n, D) and corner weights (n, 2^D), the first axis fastest."""
    scale = np.float64(np.float32(encoding.scales[level]))
    inside = np.clip(positions.astype(np.float64), 0.0, 1.0)
    t = (inside * scale + 0.5).astype(np.float32)
    cells = np.minimum(np.floor(t).astype(np.int64), encoding.resolutions[level] - 2)
    fraction = (t - cells).astype(np.float32)
    weights = np.ones((len(positions), 1), np.float32)
    for axis in range(encoding.dimensions):
        upper = fraction[:, axis, None]
        weights = np.concatenate([weights * (1 - upper), weights * upper], 1)
    return cells, weights


def perceptron(inputs: Values, layers: Sequence[Values], bits: int) -> Values:
    """Outputs (n, out) of layers (out, in) with ReLU between them, without the last activation."""
    values = inputs
    for number, weights in enumerate(layers):
        if number:
            values = np.maximum(values, 0)
        values = quantized(values, bits) @ quantized(weights, bits).T
    return values.astype(np.float32)


def layers_of(weights: Values, widths: Sequence[int]) -> list[Values]:
    """Layers (out, in) of flattened weights, one after another."""
    layers, begin = [], 0
    for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
        layers.append(weights[begin : begin + inputs * outputs].reshape(outputs, inputs))
        begin += inputs * outputs
    return layers


def radiance(
    networks: Any,
    encoding: Encoding,
    positions: Values,
    harmonics: Values,
    formats: NumberFormats,
) -> tuple[Values, Values]:
    """Density (n,) for each grid unit and sRGB (n, 3) of a radiance field on a grid.

    Args:
        networks: `cuda.volume_step.GridNetworks` on the CPU.
        positions: (n, 3) in the unit cube of the encoding.
        harmonics: (n, 16) of the viewing directions, degree 4.
    """
    table, density, color = (
        parameter.detach().numpy().astype(np.float32) for parameter in networks.parameters
    )
    held = quantized_table(table, encoding, formats.feature_bits)
    features = encode(positions, held, encoding, formats)
    bits = formats.data_bits
    geometry = perceptron(features, layers_of(density, networks.density_widths), bits)
    inputs = np.concatenate([geometry, harmonics], 1)
    raw = perceptron(inputs, layers_of(color, networks.color_widths), bits)
    one = np.float32(1)
    return np.exp(np.minimum(geometry[:, 0], 15)), one / (one + np.exp(-raw))
