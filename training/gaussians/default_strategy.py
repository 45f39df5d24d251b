"""Adaptive density control: clone, split, prune and opacity reset (Kerbl et al. 2023, section 5).

A Gaussian whose projected mean is pulled hard stands where detail is missing. The statistic is the
mean over views of the length of the loss's gradient by the projected mean, in units of half the
image (pixel gradient times W / 2 and H / 2). With `absolute` the gradient's parts are sums of
absolute values over pixels (Ye et al. 2024, AbsGS), so that pulls to both sides do not cancel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lumigraph.core.transforms import rotation_from_quaternion
from lumigraph.training.config_gaussians import SplatConfig

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
        self, config: SplatConfig, *, extent: float, device: torch.device, seed: int
    ) -> None:
        self.config, self.extent = config, extent
        self.absolute_gradients = config.absgrad
        self.limit = config.max_gaussians
        self.generator = torch.Generator(device=device).manual_seed(seed)

    def wants_gradients(self, clock: Clock) -> bool:
        return refines(self.config, clock)

    def after_backward(self, gaussians: GaussianState[Any], view: ViewGradients) -> None:
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
        self, gaussians: GaussianState[Any], clock: Clock, *, means_rate: float
    ) -> EditCounts:
        counts = EditCounts()
        if refines_now(self.config, clock):
            counts = self._refine(gaussians, clock)
        latest = LATEST_RESET * self.config.refine_stop_step(round(clock.total))
        if clock.passes(self.config.opacity_reset_every) and clock.before < latest:
            self._reset_opacity(gaussians)
            counts.reset = True
        return counts

    def _refine(self, gaussians: GaussianState[Any], clock: Clock) -> EditCounts:
        prune = self.superfluous(gaussians, clock)
        chosen = self._chosen(gaussians, prune)
        large = self.large(gaussians, chosen)
        cloned, split = chosen[~large], chosen[large]
        counts = EditCounts(len(cloned), len(split), int(prune.sum()))
        keep = ~prune
        keep[split] = False
        parents = gaussians.rows(split)
        parts = self.parts(gaussians.joined([parents, parents]))
        new = gaussians.joined([gaussians.rows(cloned), parts])
        if counts and (bool(keep.any()) or len(new[0])):
            gaussians.rebuild(keep, new)
        gaussians.reset_statistics()
        return counts

    def superfluous(self, gaussians: GaussianState[Any], clock: Clock) -> Tensor:
        """(G,) bool: nearly transparent, or far too large."""
        values, config = gaussians.values(), self.config
        gone = values.opacity_logits.sigmoid() < config.prune_opacity
        if clock.before >= config.opacity_reset_every:
            largest = values.log_scales[:, :3].amax(dim=1)
            gone |= largest.exp() > config.prune_scale * self.extent
        return gone

    def pulls(self, gaussians: GaussianState[Any]) -> Tensor:
        """(G,) how hard Gaussians are pulled; those above 1 are cloned or split."""
        views = gaussians.statistics["view_count"].clamp_min(1)
        return gaussians.statistics["gradient_sum"] / views / max(self.config.grow_threshold, 1e-30)

    def large(self, gaussians: GaussianState[Any], chosen: Tensor) -> Tensor:
        """Which of some rows (int64 indices) are split, not cloned."""
        largest = gaussians.values().log_scales[:, :3].index_select(0, chosen).amax(dim=1)
        return largest.exp() > self.config.grow_scale * self.extent

    def parts(self, twice: Any) -> Any:
        """Gaussians at points drawn from each of some rows, and smaller."""
        noise = torch.randn(twice.means.shape, generator=self.generator, device=twice.means.device)
        offsets = (noise * twice.log_scales.exp())[..., None]
        means = twice.means + (rotation_from_quaternion(twice.rotations) @ offsets)[..., 0]
        return twice._replace(means=means, log_scales=twice.log_scales - math.log(SPLIT_SHRINK))

    def _chosen(self, gaussians: GaussianState[Any], prune: Tensor) -> Tensor:
        """Indices of the Gaussians to clone or split; under the cap the hardest pulled."""
        pulls = self.pulls(gaussians)
        chosen = ((pulls > 1) & ~prune).nonzero()[:, 0]
        room = max(self.limit - len(gaussians) + int(prune.sum()), 0)
        if len(chosen) > room:
            best = pulls[chosen].topk(room, sorted=False).indices
            chosen = chosen[best.sort().values]
        return chosen

    def _reset_opacity(self, gaussians: GaussianState[Any]) -> None:
        gaussians.values().opacity_logits.clamp_max_(math.log(RESET_OPACITY / (1 - RESET_OPACITY)))
        gaussians.reset_moments(names=("opacity_logits",))

    def state(self) -> Tensor:
        return self.generator.get_state()

    def restore(self, state: Tensor) -> None:
        self.generator.set_state(state.cpu())
