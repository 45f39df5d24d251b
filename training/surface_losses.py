"""Losses of neural surfaces. All lengths are in grid units; N rays, M samples, C channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

HUBER_DELTA = 0.1
HUBER_FACTOR = 0.2  # of NeuS2: Huber errors count a fifth
MASKED_END = 1e-4  # opacities are kept this far from 0 and 1 in the cross entropy


def color_loss(color: Tensor, target: Tensor, kind: str) -> Tensor:
    """() of colors (N, 3): sum over channels, mean over rays, 0 without any. Huber grows like the
    square of an error of up to 0.1, then like the error; `l1` is the error's size."""
    rays = max(len(color), 1)
    if kind == "l1":
        return (color - target).abs().sum() / rays
    value = nn.functional.huber_loss(color, target, reduction="sum", delta=HUBER_DELTA)
    return value * (HUBER_FACTOR / HUBER_DELTA / rays)


def eikonal_loss(gradient: Tensor) -> Tensor:
    """() mean over samples (M, 3) of (|gradient| - 1)^2; 0 without samples."""
    if not len(gradient):
        return gradient.sum()
    return ((gradient.square().sum(1) + 1e-6).sqrt() - 1).square().mean()


def mask_loss(opacity: Tensor, alpha: Tensor) -> Tensor:
    """() cross entropy of opacities (N,) against pixels that are all object (alpha of 1)."""
    inside = (alpha > 0.9999).to(opacity.dtype)
    kept = opacity.clamp(MASKED_END, 1 - MASKED_END)
    total = nn.functional.binary_cross_entropy(kept, inside, reduction="sum")
    return total / max(len(opacity), 1)


def tangent_directions(gradient: Tensor, generator: torch.Generator) -> Tensor:
    """(M, 3) random unit vectors across the gradients (M, 3).

    Args:
        generator: on the CPU.
    """
    random = torch.randn(gradient.shape, generator=generator).to(gradient)
    across = torch.linalg.cross(gradient.detach(), random, dim=1)
    return across / across.norm(dim=1, keepdim=True).clamp_min(1e-12)


def depth_loss(distance: Tensor, opacity: Tensor, truth: Tensor) -> Tensor:
    """() mean over rays with a known distance (`truth` (N,) above 0) of the error of the mean
    distance, which rays that see the surface only in part do not count for in full."""
    known = truth > 0
    error = (distance - opacity * truth).abs()
    return torch.where(known, error, 0.0).sum() / known.sum().clamp_min(1)
