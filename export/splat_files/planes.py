"""Gaussians in space as planes of bytes, which compress well: a plane for each byte of a Gaussian.

position   3 x 24 bits, little endian, fixed point as in SPZ; the difference to the Gaussian before
scales     3 x 8 bits of the logarithm, from `scale_low` in steps of `scale_step`
rotation   32 bits, smallest three, as in SPZ version 3
opacity    8 bits
color      3 x 8 bits of 0.5 + Y_0 c, from `color_low` in steps of `color_step`
harmonics  (K - 1) x 3 x 8 bits of the coefficients beyond degree 0, as in SPZ

In the order of a Morton curve neighbours are alike, and differences of positions small.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumigraph.core.harmonics import Y_0
from lumigraph.export.splat_files import spz_packing
from lumigraph.export.splat_files.arrays import (
    Bytes,
    Floats,
    SplatArrays,
    logits_of_bytes,
    sigmoid,
    to_bytes,
)

FIXED_PLANES = 20
"""Planes before the harmonics."""
_LOG_SCALES = 16.0  # nothing thinner than e^-16 of the largest counts
_COLORS = (-1.0, 3.0)
_MORTON_BITS = 10


@dataclass(frozen=True)
class SpaceLayout:
    """What is needed to unpack the planes."""

    count: int
    degree: int
    fractional_bits: int
    scale_low: float
    scale_step: float
    color_low: float
    color_step: float

    @property
    def planes(self) -> int:
        """How many there are."""
        return FIXED_PLANES + 3 * ((self.degree + 1) ** 2 - 1)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def pack_space(
    arrays: SplatArrays, bits: int, *, harmonics_bits: tuple[int, int] = (8, 8)
) -> tuple[Bytes, SpaceLayout]:
    """Planes (P, G) in the order given.

    Args:
        arrays: finite, with positions that fit; see `spz_packing.fitting`.
        bits: of positions after the point, see `spz_packing.fractional_bits`.
        harmonics_bits: kept of degree 1 and of the higher ones.
    """
    scales, scale_low, scale_step = steps_of(arrays.log_scales, *_scale_range(arrays.log_scales))
    base = arrays.harmonics[:, 0] * Y_0 + 0.5
    colors, color_low, color_step = steps_of(base, *_color_range(base))
    rest = spz_packing.pack_harmonics(arrays.harmonics[:, 1:], harmonics_bits)
    columns = [
        _differences(spz_packing.pack_positions(arrays.means, bits)),
        scales,
        spz_packing.pack_rotations(arrays.rotations, version=3),
        to_bytes(sigmoid(arrays.opacity_logits) * 255.0)[:, None],
        colors,
        rest.reshape(arrays.gaussians, -1),
    ]
    layout = SpaceLayout(
        arrays.gaussians, arrays.degree, bits, scale_low, scale_step, color_low, color_step
    )
    return np.ascontiguousarray(np.concatenate(columns, axis=1).T), layout


def unpack_space(planes: Bytes, layout: SpaceLayout) -> SplatArrays:
    """Gaussians of planes (P, G)."""
    rows = planes.T
    scales = rows[:, 9:12].astype(np.float32) * layout.scale_step + layout.scale_low
    colors = rows[:, 17:20].astype(np.float32) * layout.color_step + layout.color_low
    harmonics = np.zeros((layout.count, (layout.degree + 1) ** 2, 3), dtype=np.float32)
    harmonics[:, 0] = (colors - 0.5) / Y_0
    rest = np.ascontiguousarray(rows[:, FIXED_PLANES:])
    harmonics[:, 1:] = spz_packing.unpack_harmonics(rest).reshape(layout.count, -1, 3)
    return SplatArrays(
        spz_packing.unpack_positions(_sums(rows[:, :9]), layout.fractional_bits),
        spz_packing.unpack_rotations(np.ascontiguousarray(rows[:, 12:16])),
        scales.astype(np.float32),
        logits_of_bytes(np.ascontiguousarray(rows[:, 16])),
        harmonics,
    )


def morton_order(means: Floats) -> NDArray[np.int64]:
    """(G,) indices along a curve that fills space; the box is that of all but a few far off."""
    if not len(means):
        return np.zeros(0, dtype=np.int64)
    low, high = np.quantile(means.astype(np.float64), [0.005, 0.995], axis=0)
    steps = 2**_MORTON_BITS - 1
    cells = np.clip((means - low) / np.maximum(high - low, 1e-12) * steps, 0, steps)
    words = cells.astype(np.int64)
    code = np.zeros(len(means), dtype=np.int64)
    for bit in range(_MORTON_BITS):
        for axis in range(3):
            code |= (words[:, axis] >> bit & 1) << (3 * bit + axis)
    return np.argsort(code, kind="stable")


def steps_of(
    values: Floats, low: float, high: float, *, steps: int = 255
) -> tuple[NDArray[Any], float, float]:
    """Values cut to a range in so many steps (255 or 65535), its low end and the step."""
    step = max(high - low, 1e-6) / steps
    kind = np.uint8 if steps == 255 else np.dtype("<u2")
    return np.clip(np.rint((values - low) / step), 0, steps).astype(kind), low, step


def _differences(positions: Bytes) -> Bytes:
    """Each position (9 bytes) less the one before it, modulo 2^24 an axis."""
    steps = np.diff(_numbers(positions), axis=0, prepend=np.zeros((1, 3), dtype=np.uint32))
    return _three_bytes(steps)


def _sums(differences: Bytes) -> Bytes:
    """The inverse of `_differences`."""
    return _three_bytes(np.cumsum(_numbers(differences), axis=0, dtype=np.uint32))


def _numbers(stored: Bytes) -> NDArray[np.uint32]:
    wide = np.zeros((len(stored), 3, 4), dtype=np.uint8)
    wide[:, :, :3] = stored.reshape(-1, 3, 3)
    return wide.view("<u4")[:, :, 0].astype(np.uint32)


def _three_bytes(numbers: NDArray[np.uint32]) -> Bytes:
    packed = np.ascontiguousarray(numbers.astype("<u4")).view(np.uint8).reshape(-1, 3, 4)
    return np.ascontiguousarray(packed[:, :, :3]).reshape(-1, 9)


def _scale_range(log_scales: Floats) -> tuple[float, float]:
    high = float(log_scales.max())
    return max(float(log_scales.min()), high - _LOG_SCALES), high


def _color_range(base: Floats) -> tuple[float, float]:
    low, high = np.clip([base.min(), base.max()], *_COLORS)
    return min(float(low), 0.0), max(float(high), 1.0)
