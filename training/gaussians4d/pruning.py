"""Which Gaussians add least to the training views (after Yuan et al. 2025, 4DGS-1K).

The score of a Gaussian is the light that pixels take from it, the sum of its blending weights over
views and pixels, times (d + d_0) / (1 + d_0) with d the part of the clip that it is there for and
d_0 a frame: of two that add as much, the one that is there for a moment only goes first.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from lumigraph.cuda.splatting import SplatCamera
from lumigraph.fields import Gaussians4D

from .lifetimes import Clip, durations


def blended_weights(field: Gaussians4D, views: Iterable[tuple[float, SplatCamera]]) -> Tensor:
    """(A,) sums of blending weights over the pixels of views, first of moving, then of still ones.

    Args:
        views: time and camera of each; the time as Gaussians have it.
    """
    count = len(field) + len(field.still)
    total = torch.zeros(count, device=field.means.device)
    for time, camera in views:
        ones = torch.ones(count, 1, device=total.device, requires_grad=True)
        images = field.render(time, camera, extras=ones)
        assert images.extras is not None
        (weights,) = torch.autograd.grad(images.extras.sum(), ones)
        total += torch.nan_to_num(weights[:, 0], 0.0, 0.0, 0.0)
    return total


@torch.no_grad()
def scores(field: Gaussians4D, weights: Tensor, clip: Clip) -> Tensor:
    """(A,) scores of moving and then of still Gaussians, from their blended weights (A,)."""
    there = torch.ones_like(weights)
    there[: len(field)] = durations(field.tensors, clip)
    frame = clip.frame / clip.length
    return weights * (there + frame) / (1 + frame)
