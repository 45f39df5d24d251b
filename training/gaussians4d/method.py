"""Method `gaussians4d`: Gaussians in space and time (Duan et al. 2024, 4D-Rotor Gaussian
Splatting), with those that do not change kept as Gaussians in space.

The step is that of `gaussians/splat_method.py`, on views of any moment. What comes on top: losses
on opacities and velocities, strategies for space and time, a look now and then for Gaussians that
have come to rest, and one removal of those that add least.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumigraph.core import Scene
from lumigraph.core.errors import CheckpointError
from lumigraph.core.gaussian_cloud import GaussianCloud
from lumigraph.core.gaussian_cloud4d import GaussianCloud4D
from lumigraph.cuda.ops import SplatImages, SplatOptions
from lumigraph.cuda.splatting import SplatCamera
from lumigraph.fields import Gaussian4DTensors, Gaussians4D, GaussianTensors
from lumigraph.training.config_gaussians4d import Gaussians4DConfig
from lumigraph.training.gaussians.memory import check_memory
from lumigraph.training.gaussians.method import build_strategy
from lumigraph.training.gaussians.schedule import Clock
from lumigraph.training.gaussians.splat_method import Part, SplatMethod, load_renderer
from lumigraph.training.gaussians.strategy import GaussianState
from lumigraph.training.gaussians.views import View
from lumigraph.training.method import Model, Progress

from .consistency import Consistency
from .default_strategy import Default4DStrategy
from .initialization import Start, frame_duration, initial_clouds, training_moments
from .lifetimes import Clip, at_rest, unchanging
from .mcmc_strategy import Mcmc4DStrategy
from .pruning import blended_weights, scores

SHAPE_NUMBERS = 17  # position, time, rotor, scales and opacity
LEAST_LOG_OPACITY = 1e-3  # opacities are kept so far from 0 and 1 in the entropy


def load_gaussians4d_model(
    scene: Scene,
    config: Gaussians4DConfig,
    tensors: dict[str, Tensor],
    header: dict[str, Any],
    path: Path,
    device: torch.device,
) -> Model:
    """Field and renderer of a checkpoint.

    Raises:
        CheckpointError: it holds no Gaussians in space and time.
    """
    plateaus = "field.log_plateaus" in tensors
    names = [name for name in Gaussian4DTensors._fields if plateaus or name != "log_plateaus"]
    keys = [f"field.{name}" for name in names]
    still_keys = [f"still.field.{name}" for name in GaussianTensors._fields]
    missing = [key for key in (*keys, *still_keys) if key not in tensors]
    if missing:
        raise CheckpointError(f"{path}: holds no {missing[0]!r}; it belongs to another model")
    length = float(header["clip_length"])
    field = Gaussians4D(
        GaussianCloud4D(*(tensors[key] for key in keys)).to(device).retimed(1 / length),
        still=GaussianCloud(*(tensors[key] for key in still_keys)).to(device),
        moments=torch.tensor(header["moments"], device=device),
        active_degree=int(header["active_degree"]),
        shortest=float(header["shortest"]) / length,
    )
    field.eval()  # which renders from what was made ready once
    return Model(field, load_renderer(scene, config, tensors, path, device), device)


class TrainedGaussians4D(Gaussians4D):
    """The field while it trains, whose Gaussians have times over [0, `length`].

    The angle between the time and the axis that a Gaussian moves along is what is learned of a
    velocity: hardly any for slow ones, and close to a right angle where a scene is crossed within a
    small part of the clip. With a longer clip they move at about their own size in a unit of time.
    """

    def __init__(
        self,
        cloud: GaussianCloud4D,
        *,
        still: GaussianCloud | None,
        moments: Tensor,
        shortest: float,
        length: float,
    ) -> None:
        super().__init__(cloud.retimed(length), still=still, moments=moments, shortest=shortest)
        self.length = length

    def _time(self, time: float | None) -> float:
        return super()._time(time) * self.length

    def cloud(self) -> GaussianCloud4D:
        return super().cloud().retimed(1 / self.length)


class Gaussians4DMethod(SplatMethod):
    """Gaussians in space and time in training.

    Args:
        scene: with images, times and a split "train".
        config: settings.
        device: where to train.
        initial: where to start instead of what the settings say.

    Raises:
        DataError: no images or times, or no points where they are asked for.
        ConfigError: it does not fit into memory.
    """

    def __init__(
        self,
        scene: Scene,
        config: Gaussians4DConfig,
        device: torch.device,
        *,
        initial: GaussianCloud4D | None = None,
    ) -> None:
        self.config = config
        moments = training_moments(scene)
        numbers = SHAPE_NUMBERS + config.plateaus
        self._forecast = check_memory(scene, config, device, shape_numbers=numbers)
        super().__init__(scene, config, device)
        start = Start(initial, None, []) if initial is not None else initial_clouds(scene, config)
        self._notes = start.notes
        frame = frame_duration(moments) * config.clip_length
        self.clip = Clip(config.clip_length, frame, config.shortest_duration * frame)
        self.field = TrainedGaussians4D(
            start.moving.to(device),
            still=None if start.still is None else start.still.to(device),
            moments=moments,
            shortest=self.clip.shortest,
            length=self.clip.length,
        )
        moving = self._moving_strategy()
        still = build_strategy(config, extent=self.extent, device=device, seed=config.seed + 4)
        self.moving = GaussianState[Gaussian4DTensors](self.field, moving.statistics)
        self.still = GaussianState[GaussianTensors](
            self.field.still, still.statistics, part="still."
        )
        self.parts = [Part("strategy", self.moving, moving), Part("still", self.still, still)]
        self.consistency = Consistency(config, device=device, seed=config.seed + 5, clip=self.clip)

    def _moving_strategy(self) -> Default4DStrategy | Mcmc4DStrategy:
        config, seed = self.config, self.config.seed + 2
        if config.strategy == "mcmc":
            return Mcmc4DStrategy(config, device=self.device, seed=seed, clip=self.clip)
        return Default4DStrategy(
            config, extent=self.extent, device=self.device, seed=seed, clip=self.clip
        )

    def notes(self) -> Sequence[str]:
        return [*self._notes, self._forecast.note(self.config)]

    def render_view(
        self,
        view: View,
        camera: SplatCamera,
        options: SplatOptions,
        *,
        background: Tensor | None,
        probe: Tensor | None,
    ) -> SplatImages:
        assert view.time is not None
        return self.field.render(
            view.time * self.clip.length, camera, options, background=background, screen_probe=probe
        )

    def rates(self, progress: Progress) -> Mapping[str, float]:
        config = self.config
        # what a constant rate makes a rotor tremble, a Gaussian moves by at the ends of its life
        turning = config.rotations_rate * math.sqrt(progress.rate)
        return {
            "means": config.means_rate * self.extent * progress.rate,
            "times": config.times_rate * self.clip.length * progress.rate,
            "rotors": turning,
            "rotations": config.rotations_rate,
            "log_scales": config.scales_rate,
            "opacity_logits": config.opacities_rate,
            "harmonics": config.harmonics_rate,
            "log_plateaus": config.scales_rate,
        }

    def add_gradients(self, progress: Progress, clock: Clock) -> None:
        super().add_gradients(progress, clock)
        if self.config.entropy_weight:
            for part in self.parts:
                self._add_entropy(part.rows)
        self.consistency.add_gradients(self.moving, clock)

    def _add_entropy(self, rows: GaussianState[Any]) -> None:
        """Gradient of the mean of -o ln o, times its weight."""
        logits = rows.field.tensors.opacity_logits
        if logits.grad is None:
            return
        opacity = logits.detach().sigmoid()
        within = (opacity > LEAST_LOG_OPACITY) & (opacity < 1 - LEAST_LOG_OPACITY)
        slope = -(opacity.clamp_min(LEAST_LOG_OPACITY).log() + 1) * opacity * (1 - opacity)
        weight = self.config.entropy_weight / max(len(self), 1)
        logits.grad.add_(torch.where(within, slope, 0.0), alpha=weight)

    @torch.no_grad()
    def after_update(self, clock: Clock, means_rate: float) -> None:
        before = len(self.moving)
        edited = clock.passes(self.config.refine_every)
        super().after_update(clock, means_rate)
        if self.config.still and self._looks_for_rest(clock):
            self._bring_to_rest()
        if self.config.prune_share and self._prunes(clock):
            self._prune()
        if edited or len(self.moving) != before:
            self.consistency.forget()

    def _looks_for_rest(self, clock: Clock) -> bool:
        started = clock.after >= self.config.still_start * clock.total
        return started and clock.passes(self.config.still_every)

    def _bring_to_rest(self) -> None:
        """Move Gaussians that do not change to the still part."""
        values, config = self.moving.values(), self.config
        resting = unchanging(values, self.clip, travel=config.still_travel, fade=config.still_fade)
        rows = resting.nonzero()[:, 0]
        if len(rows):
            self.still.append(at_rest(self.moving.rows(rows), self.clip))
            self.moving.keep(~resting)

    def _prunes(self, clock: Clock) -> bool:
        stop = self.config.refine_stop_step(round(clock.total))
        return clock.before < stop <= clock.after

    def _prune(self) -> None:
        """Remove the Gaussians that add least to the training views."""
        views = self.views.some(self.config.prune_views)
        seen = [(t * self.clip.length, camera) for t, camera in views if t is not None]
        with torch.enable_grad():
            weights = blended_weights(self.field, seen)
        found = scores(self.field, weights, self.clip)
        kept = torch.ones_like(found, dtype=torch.bool)
        kept[found.argsort()[: int(self.config.prune_share * len(found))]] = False
        count = len(self.moving)
        self.moving.keep(kept[:count])
        self.still.keep(kept[count:])

    def counts(self) -> dict[str, float]:
        total = len(self)
        return {"gaussians": total, "still_share": round(len(self.still) / max(total, 1), 4)}

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), **self.consistency.state()}

    def random_state(self) -> dict[str, Tensor]:
        random = {"random.consistency": self.consistency.random_state()}
        return {**super().random_state(), **random}

    def header(self) -> dict[str, Any]:
        moments = self.field.moments.tolist()
        return {
            **super().header(),
            "moments": moments,
            "shortest": self.clip.shortest,
            "clip_length": self.clip.length,
        }

    def restore(self, tensors: dict[str, Tensor], header: dict[str, Any], path: Path) -> None:
        super().restore(tensors, header, path)
        self.consistency.restore(tensors, tensors["random.consistency"])
