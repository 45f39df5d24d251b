"""Gaussians as samples of a distribution (Kheradmand et al. 2024, "3DGS as Markov chain Monte
Carlo"): transparent ones move to opaque ones, the number grows by 5 % up to a cap, every step adds
noise that pushes transparent Gaussians about.

A Gaussian with opacity o that becomes n equal ones keeps its look when

    o' = 1 - (1 - o)^(1/n)
    s' = s o / sum_{j=1..n} C(n, j) (-1)^(j-1) o'^j / sqrt(j)

(the paper's double sum over i and k, with the sum over i done: C(k, k) + ... + C(n-1, k) =
C(n, k+1)).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lumigraph.cuda.ops import perturb_means_
from lumigraph.training.config_gaussians import SplatConfig

from .schedule import Clock, refines_now
from .strategy import EditCounts, GaussianState, ViewGradients, draw_rows

GROWTH = 0.05  # part of the Gaussians that is added at each change
MOST_COPIES = 51  # a Gaussian that is drawn more often counts as drawn so often
HIGHEST_OPACITY = 1 - 1e-6  # an exact 1 has no logit


def split_opacity_and_scale(opacities: Tensor, copies: Tensor) -> tuple[Tensor, Tensor]:
    """Opacity of each of n equal Gaussians that together look like one, and factor on its scales.

    Args:
        opacities: (N,) in (0, 1).
        copies: (N,) int64 n, at least 1; more than 51 counts as 51.

    Returns:
        (N,) and (N,), float64.

    Example:
        >>> opacity, factor = split_opacity_and_scale(torch.tensor([0.75]), torch.tensor([2]))
        >>> round(float(opacity), 6)
        0.5
    """
    n = copies.clamp(1, MOST_COPIES).double()[:, None]
    whole = opacities.double()[:, None]
    part = -torch.expm1(torch.log1p(-whole) / n)
    most = int(n.max()) if len(n) else 1
    j = torch.arange(1, most + 1, dtype=torch.float64, device=n.device)
    # C(n, j) is 0 for j > n; the clamp keeps lgamma away from its poles there
    log_binomial = (
        torch.lgamma(n + 1) - torch.lgamma(j + 1) - torch.lgamma((n - j).clamp_min(0) + 1)
    )
    sign = 1 - 2 * ((j - 1) % 2)
    terms = torch.exp(log_binomial + j * part.log()) * sign / j.sqrt()
    total = torch.where(j <= n, terms, 0.0).sum(dim=1)
    return part[:, 0], whole[:, 0] / total


class McmcStrategy:
    """Relocate, grow to the cap, add noise.

    Args:
        config: when and how.
        device: of the Gaussians.
        seed: of the choice of Gaussians and of the noise.
    """

    statistics: Sequence[str] = ()
    absolute_gradients = False

    def __init__(self, config: SplatConfig, *, device: torch.device, seed: int) -> None:
        self.config = config
        self.limit = config.max_gaussians
        self.generator = torch.Generator(device=device).manual_seed(seed)

    def wants_gradients(self, clock: Clock) -> bool:
        return False

    def after_backward(self, gaussians: GaussianState[Any], view: ViewGradients) -> None:
        """Nothing: opacities say all."""

    @torch.no_grad()
    def after_step(
        self, gaussians: GaussianState[Any], clock: Clock, *, means_rate: float
    ) -> EditCounts:
        counts = EditCounts()
        if refines_now(self.config, clock):
            counts = self._refine(gaussians)
        self.add_noise(gaussians, self.config.noise_rate * means_rate)
        return counts

    def _refine(self, gaussians: GaussianState[Any]) -> EditCounts:
        """Dead rows and new ones become copies of rows drawn by their opacity."""
        opacities = gaussians.values().opacity_logits.sigmoid()
        alive = self.alive(gaussians, opacities)
        dead = (~alive).nonzero()[:, 0]
        size = len(gaussians)
        grown = min(self.limit, int((1 + GROWTH) * size) + 1)
        counts = EditCounts(relocated=len(dead), added=max(grown - size, 0))
        wanted = counts.relocated + counts.added
        if len(dead) == size or wanted == 0:
            return EditCounts()
        drawn = draw_rows(opacities * alive, wanted, self.generator)
        self._share(gaussians, opacities, drawn)
        gaussians.write(dead, gaussians.rows(drawn[: len(dead)]))
        gaussians.append(gaussians.rows(drawn[len(dead) :]))
        return counts

    def alive(self, gaussians: GaussianState[Any], opacities: Tensor) -> Tensor:
        """(G,) bool: Gaussians that show something, given their opacities (G,)."""
        return opacities > self.config.prune_opacity

    def _share(self, gaussians: GaussianState[Any], opacities: Tensor, drawn: Tensor) -> None:
        """Give each drawn row the opacity and scales of one of its copies."""
        sources, times = drawn.unique(return_counts=True)
        opacity, factor = split_opacity_and_scale(opacities[sources], times + 1)
        opacity = opacity.clamp(self.config.prune_opacity, HIGHEST_OPACITY)
        rows = gaussians.rows(sources)
        log_scales = rows.log_scales.clone()
        log_scales[:, :3] += factor.log().float()[:, None]  # a fourth is a duration, which stays
        opacity_logits = torch.logit(opacity).float()
        gaussians.write(
            sources, rows._replace(opacity_logits=opacity_logits, log_scales=log_scales)
        )

    def add_noise(self, gaussians: GaussianState[Any], rate: float) -> None:
        """Move faint Gaussians about."""
        if rate <= 0 or not len(gaussians):
            return
        values = gaussians.values()
        noise = torch.randn(values.means.shape, generator=self.generator, device=gaussians.device)
        perturb_means_(
            values.means,
            values.rotations,
            values.log_scales,
            values.opacity_logits,
            noise,
            rate=rate,
        )

    def state(self) -> Tensor:
        return self.generator.get_state()

    def restore(self, state: Tensor) -> None:
        self.generator.set_state(state.cpu())
