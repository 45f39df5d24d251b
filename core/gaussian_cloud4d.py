"""Gaussians in space and time as plain tensors: `GaussianCloud4D`.

Gaussian g has the covariance R S S R^T over (x, y, z, t), with R the rotation of `rotors[g]` (see
core/rotors.py) and S the diagonal of exp(`log_scales[g]`), about the point `means[g]` and the time
`times[g]`. At a time it is a Gaussian in space that moves with a constant velocity, and its opacity
sigmoid(`opacity_logits[g]`) fades as a Gaussian of the time from `times[g]`; with `log_plateaus` it
stays whole while that is below exp(`log_plateaus[g]`), and fades from there. Colors are those of
`core.GaussianCloud`, seen from where the mean is at the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.core.gaussian_cloud import MAXIMUM_DEGREE, GaussianCloud
from lumigraph.core.rotors import (
    rotation_from_rotor,
    rotor_from_quaternion,
    rotor_from_quaternions,
    rotor_from_rotation,
    rotor_quaternions,
)
from lumigraph.core.shapes import check_shapes
from lumigraph.core.transforms import Similarity

STILL_DURATION = 1e3
"""Standard deviation in time of Gaussians that do not change: over [0, 1] they fade by 5e-7."""


@dataclass(frozen=True, eq=False)
class GaussianCloud4D:
    """G Gaussians in space and time with raw parameters, float32 on one device. None is legal.

    >>> cloud = GaussianCloud4D.empty(degree=1)
    >>> len(cloud), cloud.degree, tuple(cloud.rotors.shape)
    (0, 1, (0, 8))
    """

    means: Tensor
    """(G, 3) centres in the frame of the scene, at their own times."""
    times: Tensor
    """(G,) centres in time; a capture runs over [0, 1], and centres may lie outside."""
    rotors: Tensor
    """(G, 8) s, xy, xz, yz, xw, yw, zw, p; normalised where they are used."""
    log_scales: Tensor
    """(G, 4) natural logarithms of the standard deviations along the own axes: three that are those
    in space while the rotor turns space alone, in scene units, and the one in time."""
    opacity_logits: Tensor
    """(G,) opacity at its best time, before the sigmoid."""
    harmonics: Tensor
    """(G, K, 3) coefficients of red, green and blue; K = 1, 4, 9 or 16 for degree 0 to 3."""
    log_plateaus: Tensor | None = None
    """(G,) natural logarithms of half the time without fading; None: all fade from the centre."""

    def __post_init__(self) -> None:
        sizes = check_shapes(
            ("means", self.means, "G 3"),
            ("times", self.times, "G"),
            ("rotors", self.rotors, "G 8"),
            ("log_scales", self.log_scales, "G 4"),
            ("opacity_logits", self.opacity_logits, "G"),
            ("harmonics", self.harmonics, "G K 3"),
            ("log_plateaus", self.log_plateaus, "G"),
            dtype=torch.float32,
        )
        if sizes["K"] not in {(degree + 1) ** 2 for degree in range(MAXIMUM_DEGREE + 1)}:
            raise InputError(f"harmonics must hold 1, 4, 9 or 16 coefficients; got {sizes['K']}")

    @classmethod
    def empty(
        cls, *, degree: int = 0, plateaus: bool = False, device: torch.device | str = "cpu"
    ) -> GaussianCloud4D:
        """A cloud without any Gaussian."""
        still = GaussianCloud.empty(degree=degree, device=device)
        log_plateaus = torch.zeros(0, device=device) if plateaus else None
        return cls.from_static(still, log_plateaus=log_plateaus)

    @classmethod
    def from_static(
        cls,
        cloud: GaussianCloud,
        *,
        times: Tensor | float = 0.5,
        duration: float = STILL_DURATION,
        log_plateaus: Tensor | None = None,
    ) -> GaussianCloud4D:
        """Gaussians that stand still: at `times` they look like those of a cloud, to rounding.

        Args:
            times: (G,) or one for all: when they are there.
            duration: standard deviation in time; the default is as good as for ever.
            log_plateaus: (G,) or None.
        """
        if not (math.isfinite(duration) and duration > 0):
            raise InputError(f"duration must be finite and above 0; got {duration}")
        count = len(cloud)
        at = torch.as_tensor(times, dtype=torch.float32, device=cloud.device).expand(count)
        in_time = cloud.log_scales.new_full((count, 1), math.log(duration))
        return cls(
            cloud.means,
            at.contiguous(),
            rotor_from_quaternion(cloud.rotations),
            torch.cat([cloud.log_scales, in_time], dim=1),
            cloud.opacity_logits,
            cloud.harmonics,
            log_plateaus,
        )

    def __len__(self) -> int:
        return self.means.shape[0]

    @property
    def degree(self) -> int:
        """Degree of the harmonics, 0 to 3."""
        return math.isqrt(self.harmonics.shape[1]) - 1

    @property
    def device(self) -> torch.device:
        return self.means.device

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """The tensors in the order of the fields; the last may be None."""
        return (
            self.means,
            self.times,
            self.rotors,
            self.log_scales,
            self.opacity_logits,
            self.harmonics,
            self.log_plateaus,
        )

    def mapped(self, change: Callable[[Tensor], Tensor]) -> GaussianCloud4D:
        """The cloud with every tensor changed, rows alike."""
        *tensors, log_plateaus = self.tensors()
        means, times, rotors, log_scales, opacity_logits, harmonics = (
            change(tensor) for tensor in tensors if tensor is not None
        )
        return GaussianCloud4D(
            means, times, rotors, log_scales, opacity_logits, harmonics,
            None if log_plateaus is None else change(log_plateaus),
        )  # fmt: skip

    def to(self, device: torch.device | str) -> GaussianCloud4D:
        """The cloud on another device."""
        return self.mapped(lambda tensor: tensor.to(device))

    def select(self, rows: Tensor | slice) -> GaussianCloud4D:
        """Some of the Gaussians: by a mask (G,) bool, by indices (int64) or by a slice."""
        if isinstance(rows, Tensor):
            if rows.dtype not in (torch.bool, torch.int64):
                raise InputError(f"rows must be a bool mask or int64 indices; got {rows.dtype}")
            rows = rows.to(self.device)
            size = "G" if rows.dtype == torch.bool else "_"
            check_shapes(("means", self.means, "G 3"), ("rows", rows, size))
        return self.mapped(lambda tensor: tensor[rows])

    def with_degree(self, degree: int) -> GaussianCloud4D:
        """The cloud with fewer harmonics, or with more that are 0."""
        spatial = GaussianCloud(
            self.means, self.rotors[:, :4], self.log_scales[:, :3], self.opacity_logits,
            self.harmonics,
        )  # fmt: skip
        harmonics = spatial.with_degree(degree).harmonics
        return GaussianCloud4D(*self.tensors()[:5], harmonics, self.log_plateaus)

    def transformed(self, similarity: Similarity) -> GaussianCloud4D:
        """The cloud moved: it looks the same to a camera that is moved as well.

        Args:
            similarity: from the frame of this cloud to the new one; time stays what it is. Space is
                stretched alone, which changes axes and lengths of Gaussians that move.
        """
        turned = GaussianCloud(
            self.means, self.rotors.new_tensor([1.0, 0, 0, 0]).expand(len(self), 4),
            self.log_scales[:, :3], self.opacity_logits, self.harmonics,
        ).transformed(similarity)  # fmt: skip
        own = rotor_quaternions(self.rotors.double())
        spatial = rotor_quaternions(rotor_from_quaternion(turned.rotations.double()))
        rotors = rotor_from_quaternions(*map(_product, spatial, own))
        rotors, log_scales = _stretched(rotors, self.log_scales.double(), similarity.scale)
        return GaussianCloud4D(
            turned.means, self.times, rotors.float(), log_scales.float(), self.opacity_logits,
            turned.harmonics, self.log_plateaus,
        )  # fmt: skip

    def sheared(self, velocities: Tensor) -> GaussianCloud4D:
        """The cloud with other velocities: each gets (G, 3) scene units per unit of time more, and
        is at its own time what it was."""
        check_shapes(("means", self.means, "G 3"), ("velocities", velocities, "G 3"))
        if not len(self):
            return self
        axes = rotation_from_rotor(self.rotors.double())
        axes = axes * self.log_scales.double().exp()[:, None, :]
        shear = torch.eye(4, dtype=axes.dtype, device=self.device).repeat(len(self), 1, 1)
        shear[:, :3, 3] = velocities.double()
        rotors, log_scales = _decomposed(shear @ axes)
        return GaussianCloud4D(
            self.means, self.times, rotors.float(), log_scales.float(), self.opacity_logits,
            self.harmonics, self.log_plateaus,
        )  # fmt: skip

    def retimed(self, factor: float) -> GaussianCloud4D:
        """The cloud in another unit of time: times and durations are `factor` times as long, and
        what it shows at factor t is what this one shows at t."""
        if not (math.isfinite(factor) and factor > 0):
            raise InputError(f"factor must be finite and above 0; got {factor}")
        # time alone longer is space alone shorter, and then everything longer
        rotors, log_scales = _stretched(self.rotors.double(), self.log_scales.double(), 1 / factor)
        longer = math.log(factor)
        plateaus = None if self.log_plateaus is None else self.log_plateaus + longer
        return GaussianCloud4D(
            self.means, self.times * factor, rotors.float(), (log_scales + longer).float(),
            self.opacity_logits, self.harmonics, plateaus,
        )  # fmt: skip

    @staticmethod
    def concatenate(clouds: Sequence[GaussianCloud4D]) -> GaussianCloud4D:
        """One cloud of several, in order, with the highest of their degrees.

        Raises:
            InputError: none at all, or some with plateaus and some without.
        """
        if not clouds:
            raise InputError("clouds must hold at least one cloud; use GaussianCloud4D.empty()")
        if len({cloud.log_plateaus is None for cloud in clouds}) > 1:
            raise InputError("clouds must all have log_plateaus or none; some have, some have not")
        degree = max(cloud.degree for cloud in clouds)
        parts = [cloud.with_degree(degree) for cloud in clouds]
        plateaus = [part.log_plateaus for part in parts if part.log_plateaus is not None]
        return GaussianCloud4D(
            torch.cat([part.means for part in parts]),
            torch.cat([part.times for part in parts]),
            torch.cat([part.rotors for part in parts]),
            torch.cat([part.log_scales for part in parts]),
            torch.cat([part.opacity_logits for part in parts]),
            torch.cat([part.harmonics for part in parts]),
            torch.cat(plateaus) if plateaus else None,
        )


def _product(first: Tensor, second: Tensor) -> Tensor:
    """(G, 4): L(first) L(second) = L(result), and the same for K; keeps lengths."""
    a0, a1, a2, a3 = first.unbind(-1)
    b0, b1, b2, b3 = second.unbind(-1)
    rows = [
        a0 * b0 - a1 * b1 - a2 * b2 - a3 * b3,
        a0 * b1 + a1 * b0 - a2 * b3 + a3 * b2,
        a0 * b2 + a1 * b3 + a2 * b0 - a3 * b1,
        a0 * b3 - a1 * b2 + a2 * b1 + a3 * b0,
    ]
    return torch.stack(rows, dim=-1)


def _stretched(rotors: Tensor, log_scales: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """Rotors and lengths of the same Gaussians with space, not time, `factor` times as large."""
    in_space = log_scales + log_scales.new_tensor([math.log(factor)] * 3 + [0.0])
    moving = (rotors[:, 4:] != 0).any(1)
    if factor == 1 or not bool(moving.any()):
        return rotors, in_space
    axes = rotation_from_rotor(rotors[moving]) * log_scales[moving].exp()[:, None, :]
    axes = axes * axes.new_tensor([factor] * 3 + [1.0])[:, None]
    rotors, in_space = rotors.clone(), in_space.clone()
    rotors[moving], in_space[moving] = _decomposed(axes)
    return rotors, in_space


def _decomposed(axes: Tensor) -> tuple[Tensor, Tensor]:
    """Rotors (G, 8) and logarithms of lengths (G, 4) of Gaussians with these axes (G, 4, 4)."""
    turn, lengths, _ = torch.linalg.svd(axes)
    # back to the order in which the last length is that in time, as far as there is one
    order = _time_last(turn)
    turn = turn.gather(2, order[:, None, :].expand(-1, 4, -1))
    turn[:, :, 0] *= torch.linalg.det(turn).sign()[:, None]
    return rotor_from_rotation(turn), lengths.gather(1, order).log()


def _time_last(turn: Tensor) -> Tensor:
    """(G, 4) order of axes that puts the one nearest to time last."""
    nearest = turn[:, 3].abs().argmax(1)
    order = torch.arange(4, device=turn.device).repeat(len(turn), 1)
    order[:, 3] = nearest
    rows = torch.arange(len(turn), device=turn.device)
    order[rows, nearest] = 3
    return order
