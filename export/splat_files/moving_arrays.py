"""Gaussians that move as numpy arrays: what is seen of them, instead of a rotation in four axes.

With the covariance [[U, V], [V^T, W]] over space and time a Gaussian has the velocity v = V / W,
the duration s = sqrt(W), and in space the covariance U - V V^T / W at every time. These say the
same as rotor and four scales: [[A, s v], [0, s]] with A A^T = U - V V^T / W is a root of the whole.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lumigraph.core import GaussianCloud, GaussianCloud4D
from lumigraph.core.rotors import rotor_from_quaternion, rotor_from_rotation
from lumigraph.core.transforms import rotation_from_quaternion
from lumigraph.cuda.reference.gaussian_slicing import SHORTEST, slice_constants
from lumigraph.export.splat_files.arrays import Floats, Mask, SplatArrays, repaired, sigmoid
from lumigraph.fields.gaussian_shapes import decomposed

ROWS_AT_ONCE = 2**16
IDLE = 1e-6
"""Gaussians that move by less, as a part of their size and in all of time, do not move."""


class MovingArrays(NamedTuple):
    """G Gaussians, of which the first M move; the others stand still. All float32."""

    space: SplatArrays
    """Of all; means and opacities of those that move are at their own times."""
    times: Floats
    """(M,) own times; a capture runs over [0, 1], and they may lie outside."""
    velocities: Floats
    """(M, 3) per unit of time."""
    log_durations: Floats
    """(M,) logarithms of the standard deviations in time."""
    log_plateaus: Floats | None
    """(M,) logarithms of half the time without fading; None: there is none."""

    @property
    def moving(self) -> int:
        return len(self.times)

    def rows(self, chosen: Mask) -> MovingArrays:
        """Some of the Gaussians, by a mask (G,)."""
        first = chosen[: self.moving]
        return MovingArrays(self.space.rows(chosen), *self._in_time(first))

    def ordered(self, order: NDArray[np.int64]) -> MovingArrays:
        """In another order (G,), which leaves those that move in front."""
        space = SplatArrays(*(array[order] for array in self.space))
        return MovingArrays(space, *self._in_time(order[: self.moving]))

    def _in_time(self, chosen: NDArray) -> tuple[Floats, Floats, Floats, Floats | None]:
        plateaus = None if self.log_plateaus is None else self.log_plateaus[chosen]
        return self.times[chosen], self.velocities[chosen], self.log_durations[chosen], plateaus

    def at(self, time: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Means (G, 3) and opacities (G,) at a time."""
        means = self.space.means.astype(np.float64)
        opacities = sigmoid(self.space.opacity_logits)
        later = time - self.times.astype(np.float64)
        means[: self.moving] += self.velocities * later[:, None]
        opacities[: self.moving] *= self.shares(time)
        return means, opacities

    def shares(self, time: float) -> NDArray[np.float64]:
        """(M,) how much of their opacity is left at a time, in [0, 1]."""
        return self.shares_after(time - self.times.astype(np.float64))

    def shares_after(self, later: NDArray[np.floating]) -> NDArray[np.float64]:
        """The same at a time (M,) since the own ones, which may be negative."""
        away = np.abs(later.astype(np.float64))
        if self.log_plateaus is not None:
            away = np.maximum(away - np.exp(self.log_plateaus.astype(np.float64)), 0.0)
        return np.exp(-0.5 * np.square(away / np.exp(self.log_durations.astype(np.float64))))


def arrays_of(
    cloud: GaussianCloud4D, still: GaussianCloud, *, shortest: float = SHORTEST
) -> MovingArrays:
    """The arrays of Gaussians in space and time and of those that stand still beside them.

    Args:
        shortest: standard deviation in time that none falls below.
    """
    cloud, still = cloud.to("cpu"), still.to("cpu")
    degree = max(cloud.degree, still.degree)
    constants = [
        slice_constants(rotors.double(), log_scales.double(), shortest)
        for rotors, log_scales in zip(
            cloud.rotors.split(ROWS_AT_ONCE), cloud.log_scales.split(ROWS_AT_ONCE), strict=True
        )
    ]
    axes, velocities, durations = (torch.cat(parts) for parts in zip(*constants, strict=True))
    rotations, log_scales = decomposed(axes)
    idle = velocities.abs().amax(dim=1) < IDLE * log_scales.amax(dim=1).exp()
    velocities = torch.where(idle[:, None], 0.0, velocities)
    moving = GaussianCloud(
        cloud.means,
        rotations.float(),
        log_scales.float(),
        cloud.opacity_logits,
        cloud.with_degree(degree).harmonics,
    )
    space = SplatArrays.of(GaussianCloud.concatenate([moving, still.with_degree(degree)]))
    plateaus = cloud.log_plateaus
    return MovingArrays(
        space,
        cloud.times.numpy(),
        velocities.float().numpy(),
        durations.log().float().numpy(),
        None if plateaus is None else plateaus.numpy(),
    )


def clouds_of(arrays: MovingArrays) -> tuple[GaussianCloud4D, GaussianCloud]:
    """The inverse of `arrays_of`: those that move, and those that stand still."""
    count = arrays.moving
    moving = arrays.space.rows(slice(None, count)).cloud()
    velocities = torch.from_numpy(np.ascontiguousarray(arrays.velocities))
    log_durations = torch.from_numpy(np.ascontiguousarray(arrays.log_durations))
    parts = [
        _rotors(*chunk)
        for chunk in zip(
            *(
                tensor.split(ROWS_AT_ONCE)
                for tensor in (moving.rotations, moving.log_scales, velocities, log_durations)
            ),
            strict=True,
        )
    ]
    rotors, log_scales = (torch.cat(column) for column in zip(*parts, strict=True))
    plateaus = arrays.log_plateaus
    cloud = GaussianCloud4D(
        moving.means,
        torch.from_numpy(np.ascontiguousarray(arrays.times)),
        rotors,
        log_scales,
        moving.opacity_logits,
        moving.harmonics,
        None if plateaus is None else torch.from_numpy(np.ascontiguousarray(plateaus)),
    )
    return cloud, arrays.space.rows(slice(count, None)).cloud()


def repaired_moving(arrays: MovingArrays) -> tuple[MovingArrays, Mask, list[str]]:
    """As `arrays.repaired`: usable values, a mask (G,) of good rows, and what was done in words."""
    space, good, notes = repaired(arrays.space)
    in_time = [arrays.times, arrays.log_durations, *arrays.velocities.T]
    if arrays.log_plateaus is not None:
        in_time.append(arrays.log_plateaus)
    good = good.copy()
    for column in in_time:
        good[: arrays.moving] &= np.isfinite(column)
    return arrays._replace(space=space), good, notes


def _rotors(
    rotations: Tensor, log_scales: Tensor, velocities: Tensor, log_durations: Tensor
) -> tuple[Tensor, Tensor]:
    """Rotors (M, 8) and log scales (M, 4)."""
    turned = rotor_from_quaternion(torch.nn.functional.normalize(rotations.double(), dim=1))
    scales = torch.cat([log_scales, log_durations[:, None]], dim=1).double()
    moves = (velocities != 0).any(dim=1)
    if bool(moves.any()):
        turned[moves], scales[moves] = _of_motion(
            rotations[moves].double(), scales[moves].exp(), velocities[moves].double()
        )
    return turned.float(), scales.float()


def _of_motion(rotations: Tensor, scales: Tensor, velocities: Tensor) -> tuple[Tensor, Tensor]:
    unit = torch.nn.functional.normalize(rotations, dim=1)
    root = scales.new_zeros(len(scales), 4, 4)
    root[:, :3, :3] = rotation_from_quaternion(unit) * scales[:, None, :3]
    root[:, :3, 3] = scales[:, 3:] * velocities
    root[:, 3, 3] = scales[:, 3]
    turn, lengths, _ = torch.linalg.svd(root)
    rows = torch.arange(len(root))
    nearest = turn[:, 3].abs().argmax(dim=1)  # the axis that is most of all time comes last
    order = torch.arange(4).repeat(len(root), 1)
    order[rows, nearest], order[:, 3] = 3, nearest
    turn = turn.gather(2, order[:, None, :].expand(-1, 4, -1))
    turn[:, :, 0] *= torch.linalg.det(turn).sign()[:, None]
    return rotor_from_rotation(turn), lengths.gather(1, order).clamp_min(1e-30).log()
