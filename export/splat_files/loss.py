"""What a file lost, measured: the Gaussians given against those read back, row by row."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lumigraph.core import spherical_harmonics
from lumigraph.export.splat_files.arrays import SplatArrays, sigmoid, unit

_ROWS = 1 << 16  # compared at a time, which bounds the memory
_CORNERS = [[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
_NOTHING = 1e-6  # what rounding in float32 makes of nothing
_FACES = [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]


@dataclass(frozen=True)
class Loss:
    """Differences that writing made. All 0 for a file that keeps every number."""

    position: float
    """Root mean square distance of the centres, as a share of the extent of the cloud: the
    diagonal of the box between the 1st and the 99th percentile of the positions."""
    scale: float
    """Root mean square difference of the standard deviations, as a share of the largest of the
    three of a Gaussian."""
    rotation: float
    """Root mean square angle, degrees."""
    opacity: float
    """Largest difference of opacities."""
    color: float
    """Largest difference of a color, cut to [0, 1], over 14 directions to look from."""
    color_rms: float
    """Root mean square of the same."""

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    def line(self) -> str:
        """For people, e.g. "position 1.2e-06 of the extent, scale 1.8 %, ..."."""
        parts = [
            (self.position, f"position {self.position:.1e} of the extent"),
            (self.scale, f"scale {100 * self.scale:.2g} %"),
            (self.rotation, f"rotation {self.rotation:.2g} degrees (rms)"),
            (self.opacity, f"opacity {self.opacity:.2g}"),
            (self.color, f"color {self.color:.2g} (max; {self.color_rms:.1g} rms)"),
        ]
        return ", ".join(text for value, text in parts if value > _NOTHING) or "nothing"


def measure(before: SplatArrays, after: SplatArrays) -> Loss:
    """Compare two clouds of the same Gaussians in the same order; degrees may differ."""
    count = before.gaussians
    low, high = np.quantile(before.means, [0.01, 0.99], axis=0).astype(np.float64)
    extent = float(np.linalg.norm(high - low)) or float(np.abs(before.means).max()) or 1.0
    squares = np.zeros(4)
    largest = np.zeros(2)
    colors = 0
    for start in range(0, count, _ROWS):
        rows = slice(start, start + _ROWS)
        old, new = before.rows(rows), after.rows(rows)
        distance = old.means.astype(np.float64) - new.means
        ratio = _scale_differences(old.log_scales, new.log_scales)
        color = _colors(old) - _colors(new)
        parts = (distance, ratio, _angles(old.rotations, new.rotations), color)
        squares += [float(np.square(part).sum()) for part in parts]
        opacity = np.abs(sigmoid(old.opacity_logits) - sigmoid(new.opacity_logits))
        largest = np.maximum(largest, [float(opacity.max()), float(np.abs(color).max())])
        colors += color.size
    position, scale, rotation, color_rms = np.sqrt(squares / [count, 3 * count, count, colors])
    return Loss(
        float(position) / extent,
        float(scale),
        float(np.degrees(rotation)),
        float(largest[0]),
        float(largest[1]),
        float(color_rms),
    )


def _scale_differences(before: np.ndarray, after: np.ndarray) -> NDArray[np.float64]:
    """(G, 3) differences of the scales over the largest before."""
    largest = before.max(axis=1, keepdims=True).astype(np.float64)
    return np.exp(after - largest) - np.exp(before - largest)


def _angles(first: np.ndarray, second: np.ndarray) -> NDArray[np.float64]:
    """Angles (G,) between rotations, radians."""
    one, other = unit(first), unit(second)
    other = np.where((one * other).sum(axis=1, keepdims=True) < 0, -other, other)
    # By the chord, which unlike the cosine keeps small angles.
    chord = np.linalg.norm(one - other, axis=1)
    return 4.0 * np.arcsin(np.minimum(chord / 2.0, 1.0))


def _colors(arrays: SplatArrays) -> NDArray[np.float32]:
    """Colors (G, directions, 3) as shown."""
    directions = torch.tensor(_FACES + _CORNERS, dtype=torch.float32)
    directions = torch.nn.functional.normalize(directions, dim=-1)
    basis = spherical_harmonics(directions, arrays.degree + 1).numpy()
    colors = np.einsum("dk,gkc->gdc", basis, arrays.harmonics, optimize=True) + np.float32(0.5)
    return np.clip(colors, 0.0, 1.0)
