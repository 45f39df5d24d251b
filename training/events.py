"""What a run tells while it works: plain data, for progress lines, viewers and logs.

Listeners are functions of one event; they never reach into the trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StepEvent:
    """State after a training step."""

    step: int
    """Steps done so far."""
    steps_total: int | None
    """Planned steps, or None when time decides."""
    loss: float
    """Mean over the last steps."""
    psnr: float
    """Of the training rays, dB, mean over the last steps."""
    rays_per_second: float
    """Rays, or pixels of whole images."""
    samples_per_ray: float | None
    """None where rays have no samples."""
    learning_rate: float
    elapsed: float
    """Training time in seconds, without evaluation and saving."""
    budget_fraction: float
    """How much of the steps or of the time is used, in [0, 1]."""
    extras: Mapping[str, float] = field(default_factory=dict)
    """Further numbers of the method by name; `gaussians` is how many there are."""

    @property
    def eta_seconds(self) -> float:
        """Time left at the present pace."""
        return self.elapsed * (1 / max(self.budget_fraction, 1e-6) - 1)


@dataclass(frozen=True)
class CheckpointEvent:
    """A checkpoint was written."""

    step: int
    path: str


@dataclass(frozen=True)
class ViewEvent:
    """One test view was rendered and scored."""

    index: int
    total: int
    psnr: float


@dataclass(frozen=True)
class MessageEvent:
    """Something a user should know."""

    text: str


@dataclass(frozen=True)
class FinishedEvent:
    """The run ended; `summary` is what `train.json` holds."""

    summary: dict[str, Any] = field(default_factory=dict)


Event = StepEvent | CheckpointEvent | ViewEvent | MessageEvent | FinishedEvent
Listener = Callable[[Event], None]
