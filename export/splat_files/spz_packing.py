"""How SPZ packs the numbers of a Gaussian into bytes; versions 1 to 4.

positions   3 x 24 bits of fixed point, 2^-f with f in the header; version 1: 3 x float16
alphas      opacity in 8 bits                     colors   0.15 c + 0.5 in 8 bits, c of degree 0
scales      16 (log s + 10) in 8 bits             harmonics   128 c + 128 in 8 bits
rotations   from version 3 the index (x y z w) of the largest part in the upper 2 bits and the other
            three in order, each a sign and 9 bits of magnitude within sqrt(1/2); before it x y z as
            127.5 q + 127.5 in 8 bits with w >= 0 left out

Harmonics are rounded to fewer bits than are stored, which lets the file be compressed further.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lumigraph.export.splat_files.arrays import Bytes, Floats, Mask, to_bytes, unit

LARGEST_FIXED = 2**23 - 1
MOST_FRACTIONAL_BITS = 23
COLOR_SCALE = 0.15
LEAST_LOG_SCALE = -10.0
_ROOT_HALF = np.sqrt(0.5)
_FINE_STEPS = 2.0**18
"""Steps of position over the extent of a model: 4e-6 of it, finer than a pixel of any picture."""
_COARSE_STEPS = 1e4
"""Fewer steps over the extent are not accepted for the sake of a few positions far off."""
_FAR_SHARE = 1e-3
"""At most this share of the Gaussians counts as far off."""


def fractional_bits(means: Floats) -> int:
    """Bits after the point, so that all positions fit and the extent has fine steps.

    Where a few positions far off would make the steps coarse, those do not fit; see `fitting`.
    """
    reach = np.abs(means.astype(np.float64)).max(axis=1)
    low, high = np.quantile(means.astype(np.float64), [0.01, 0.99], axis=0)
    extent = max(float(np.linalg.norm(high - low)), 1e-6 * float(reach.max()), 1e-12)
    fine = int(np.ceil(np.log2(_FINE_STEPS / extent)))
    coarse = int(np.ceil(np.log2(_COARSE_STEPS / extent)))
    near = _bits_for(float(np.quantile(reach, 1 - _FAR_SHARE)))
    bits = min(fine, max(_bits_for(float(reach.max())), min(coarse, near)))
    return min(max(bits, 0), MOST_FRACTIONAL_BITS)


def _bits_for(reach: float) -> int:
    """Most bits after the point with which a coordinate of this size fits."""
    return int(np.floor(np.log2(LARGEST_FIXED / max(reach, 1e-12))))


def fitting(means: Floats, bits: int) -> Mask:
    """(G,) whether a position fits into 24 bits."""
    scaled = np.abs(means.astype(np.float64)).max(axis=1) * 2.0**bits
    return np.rint(scaled) <= LARGEST_FIXED


def pack_positions(means: Floats, bits: int) -> Bytes:
    """(G, 9) bytes, little endian."""
    fixed = np.rint(means.astype(np.float64) * 2.0**bits).astype("<i4")
    return fixed.view(np.uint8).reshape(len(means), 3, 4)[:, :, :3].reshape(len(means), 9)


def unpack_positions(stored: Bytes, bits: int) -> Floats:
    """(G, 3) from 9 bytes a Gaussian, or from 6 bytes of float16 (version 1)."""
    count = len(stored)
    if stored.shape[1] == 6:
        return np.ascontiguousarray(stored).view("<f2").astype(np.float32).reshape(count, 3)
    wide = np.zeros((count, 3, 4), dtype=np.uint8)
    wide[:, :, 1:] = stored.reshape(count, 3, 3)  # in the upper bytes, so that the shift has a sign
    fixed = wide.view("<i4").reshape(count, 3) >> 8
    return (fixed * 2.0**-bits).astype(np.float32)


def pack_scales(log_scales: Floats) -> Bytes:
    """(G, 3) bytes; scales below e^-10 or above e^5.94 are cut."""
    return to_bytes((log_scales - LEAST_LOG_SCALE) * 16.0)


def unpack_scales(stored: Bytes) -> Floats:
    return stored.astype(np.float32) / 16.0 + LEAST_LOG_SCALE


def pack_colors(base: Floats) -> Bytes:
    """(G, 3) bytes of the coefficients of degree 0, which are cut at about +-3.3."""
    return to_bytes((base * COLOR_SCALE + 0.5) * 255.0)


def unpack_colors(stored: Bytes) -> Floats:
    return ((stored.astype(np.float32) / 255.0 - 0.5) / COLOR_SCALE).astype(np.float32)


def pack_harmonics(rest: Floats, bits: tuple[int, int]) -> Bytes:
    """(G, K - 1, 3) bytes; cut at -1 and 127/128.

    Args:
        rest: coefficients beyond degree 0.
        bits: kept of degree 1 and of the higher ones.
    """
    steps = np.where(np.arange(rest.shape[1]) < 3, 2.0 ** (8 - bits[0]), 2.0 ** (8 - bits[1]))
    steps = steps[None, :, None]
    # 0 is stored as 128, a multiple of every step: rounding keeps it.
    return to_bytes(np.minimum(np.rint((rest * 128.0 + 128.0) / steps) * steps, 256.0 - steps))


def unpack_harmonics(stored: Bytes) -> Floats:
    return (stored.astype(np.float32) - 128.0) / 128.0


def pack_rotations(rotations: Floats, version: int) -> Bytes:
    """(G, 4) bytes, or (G, 3) before version 3, of quaternions w x y z."""
    turned = np.roll(unit(rotations), -1, axis=1)  # x y z w
    if version < 3:
        turned = np.where(turned[:, 3:] < 0, -turned, turned)
        return to_bytes(turned[:, :3] * 127.5 + 127.5)
    largest = np.abs(turned).argmax(axis=1)
    rows = np.arange(len(turned))
    turned = np.where(turned[rows, largest][:, None] < 0, -turned, turned)
    words = largest.astype(np.uint32)
    for others in _others(largest).T:
        part = turned[rows, others]
        magnitude = np.minimum(np.rint(np.abs(part) / _ROOT_HALF * 511.0), 511.0)
        words = words << 10 | (part < 0).astype(np.uint32) << 9 | magnitude.astype(np.uint32)
    return words.astype("<u4").view(np.uint8).reshape(len(turned), 4)


def unpack_rotations(stored: Bytes) -> Floats:
    """(G, 4) quaternions w x y z from 3 or 4 bytes a Gaussian."""
    if stored.shape[1] == 3:
        three = stored.astype(np.float32) / 127.5 - 1.0
        rest = 1.0 - np.square(three).sum(axis=1, keepdims=True)
        return np.concatenate([np.sqrt(np.maximum(rest, 0.0)), three], axis=1)
    words = np.ascontiguousarray(stored).view("<u4")[:, 0]
    largest = (words >> 30).astype(np.int64)
    rows = np.arange(len(words))
    turned = np.zeros((len(words), 4))
    for shift, others in zip((20, 10, 0), _others(largest).T, strict=True):
        part = words >> shift
        magnitude = (part & 511) / 511.0 * _ROOT_HALF
        turned[rows, others] = np.where(part & 512, -magnitude, magnitude)
    turned[rows, largest] = np.sqrt(np.maximum(0.0, 1.0 - np.square(turned).sum(axis=1)))
    return np.roll(turned, 1, axis=1).astype(np.float32)


def _others(largest: NDArray[np.int64]) -> NDArray[np.int64]:
    """(G, 3) the indices 0 to 3 without the given one, rising."""
    table = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
    return table[largest]
