"""Gaussians in few bytes, as the page unpacks them (`gaussians.js`).

Each byte of a Gaussian has a plane of its own, one byte for each of G Gaussians in the order of a
Morton curve, so that neighbours are alike; all planes together are one zlib stream:

position   3 x 24 bits, little endian, fixed point as in SPZ; the difference to the Gaussian before
scales     3 x 8 bits of the logarithm, from `scale_low` in steps of `scale_step`
rotation   32 bits, smallest three, as in SPZ version 3
opacity    8 bits
color      3 x 8 bits of 0.5 + Y_0 c, from `color_low` in steps of `color_step`
harmonics  (K - 1) x 3 x 8 bits of the coefficients beyond degree 0, as in SPZ
"""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass

import numpy as np

from lumigraph.core import GaussianCloud
from lumigraph.core.errors import DataError
from lumigraph.core.harmonics import Y_0
from lumigraph.export.splat_files import spz_packing
from lumigraph.export.splat_files.arrays import (
    Bytes,
    Floats,
    SplatArrays,
    repaired,
    sigmoid,
    to_bytes,
)

SMALLEST_ALPHA = 1 / 255
"""Less is never drawn, see cuda/common/splat.h."""
_LOG_SCALES = 16.0  # nothing thinner than e^-16 of the largest counts
_COLORS = (-1.0, 3.0)
_MORTON_BITS = 10


@dataclass(frozen=True)
class Layout:
    """What the page needs to unpack the bytes."""

    count: int
    degree: int
    fractional_bits: int
    scale_low: float
    scale_step: float
    color_low: float
    color_step: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class PackedGaussians:
    """Gaussians as bytes."""

    data: bytes
    layout: Layout
    left_out: tuple[str, ...]
    """What is not in the bytes, in words."""


def pack_gaussians(cloud: GaussianCloud, *, degree: int, most: int) -> PackedGaussians:
    """Quantise, order and compress.

    Args:
        cloud: with positions near 0.
        degree: highest harmonics kept, if there are so many.
        most: keep so many Gaussians, those with the largest product of opacity and area.

    Raises:
        DataError: no Gaussian would be seen, or they lie too far from each other.
    """
    arrays, left_out = _chosen(SplatArrays.of(cloud), most)
    if arrays.degree > degree:
        first, last = degree + 1, arrays.degree
        left_out.append(f"harmonics of degree {first}" + (f" to {last}" if last > first else ""))
        arrays = arrays._replace(harmonics=arrays.harmonics[:, : (degree + 1) ** 2])
    bits = spz_packing.fractional_bits(arrays.means)
    near = spz_packing.fitting(arrays.means, bits)
    if not near.any():
        raise DataError("Gaussians lie too far from each other for 24 bits; no page was written")
    if not near.all():
        left_out.append(f"{int((~near).sum()):,} Gaussians too far off for 24 bits")
        arrays = arrays.rows(near)
    arrays = SplatArrays(*(array[_morton_order(arrays.means)] for array in arrays))
    scales, scale_low, scale_step = _bytes_of(arrays.log_scales, *_scale_range(arrays.log_scales))
    base = arrays.harmonics[:, 0] * Y_0 + 0.5
    colors, color_low, color_step = _bytes_of(base, *_color_range(base))
    columns = [
        _differences(spz_packing.pack_positions(arrays.means, bits)),
        scales,
        spz_packing.pack_rotations(arrays.rotations, version=3),
        to_bytes(sigmoid(arrays.opacity_logits) * 255.0)[:, None],
        colors,
        spz_packing.pack_harmonics(arrays.harmonics[:, 1:], (8, 8)).reshape(arrays.gaussians, -1),
    ]
    planes = np.ascontiguousarray(np.concatenate(columns, axis=1).T)
    layout = Layout(
        arrays.gaussians, arrays.degree, bits, scale_low, scale_step, color_low, color_step
    )
    return PackedGaussians(zlib.compress(planes.tobytes(), 6), layout, tuple(left_out))


def _chosen(given: SplatArrays, most: int) -> tuple[SplatArrays, list[str]]:
    """The Gaussians that can be seen, at most so many, and what is missing."""
    arrays, good, _ = repaired(given)
    opacity = sigmoid(arrays.opacity_logits)
    seen = good & (opacity > SMALLEST_ALPHA)
    if not seen.any():
        raise DataError(f"none of {len(good):,} Gaussians would be seen; no page was written")
    left_out = []
    if not good.all():
        left_out.append(f"{int((~good).sum()):,} Gaussians that are not finite")
    if seen.sum() < good.sum():
        left_out.append(f"{int(good.sum() - seen.sum()):,} too transparent to be seen")
    if seen.sum() > most:
        area = arrays.log_scales.sum(axis=1) - arrays.log_scales.min(axis=1)
        weight = np.where(seen, np.log(np.maximum(opacity, 1e-12)) + area, -np.inf)
        left_out.append(f"{int(seen.sum()) - most:,} that matter least (--max-gaussians {most})")
        kept = np.zeros(len(seen), dtype=bool)
        kept[np.argpartition(-weight, most - 1)[:most]] = True
        seen = kept
    return arrays.rows(seen), left_out


def _morton_order(means: Floats) -> np.ndarray:
    """(G,) indices along a curve that fills space; the box is that of all but a few far off."""
    low, high = np.quantile(means.astype(np.float64), [0.005, 0.995], axis=0)
    steps = 2**_MORTON_BITS - 1
    cells = np.clip((means - low) / np.maximum(high - low, 1e-12) * steps, 0, steps)
    words = cells.astype(np.int64)
    code = np.zeros(len(means), dtype=np.int64)
    for bit in range(_MORTON_BITS):
        for axis in range(3):
            code |= (words[:, axis] >> bit & 1) << (3 * bit + axis)
    return np.argsort(code, kind="stable")


def _differences(positions: Bytes) -> Bytes:
    """Each position (9 bytes) less the one before it, modulo 2^24 an axis."""
    wide = np.zeros((len(positions), 3, 4), dtype=np.uint8)
    wide[:, :, :3] = positions.reshape(-1, 3, 3)
    numbers = wide.view("<u4")[:, :, 0]
    steps = np.diff(numbers, axis=0, prepend=np.zeros((1, 3), dtype=np.uint32))
    packed = np.ascontiguousarray(steps.astype("<u4")).view(np.uint8).reshape(-1, 3, 4)
    return packed[:, :, :3].reshape(-1, 9)


def _scale_range(log_scales: Floats) -> tuple[float, float]:
    high = float(log_scales.max())
    return max(float(log_scales.min()), high - _LOG_SCALES), high


def _color_range(base: Floats) -> tuple[float, float]:
    low, high = np.clip([base.min(), base.max()], *_COLORS)
    return min(float(low), 0.0), max(float(high), 1.0)


def _bytes_of(values: Floats, low: float, high: float) -> tuple[Bytes, float, float]:
    """Values cut to a range in 255 steps, its low end and the step."""
    step = max(high - low, 1e-6) / 255.0
    return to_bytes((values - low) / step), low, step
