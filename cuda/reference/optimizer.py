"""Adam and moving averages in plain torch: the definition of correct for `adam_step_`,
`adam_rows_` and `ema_step_`.

With gradient g (divided by the loss scale; entries that are not finite, or beyond 1e18 so that
their square overflows, count as 0), weight decay w:

    g <- g + w p,  m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2
    p <- p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

Entries without gradient are left alone entirely when asked: a table entry that no sample touched
keeps its value and moments, as in the hash-grid paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

LARGEST_GRADIENT = 1e18


@dataclass(frozen=True)
class AdamSettings:
    """Numbers of one step, the same for all entries.

    step: 1 for the first. weight_decay: L2, added to the gradient. grad_scale: the gradient is
    divided by it. skip_zero: entries whose gradient is exactly 0 are left alone. zero_grad: the
    gradient is set to 0 in the same pass.
    """

    step: int
    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.99
    eps: float = 1e-15
    weight_decay: float = 0.0
    grad_scale: float = 1.0
    skip_zero: bool = True
    zero_grad: bool = True

    def to_numbers(self) -> list[float]:
        """The fields in order, as an operation's argument."""
        return [float(number) for number in vars(self).values()]  # astuple copies deeply

    @classmethod
    def from_numbers(cls, numbers: Sequence[float]) -> AdamSettings:
        step, rate, beta1, beta2, eps, decay, scale, skip_zero, zero_grad = numbers
        return cls(
            int(step), rate, beta1, beta2, eps, decay, scale, bool(skip_zero), bool(zero_grad)
        )

    @property
    def step_size(self) -> float:
        """Learning rate with the first moment's start-up corrected."""
        return self.step_size_of(self.learning_rate)

    def step_size_of(self, learning_rate: float) -> float:
        """The same for another learning rate."""
        return learning_rate / (1 - self.beta1**self.step)

    @property
    def second_correction(self) -> float:
        return 1 / (1 - self.beta2**self.step)


def adam_step_(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    settings: AdamSettings,
    *,
    half_copy: Tensor | None = None,
    bad_count: Tensor | None = None,
) -> None:
    """One step in place; tensors of one shape and any float dtype.

    Args:
        half_copy: receives `param` rounded to fp16, saturated to finite values.
        bad_count: one int32, increased by the number of gradient entries refused.
    """
    finite = grad.abs() <= LARGEST_GRADIENT  # false for NaN
    if bad_count is not None:
        bad_count += (~finite).sum().to(bad_count.dtype)
    g = torch.where(finite, grad, 0) / settings.grad_scale
    moved = g != 0 if settings.skip_zero else torch.ones_like(finite)
    g = g + settings.weight_decay * param
    first = settings.beta1 * exp_avg + (1 - settings.beta1) * g
    second = settings.beta2 * exp_avg_sq + (1 - settings.beta2) * g * g
    exp_avg.copy_(torch.where(moved, first, exp_avg))
    exp_avg_sq.copy_(torch.where(moved, second, exp_avg_sq))
    denominator = (second * settings.second_correction).sqrt() + settings.eps
    param.copy_(torch.where(moved, param - settings.step_size * first / denominator, param))
    if half_copy is not None:
        largest = torch.finfo(torch.float16).max
        half_copy.copy_(param.clamp(-largest, largest))
    if settings.zero_grad:
        grad.zero_()


def adam_rows_(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    settings: AdamSettings,
    *,
    head: int,
    tail_learning_rate: float,
    visible: Tensor | None = None,
    bad_count: Tensor | None = None,
) -> None:
    """One step in place over rows (G, ...), all tensors of one shape and any float dtype.

    Args:
        head: so many numbers of a row, the first, move by the settings' rate; the others by
            `tail_learning_rate`.
        visible: (G,) rows with 0 keep parameter and moments, and are not counted in `bad_count`.
    """
    numbers = math.prod(param.shape[1:])
    rows = [t.view(len(t), numbers) for t in (param, grad, exp_avg, exp_avg_sq)]
    chosen = torch.ones(len(param), dtype=torch.bool, device=param.device)
    if visible is not None:
        chosen = visible != 0
    for columns, rate in (
        (slice(head), settings.learning_rate),
        (slice(head, None), tail_learning_rate),
    ):
        value, slope, first, second = (t[chosen, columns] for t in rows)
        own = replace(settings, learning_rate=rate)
        adam_step_(value, slope, first, second, own, bad_count=bad_count)
        for whole, part in ((rows[0], value), (rows[2], first), (rows[3], second)):
            whole[chosen, columns] = part
    if settings.zero_grad:
        grad.zero_()


def ema_step_(average: Tensor, param: Tensor, decay: float) -> None:
    """average <- decay average + (1 - decay) param."""
    average.lerp_(param.to(average.dtype), 1 - decay)
