"""Noise on the means of Gaussians in plain torch: the definition of correct for `perturb_means_`.

The exploration step of 3D Gaussian Splatting as Markov Chain Monte Carlo (Kheradmand et al. 2024,
section on updating with SGLD), with rotation R, scales S, opacity o and normal noise e:

    mean <- mean + rate sigmoid(-100 (o - 0.005)) R S S^T R^T e

Noise follows the shape of the Gaussian, and a Gaussian that is seen hardly moves.
"""

from __future__ import annotations

import torch
from torch import Tensor

STEEPNESS, GATE_OPACITY = 100.0, 0.005
LARGEST_MOVE = 1e18


def perturb_means(
    means: Tensor,
    rotations: Tensor,
    log_scales: Tensor,
    opacity_logits: Tensor,
    noise: Tensor,
    *,
    rate: float,
) -> Tensor:
    """Moved means (G, 3). Rotations (G, 4) wxyz of any length but 0.

    A Gaussian whose move is not finite, or 1e18 and more along an axis, stays where it is.
    """
    gate = torch.sigmoid(-STEEPNESS * (torch.sigmoid(opacity_logits) - GATE_OPACITY))
    shrunk = rotations / rotations.abs().amax(dim=-1, keepdim=True)  # squares must not overflow
    axes = _matrices(shrunk / shrunk.norm(dim=-1, keepdim=True))
    own = torch.einsum("gij,gi->gj", axes, noise) * torch.exp(2 * log_scales)
    move = torch.einsum("gij,gj->gi", axes, own) * (rate * gate)[:, None]
    fine = (move.abs() < LARGEST_MOVE).all(dim=-1, keepdim=True)
    return means + torch.where(fine, move, 0)


def _matrices(quaternions: Tensor) -> Tensor:
    """(G, 3, 3) from unit quaternions (G, 4) wxyz."""
    w, x, y, z = quaternions.unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
