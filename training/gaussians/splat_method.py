"""What methods that train Gaussians share: a step on a batch of views, what belongs to views and
to pixels, Adam, and state for checkpoints.

One step: views in their random order, splatting, 0.8 L1 + 0.2 (1 - SSIM) and regularisers,
gradients, the strategies' statistics, Adam, and what the strategies then change about the rows.
Letters: A rows of all parts together, in their order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumigraph.core import Scene
from lumigraph.cuda.ops import SplatImages, SplatOptions, adam_rows_
from lumigraph.cuda.splatting import SplatCamera
from lumigraph.cuda.splatting.camera import NEAR
from lumigraph.renderers import SplatRenderer
from lumigraph.training.checkpoint import copy_state
from lumigraph.training.config_gaussians import SplatConfig
from lumigraph.training.method import Progress, StepResult

from .background import Background
from .comparison import Comparison, prefixed
from .schedule import Clock, Schedule, harmonics_degree, resolution_scale
from .strategy import GaussianState, Strategy, ViewGradients
from .views import View, ViewSampler

EXTENT_MARGIN = 1.1  # of the circle around the cameras, as in the 3DGS code
LEAST_EXTENT = 0.25  # in sides of the bounds, for cameras that stand together
NEAR_FACTOR = 0.5  # of `Scene.near`, which is a distance and from training cameras alone
ADAM_EPSILON = 1e-15


def scene_extent(scene: Scene) -> float:
    """Radius of the training cameras about their middle, with a margin, in scene units."""
    positions = scene.cameras[scene.split("train")].positions
    radius = float((positions - positions.mean(dim=0)).norm(dim=1).max())
    return max(EXTENT_MARGIN * radius, LEAST_EXTENT * scene.side)


def build_renderer(scene: Scene, config: SplatConfig, background: Background) -> SplatRenderer:
    """Frames as training shows them, over the background that pictures are judged over."""
    return SplatRenderer(
        background=background.for_frames(),
        antialiased=config.antialiased,
        near=max(NEAR, NEAR_FACTOR * scene.near),
    )


def load_renderer(
    scene: Scene, config: SplatConfig, tensors: dict[str, Tensor], path: Path, device: torch.device
) -> SplatRenderer:
    """The renderer of a checkpoint, with the background as it was learned."""
    background = Background.of_scene(scene, config)
    copy_state(prefixed("background", background), tensors, path)
    return build_renderer(scene, config, background.to(device))


@dataclass(frozen=True)
class Part:
    """Some of the Gaussians, with what decides about their number."""

    name: str
    """Of its random numbers in a checkpoint."""
    rows: GaussianState[Any]
    strategy: Strategy[Any]


@dataclass(frozen=True)
class Shown:
    """A view as it was rendered in a step."""

    view: View
    visible: Tensor
    """(A,) bool."""
    probe: Tensor | None
    """(A, 2) whose gradient says how hard projected means are pulled."""
    squared_error: Tensor
    """() mean over pixels and channels."""


class SplatMethod:
    """Gaussians in training. Methods derive from it: they make the field and its parts, and say
    how a view of them is rendered and how fast parameters move.

    Args:
        scene: with images and a split "train".
        config: settings.
        device: where to train.
    """

    parts: Sequence[Part]

    def __init__(self, scene: Scene, config: SplatConfig, device: torch.device) -> None:
        self.device = device
        self._settings = config
        train = scene.split("train")
        self.views = ViewSampler(
            scene,
            train,
            budget_bytes=int(config.image_budget_gib * 2**30),
            device=device,
            seed=config.seed + 1,
            depths=config.depth_weight > 0,
            near=max(NEAR, NEAR_FACTOR * scene.near),
            ahead=config.batch_views,
        )
        self.extent = scene_extent(scene)
        self.comparison = Comparison(scene, config, device)
        self._renderer = build_renderer(scene, config, self.comparison.background)
        self._schedule = Schedule(config)
        self._bad = torch.zeros(1, dtype=torch.int32, device=device)
        self._bad_steps = 0

    # ---- what a method says

    def render_view(
        self,
        view: View,
        camera: SplatCamera,
        options: SplatOptions,
        *,
        background: Tensor | None,
        probe: Tensor | None,
    ) -> SplatImages:
        """The picture of a view, by `camera`, differentiable."""
        raise NotImplementedError

    def rates(self, progress: Progress) -> Mapping[str, float]:
        """Learning rate of every parameter by name; of harmonics, that of the constant term."""
        raise NotImplementedError

    def add_gradients(self, progress: Progress, clock: Clock) -> None:
        """Add to the gradients of the views what depends on the Gaussians alone."""
        for part in self.parts:
            self._regularize(part.rows)

    def after_update(self, clock: Clock, means_rate: float) -> None:
        """Change the rows, after the parameters moved."""
        for place, part in enumerate(self.parts):
            others = sum(len(p.rows) for k, p in enumerate(self.parts) if k != place)
            part.strategy.limit = self._settings.max_gaussians - others
            if len(part.rows):
                part.strategy.after_step(part.rows, clock, means_rate=means_rate)

    def counts(self) -> dict[str, float]:
        """Numbers for logs and progress lines."""
        return {"gaussians": len(self)}

    # ---- a step

    def __len__(self) -> int:
        return sum(len(part.rows) for part in self.parts)

    @property
    def renderer(self) -> SplatRenderer:
        """With the background as it is learned by now."""
        self._renderer.background = self.comparison.background.for_frames()
        return self._renderer

    @property
    def active_degree(self) -> int:
        """Degree of the harmonics that is trained."""
        degree: int = self.parts[0].rows.field.active_degree  # type: ignore[attr-defined]
        return degree

    def step(self, progress: Progress) -> StepResult:
        """Train on a batch of views."""
        clock, config = self._schedule.clock(progress), self._settings
        degree = harmonics_degree(config, clock)
        if degree > self.active_degree:
            for part in self.parts:
                part.rows.grow_harmonics(degree)
        scale = resolution_scale(config, clock)
        views = [self.views.next(scale) for _ in range(config.batch_views)]
        total: Tensor | float = 0.0
        shown = []
        for view in views:
            one, loss = self._train_view(view, clock)
            total = total + loss
            shown.append(one)
        assert isinstance(total, Tensor)
        # asking a GPU would make it wait; there the optimizer leaves out what is not finite
        if self.device.type == "cpu" and not math.isfinite(float(total)):
            self._skip_step()
        else:
            self._update(progress, clock, shown)
        return StepResult(
            total,
            torch.stack([one.squared_error for one in shown]).mean(),
            sum(view.splat.width * view.splat.height for view in views),
            extras=self.counts(),
        )

    def _train_view(self, view: View, clock: Clock) -> tuple[Shown, Tensor]:
        """Add a view's share of the gradients."""
        probe = self._probe(clock)
        options = SplatOptions(
            antialiased=self._settings.antialiased,
            depth=self._settings.depth_weight > 0,
            absolute=self.parts[0].strategy.absolute_gradients,
        )

        def draw(camera: SplatCamera, background: Tensor | None) -> SplatImages:
            return self.render_view(view, camera, options, background=background, probe=probe)

        images, loss, squared_error = self.comparison.loss(view, draw)
        loss = loss / self._settings.batch_views
        loss.backward()
        visible = images.splats[:, 5] > 0
        return Shown(view, visible, probe, squared_error), loss.detach()

    def _probe(self, clock: Clock) -> Tensor | None:
        """Zeros (A, 2) whose gradient says how hard projected means are pulled, where asked for."""
        if not any(part.strategy.wants_gradients(clock) for part in self.parts):
            return None
        return torch.zeros(len(self), 2, device=self.device, requires_grad=True)

    def _skip_step(self) -> None:
        self._bad_steps += 1
        for part in self.parts:
            for parameter in part.rows.parameters():
                parameter.grad = None
        self.comparison.forget_gradients()

    @torch.no_grad()
    def _update(self, progress: Progress, clock: Clock, shown: Sequence[Shown]) -> None:
        first = 0
        for part in self.parts:
            self._note(part, shown, slice(first, first + len(part.rows)))
            first += len(part.rows)
        self.add_gradients(progress, clock)
        rates = self.rates(progress)
        visible = None
        if self._settings.selective_adam:
            visible = torch.stack([one.visible for one in shown]).any(dim=0)
        first = 0
        for part in self.parts:
            count = len(part.rows)
            seen = None if visible is None else visible[first : first + count]
            self._move_rows(part.rows, progress.step + 1, rates, seen)
            first += count
        self.comparison.move(progress, clock, [one.view for one in shown])
        self.after_update(clock, rates["means"])

    def _note(self, part: Part, shown: Sequence[Shown], rows: slice) -> None:
        """Tell a strategy about the gradients of each view."""
        for one in shown:
            if one.probe is None:
                continue
            screen = None if one.probe.grad is None else one.probe.grad[rows]
            view = one.view.splat
            part.strategy.after_backward(
                part.rows, ViewGradients(screen, one.visible[rows], view.width, view.height)
            )

    def _regularize(self, rows: GaussianState[Any]) -> None:
        """Gradients of the mean opacity and the mean scale, times their weights."""
        config, count = self._settings, max(len(self), 1)
        tensors = rows.field.tensors
        logits, scales = tensors.opacity_logits, tensors.log_scales
        if config.opacity_weight and logits.grad is not None:
            opacity = logits.detach().sigmoid()
            weight = config.opacity_weight / count
            logits.grad.addcmul_(opacity, 1 - opacity, value=weight)
        if config.scale_weight and scales.grad is not None:
            weight = config.scale_weight / (3 * count)
            scales.grad[:, :3].add_(scales.detach()[:, :3].exp(), alpha=weight)

    def _move_rows(
        self,
        rows: GaussianState[Any],
        step: int,
        rates: Mapping[str, float],
        visible: Tensor | None,
    ) -> None:
        for name, parameter, moments in zip(
            rows.names, rows.parameters(), rows.moments, strict=True
        ):
            if parameter.grad is None:
                continue
            banded = name == "harmonics"
            rest = rates[name] * self._settings.harmonics_rest_factor
            adam_rows_(
                parameter.detach(),
                parameter.grad,
                *moments,
                step=step,
                learning_rate=rates[name],
                tail_learning_rate=rest if banded else None,
                head=3 if banded else None,
                visible=visible,
                eps=ADAM_EPSILON,
                bad_count=self._bad,
            )
            parameter.grad = None

    # ---- state

    def bad_gradients(self) -> int:
        """Gradient entries that were left out, and steps that were skipped."""
        return int(self._bad) + self._bad_steps

    def state(self) -> dict[str, Tensor]:
        state = self.comparison.state()
        for part in self.parts:
            state |= part.rows.state()
        return state

    def random_state(self) -> dict[str, Tensor]:
        return {
            **self.views.state(),
            **{f"random.{part.name}": part.strategy.state() for part in self.parts},
            "random.background": self.comparison.background.random_state(),
        }

    def small_state(self) -> dict[str, Tensor]:
        return self.comparison.small_state()

    def header(self) -> dict[str, Any]:
        """JSON values that `restore` needs besides tensors."""
        return {
            "active_degree": self.active_degree,
            "bad_gradients": int(self._bad),
            "bad_steps": self._bad_steps,
        }

    def restore(self, tensors: dict[str, Tensor], header: dict[str, Any], path: Path) -> None:
        """Go on from a checkpoint, with as many Gaussians as it has."""
        degree = int(header["active_degree"])
        for part in self.parts:
            part.rows.restore(tensors, str(path))
            part.rows.field.active_degree = degree  # type: ignore[attr-defined]
        copy_state({**self.comparison.state(), **self.comparison.small_state()}, tensors, path)
        self.views.restore(tensors)
        for part in self.parts:
            part.strategy.restore(tensors[f"random.{part.name}"])
        self.comparison.background.set_random_state(tensors["random.background"])
        self._bad.fill_(int(header["bad_gradients"]))
        self._bad_steps = int(header["bad_steps"])
