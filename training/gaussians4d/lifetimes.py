"""When Gaussians are there, how far they move, and which of them do not change at all.

Letters: G Gaussians in space and time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lumigraph.cuda.reference.gaussian_slicing import slice_constants
from lumigraph.fields import Gaussian4DTensors, GaussianTensors
from lumigraph.fields.gaussian_shapes import decomposed
from lumigraph.fields.gaussians4d import FAINTEST


def peak_opacities(values: Gaussian4DTensors, shortest: float) -> Tensor:
    """(G,) highest opacity within the clip.

    Args:
        values: raw.
        shortest: least standard deviation in time.
    """
    return _opacities_at(values, values.times.clamp(0, 1), shortest)


def _opacities_at(values: Gaussian4DTensors, at: Tensor, shortest: float) -> Tensor:
    """(G,) at a time of each."""
    rates = slice_constants(values.rotors, values.log_scales, shortest).rates
    away = (at - values.times).abs()
    if values.log_plateaus is not None:
        away = (away - values.log_plateaus.exp()).clamp_min(0)
    return values.opacity_logits.sigmoid() * torch.exp(-0.5 * rates * away.square())


def durations(values: Gaussian4DTensors, shortest: float) -> Tensor:
    """(G,) how much of the clip a Gaussian is there, as its mean opacity over its own highest one
    would be with a box instead of a bell."""
    rates = slice_constants(values.rotors, values.log_scales, shortest).rates
    whole = rates.rsqrt() * (2 * torch.pi) ** 0.5
    if values.log_plateaus is not None:
        whole = whole + 2 * values.log_plateaus.exp()
    return whole.clamp_max(1.0)


@torch.no_grad()
def unchanging(values: Gaussian4DTensors, shortest: float, *, travel: float, fade: float) -> Tensor:
    """(G,) bool: those that neither move nor fade to speak of within the clip.

    Args:
        values: raw.
        shortest: least standard deviation in time.
        travel: how far they may move within the clip, in the geometric mean of their sizes.
        fade: part of their opacity that they may lose within it.
    """
    constants = slice_constants(values.rotors, values.log_scales, shortest)
    size = values.log_scales[:, :3].mean(dim=1).exp()
    resting = constants.velocities.norm(dim=1) <= travel * size
    both = [_opacities_at(values, torch.full_like(values.times, end), shortest) for end in (0, 1)]
    least = torch.minimum(*both)
    highest = peak_opacities(values, shortest)
    return resting & (least >= (1 - fade) * highest) & (highest >= FAINTEST)


@torch.no_grad()
def at_rest(values: Gaussian4DTensors, shortest: float) -> GaussianTensors:
    """What Gaussians look like in the middle of the clip, as Gaussians in space."""
    constants = slice_constants(values.rotors, values.log_scales, shortest)
    middle = torch.full_like(values.times, 0.5)
    rotations, log_scales = decomposed(constants.axes)
    moved = constants.velocities * (middle - values.times)[:, None]
    opacities = _opacities_at(values, middle, shortest)
    return GaussianTensors(
        values.means + moved,
        rotations,
        log_scales,
        opacities.logit(eps=1e-6),
        values.harmonics,
    )
