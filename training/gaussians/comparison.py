"""A view as it is rendered, compared with what it should be: the color behind it, the exposure and
the pose of its image, its depth. What of that is learned has its own Adam."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lumigraph.core import Scene
from lumigraph.cuda.ops import SplatImages, image_loss
from lumigraph.cuda.splatting import SplatCamera
from lumigraph.training.config_gaussians import SplatConfig
from lumigraph.training.image_tables import ExposureTable, PoseTable
from lumigraph.training.method import Progress

from .background import Background
from .image_tables import RowAdam, corrected_pose
from .schedule import Clock
from .views import View

EXPOSURE_RATE = 5e-3
LEAST_OPACITY = 1e-3  # of a pixel whose depth is compared

Draw = Callable[[SplatCamera, Tensor | None], SplatImages]
"""(camera, color behind or None for nothing) -> picture."""


def prefixed(name: str, module: nn.Module) -> dict[str, Tensor]:
    """Tensors of a module by the names that a checkpoint gives them."""
    return {f"{name}.{key}": value for key, value in module.state_dict().items()}


class Comparison:
    """What belongs to views, and the loss of one.

    Args:
        scene: with images and a split "train".
        config: settings.
        device: where to train.
    """

    def __init__(self, scene: Scene, config: SplatConfig, device: torch.device) -> None:
        self.config = config
        count = len(scene.split("train"))
        self.background = Background.of_scene(scene, config).to(device)
        self.exposure = ExposureTable(count).to(device) if config.exposure else None
        self.poses = PoseTable(count).to(device) if config.pose_refinement else None
        tables = {
            "background": self.background.table,
            "exposure": None if self.exposure is None else self.exposure.log_gain,
            "poses": None if self.poses is None else self.poses.motion,
        }
        self._tables = {name: RowAdam(t) for name, t in tables.items() if t is not None}
        self._center, self._side = scene.center.to(device), scene.side
        self._has_alpha = scene.has_alpha

    def loss(self, view: View, draw: Draw) -> tuple[SplatImages, Tensor, Tensor]:
        """The picture of a view, its loss (), and its mean squared error ()."""
        images, color, target = self._show(view, draw)
        found = image_loss(
            color, target, weight=view.images.weight, ssim_weight=self.config.ssim_weight
        )
        return images, found.loss + self._depth_loss(view, images), found.squared_error.detach()

    def _show(self, view: View, draw: Draw) -> tuple[SplatImages, Tensor, Tensor]:
        """The view as it is rendered, its color as it is compared, and what it should be."""
        camera = view.splat
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
        images = draw(camera, None if apart else behind)
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

    def forget_gradients(self) -> None:
        """After a step that is left out."""
        for adam in self._tables.values():
            adam.table.grad = None

    def move(self, progress: Progress, clock: Clock, views: Sequence[View]) -> None:
        """Move what is learned by the gradients of some views."""
        if "background" in self._tables:
            self._tables["background"].step([0], self.background.rate)
        places = sorted({view.place for view in views})
        if self.exposure is not None:
            self._tables["exposure"].step(places, EXPOSURE_RATE)
            self.exposure.center()
        if self.poses is not None:
            # what is not there yet cannot tell where a camera stands
            ready = clock.before >= self.config.refine_start
            rate = self.config.pose_learning_rate * math.sqrt(progress.rate)
            self._tables["poses"].step(places, rate if ready else 0.0)
            self.poses.center()

    def state(self) -> dict[str, Tensor]:
        """What is learned, for a checkpoint."""
        state: dict[str, Tensor] = {}
        for name in ("background", "exposure", "poses"):
            module = getattr(self, name)
            if module is not None:
                state |= prefixed(name, module)
        return state

    def small_state(self) -> dict[str, Tensor]:
        """Adam's moments of backgrounds, exposures and poses."""
        return {
            f"small.{name}.{key}": value
            for name, adam in self._tables.items()
            for key, value in adam.state().items()
        }
