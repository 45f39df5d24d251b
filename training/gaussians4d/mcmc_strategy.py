"""MCMC for Gaussians in space and time: what is faint everywhere in the clip moves to where others
are opaque, at the same time, and noise explores times as well.

The noise on a mean has the covariance of the Gaussian at a time; that on its time is a part of its
duration, and moves the mean along its velocity: together, noise of the shape of the whole Gaussian.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lumigraph.cuda.reference.gaussian_slicing import slice_constants
from lumigraph.fields import Gaussian4DTensors
from lumigraph.fields.gaussians4d import FAINTEST
from lumigraph.training.config_gaussians4d import Gaussians4DConfig
from lumigraph.training.gaussians.mcmc_strategy import McmcStrategy
from lumigraph.training.gaussians.schedule import Clock
from lumigraph.training.gaussians.strategy import EditCounts, GaussianState

from .lifetimes import Clip, peak_opacities

NOISE_STEPS = 8  # noise comes every so many steps, and so much stronger
STEEPNESS, THRESHOLD = 100.0, 0.005  # of the gate by opacity, as in `perturb_means_`
MOST_OPACITY = 0.1  # where the gate is 7e-5


class Mcmc4DStrategy(McmcStrategy):
    """Relocate, grow to the cap, add noise.

    Args:
        config: when and how.
        device: of the Gaussians.
        seed: of the choice of Gaussians and of the noise.
        clip: the time of the scene.
    """

    config: Gaussians4DConfig

    def __init__(
        self, config: Gaussians4DConfig, *, device: torch.device, seed: int, clip: Clip
    ) -> None:
        super().__init__(config, device=device, seed=seed)
        self._clip = clip
        self._due = False

    @torch.no_grad()
    def after_step(
        self, gaussians: GaussianState[Any], clock: Clock, *, means_rate: float
    ) -> EditCounts:
        self._due = clock.passes(NOISE_STEPS)
        return super().after_step(gaussians, clock, means_rate=means_rate)

    def alive(self, gaussians: GaussianState[Gaussian4DTensors], opacities: Tensor) -> Tensor:
        seen = peak_opacities(gaussians.values(), self._clip) >= FAINTEST
        return super().alive(gaussians, opacities) & seen

    @torch.no_grad()
    def add_noise(self, gaussians: GaussianState[Gaussian4DTensors], rate: float) -> None:
        if not self._due or rate <= 0 or not len(gaussians):
            return
        values = gaussians.values()
        opacities = values.opacity_logits.sigmoid()
        rows = (opacities < MOST_OPACITY).nonzero()[:, 0]
        constants = slice_constants(
            values.rotors[rows], values.log_scales[rows], self._clip.shortest
        )
        drawn = torch.randn(len(rows), 4, generator=self.generator, device=gaussians.device)
        gate = torch.sigmoid(-STEEPNESS * (opacities[rows] - THRESHOLD))[:, None]
        gate = gate * math.sqrt(NOISE_STEPS)
        covariances = constants.axes @ constants.axes.transpose(1, 2)
        shift = gate * rate * (covariances @ drawn[:, :3, None])[..., 0]
        later = gate[:, 0] * self.config.noise_time * constants.durations * drawn[:, 3]
        shift = shift + constants.velocities * later[:, None]
        good = shift.isfinite().all(dim=1) & later.isfinite()
        values.means.index_add_(0, rows, torch.where(good[:, None], shift, 0.0))
        values.times.index_add_(0, rows, torch.where(good, later, 0.0))
