"""Settings that every method shares, and how all settings are checked. Imports no torch, so
commands can show help fast.

A method's settings are a frozen dataclass derived from `RunConfig` in a module of its own;
`config.py` finds the class of a method.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lumigraph.core.errors import ConfigError

Ranges = dict[str, tuple[float, float]]
"""Setting -> lowest and highest value; None is always let through."""


@dataclass(frozen=True)
class RunConfig:
    """What defines a run besides the scene, whatever the method. Checked on construction."""

    RANGES: ClassVar[Ranges] = {
        "steps": (1, 10**9),
        "seconds": (1e-3, 10**7),
        "default_steps": (1, 10**9),
        "pose_learning_rate": (0.0, 1.0),
        "image_scale": (1e-3, 1.0),
        "split_every": (2, 10**6),
        "image_budget_gib": (1e-3, 4096.0),
        "log_every": (1, 10**6),
        "checkpoint_every_seconds": (1.0, 10**7),
    }
    MAIN_RATE: ClassVar[str]
    """Name of the learning rate that progress lines and logs show."""

    method: str = ""
    """What is trained."""
    preset: Literal["tiny", "small", "full"] = "tiny"
    """Size the other defaults came from."""
    steps: int | None = None
    """Stop after this many steps (None: `seconds` decides, or the preset's `default_steps`)."""
    seconds: float | None = None
    """Stop after this much training time; schedules then follow the time."""
    default_steps: int = 6000
    """Steps when neither `steps` nor `seconds` is given."""
    seed: int = 0
    """Seed of everything random: initial values, choice of pixels or views, jitter, noise."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; `auto` takes a GPU when there is one."""

    exposure: bool = False
    """Learn a gain per image and color channel."""
    pose_refinement: bool = False
    """Learn a correction to every training camera's pose."""
    pose_learning_rate: float = 1e-3
    """Adam's step size for the pose corrections (radians; scene units over the side of the
    bounds)."""

    image_scale: float = 1.0
    """Images are reduced by this factor in (0, 1] when loaded."""
    split_every: int | None = None
    """Every n-th image is a test image where the data has no split of its own (None: 8)."""
    frames: str | None = None
    """Moments of data that moves, START:STOP:STEP (None: all)."""
    image_budget_gib: float = 4.0
    """Memory for decoded images, in GiB."""

    log_every: int = 20
    """Steps between lines of metrics.jsonl."""
    checkpoint_every_seconds: float = 300.0
    """Time between checkpoints; one is always written at the end."""
    tensorboard: bool = False
    """Also write a TensorBoard log into the run folder (extra `tensorboard`)."""

    def __post_init__(self) -> None:
        for name, (low, high) in self.RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{name} = {value}: must lie in [{low:g}, {high:g}]")
        for name, hint in setting_types(type(self)).items():
            choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
            if choices and getattr(self, name) not in choices:
                value, known = getattr(self, name), ", ".join(choices)
                raise ConfigError(f"{name} = {value!r}: unknown, use one of {known}")

    @property
    def planned_steps(self) -> int | None:
        """Number of steps, or None when time decides."""
        if self.steps is not None:
            return self.steps
        return None if self.seconds is not None else self.default_steps

    @property
    def main_rate(self) -> float:
        """The learning rate named by `MAIN_RATE`, before the schedule."""
        return float(getattr(self, self.MAIN_RATE))

    def learning_rate_factor(self, step: int, fraction: float) -> float:
        """The schedule: factor on the learning rates after `step` steps, at a fraction of the run
        in [0, 1]. To which of its rates a method applies it, the method decides."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def setting_types(kind: type[RunConfig]) -> dict[str, Any]:
    """Setting -> its type, in the order of declaration."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def has_type(value: Any, hint: Any) -> bool:
    """Whether a value from a file or a command may stand for a setting of this type."""
    if typing.get_origin(hint) is Literal:
        return isinstance(value, str)
    if isinstance(hint, types.UnionType):
        return any(has_type(value, option) for option in typing.get_args(hint))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
