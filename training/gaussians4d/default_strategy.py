"""Clone, split, prune and reset in space and time (Duan et al. 2024): pulls on the screen and by
the time ask for more Gaussians; parts of a split are drawn from the whole Gaussian in space and
time; what is never seen within the clip goes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lumigraph.core.rotors import rotation_from_rotor
from lumigraph.cuda.reference.gaussian_slicing import slice_constants
from lumigraph.fields import Gaussian4DTensors
from lumigraph.fields.gaussians4d import FAINTEST
from lumigraph.training.config_gaussians4d import Gaussians4DConfig
from lumigraph.training.gaussians.default_strategy import SPLIT_SHRINK, DefaultStrategy
from lumigraph.training.gaussians.schedule import Clock
from lumigraph.training.gaussians.strategy import GaussianState, ViewGradients

from .lifetimes import Clip, peak_opacities

State = GaussianState[Gaussian4DTensors]


class Default4DStrategy(DefaultStrategy):
    """Clone, split, prune, reset.

    Args:
        config: when and how.
        extent: size of the scene that scales are compared with, scene units.
        device: of the Gaussians.
        seed: of where the parts of a split land.
        clip: the time of the scene.
    """

    config: Gaussians4DConfig
    statistics: Sequence[str] = ("gradient_sum", "view_count", "time_gradient_sum")

    def __init__(
        self,
        config: Gaussians4DConfig,
        *,
        extent: float,
        device: torch.device,
        seed: int,
        clip: Clip,
    ) -> None:
        super().__init__(config, extent=extent, device=device, seed=seed)
        self._clip = clip

    def after_backward(self, gaussians: State, view: ViewGradients) -> None:
        super().after_backward(gaussians, view)
        by_time = gaussians.field.tensors.times.grad
        if view.screen is None or by_time is None:
            return
        # the gradient is that of all views of the step, each of which comes here
        share = torch.nan_to_num(by_time, 0.0, 0.0, 0.0) / self.config.batch_views
        share = share * self._clip.length  # the threshold is for clips of length 1
        gaussians.statistics["time_gradient_sum"].add_(share)

    def pulls(self, gaussians: State) -> Tensor:
        return torch.maximum(super().pulls(gaussians), self._time_pulls(gaussians))

    def _time_pulls(self, gaussians: State) -> Tensor:
        views = gaussians.statistics["view_count"].clamp_min(1)
        mean = gaussians.statistics["time_gradient_sum"].abs() / views
        return mean / max(self.config.grow_time_gradient, 1e-30)

    def large(self, gaussians: State, chosen: Tensor) -> Tensor:
        """In space where the screen asks, in time where the time does."""
        values = gaussians.values()
        found = slice_constants(values.rotors, values.log_scales, self._clip.shortest)
        long = found.durations > self.config.split_duration * self._clip.length
        by_space = super().pulls(gaussians)[chosen] > 1
        by_time = (self._time_pulls(gaussians) > 1)[chosen]
        return (by_space & super().large(gaussians, chosen)) | (by_time & long[chosen])

    def parts(self, twice: Gaussian4DTensors) -> Gaussian4DTensors:
        device = twice.means.device
        noise = torch.randn(len(twice.means), 4, generator=self.generator, device=device)
        offsets = (noise * twice.log_scales.exp())[..., None]
        moved = (rotation_from_rotor(twice.rotors) @ offsets)[..., 0]
        return twice._replace(
            means=twice.means + moved[:, :3],
            times=twice.times + moved[:, 3],
            log_scales=twice.log_scales - math.log(SPLIT_SHRINK),
        )

    def superfluous(self, gaussians: State, clock: Clock) -> Tensor:
        unseen = peak_opacities(gaussians.values(), self._clip) < FAINTEST
        return super().superfluous(gaussians, clock) | unseen
