"""Method `neus`: a neural surface trained on random pixels (NeuS2, Wang et al. 2023, static part).

A step: choose the levels of the grid that are on, look after the occupancy grid, render random rays
with the weights of NeuS, and add up the losses that the settings ask for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumigraph.core import DataError, Scene
from lumigraph.cuda.grid import GridLayout
from lumigraph.cuda.optimizer import adam_step_, ema_step_
from lumigraph.fields import (
    NeuralSurface,
    Surroundings,
    TrainedParameter,
    progressive_levels,
    to_grid_space,
)
from lumigraph.fields.surface_field import MOST_SHARPNESS
from lumigraph.renderers import OccupancyGrid, SurfaceRays, SurfaceRenderer
from lumigraph.renderers.surface import OCCUPANCY_MARGIN

from .checkpoint import copy_state
from .config import NeusConfig
from .image_optimizer import ImageOptimizer
from .method import Model, Progress, StepResult
from .pixels import PixelSampler, RayBatch
from .silhouettes import check_views, scene_of_surface
from .surface_losses import (
    color_loss,
    depth_loss,
    eikonal_loss,
    mask_loss,
    tangent_directions,
)

__all__ = ["NeusMethod", "load_neus_model", "scene_of_surface"]

FIRST_RAYS = 512
LEAST_RAYS, MOST_RAYS = 128, 2**18
ROOM = 4  # marched samples of a step, of those that light reaches
EARLY_STEPS = 512  # while the surface still moves, old cells fade fast
EARLY_DECAY = 0.6
# Surfaces appear where nothing was: random looks take a thousand steps to have been everywhere.
ROUND_STEPS = 512
ADAM_BETAS = (0.9, 0.99)
POINTS = 1024  # of the scene, looked at in a step
CURVED_PART = 4  # every so many samples are asked for their curvature


def build_field(scene: Scene, config: NeusConfig, device: torch.device) -> NeuralSurface:
    """The field that a configuration asks for, with initial weights."""
    layout = GridLayout.from_resolutions(
        config.base_resolution,
        config.max_resolution,
        levels=config.levels,
        features=config.features,
        log2_table_size=config.log2_table_size,
        smooth=config.interpolation == "smooth",
    )
    field = NeuralSurface(
        scene.bounds,
        layout,
        hidden_width=config.hidden_width,
        surface_layers=config.surface_layers,
        color_layers=config.color_layers,
        activation=config.activation,
        radius=config.initial_radius,
        seed=config.seed,
    )
    return field.to(device)


def build_surroundings(config: NeusConfig, device: torch.device) -> Surroundings | None:
    """The field behind the bounds, where the settings ask for one."""
    if config.background != "model":
        return None
    surroundings = Surroundings(
        samples=config.background_samples,
        log2_table_size=config.log2_table_size,
        seed=config.seed,
    )
    return surroundings.to(device)


def build_renderer(
    scene: Scene, config: NeusConfig, surroundings: Surroundings | None
) -> SurfaceRenderer:
    """The renderer, with every cell occupied."""
    occupancy = OccupancyGrid(
        resolution=config.grid_resolution, cascades=1, march_steps=config.march_steps
    )
    shade = 0.0 if scene.background == "black" else 1.0
    background = torch.full((3,), shade)
    near = scene.near / scene.side
    return SurfaceRenderer(occupancy, background=background, near=near, surroundings=surroundings)


def model_state(
    field: NeuralSurface, occupancy: OccupancyGrid, surroundings: Surroundings | None
) -> dict[str, Tensor]:
    """Live tensors of a model, by name."""
    modules = {"field": field, "occupancy": occupancy, "surroundings": surroundings}
    return {
        f"{prefix}.{name}": value
        for prefix, module in modules.items()
        if module is not None
        for name, value in module.state_dict().items()
    }


def trained_parameters(
    field: NeuralSurface, surroundings: Surroundings | None
) -> list[TrainedParameter]:
    """Those of the surface, then those of what lies around it."""
    around = [] if surroundings is None else surroundings.trained_parameters()
    return [*field.trained_parameters(), *around]


def load_neus_model(
    scene: Scene,
    config: NeusConfig,
    tensors: dict[str, Tensor],
    header: dict[str, Any],
    path: Path,
    device: torch.device,
) -> Model:
    """The model of a checkpoint with the running mean of its weights, on a device.

    Raises:
        CheckpointError: the checkpoint belongs to another model.
    """
    field, surroundings = build_field(scene, config, device), build_surroundings(config, device)
    renderer = build_renderer(scene, config, surroundings)
    copy_state(model_state(field, renderer.occupancy, surroundings), tensors, path)
    if config.average_decay > 0:
        parameters = trained_parameters(field, surroundings)
        means = {f"average.{k}": each.tensor.detach() for k, each in enumerate(parameters)}
        copy_state(means, tensors, path)
    field.active_levels = header["active_levels"]
    renderer.occupancy.refresh()
    return Model(field, renderer.to(device), device)


class NeusMethod:
    """One neural surface in training.

    Args:
        scene: of `scene_of_surface`, with a split "train".
        config: settings.
        device: where to train.

    Raises:
        DataError: the scene lacks what a loss needs, or its cameras show no common place.
    """

    def __init__(self, scene: Scene, config: NeusConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        train = scene.split("train")
        check_views(scene, train)
        _check_targets(scene, config)
        self.field = build_field(scene, config, device)
        self.surroundings = build_surroundings(config, device)
        self.renderer = build_renderer(scene, config, self.surroundings).to(device)
        self.renderer.occupancy.mark_unseen(scene.cameras[train], scene.bounds)
        self.sampler = PixelSampler(
            scene,
            train,
            budget_bytes=int(config.image_budget_gib * 2**30),
            random_background=config.background == "random",
            distances=config.depth_weight > 0,
            device=device,
            seed=config.seed,
        )
        self._points = _points_inside(scene, config).to(device)
        self.images = ImageOptimizer(len(train), config, device)
        self._generator = torch.Generator().manual_seed(config.seed + 1)
        self._parameters = trained_parameters(self.field, self.surroundings)
        tensors = [parameter.tensor.detach() for parameter in self._parameters]
        self._moments = [(torch.zeros_like(t), torch.zeros_like(t)) for t in tensors]
        self._averages = [t.clone() for t in tensors] if config.average_decay > 0 else []
        self._skipped = torch.zeros(1, dtype=torch.int32, device=device)
        self._rays = FIRST_RAYS if device.type == "cpu" else 8 * FIRST_RAYS

    @property
    def rays(self) -> int:
        """Rays of the next step."""
        return self._rays

    def notes(self) -> Sequence[str]:
        return ()

    def step(self, progress: Progress) -> StepResult:
        """Train on one batch."""
        step, config = progress.step, self.config
        self.field.active_levels = self._levels(step)
        self._update_occupancy(step)
        batch = self._thinned(self.sampler.sample(self._rays, step))
        origins, directions = self._seen_rays(batch)
        out = self.renderer.render_rays(
            self.field,
            origins,
            directions,
            jitter=batch.jitter,
            background=batch.background,
            max_samples=ROOM * config.batch_samples,
            annealing=min(1.0, step / config.annealing_steps) if config.annealing_steps else 1.0,
            geometry=False,
        )
        rays = len(out.color)
        batch = batch.select(slice(rays))
        color = self.images.colors(out.color, batch.image_places)
        loss = self._loss(out, batch, color)
        loss.backward()
        self._optimize(step, progress.rate)
        self._adapt(len(batch.target), len(out.positions), out.marched)
        error = (color.detach() - batch.target).square().sum() / max(color.numel(), 1)
        samples = torch.tensor(len(out.positions))
        return StepResult(loss.detach(), error, rays, samples, self._numbers())

    def _levels(self, step: int) -> int:
        """Levels of the grid that are on."""
        config = self.config
        return progressive_levels(
            step, config.levels, base_step=config.level_base_step, rate=config.level_rate
        )

    def _seen_rays(self, batch: RayBatch) -> tuple[Tensor, Tensor]:
        """Origins and directions (N, 3) of a batch, as the field is asked along them."""
        return self.images.rays(batch.origins, batch.directions, batch.image_places)

    def _margin(self) -> float:
        """Cells by which the occupancy grid is wider than the surface."""
        return OCCUPANCY_MARGIN

    def _numbers(self) -> dict[str, float]:
        return {"sharpness": round(float(self.field.sharpness.detach()), 3)}

    def _thinned(self, batch: RayBatch) -> RayBatch:
        """Without some of the pixels that show nothing of the object."""
        if self.config.empty_pixels >= 1:
            return batch
        drawn = torch.rand(len(batch.target), generator=self._generator).to(self.device)
        return batch.select((batch.alpha > 0) | (drawn < self.config.empty_pixels))

    def _update_occupancy(self, step: int) -> None:
        if step % (4 if step < 256 else 16):
            return
        every_cell, occupancy = step % ROUND_STEPS == 0, self.renderer.occupancy
        occupancy.update(
            self.renderer.density(self.field, margin=self._margin()),
            count=occupancy.cell_count if every_cell else self.config.occupancy_samples,
            decay=EARLY_DECAY if step < EARLY_STEPS else self.config.occupancy_decay,
            generator=self._generator,
            every_cell=every_cell,
        )

    def _loss(self, out: SurfaceRays, batch: RayBatch, color: Tensor) -> Tensor:
        """() weighted sum of the losses."""
        config, gradient = self.config, out.samples.gradient
        loss = self._picture_loss(out, batch, color)
        loss = loss + config.eikonal_weight * eikonal_loss(gradient)
        if config.curvature_weight > 0 and len(gradient):
            part = slice(None, None, CURVED_PART)
            across = tangent_directions(gradient[part], self._generator)
            bend = self.field.curvature(out.positions[part], across, gradient[part])
            loss = loss + config.curvature_weight * bend.abs().mean()
        if config.point_weight > 0:
            chosen = torch.randint(len(self._points), (POINTS,), generator=self._generator)
            found = self.field.sdf_and_gradient(self._points[chosen.to(self.device)])
            loss = loss + config.point_weight * found.distance.abs().mean()
        if batch.distance is not None:
            error = depth_loss(out.distance, out.opacity, batch.distance)
            loss = loss + config.depth_weight * error
        return loss

    def _picture_loss(self, out: SurfaceRays, batch: RayBatch, color: Tensor) -> Tensor:
        """() losses of what is seen: colors and outline."""
        config = self.config
        if batch.weight is not None:  # pixels that do not count become those that are right
            keep = batch.weight[:, None] > 0
            color = torch.where(keep, color, batch.target)
        loss = color_loss(color, batch.target, config.color_loss)
        if config.mask_weight > 0:
            loss = loss + config.mask_weight * mask_loss(out.opacity, batch.alpha)
        return loss

    def _optimize(self, step: int, rate: float) -> None:
        config = self.config
        for k, (parameter, moments) in enumerate(zip(self._parameters, self._moments, strict=True)):
            tensor = parameter.tensor
            gradient = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
            tensor.grad = None  # the next one is taken over, not added
            sharp = tensor is self.field.log_sharpness
            adam_step_(
                tensor.detach(),
                gradient,
                *moments,
                step=step + 1,
                learning_rate=(config.sharpness_rate if sharp else config.learning_rate) * rate,
                beta1=ADAM_BETAS[0],
                beta2=ADAM_BETAS[1],
                weight_decay=config.weight_decay if parameter.is_network else 0.0,
                skip_zero=not parameter.is_network,
                zero_grad=False,
                bad_count=self._skipped,
            )
            if sharp:
                tensor.detach().clamp_(max=MOST_SHARPNESS)
            if self._averages:
                ema_step_(self._averages[k], tensor.detach(), config.average_decay)
        self.images.step(step, rate)

    def _adapt(self, rays: int, samples: int, marched: int) -> None:
        """Choose the number of rays so that the next batch has about `batch_samples`, and that
        its marched samples have room."""
        most = self.config.batch_samples
        growth = min(2.0, most / max(samples, 1), 0.9 * ROOM * most / max(marched, 1))
        self._rays = int(min(max(self._rays * growth, LEAST_RAYS), MOST_RAYS))

    def bad_gradients(self) -> int:
        """Gradient entries that were not finite so far; they were left out."""
        return int(self._skipped)

    def state(self) -> dict[str, Tensor]:
        """Live tensors of everything that training changes, by name."""
        state = model_state(self.field, self.renderer.occupancy, self.surroundings)
        for place, moments in enumerate(self._moments):
            state |= {f"optimizer.{place}.{k}": m for k, m in enumerate(moments)}
        state |= {f"average.{k}": average for k, average in enumerate(self._averages)}
        return state | self.images.state()

    def random_state(self) -> dict[str, Tensor]:
        return {
            "random.pixels": self.sampler.state(),
            "random.step": self._generator.get_state(),
        }

    def small_state(self) -> dict[str, Tensor]:
        """Adam's moments of exposures and poses."""
        return self.images.small_state()

    def header(self) -> dict[str, Any]:
        """JSON values that `restore` and `load_neus_model` need besides tensors."""
        return {
            "rays": self._rays,
            "bad_gradients": self.bad_gradients(),
            "active_levels": self.field.active_levels,
        }

    def restore(self, tensors: dict[str, Tensor], header: dict[str, Any], path: Path) -> None:
        """Go on from a checkpoint."""
        copy_state(self.state(), tensors, path)
        self.images.restore(tensors)
        self.sampler.set_state(tensors["random.pixels"])
        self._generator.set_state(tensors["random.step"].cpu())
        self._rays = int(header["rays"])
        self._skipped.fill_(int(header["bad_gradients"]))
        self.field.active_levels = header["active_levels"]
        self.renderer.occupancy.refresh()


def _check_targets(scene: Scene, config: NeusConfig) -> None:
    """Refuse losses whose targets the scene does not have."""
    wants = {
        "mask_weight": ("alpha or masks", scene.has_alpha),
        "point_weight": ("points", scene.points is not None),
        "depth_weight": ("depth images", scene.depths is not None),
    }
    for name, (what, there) in wants.items():
        if getattr(config, name) > 0 and not there:
            raise DataError(
                f"{scene.source}: {name} = {getattr(config, name):g}, but the data has no {what}; "
                f"leave it 0, or add them"
            )


def _points_inside(scene: Scene, config: NeusConfig) -> Tensor:
    """(P, 3) the scene's points in the bounds, in grid space, where a loss asks for them."""
    if config.point_weight == 0 or scene.points is None:
        return torch.zeros(0, 3)
    points = to_grid_space(scene.points.positions.float(), scene.bounds)
    inside = points[((points > 0) & (points < 1)).all(dim=1)]
    if not len(inside):
        raise DataError(
            f"{scene.source}: point_weight = {config.point_weight:g}, but none of the "
            f"{len(points)} points lies inside the bounds; leave it 0, or check the sphere"
        )
    return inside
