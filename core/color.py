"""Colour: the sRGB curve, PSNR and colour maps for scalar images.

Images are sRGB in [0, 1] unless their name says `linear`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lumigraph.core.errors import InputError

_SPECTRUM = (
    (0.16, 0.06, 0.24),
    (0.27, 0.25, 0.69),
    (0.26, 0.51, 0.95),
    (0.14, 0.75, 0.86),
    (0.17, 0.92, 0.61),
    (0.50, 0.99, 0.33),
    (0.80, 0.93, 0.21),
    (0.97, 0.74, 0.20),
    (0.97, 0.48, 0.12),
    (0.83, 0.23, 0.03),
    (0.50, 0.03, 0.01),
)
"""Colours at equal steps: dark violet, blue, cyan, green, yellow, orange, dark red."""

_HEAT = (
    (0.00, 0.00, 0.02),
    (0.20, 0.05, 0.36),
    (0.47, 0.11, 0.43),
    (0.74, 0.22, 0.33),
    (0.93, 0.41, 0.15),
    (0.98, 0.68, 0.10),
    (0.98, 0.98, 0.68),
)
"""Colours at equal steps of rising lightness: black, violet, red, orange, pale yellow."""

_EMBER = (
    (0.87, 0.90, 0.93),
    (0.97, 0.90, 0.62),
    (0.99, 0.70, 0.29),
    (0.92, 0.38, 0.16),
    (0.71, 0.10, 0.20),
    (0.33, 0.03, 0.24),
)
"""Colours at equal steps of falling lightness: pale grey, yellow, orange, red, dark purple."""

_GRAY = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

COLORMAPS = {"spectrum": _SPECTRUM, "heat": _HEAT, "gray": _GRAY, "ember": _EMBER}
"""Colour maps by name: sRGB colours at equal steps from 0 to 1."""


def srgb_to_linear(color: Tensor) -> Tensor:
    """Linear light of sRGB values (any shape); values above 1 and below 0 go on smoothly.

    >>> srgb_to_linear(torch.tensor([0.0, 1.0])).tolist()
    [0.0, 1.0]
    """
    bright = ((color.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(color <= 0.04045, color / 12.92, bright)


def linear_to_srgb(linear: Tensor) -> Tensor:
    """sRGB values of linear light (any shape), the inverse of :func:`srgb_to_linear`.

    >>> round(float(linear_to_srgb(torch.tensor(0.2140))), 3)
    0.5
    """
    bright = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, linear * 12.92, bright)


def psnr(mse: Tensor | float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error of values in [0, 1].

    >>> psnr(0.001)
    30.0
    """
    error = float(mse)
    if error == 0:
        return math.inf
    return -10 * math.log10(error) if error > 0 else math.nan


def colorize(values: Tensor, *, colormap: str = "spectrum") -> Tensor:
    """Colours (..., 3) of values (...) in [0, 1]; values outside and NaN take the end colours.

    >>> colorize(torch.tensor([0.0, 0.5, 2.0]), colormap="gray")[:, 0].tolist()
    [0.0, 0.5, 1.0]
    """
    if colormap not in COLORMAPS:
        raise InputError(f"colormap must be one of {', '.join(COLORMAPS)}; got {colormap!r}")
    table = torch.tensor(COLORMAPS[colormap], dtype=values.dtype, device=values.device)
    place = torch.nan_to_num(values, nan=0.0).clamp(0, 1) * (table.shape[0] - 1)
    lower = place.floor().clamp_max(table.shape[0] - 2)
    index = lower.long()
    return torch.lerp(table[index], table[index + 1], (place - lower)[..., None])
