"""Gaussians in few bytes, as the page unpacks them (`gaussians.js`): the planes of
`splat_files/planes.py`, or of `splat_files/moving_packing.py`, as one zlib stream."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumigraph.core import GaussianCloud
from lumigraph.core.errors import DataError
from lumigraph.export.splat_files import spz_packing
from lumigraph.export.splat_files.arrays import (
    Mask,
    SplatArrays,
    repaired,
    sigmoid,
)
from lumigraph.export.splat_files.moving_arrays import MovingArrays, repaired_moving
from lumigraph.export.splat_files.moving_packing import (
    MovingLayout,
    in_order,
    pack_moving,
    reachable,
)
from lumigraph.export.splat_files.moving_splats import MovingSplats
from lumigraph.export.splat_files.planes import SpaceLayout, morton_order, pack_space

SMALLEST_ALPHA = 1 / 255
"""Less is never drawn, see cuda/common/splat.h."""


@dataclass(frozen=True)
class PackedGaussians:
    """Gaussians as bytes."""

    data: bytes
    layout: SpaceLayout | MovingLayout
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
    arrays, good, _ = repaired(SplatArrays.of(cloud))
    chosen, left_out = _chosen(good, sigmoid(arrays.opacity_logits), _areas(arrays), most)
    arrays = _lowered(arrays.rows(chosen), degree, left_out)
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


def pack_moving_gaussians(splats: MovingSplats, *, degree: int, most: int) -> PackedGaussians:
    """The same of Gaussians that move; what matters is weighed by how long it is there.

    Raises:
        DataError: as of `pack_gaussians`.
    """
    arrays, good, _ = repaired_moving(splats.arrays())
    weights = _areas(arrays.space)
    weights[: arrays.moving] += np.minimum(arrays.log_durations, 0.0)
    chosen, left_out = _chosen(good, _best_opacities(arrays), weights, most)
    arrays = arrays.rows(chosen)
    arrays = arrays._replace(space=_lowered(arrays.space, degree, left_out))
    near, bits = reachable(arrays)
    if not near.any():
        raise DataError("Gaussians lie too far from each other for 24 bits; no page was written")
    if not near.all():
        left_out.append(f"{int((~near).sum()):,} Gaussians too far off for 24 bits")
        arrays = arrays.rows(near)
    data, layout = pack_moving(in_order(arrays), bits)
    return PackedGaussians(zlib.compress(data, 6), layout, tuple(left_out))


def _best_opacities(arrays: MovingArrays) -> NDArray[np.float64]:
    """(G,) the largest that each has within [0, 1]: at its own time, or at the end next to it."""
    opacities = sigmoid(arrays.space.opacity_logits)
    away = np.clip(arrays.times, 0.0, 1.0) - arrays.times
    opacities[: arrays.moving] *= arrays.shares_after(away)
    return opacities


def _chosen(
    good: Mask, opacities: NDArray[np.float64], log_sizes: NDArray[np.float64], most: int
) -> tuple[Mask, list[str]]:
    """Which Gaussians can be seen, at most so many, and what is missing."""
    seen = good & (opacities > SMALLEST_ALPHA)
    if not seen.any():
        raise DataError(f"none of {len(good):,} Gaussians would be seen; no page was written")
    left_out = []
    if not good.all():
        left_out.append(f"{int((~good).sum()):,} Gaussians that are not finite")
    if seen.sum() < good.sum():
        left_out.append(f"{int(good.sum() - seen.sum()):,} too transparent to be seen")
    if seen.sum() > most:
        weight = np.where(seen, np.log(np.maximum(opacities, 1e-12)) + log_sizes, -np.inf)
        left_out.append(f"{int(seen.sum()) - most:,} that matter least (--max-gaussians {most})")
        seen = np.zeros(len(seen), dtype=bool)
        seen[np.argpartition(-weight, most - 1)[:most]] = True
    return seen, left_out


def _areas(arrays: SplatArrays) -> NDArray[np.float64]:
    """(G,) logarithms of the product of the two larger scales."""
    areas: NDArray[np.float64] = arrays.log_scales.sum(axis=1, dtype=np.float64)
    return areas - arrays.log_scales.min(axis=1)


def _lowered(arrays: SplatArrays, degree: int, left_out: list[str]) -> SplatArrays:
    """No more harmonics than asked for; what is missing is added to `left_out`."""
    if arrays.degree <= degree:
        return arrays
    first, last = degree + 1, arrays.degree
    left_out.append(f"harmonics of degree {first}" + (f" to {last}" if last > first else ""))
    return arrays._replace(harmonics=arrays.harmonics[:, : (degree + 1) ** 2])
