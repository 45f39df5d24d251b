"""Gaussians that move as bytes: the planes of `planes.py` for all of them, and for those that move

time       3 x 8 bits: the upper three bytes of the float32, little endian
velocity   3 x 24 bits: the same of x, y, z
duration   16 bits of the logarithm, from `duration_low` in steps of `duration_step`
plateau    16 bits of the logarithm, from `plateau_low` in steps of `plateau_step`, if there are any

The position is where a Gaussian is at its own time, held within [0, 1], so that what moves fast and
has its time far outside is not far off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lumigraph.export.splat_files import spz_packing
from lumigraph.export.splat_files.arrays import Bytes, Floats, Mask
from lumigraph.export.splat_files.moving_arrays import MovingArrays
from lumigraph.export.splat_files.planes import (
    SpaceLayout,
    morton_order,
    pack_space,
    steps_of,
    unpack_space,
)

_TIME_PLANES = 14
_PLATEAU_PLANES = 2
_FINE = 65535


@dataclass(frozen=True)
class MovingLayout:
    """What is needed to unpack the bytes."""

    space: SpaceLayout
    """Of all Gaussians, those that move first."""
    moving: int
    """How many move."""
    duration_low: float
    duration_step: float
    plateau_low: float | None
    """None: there are no plateaus."""
    plateau_step: float | None

    @property
    def count(self) -> int:
        """Of all Gaussians."""
        return self.space.count

    @property
    def degree(self) -> int:
        """Of their harmonics."""
        return self.space.degree

    @property
    def time_planes(self) -> int:
        return _TIME_PLANES + _PLATEAU_PLANES * (self.plateau_low is not None)

    @property
    def size(self) -> int:
        """Bytes of all planes."""
        return self.space.planes * self.space.count + self.time_planes * self.moving

    def to_dict(self) -> dict[str, Any]:
        """Flat, for JSON."""
        return {
            **self.space.to_dict(),
            "moving": self.moving,
            "duration_low": self.duration_low,
            "duration_step": self.duration_step,
            "plateau_low": self.plateau_low,
            "plateau_step": self.plateau_step,
        }


def reachable(arrays: MovingArrays) -> tuple[Mask, int]:
    """Which Gaussians have a position that fits, and its bits after the point."""
    means = _reference(arrays).space.means
    finite = np.asarray(np.isfinite(means).all(axis=1))
    if not finite.any():
        return finite, 0
    bits = spz_packing.fractional_bits(means[finite])
    near = spz_packing.fitting(np.where(finite[:, None], means, 0.0), bits)
    return finite & near, bits


def in_order(arrays: MovingArrays) -> MovingArrays:
    """Those that move and those that stand still each along a Morton curve."""
    means, count = _reference(arrays).space.means, arrays.moving
    order = [morton_order(means[:count]), count + morton_order(means[count:])]
    return arrays.ordered(np.concatenate(order))


def pack_moving(
    arrays: MovingArrays, bits: int, *, harmonics_bits: tuple[int, int] = (8, 8)
) -> tuple[bytes, MovingLayout]:
    """The planes one after the other, in the order given.

    Args:
        arrays: finite and `reachable`.
        bits: what `reachable` told.
        harmonics_bits: see `pack_space`.
    """
    times, velocities = _three_bytes(arrays.times), _three_bytes(arrays.velocities)
    # positions belong to what is read, not to what was given
    rounded = arrays._replace(times=_floats(times), velocities=_floats(velocities))
    own = arrays.space.means.astype(np.float64)
    own[: arrays.moving] += rounded.velocities * (rounded.times - arrays.times)[:, None]
    rounded = rounded._replace(space=arrays.space._replace(means=own.astype(np.float32)))
    space, layout = pack_space(_reference(rounded).space, bits, harmonics_bits=harmonics_bits)
    durations, duration_low, duration_step = _fine(arrays.log_durations)
    columns = [times.reshape(-1, 3), velocities.reshape(-1, 9), durations]
    plateau: tuple[float | None, float | None] = (None, None)
    if arrays.log_plateaus is not None:
        plateaus, *plateau_range = _fine(arrays.log_plateaus)
        columns.append(plateaus)
        plateau = (plateau_range[0], plateau_range[1])
    in_time = np.ascontiguousarray(np.concatenate(columns, axis=1).T)
    whole = MovingLayout(layout, arrays.moving, duration_low, duration_step, *plateau)
    return space.tobytes() + in_time.tobytes(), whole


def unpack_moving(data: bytes, layout: MovingLayout) -> MovingArrays:
    """The inverse of `pack_moving`; `data` has `layout.size` bytes."""
    planes = np.frombuffer(data, dtype=np.uint8)
    split = layout.space.planes * layout.space.count
    space = unpack_space(planes[:split].reshape(layout.space.planes, -1), layout.space)
    rows = np.ascontiguousarray(planes[split:].reshape(layout.time_planes, layout.moving).T)
    arrays = MovingArrays(
        space,
        _floats(rows[:, :3]),
        _floats(rows[:, 3:12].reshape(-1, 3, 3)),
        _unfine(rows[:, 12:14], layout.duration_low, layout.duration_step),
        None
        if layout.plateau_low is None or layout.plateau_step is None
        else _unfine(rows[:, 14:16], layout.plateau_low, layout.plateau_step),
    )
    return _reference(arrays, back=True)


def _reference(arrays: MovingArrays, *, back: bool = False) -> MovingArrays:
    """With positions at the own times held within [0, 1]; `back`: from there."""
    means = arrays.space.means.astype(np.float64)
    later = (np.clip(arrays.times, 0.0, 1.0) - arrays.times).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        step = arrays.velocities * later[:, None]
        means[: arrays.moving] += -step if back else step
        return arrays._replace(space=arrays.space._replace(means=means.astype(np.float32)))


def _three_bytes(values: Floats) -> Bytes:
    """(..., 3) bytes of float32 rounded to their upper three."""
    bits = np.ascontiguousarray(values.astype("<f4")).view("<u4").astype(np.uint64) + 0x80
    words = np.minimum(bits, 0xFFFFFFFF).astype("<u4")
    return words.view(np.uint8).reshape(*values.shape, 4)[..., 1:]


def _floats(stored: Bytes) -> Floats:
    """The inverse of `_three_bytes`: (..., 3) -> (...)."""
    wide = np.zeros((*stored.shape[:-1], 4), dtype=np.uint8)
    wide[..., 1:] = stored
    return wide.view("<f4")[..., 0].astype(np.float32)


def _fine(values: Floats) -> tuple[Bytes, float, float]:
    """(M, 2) bytes of 16 bits over the whole range, its low end and the step."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    steps, low, step = steps_of(values, low, high, steps=_FINE)
    return steps.view(np.uint8).reshape(-1, 2), low, step


def _unfine(stored: Bytes, low: float, step: float) -> Floats:
    words = np.ascontiguousarray(stored).view("<u2")[:, 0]
    return (words.astype(np.float64) * step + low).astype(np.float32)
