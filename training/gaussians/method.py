"""Method `gaussians`: 3D Gaussians trained on whole views (Kerbl et al. 2023).

One step: a view in its random order, splatting, 0.8 L1 + 0.2 (1 - SSIM) and regularisers,
gradients, the strategy's statistics, Adam, and what the strategy then changes about the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lumigraph.core import Scene
from lumigraph.core.errors import CheckpointError
from lumigraph.core.gaussian_cloud import GaussianCloud
from lumigraph.cuda.ops import (
    SplatImages,
    SplatOptions,
    adam_rows_,
    image_loss,
    render_gaussians,
)
from lumigraph.cuda.splatting.camera import NEAR
from lumigraph.fields import Gaussians
from lumigraph.renderers import SplatRenderer
from lumigraph.training.checkpoint import copy_state
from lumigraph.training.config_gaussians import GaussiansConfig
from lumigraph.training.image_tables import ExposureTable, PoseTable
from lumigraph.training.method import Model, Progress, StepResult

from .background import Background
from .default_strategy import DefaultStrategy
from .image_tables import RowAdam, corrected_pose
from .initialization import initial_cloud
from .mcmc_strategy import McmcStrategy
from .memory import check_memory
from .schedule import Clock, Schedule, harmonics_degree, resolution_scale
from .strategy import GaussianState, Strategy, ViewGradients
from .views import View, ViewSampler

EXTENT_MARGIN = 1.1  # of the circle around the cameras, as in the 3DGS code
LEAST_EXTENT = 0.25  # in sides of the bounds, for cameras that stand together
NEAR_FACTOR = 0.5  # of `Scene.near`, which is a distance and from training cameras alone
EXPOSURE_RATE = 5e-3
ADAM_EPSILON = 1e-15
LEAST_OPACITY = 1e-3  # of a pixel whose depth is compared


def scene_extent(scene: Scene) -> float:
    """Radius of the training cameras about their middle, with a margin, in scene units."""
    positions = scene.cameras[scene.split("train")].positions
    radius = float((positions - positions.mean(dim=0)).norm(dim=1).max())
    return max(EXTENT_MARGIN * radius, LEAST_EXTENT * scene.side)


def build_renderer(scene: Scene, config: GaussiansConfig, background: Background) -> SplatRenderer:
    """Frames as training shows them, over the background that pictures are judged over."""
    return SplatRenderer(
        background=background.for_frames(),
        antialiased=config.antialiased,
        near=max(NEAR, NEAR_FACTOR * scene.near),
    )


def build_strategy(
    config: GaussiansConfig, *, extent: float, device: torch.device
) -> DefaultStrategy | McmcStrategy:
    """The strategy that a configuration names."""
    seed = config.seed + 2
    if config.strategy == "mcmc":
        return McmcStrategy(config, device=device, seed=seed)
    return DefaultStrategy(config, extent=extent, device=device, seed=seed)


def load_gaussians_model(
    scene: Scene,
    config: GaussiansConfig,
    tensors: dict[str, Tensor],
    header: dict[str, Any],
    path: Path,
    device: torch.device,
) -> Model:
    """Field and renderer of a checkpoint.

    Raises:
        CheckpointError: it holds no Gaussians.
    """
    names = [f"field.{name}" for name in Gaussians(GaussianCloud.empty()).tensors._fields]
    missing = [name for name in names if name not in tensors]
    if missing:
        raise CheckpointError(f"{path}: holds no {missing[0]!r}; it belongs to another model")
    cloud = GaussianCloud(*(tensors[name] for name in names)).to(device)
    field = Gaussians(cloud, active_degree=int(header["active_degree"]))
    background = Background.of_scene(scene, config)
    copy_state(_prefixed("background", background), tensors, path)
    return Model(field, build_renderer(scene, config, background.to(device)), device)


class GaussiansMethod:
    """Gaussians in training.

    Args:
        scene: with images and a split "train".
        config: settings.
        device: where to train.
        initial: where to start instead of what `config.initialization` says.

    Raises:
        DataError: no images, or no points where they are asked for.
        ConfigError: it does not fit into memory.
    """

    def __init__(
        self,
        scene: Scene,
        config: GaussiansConfig,
        device: torch.device,
        *,
        initial: GaussianCloud | None = None,
    ) -> None:
        self.config, self.device = config, device
        train = scene.split("train")
        self._forecast = check_memory(scene, config, device)
        self.views = ViewSampler(
            scene,
            train,
            budget_bytes=int(config.image_budget_gib * 2**30),
            device=device,
            seed=config.seed + 1,
            depths=config.depth_weight > 0,
            near=max(NEAR, NEAR_FACTOR * scene.near),
        )
        cloud, self._notes = (initial, []) if initial is not None else initial_cloud(scene, config)
        self.field = Gaussians(cloud.to(device))
        self.extent = scene_extent(scene)
        self.background = Background.of_scene(scene, config).to(device)
        self._renderer = build_renderer(scene, config, self.background)
        self.strategy: Strategy = build_strategy(config, extent=self.extent, device=device)
        self.gaussians = GaussianState(self.field, self.strategy.statistics)
        self.exposure = ExposureTable(len(train)).to(device) if config.exposure else None
        self.poses = PoseTable(len(train)).to(device) if config.pose_refinement else None
        tables = {
            "background": self.background.table,
            "exposure": None if self.exposure is None else self.exposure.log_gain,
            "poses": None if self.poses is None else self.poses.motion,
        }
        self._tables = {name: RowAdam(t) for name, t in tables.items() if t is not None}
        self._center, self._side = scene.center.to(device), scene.side
        self._has_alpha = scene.has_alpha
        self._schedule = Schedule(config)
        self._bad = torch.zeros(1, dtype=torch.int32, device=device)
        self._bad_steps = 0

    @property
    def renderer(self) -> SplatRenderer:
        """With the background as it is learned by now."""
        self._renderer.background = self.background.for_frames()
        return self._renderer

    def notes(self) -> Sequence[str]:
        size = self._forecast.total / 2**30
        return [
            *self._notes,
            f"up to {self.config.max_gaussians:,} Gaussians take about {size:.1f} GiB",
        ]

    def step(self, progress: Progress) -> StepResult:
        """Train on one view."""
        clock = self._schedule.clock(progress)
        degree = harmonics_degree(self.config, clock)
        if degree > self.field.active_degree:
            self.gaussians.grow_harmonics(degree)
        view = self.views.next(resolution_scale(self.config, clock))
        probe = self._probe(clock)
        images, color, target = self._show(view, probe)
        part = image_loss(
            color, target, weight=view.images.weight, ssim_weight=self.config.ssim_weight
        )
        loss = part.loss + self._depth_loss(view, images)
        loss.backward()
        # asking a GPU would make it wait; there the optimizer leaves out what is not finite
        if self.device.type == "cpu" and not math.isfinite(float(loss.detach())):
            self._skip_step()
        else:
            self._update(progress, clock, view, images, probe)
        return StepResult(
            loss.detach(),
            part.squared_error.detach(),
            view.splat.width * view.splat.height,
            extras={"gaussians": len(self.gaussians)},
        )

    def _probe(self, clock: Clock) -> Tensor | None:
        """Zeros (G, 2) whose gradient says how hard projected means are pulled, where asked for."""
        if not self.strategy.wants_gradients(clock):
            return None
        return torch.zeros(len(self.field), 2, device=self.device, requires_grad=True)

    def _show(self, view: View, probe: Tensor | None) -> tuple[SplatImages, Tensor, Tensor]:
        """The view as it is rendered, its color as it is compared, and what it should be."""
        camera, config = view.splat, self.config
        if self.poses is not None:
            pose = corrected_pose(
                self.poses.motion[view.place],
                camera.world_to_camera,
                center=self._center,
                side=self._side,
            )
            camera = camera.with_pose(pose)
        directions = view.directions() if self.background.needs_directions else None
        behind = self.background.draw(directions)
        # exposure is that of the scene: what stands behind images with alpha has none
        gain = None if self.exposure is None else self.exposure(view.place)
        apart = behind.dim() == 2 or (gain is not None and self._has_alpha)
        images = render_gaussians(
            *self.field.gaussians_at(None),
            camera,
            SplatOptions(
                antialiased=config.antialiased,
                depth=config.depth_weight > 0,
                absolute=self.strategy.absolute_gradients,
            ),
            background=None if apart else behind,
            screen_probe=probe,
        )
        color = images.color
        if behind.dim() == 2:
            behind = behind.reshape(color.shape)
        if gain is not None and self._has_alpha:
            color = color * gain
        if apart:
            color = color + (1 - images.opacity)[..., None] * behind
        if gain is not None and not self._has_alpha:
            color = color * gain
        return images, color, view.target(behind.detach())

    def _depth_loss(self, view: View, images: SplatImages) -> Tensor | float:
        """Mean absolute difference of inverse depths where known, in sides of the bounds."""
        known = view.images.depth
        if known is None or images.depth is None:
            return 0.0
        mask = (known > 0) & (images.opacity.detach() > LEAST_OPACITY)
        if view.images.weight is not None:
            mask = mask & (view.images.weight > 0.5)
        inverse = images.opacity / images.depth.clamp_min(1e-6)
        wanted = torch.where(mask, 1 / known.clamp_min(1e-6), 0.0)
        error = torch.where(mask, (inverse - wanted).abs(), 0.0)
        mean = error.sum() / mask.sum().clamp_min(1)
        return self.config.depth_weight * self._side * mean

    def _skip_step(self) -> None:
        self._bad_steps += 1
        for parameter in (*self.field.tensors, *(adam.table for adam in self._tables.values())):
            parameter.grad = None

    @torch.no_grad()
    def _update(
        self,
        progress: Progress,
        clock: Clock,
        view: View,
        images: SplatImages,
        probe: Tensor | None,
    ) -> None:
        looked_up = probe is not None or self.config.selective_adam
        visible = images.splats[:, 5] > 0 if looked_up else None
        if probe is not None:
            assert visible is not None
            self.strategy.after_backward(
                self.gaussians,
                ViewGradients(probe.grad, visible, view.splat.width, view.splat.height),
            )
        self._regularize()
        means_rate = self.config.means_rate * self.extent * progress.rate
        self._move_gaussians(progress, means_rate, visible)
        self._move_tables(progress, clock, view)
        self.strategy.after_step(self.gaussians, clock, means_rate=means_rate)

    def _regularize(self) -> None:
        """Gradients of the mean opacity and the mean scale, times their weights."""
        count = max(len(self.gaussians), 1)
        logits, scales = self.field.opacity_logits, self.field.log_scales
        if self.config.opacity_weight and logits.grad is not None:
            opacity = logits.detach().sigmoid()
            weight = self.config.opacity_weight / count
            logits.grad.addcmul_(opacity, 1 - opacity, value=weight)
        if self.config.scale_weight and scales.grad is not None:
            weight = self.config.scale_weight / (3 * count)
            scales.grad.add_(scales.detach().exp(), alpha=weight)

    def _move_gaussians(
        self, progress: Progress, means_rate: float, visible: Tensor | None
    ) -> None:
        config = self.config
        harmonics = config.harmonics_rate
        rates = (means_rate, config.rotations_rate, config.scales_rate, config.opacities_rate)
        rows = visible if config.selective_adam else None
        for parameter, moments, rate in zip(
            self.field.tensors, self.gaussians.moments, (*rates, harmonics), strict=True
        ):
            if parameter.grad is None:
                continue
            banded = parameter is self.field.harmonics
            adam_rows_(
                parameter.detach(),
                parameter.grad,
                *moments,
                step=progress.step + 1,
                learning_rate=rate,
                tail_learning_rate=harmonics * config.harmonics_rest_factor if banded else None,
                head=3 if banded else None,
                visible=rows,
                eps=ADAM_EPSILON,
                bad_count=self._bad,
            )
            parameter.grad = None

    def _move_tables(self, progress: Progress, clock: Clock, view: View) -> None:
        if "background" in self._tables:
            self._tables["background"].step(0, self.background.rate)
        if self.exposure is not None:
            self._tables["exposure"].step(view.place, EXPOSURE_RATE)
            self.exposure.center()
        if self.poses is not None:
            # what is not there yet cannot tell where a camera stands
            ready = clock.before >= self.config.refine_start
            rate = self.config.pose_learning_rate * math.sqrt(progress.rate)
            self._tables["poses"].step(view.place, rate if ready else 0.0)
            self.poses.center()

    def bad_gradients(self) -> int:
        """Gradient entries that were left out, and steps that were skipped."""
        return int(self._bad) + self._bad_steps

    def state(self) -> dict[str, Tensor]:
        return {**self.gaussians.state(), **self._modules_state()}

    def _modules_state(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for name in ("background", "exposure", "poses"):
            module = getattr(self, name)
            if module is not None:
                state |= _prefixed(name, module)
        return state

    def random_state(self) -> dict[str, Tensor]:
        return {
            **self.views.state(),
            **self.strategy.state(),
            "random.background": self.background.random_state(),
        }

    def small_state(self) -> dict[str, Tensor]:
        """Adam's moments of backgrounds, exposures and poses."""
        return {
            f"small.{name}.{key}": value
            for name, adam in self._tables.items()
            for key, value in adam.state().items()
        }

    def header(self) -> dict[str, Any]:
        """JSON values that `restore` needs besides tensors."""
        return {
            "active_degree": self.field.active_degree,
            "bad_gradients": int(self._bad),
            "bad_steps": self._bad_steps,
        }

    def restore(self, tensors: dict[str, Tensor], header: dict[str, Any], path: Path) -> None:
        """Go on from a checkpoint, with as many Gaussians as it has."""
        degree = int(header["active_degree"])
        self.gaussians.restore(tensors, str(path))
        self.field.active_degree = degree
        copy_state({**self._modules_state(), **self.small_state()}, tensors, path)
        self.views.restore(tensors)
        self.strategy.restore(tensors)
        self.background.set_random_state(tensors["random.background"])
        self._bad.fill_(int(header["bad_gradients"]))
        self._bad_steps = int(header["bad_steps"])


def _prefixed(name: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{name}.{key}": value for key, value in module.state_dict().items()}
