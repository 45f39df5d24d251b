"""When Gaussians are there, how far they move, and which of them do not change at all.

The clip runs over [0, `Clip.length`], in the unit of time that Gaussians are trained in. Letters: G
Gaussians in space and time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.cuda.reference.gaussian_slicing import slice_constants
from lumigraph.fields import Gaussian4DTensors, GaussianTensors
from lumigraph.fields.gaussian_shapes import decomposed
from lumigraph.fields.gaussians4d import FAINTEST


@dataclass(frozen=True)
class Clip:
    """The time that a scene takes, in the unit that Gaussians are trained in."""

    length: float
    frame: float
    """Usual distance of two moments."""
    shortest: float
    """Least standard deviation in time that is shown."""


def peak_opacities(values: Gaussian4DTensors, clip: Clip) -> Tensor:
    """(G,) highest opacity of raw Gaussians within the clip."""
    return _opacities_at(values, values.times.clamp(0, clip.length), clip)


def _opacities_at(values: Gaussian4DTensors, at: Tensor, clip: Clip) -> Tensor:
    """(G,) at a time of each."""
    lasting = slice_constants(values.rotors, values.log_scales, clip.shortest).durations
    away = (at - values.times).abs()
    if values.log_plateaus is not None:
        away = (away - values.log_plateaus.exp()).clamp_min(0)
    return values.opacity_logits.sigmoid() * torch.exp(-0.5 * (away / lasting).square())


def durations(values: Gaussian4DTensors, clip: Clip) -> Tensor:
    """(G,) how much of the clip, up to 1, a Gaussian is there: as long as a box of its highest
    opacity that is as large as its bell."""
    found = slice_constants(values.rotors, values.log_scales, clip.shortest)
    whole = found.durations * (2 * torch.pi) ** 0.5
    if values.log_plateaus is not None:
        whole = whole + 2 * values.log_plateaus.exp()
    return (whole / clip.length).clamp_max(1.0)


@torch.no_grad()
def unchanging(values: Gaussian4DTensors, clip: Clip, *, travel: float, fade: float) -> Tensor:
    """(G,) bool: those that neither move nor fade to speak of within the clip.

    Args:
        values: raw.
        clip: the time that counts.
        travel: how far they may move within the clip, in the geometric mean of their sizes.
        fade: part of their opacity that they may lose within it.
    """
    constants = slice_constants(values.rotors, values.log_scales, clip.shortest)
    size = values.log_scales[:, :3].mean(dim=1).exp()
    resting = constants.velocities.norm(dim=1) * clip.length <= travel * size
    ends = (torch.full_like(values.times, end) for end in (0, clip.length))
    least = torch.minimum(*(_opacities_at(values, end, clip) for end in ends))
    highest = peak_opacities(values, clip)
    return resting & (least >= (1 - fade) * highest) & (highest >= FAINTEST)


@torch.no_grad()
def at_rest(values: Gaussian4DTensors, clip: Clip) -> GaussianTensors:
    """What Gaussians look like in the middle of the clip, as Gaussians in space."""
    constants = slice_constants(values.rotors, values.log_scales, clip.shortest)
    middle = torch.full_like(values.times, clip.length / 2)
    rotations, log_scales = decomposed(constants.axes)
    moved = constants.velocities * (middle - values.times)[:, None]
    opacities = _opacities_at(values, middle, clip)
    return GaussianTensors(
        values.means + moved,
        rotations,
        log_scales,
        opacities.logit(eps=1e-6),
        values.harmonics,
    )
