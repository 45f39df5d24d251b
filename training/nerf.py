"""Method `nerf`: a grid radiance field trained on random pixels (Instant-NGP, Mueller et al. 2022).

The usual step is one fused operation (`cuda.volume_step`). Pose refinement and foreign back ends
need gradients by the rays or other samplers: they take the renderer's autograd path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lumigraph.core import Scene
from lumigraph.cuda.grid import GridLayout
from lumigraph.cuda.optimizer import adam_step_
from lumigraph.cuda.volume_step import GridNetworks, LossSettings, VolumeSettings, volume_train
from lumigraph.fields import GridField, TinyCudaField
from lumigraph.renderers import OccupancyGrid, VolumeRenderer

from .checkpoint import copy_state
from .config import NerfConfig
from .image_optimizer import ImageOptimizer
from .method import Model, Progress, StepResult
from .pixels import PixelSampler, RayBatch

FIRST_RAYS = 512
MOST_RAYS = 2**18
EARLY_STEPS = 512  # while the grid is still filling, old values fade fast
EARLY_DECAY = 0.6
SYNC_STEPS = 8  # a GPU is asked for its sample count this often
HUBER_DELTA = 0.1
ADAM_BETAS = (0.9, 0.99)
# Keeps the gradients of single samples, a mean over up to 2^18 rays, in the range of fp16.
GPU_GRADIENT_SCALE = 2.0**17
FOREIGN_GRADIENT_SCALE = 2.0**10  # tiny-cuda-nn multiplies by another 2^7

RadianceField = GridField | TinyCudaField


def build_field(scene: Scene, config: NerfConfig, device: torch.device) -> RadianceField:
    """The field that a configuration asks for, with initial weights.

    Raises:
        BackendError, MissingExtraError: its encoder does not work here.
    """
    layout = GridLayout.from_resolutions(
        config.base_resolution,
        config.max_resolution * scene.aabb_scale,
        levels=config.levels,
        features=config.features,
        log2_table_size=config.log2_table_size,
        dense=config.field == "dense",
    )
    shape: dict[str, Any] = {
        "aabb_scale": scene.aabb_scale,
        "hidden_width": config.hidden_width,
        "density_layers": config.density_layers,
        "color_layers": config.color_layers,
        "seed": config.seed,
    }
    if config.encoder == "tinycudann":
        return TinyCudaField(scene.bounds, layout, device=device, **shape).to(device)
    return GridField(scene.bounds, layout, **shape).to(device)


def build_occupancy(scene: Scene, config: NerfConfig) -> OccupancyGrid:
    return OccupancyGrid(
        resolution=config.grid_resolution,
        cascades=int(math.log2(scene.aabb_scale)) + 1,
        march_steps=config.march_steps,
    )


def build_renderer(scene: Scene, config: NerfConfig, occupancy: OccupancyGrid) -> VolumeRenderer:
    shade = 0.0 if scene.background in (None, "black") else 1.0
    return VolumeRenderer(
        occupancy,
        background=torch.full((3,), shade),
        near=scene.near / scene.side,
        sampler=config.sampler,
    )


def load_nerf_model(
    scene: Scene,
    config: NerfConfig,
    tensors: dict[str, Tensor],
    header: dict[str, Any],
    path: Path,
    device: torch.device,
) -> Model:
    """The model of a checkpoint, on a device.

    Raises:
        CheckpointError: the checkpoint belongs to another model.
    """
    field = build_field(scene, config, device)
    occupancy = build_occupancy(scene, config)
    state = {f"field.{name}": value for name, value in field.state_dict().items()}
    state |= {f"occupancy.{name}": value for name, value in occupancy.state_dict().items()}
    copy_state(state, tensors, path)
    occupancy.refresh()
    renderer = build_renderer(scene, config, occupancy.to(device)).to(device)
    return Model(field, renderer, device)


class NerfMethod:
    """One radiance field in training.

    Args:
        scene: with images and a split "train".
        config: settings.
        device: where to train.
    """

    def __init__(self, scene: Scene, config: NerfConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        train = scene.split("train")
        self.field = build_field(scene, config, device)
        self.occupancy = build_occupancy(scene, config).to(device)
        self.occupancy.mark_unseen(scene.cameras[train], scene.bounds)
        self.renderer = build_renderer(scene, config, self.occupancy).to(device)
        self.sampler = PixelSampler(
            scene,
            train,
            budget_bytes=int(config.image_budget_gib * 2**30),
            random_background=config.random_background,
            device=device,
            seed=config.seed,
        )
        self.images = ImageOptimizer(len(train), config, device)
        self.exposure, self.poses = self.images.exposure, self.images.poses
        self._generator = torch.Generator().manual_seed(config.seed + 1)
        self._parameters = self.field.trained_parameters()
        tensors = [parameter.tensor for parameter in self._parameters]
        self._gradients = [torch.zeros_like(t) for t in tensors]
        self._moments = [(torch.zeros_like(t), torch.zeros_like(t)) for t in tensors]
        self._skipped = torch.zeros(1, dtype=torch.int32, device=device)
        on_cpu = device.type == "cpu"
        foreign = self.field.networks() is None
        gpu_scale = FOREIGN_GRADIENT_SCALE if foreign else GPU_GRADIENT_SCALE
        self._scale = 1.0 if on_cpu else gpu_scale
        self._rays = FIRST_RAYS if on_cpu else 8 * FIRST_RAYS

    @property
    def rays(self) -> int:
        """Rays of the next step."""
        return self._rays

    def notes(self) -> Sequence[str]:
        return ()

    def step(self, progress: Progress) -> StepResult:
        """Train on one batch."""
        step = progress.step
        self._update_occupancy(step)
        batch = self.sampler.sample(self._rays, step)
        networks = self._fused_networks()
        if networks is None:
            result, wanted = self._autograd_step(batch)
        else:
            result, wanted = self._fused_step(networks, batch)
        self._optimize(step, progress.rate)
        self._adapt(step, wanted)
        return result

    def _fused_networks(self) -> GridNetworks | None:
        """What the fused step works on, or None where it cannot do what is asked."""
        if self.poses is not None or self.renderer.sampler != "lumigraph":
            return None
        return self.field.networks()

    def _update_occupancy(self, step: int) -> None:
        early = step < EARLY_STEPS
        if step % (4 if step < 256 else 16):
            return
        every_cell = step == 0
        self.occupancy.update(
            self.field.density,
            count=self.occupancy.cell_count if every_cell else self.config.occupancy_samples,
            decay=EARLY_DECAY if early else self.config.occupancy_decay,
            generator=self._generator,
            every_cell=every_cell,
        )

    def _loss_settings(self) -> LossSettings:
        delta = HUBER_DELTA if self.config.loss == "huber" else 0.0
        return LossSettings(delta, self.config.distortion_weight, self._scale)

    def _fused_step(self, networks: GridNetworks, batch: RayBatch) -> tuple[StepResult, Tensor]:
        """The result, and how many samples the rays asked room for."""
        gain = None if self.exposure is None else self.exposure(batch.image_places)
        settings = VolumeSettings(
            near=self.renderer.near, capacity=self.config.batch_samples * 5 // 4
        )
        out = volume_train(
            networks,
            self.occupancy.march_grid,
            batch.origins,
            batch.directions,
            batch.target,
            (self._gradients[0], self._gradients[1], self._gradients[2]),
            jitter=batch.jitter,
            background=batch.background,
            weight=batch.weight,
            gain=None if gain is None else gain.detach(),
            loss=self._loss_settings(),
            settings=settings,
        )
        if gain is not None:
            gain.backward(out.gain / self._scale)
        samples = out.pixels.counts.sum()
        result = StepResult(out.loss, out.squared_error, len(batch.target), samples)
        return result, out.wanted

    def _autograd_step(self, batch: RayBatch) -> tuple[StepResult, Tensor]:
        origins, directions = self.images.rays(batch.origins, batch.directions, batch.image_places)
        out = self.renderer.render_rays(
            self.field,
            origins,
            directions,
            jitter=batch.jitter,
            background=batch.background,
            max_samples=4 * self.config.batch_samples,
            distortion=self.config.distortion_weight > 0,
        )
        color = self.images.colors(out.color, batch.image_places)
        weight = 1.0 if batch.weight is None else batch.weight[:, None]
        error = color - batch.target
        if self.config.loss == "huber":
            value = nn.functional.huber_loss(
                color, batch.target, reduction="none", delta=HUBER_DELTA
            )
            loss = (value / HUBER_DELTA * weight).mean()
        else:
            loss = (error**2 * weight).mean()
        if out.distortion is not None:
            loss = loss + self.config.distortion_weight * out.distortion.mean()
        (loss * self._scale).backward()
        self._collect_gradients()
        squared = (error.detach() ** 2).mean()
        count = out.sample_count
        return StepResult(loss.detach(), squared, len(error), count), count

    def _collect_gradients(self) -> None:
        """From autograd to where `_optimize` looks for them."""
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            if parameter.tensor.grad is not None:
                gradient += parameter.tensor.grad
                parameter.tensor.grad = None
        for table in self.images.tables:
            if table.grad is not None:
                table.grad /= self._scale

    def _optimize(self, step: int, rate: float) -> None:
        config = self.config
        for parameter, gradient, moments in zip(
            self._parameters, self._gradients, self._moments, strict=True
        ):
            adam_step_(
                parameter.tensor.detach(),
                gradient,
                *moments,
                step=step + 1,
                learning_rate=config.learning_rate * rate,
                beta1=ADAM_BETAS[0],
                beta2=ADAM_BETAS[1],
                weight_decay=config.weight_decay if parameter.is_network else 0.0,
                skip_zero=not parameter.is_network,
                grad_scale=self._scale,
                bad_count=self._skipped,
            )
        self.images.step(step, rate)

    def _adapt(self, step: int, samples: Tensor) -> None:
        """Choose the number of rays so that the next batch has about `batch_samples`."""
        if self.device.type != "cpu" and step % SYNC_STEPS and step > 4 * SYNC_STEPS:
            return
        wanted = self._rays * min(2.0, self.config.batch_samples / max(int(samples), 1))
        self._rays = int(min(max(wanted, 128), MOST_RAYS))

    def bad_gradients(self) -> int:
        """Gradient entries that were not finite so far; they were left out."""
        return int(self._skipped)

    def state(self) -> dict[str, Tensor]:
        """Live tensors of everything that training changes, by name."""
        state = {f"field.{name}": value for name, value in self.field.state_dict().items()}
        state |= {f"occupancy.{name}": v for name, v in self.occupancy.state_dict().items()}
        for place, moments in enumerate(self._moments):
            state |= {f"optimizer.{place}.{k}": m for k, m in enumerate(moments)}
        return state | self.images.state()

    def random_state(self) -> dict[str, Tensor]:
        return {
            "random.pixels": self.sampler.state(),
            "random.occupancy": self._generator.get_state(),
        }

    def small_state(self) -> dict[str, Tensor]:
        """Adam's moments of exposures and poses."""
        return self.images.small_state()

    def restore(self, tensors: dict[str, Tensor], header: dict[str, Any], path: Path) -> None:
        """Go on from a checkpoint."""
        copy_state(self.state(), tensors, path)
        self.sampler.set_state(tensors["random.pixels"])
        self._generator.set_state(tensors["random.occupancy"].cpu())
        self._rays = int(header["rays"])
        self._skipped.fill_(int(header["bad_gradients"]))
        self.images.restore(tensors)
        self.occupancy.refresh()

    def header(self) -> dict[str, Any]:
        """JSON values that `restore` needs besides tensors."""
        return {"rays": self._rays, "bad_gradients": self.bad_gradients()}
