"""What the trainer and a run folder ask of a method, and what passes between them.

A method holds everything that training changes: field, renderer, optimizer, random numbers. The
trainer knows only the protocol here; `registry.py` finds the class by its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from lumigraph.core import Cameras, Frame
from lumigraph.fields.protocols import MovingField

from .moment_files import MomentRecord


@dataclass(frozen=True)
class Progress:
    """Where a run stands before a step."""

    step: int
    """Steps done before."""
    fraction: float = 0.0
    """How much of the run is used, of its steps or of its time, in [0, 1]."""
    planned_steps: int = 1
    """Steps of the whole run, at least 1; where time decides, those that its pace promises."""
    rate: float = 1.0
    """Factor of the schedule on learning rates (`RunConfig.learning_rate_factor`)."""


@dataclass(frozen=True)
class StepResult:
    """What one step did; tensors stay on the device until somebody reads them."""

    loss: Tensor
    """()"""
    squared_error: Tensor
    """() mean over pixels and channels, for the PSNR that is shown."""
    rays: int
    """Rays, or pixels of whole images."""
    samples: Tensor | None = None
    """() samples that were shaded, of all rays; None where rays have none."""
    extras: Mapping[str, float] = field(default_factory=dict)
    """Further numbers for logs and progress lines by name, known without asking the device:
    `gaussians` is their number after the step."""
    rate: float | None = None
    """Factor that the step took on learning rates, where it is not that of `Progress`."""
    finished: MomentRecord | None = None
    """The moment of a moving scene that was done when the step began."""


class FrameRenderer(Protocol):
    """Renders the field that it was made for."""

    def render(self, field: Any, cameras: Cameras, *, normals: bool = False) -> Frame:
        """Picture of one camera (a batch of length 1), on the field's device."""
        ...


class Method(Protocol):
    """One field in training. Made from scene, settings and device."""

    @property
    def field(self) -> nn.Module:
        """What is trained."""
        ...

    @property
    def renderer(self) -> FrameRenderer:
        """What turns the field into frames."""
        ...

    def notes(self) -> Sequence[str]:
        """Lines that a user should know before the first step, such as a memory forecast."""
        ...

    def step(self, progress: Progress) -> StepResult:
        """Train once."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Tensors of everything that training changes, by name; sizes may differ between calls."""
        ...

    def random_state(self) -> dict[str, Tensor]:
        """Random number generators, names beginning with `random.`."""
        ...

    def small_state(self) -> dict[str, Tensor]:
        """Optimizer state of what belongs to images, names beginning with `small.`."""
        ...

    def header(self) -> dict[str, Any]:
        """JSON values that `restore` needs besides tensors; not `step`, `elapsed`, `contents`."""
        ...

    def restore(self, tensors: dict[str, Tensor], header: dict[str, Any], path: Path) -> None:
        """Become what a checkpoint holds, in all three kinds of state.

        Args:
            tensors: on the CPU, by the names of the three kinds of state together.
            header: what `header` gave.
            path: of the checkpoint, for messages.

        Raises:
            CheckpointError: it belongs to another model; nothing was changed.
        """
        ...

    def bad_gradients(self) -> int:
        """Gradient entries that were not finite so far; they were left out."""
        ...


@runtime_checkable
class MomentMethod(Protocol):
    """A method that trains the moments of a scene one after the other."""

    def moment(self) -> MomentRecord:
        """The moment in training, as playback needs it."""
        ...


@dataclass(frozen=True)
class Model:
    """A trained field with its renderer."""

    field: nn.Module
    renderer: FrameRenderer
    device: torch.device

    @property
    def moments(self) -> Tensor | None:
        """(F,) times in [0, 1] that a moving field was trained at, on the CPU; None where nothing
        moves. The time of a picture is that of its camera."""
        return self.field.moments.cpu() if isinstance(self.field, MovingField) else None

    def render(
        self,
        cameras: Cameras,
        *,
        channels: Sequence[str] = ("color", "opacity", "depth"),
        on_cpu: bool = True,
    ) -> Frame:
        """Picture of one camera (a batch of length 1).

        Args:
            channels: with "normal", normals are computed too, which takes longer.
            on_cpu: bring the frame to the CPU; else it stays on the model's device.
        """
        frame = self.renderer.render(
            self.field, cameras.to(self.device), normals="normal" in channels
        )
        return frame.to("cpu") if on_cpu else frame
