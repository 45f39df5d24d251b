"""Gaussians in few bytes, as the page unpacks them (`gaussians.js`): the planes of
`splat_files/planes.py` as one zlib stream."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from lumigraph.core import GaussianCloud
from lumigraph.core.errors import DataError
from lumigraph.export.splat_files import spz_packing
from lumigraph.export.splat_files.arrays import (
    SplatArrays,
    repaired,
    sigmoid,
)
from lumigraph.export.splat_files.planes import SpaceLayout, morton_order, pack_space

SMALLEST_ALPHA = 1 / 255
"""Less is never drawn, see cuda/common/splat.h."""


@dataclass(frozen=True)
class PackedGaussians:
    """Gaussians as bytes."""

    data: bytes
    layout: SpaceLayout
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
    order = morton_order(arrays.means)
    planes, layout = pack_space(SplatArrays(*(array[order] for array in arrays)), bits)
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
