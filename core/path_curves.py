"""Curves through the keyframes of a camera path."""

from __future__ import annotations

import torch
from torch import Tensor


def aligned(quaternions: Tensor) -> Tensor:
    """The same rotations with signs such that each is in the half space of the one before."""
    flips = (quaternions[1:] * quaternions[:-1]).sum(dim=-1) < 0
    signs = torch.where(flips, -1.0, 1.0).cumprod(dim=0)
    return torch.cat([quaternions[:1], quaternions[1:] * signs[:, None]])


def hermite(knots: Tensor, values: Tensor, at: Tensor) -> Tensor:
    """Cubic through values (K, D) at knots (K,) with the slopes of the neighbours, at (N,)."""
    if len(knots) == 1:
        return values.expand(len(at), -1)
    secants = (values[1:] - values[:-1]) / (knots[1:] - knots[:-1])[:, None]
    inner = (values[2:] - values[:-2]) / (knots[2:] - knots[:-2])[:, None]
    slopes = torch.cat([secants[:1], inner, secants[-1:]])
    left, share = _place(knots, at)
    width = (knots[left + 1] - knots[left])[:, None]
    square, cube = share * share, share * share * share
    return (
        (2 * cube - 3 * square + 1) * values[left]
        + (cube - 2 * square + share) * width * slopes[left]
        + (3 * square - 2 * cube) * values[left + 1]
        + (cube - square) * width * slopes[left + 1]
    )


def linear(knots: Tensor, values: Tensor, at: Tensor) -> Tensor:
    """Straight lines between values (K, D) at knots (K,), at (N,)."""
    if len(knots) == 1:
        return values.expand(len(at), -1)
    left, share = _place(knots, at)
    return torch.lerp(values[left], values[left + 1], share)


def _place(knots: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the knot to the left of each moment, and the share (N, 1) of the way on."""
    left = (torch.searchsorted(knots, at, right=True) - 1).clamp(0, len(knots) - 2)
    share = (at - knots[left]) / (knots[left + 1] - knots[left])
    return left, share.clamp(0, 1)[:, None]
