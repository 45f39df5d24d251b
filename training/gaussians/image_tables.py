"""What belongs to single images: exposures and poses. A step shows few images, so that few rows of
each table have a gradient and move, each with moments and a step count of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lumigraph.core.transforms import se3_exp

BETAS = (0.9, 0.99)
EPSILON = 1e-15


class RowAdam:
    """Adam on single rows of a table.

    Args:
        table: (R, ...) parameter; gradients that are not finite count as 0.
    """

    def __init__(self, table: nn.Parameter) -> None:
        self.table = table
        self._first, self._second = torch.zeros_like(table.data), torch.zeros_like(table.data)
        self._steps = torch.zeros(len(table), dtype=torch.int64)

    @torch.no_grad()
    def step(self, rows: Sequence[int], rate: float) -> None:
        """Move some rows by their gradients and forget all gradients."""
        gradient, self.table.grad = self.table.grad, None
        if gradient is None:
            return
        for row in rows:
            self._move(row, torch.nan_to_num(gradient[row], 0.0, 0.0, 0.0), rate)

    def _move(self, row: int, gradient: Tensor, rate: float) -> None:
        self._steps[row] += 1
        count = int(self._steps[row])
        first, second = self._first[row], self._second[row]
        first.lerp_(gradient, 1 - BETAS[0])
        second.lerp_(gradient.square(), 1 - BETAS[1])
        size = rate / (1 - BETAS[0] ** count)
        length = (second / (1 - BETAS[1] ** count)).sqrt_().add_(EPSILON)
        self.table.data[row].addcdiv_(first, length, value=-size)

    def state(self) -> dict[str, Tensor]:
        return {"first": self._first, "second": self._second, "steps": self._steps}


def corrected_pose(
    motion: Tensor, world_to_camera: Tensor, *, center: Tensor, side: float
) -> Tensor:
    """(3, 4) world_to_camera of a camera that was moved.

    Args:
        motion: (6,) twist in grid space as `PoseTable` of training/image_tables.py has it: it turns
            about `center` and shifts by so many sides of the bounds. Differentiable.
        world_to_camera: (3, 4) before.
    """
    back = se3_exp(-motion)
    turn, shift = back[:3, :3], back[:3, 3] * side
    offset = center + shift - turn @ center
    rotation = world_to_camera[:, :3]
    moved = (rotation @ offset + world_to_camera[:, 3])[:, None]
    return torch.cat([rotation @ turn, moved], dim=1)
