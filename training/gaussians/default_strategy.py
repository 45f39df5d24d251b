"""Adaptive density control: clone, split, prune and opacity reset (Kerbl et al. 2023, section 5).

A Gaussian whose projected mean is pulled hard stands where detail is missing. The statistic is the
mean over views of the length of the loss's gradient by the projected mean, in units of half the
image (pixel gradient times W / 2 and H / 2). With `absolute` the gradient's parts are sums of
absolute values over pixels (Ye et al. 2024, AbsGS), so that pulls to both sides do not cancel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lumigraph.core.transforms import rotation_from_quaternion
from lumigraph.fields import GaussianTensors
from lumigraph.training.config_gaussians import GaussiansConfig

from .schedule import Clock, refines, refines_now
from .strategy import EditCounts, GaussianState, ViewGradients

SPLIT_SHRINK = 1.6  # scales of the two parts of a split Gaussian are this much smaller
RESET_OPACITY = 0.01  # highest opacity after a reset
LATEST_RESET = 0.8  # part of the refinement time after which opacities are not lowered again


class DefaultStrategy:
    """Clone, split, prune, reset.

    Args:
        config: when and how.
        extent: size of the scene that scales are compared with, scene units.
        device: of the Gaussians.
        seed: of where the parts of a split land.
    """

    statistics: Sequence[str] = ("gradient_sum", "view_count")

    def __init__(
        self, config: GaussiansConfig, *, extent: float, device: torch.device, seed: int
    ) -> None:
        self.config, self.extent = config, extent
        self.absolute_gradients = config.absgrad
        self._generator = torch.Generator(device=device).manual_seed(seed)

    def wants_gradients(self, clock: Clock) -> bool:
        return refines(self.config, clock)

    def after_backward(self, gaussians: GaussianState, view: ViewGradients) -> None:
        if view.screen is None:
            return
        half = view.screen.new_tensor([view.width / 2, view.height / 2])
        length = torch.linalg.vector_norm(view.screen * half, dim=1)
        visible = view.visible.to(length.dtype)
        # a gradient that is not finite must not spoil the mean
        gaussians.statistics["gradient_sum"].add_(torch.nan_to_num(length, 0.0, 0.0) * visible)
        gaussians.statistics["view_count"].add_(visible)

    @torch.no_grad()
    def after_step(
        self, gaussians: GaussianState, clock: Clock, *, means_rate: float
    ) -> EditCounts:
        counts = EditCounts()
        if refines_now(self.config, clock):
            counts = self._refine(gaussians, clock)
        latest = LATEST_RESET * self.config.refine_stop_step(round(clock.total))
        if clock.passes(self.config.opacity_reset_every) and clock.before < latest:
            self._reset_opacity(gaussians)
            counts.reset = True
        return counts

    def _refine(self, gaussians: GaussianState, clock: Clock) -> EditCounts:
        prune = self._superfluous(gaussians, clock)
        chosen = self._pulled(gaussians, prune)
        largest = gaussians.values().log_scales.index_select(0, chosen).amax(dim=1)
        small = largest.exp() <= self.config.grow_scale * self.extent
        cloned, split = chosen[small], chosen[~small]
        counts = EditCounts(len(cloned), len(split), int(prune.sum()))
        keep = ~prune
        keep[split] = False
        parts = [gaussians.rows(cloned), self._parts(gaussians.rows(split))]
        new = GaussianTensors(*(torch.cat(pair) for pair in zip(*parts, strict=True)))
        if counts and (bool(keep.any()) or len(new.means)):
            gaussians.rebuild(keep, new)
        gaussians.reset_statistics()
        return counts

    def _superfluous(self, gaussians: GaussianState, clock: Clock) -> Tensor:
        """(G,) bool: nearly transparent, or far too large."""
        values, config = gaussians.values(), self.config
        gone = values.opacity_logits.sigmoid() < config.prune_opacity
        if clock.before >= config.opacity_reset_every:
            gone |= values.log_scales.amax(dim=1).exp() > config.prune_scale * self.extent
        return gone

    def _pulled(self, gaussians: GaussianState, prune: Tensor) -> Tensor:
        """Indices of the Gaussians to clone or split; under the cap the hardest pulled."""
        views = gaussians.statistics["view_count"]
        mean = gaussians.statistics["gradient_sum"] / views.clamp_min(1)
        chosen = ((mean > self.config.grow_threshold) & ~prune).nonzero()[:, 0]
        room = max(self.config.max_gaussians - len(gaussians) + int(prune.sum()), 0)
        if len(chosen) > room:
            best = mean[chosen].topk(room, sorted=False).indices
            chosen = chosen[best.sort().values]
        return chosen

    def _parts(self, parents: GaussianTensors) -> GaussianTensors:
        """Two Gaussians for each row, at points drawn from it and smaller."""
        twice = GaussianTensors(*(torch.cat([tensor, tensor]) for tensor in parents))
        noise = torch.randn(twice.means.shape, generator=self._generator, device=twice.means.device)
        offsets = (noise * twice.log_scales.exp())[..., None]
        means = twice.means + (rotation_from_quaternion(twice.rotations) @ offsets)[..., 0]
        return twice._replace(means=means, log_scales=twice.log_scales - math.log(SPLIT_SHRINK))

    def _reset_opacity(self, gaussians: GaussianState) -> None:
        gaussians.values().opacity_logits.clamp_max_(math.log(RESET_OPACITY / (1 - RESET_OPACITY)))
        gaussians.reset_moments(names=("opacity_logits",))

    def state(self) -> dict[str, Tensor]:
        return {"random.strategy": self._generator.get_state()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self._generator.set_state(tensors["random.strategy"].cpu())
