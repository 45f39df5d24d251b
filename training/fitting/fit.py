"""What methods that fit a network to samples share: Adam, checkpoints, gradients (`Fit`).

A method of this kind draws samples and says how wrong the network is there; all else is the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lumigraph.core import Scene
from lumigraph.cuda.grid import GridLayout
from lumigraph.cuda.optimizer import adam_step_
from lumigraph.fields import GridNetwork

from ..checkpoint import copy_state
from ..config_fitting import FittingConfig
from ..method import FrameRenderer, Model, Progress, StepResult

ADAM_BETAS = (0.9, 0.99)
# Keeps the gradients of single samples, a mean over up to 2^18, in the range of fp16.
GPU_GRADIENT_SCALE = 2.0**17


class BatchLoss(NamedTuple):
    """How wrong a field is at a batch of samples."""

    loss: Tensor
    """() differentiable."""
    squared_error: Tensor
    """() mean, in units in which 1 is the whole range: for the PSNR that is shown."""
    samples: int


def fitted_layout(config: FittingConfig, *, dimensions: int, finest: int) -> GridLayout:
    """The grid that a configuration asks for.

    Args:
        finest: vertices per axis of the finest level of a hashgrid where the settings leave it
            open.
    """
    shape = config.grid_shape(finest)
    return GridLayout.from_resolutions(
        shape.base_resolution,
        shape.max_resolution,
        levels=shape.levels,
        features=shape.features,
        log2_table_size=config.log2_table_size,
        dimensions=dimensions,
        dense=shape.is_dense,
    )


class Fit(ABC):
    """A field in training (the `Method` protocol). Derived classes define `batch_loss`.

    Args:
        scene: its notes are told before the first step.
        field: with initial weights, on its device; its `network` is trained.
        renderer: turns the field into frames.
        config: settings.
        device: where to train.
    """

    field: nn.Module
    config: FittingConfig

    def __init__(
        self,
        scene: Scene,
        field: nn.Module,
        renderer: FrameRenderer,
        *,
        config: FittingConfig,
        device: torch.device,
    ) -> None:
        self.field, self.renderer = field, renderer
        self.config, self.device = config, device
        self.generator = torch.Generator().manual_seed(config.seed + 1)
        """Of the samples; on the CPU, so that every device draws the same."""
        network = field.network
        assert isinstance(network, GridNetwork)
        self._parameters = network.trained_parameters()
        tensors = [parameter.tensor for parameter in self._parameters]
        self._moments = [(torch.zeros_like(t), torch.zeros_like(t)) for t in tensors]
        self._skipped = torch.zeros(1, dtype=torch.int32, device=device)
        self._scale = 1.0 if device.type == "cpu" else GPU_GRADIENT_SCALE
        self._notes = list(scene.notes)

    @abstractmethod
    def batch_loss(self, progress: Progress) -> BatchLoss:
        """Draw samples and compare."""

    def notes(self) -> Sequence[str]:
        return self._notes

    def step(self, progress: Progress) -> StepResult:
        """Train on one batch."""
        result = self.batch_loss(progress)
        (result.loss * self._scale).backward()
        config = self.config
        for parameter, moments in zip(self._parameters, self._moments, strict=True):
            tensor = parameter.tensor
            assert tensor.grad is not None
            adam_step_(
                tensor.detach(),
                tensor.grad,
                *moments,
                step=progress.step + 1,
                learning_rate=config.learning_rate * progress.rate,
                beta1=ADAM_BETAS[0],
                beta2=ADAM_BETAS[1],
                weight_decay=config.weight_decay if parameter.is_network else 0.0,
                skip_zero=not parameter.is_network,
                grad_scale=self._scale,
                zero_grad=False,
                bad_count=self._skipped,
            )
            tensor.grad = None
        return StepResult(result.loss.detach(), result.squared_error.detach(), result.samples)

    def bad_gradients(self) -> int:
        """Gradient entries that were not finite so far; they were left out."""
        return int(self._skipped)

    def state(self) -> dict[str, Tensor]:
        """Live tensors of everything that training changes, by name."""
        state = _field_state(self.field)
        for place, moments in enumerate(self._moments):
            state |= {f"optimizer.{place}.{k}": m for k, m in enumerate(moments)}
        return state

    def random_state(self) -> dict[str, Tensor]:
        return {"random.samples": self.generator.get_state()}

    def small_state(self) -> dict[str, Tensor]:
        """Nothing belongs to images."""
        return {}

    def restore(self, tensors: dict[str, Tensor], header: dict[str, Any], path: Path) -> None:
        """Go on from a checkpoint."""
        copy_state(self.state(), tensors, path)
        self.generator.set_state(tensors["random.samples"].cpu())
        self._skipped.fill_(int(header["bad_gradients"]))

    def header(self) -> dict[str, Any]:
        """JSON values that `restore` needs besides tensors."""
        return {"bad_gradients": self.bad_gradients()}


def fitted_model(
    field: nn.Module,
    renderer: Any,
    tensors: dict[str, Tensor],
    path: Path,
    device: torch.device,
) -> Model:
    """A field with the weights of a checkpoint and its renderer, on a device.

    Raises:
        CheckpointError: the checkpoint belongs to another model; nothing was changed.
    """
    copy_state(_field_state(field), tensors, path)
    return Model(field.to(device), renderer.to(device), device)


def _field_state(field: nn.Module) -> dict[str, Tensor]:
    return {f"field.{name}": value for name, value in field.state_dict().items()}
