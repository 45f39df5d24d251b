"""One rigid motion of grid space, learnt from pictures.

    p -> R (p - pivot) + pivot + t          R from six numbers: two vectors made orthonormal

Source of the six numbers: Zhou et al. 2019, On the Continuity of Rotation Representations in Neural
Networks. The pivot is the middle of what moves, so that turning it does not shift it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lumigraph.core.transforms import pose_matrix
from lumigraph.cuda.optimizer import adam_step_

BETAS = (0.9, 0.99)
_STILL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0)


def rotation_from_six(six: Tensor) -> Tensor:
    """Rotations (..., 3, 3) whose first two columns are made from two vectors (..., 6) by
    Gram-Schmidt; differentiable.

    >>> rotation_from_six(torch.tensor([2.0, 0, 0, 1, 1, 0])).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    first, second = six.split(3, dim=-1)
    x = torch.nn.functional.normalize(first, dim=-1)
    across = second - (x * second).sum(dim=-1, keepdim=True) * x
    y = torch.nn.functional.normalize(across, dim=-1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=-1)


def moved_rays(motion: Tensor, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Rays (N, 3) under a rigid motion (4, 4); differentiable."""
    rotation = motion[:3, :3]
    return origins @ rotation.T + motion[:3, 3], directions @ rotation.T


class RigidMotion:
    """A rigid motion with its optimizer; standing still at first."""

    def __init__(self, device: torch.device) -> None:
        self.values = torch.tensor(_STILL, device=device).requires_grad_()
        """(9,) the six numbers of the rotation, then the shift in grid units."""
        self.pivot = torch.full((3,), 0.5, device=device)
        self.steps = 0
        """Steps of the optimizer since `restart`."""
        self._moments = (torch.zeros(9, device=device), torch.zeros(9, device=device))

    @torch.no_grad()
    def restart(self, pivot: Tensor) -> None:
        """Stand still again.

        Args:
            pivot: (3,) in grid space, what the rotation turns about.
        """
        self.values.copy_(torch.tensor(_STILL))
        self.pivot.copy_(pivot)
        for moment in self._moments:
            moment.zero_()
        self.steps = 0

    def matrix(self) -> Tensor:
        """(4, 4), differentiable by `values`."""
        rotation, shift = rotation_from_six(self.values[:6]), self.values[6:]
        return pose_matrix(rotation, self.pivot + shift - rotation @ self.pivot)

    def step(self, rate: float, bad_count: Tensor) -> None:
        """Move by the gradient of `values` and clear it.

        Args:
            bad_count: (1,) int32, what counts gradients that are not finite.
        """
        gradient, self.values.grad = self.values.grad, None
        if gradient is None:
            return
        self.steps += 1
        adam_step_(
            self.values.detach(),
            gradient,
            *self._moments,
            step=self.steps,
            learning_rate=rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            bad_count=bad_count,
        )

    def state(self) -> dict[str, Tensor]:
        """Live tensors by name, for a checkpoint; `steps` is saved besides."""
        moments = {f"motion.moment.{k}": moment for k, moment in enumerate(self._moments)}
        return {"motion.values": self.values.detach(), "motion.pivot": self.pivot, **moments}
