"""Settings of a training run and the presets. Imports no torch, so commands can show help fast.

A preset is a method (field + renderer + losses + schedule) at a size: `tiny` for two CPU cores,
`small` for a laptop GPU or a patient CPU, `full` for the settings of the Instant-NGP paper.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal

from lumigraph.core.errors import ConfigError


@dataclass(frozen=True)
class TrainConfig:
    """Everything that defines a run besides the scene. Checked on construction."""

    method: Literal["nerf"] = "nerf"
    """What is trained: `nerf`, a hash-grid (or dense-grid) radiance field."""
    preset: Literal["tiny", "small", "full"] = "tiny"
    """Size the other defaults came from."""
    steps: int | None = None
    """Stop after this many steps (None: `seconds` decides, or the preset's `default_steps`)."""
    seconds: float | None = None
    """Stop after this much training time; schedules then follow the time."""
    default_steps: int = 6000
    """Steps when neither `steps` nor `seconds` is given."""
    seed: int = 0
    """Seed of initial weights, ray choice and jitter."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; `auto` takes a GPU when there is one."""

    field: Literal["hash", "dense"] = "hash"
    """Encoding of positions: hashed levels, or all levels dense."""
    encoder: Literal["lumigraph", "tinycudann"] = "lumigraph"
    """Whose hash grid and networks: ours, or tiny-cuda-nn's where it is installed (GPU only)."""
    sampler: Literal["lumigraph", "nerfacc"] = "lumigraph"
    """Whose ray marching and compositing: ours, or nerfacc's where it is installed (GPU only)."""
    levels: int = 8
    """Resolution levels of the encoding."""
    features: int = 4
    """Features per level: 1, 2, 4 or 8."""
    log2_table_size: int = 17
    """Largest number of entries of one level, as a power of two."""
    base_resolution: int = 16
    """Vertices per axis of the coarsest level."""
    max_resolution: int = 1024
    """Vertices per axis of the finest level over the region of interest (side of `bounds`)."""
    hidden_width: int = 32
    """Units of every hidden layer: 16 to 128 in steps of 16."""
    density_layers: int = 1
    """Hidden layers of the density network."""
    color_layers: int = 1
    """Hidden layers of the color network."""

    grid_resolution: int = 128
    """Cells per axis of the occupancy grid of one cascade; a multiple of 8."""
    march_steps: int = 384
    """Steps along the diagonal of the region of interest."""
    batch_samples: int = 2**14
    """Samples of one step, which the number of rays follows: on a CPU those that are shaded, on a
    GPU all that are marched, those behind opaque surfaces too."""
    occupancy_samples: int = 2**15
    """Random cells looked at in one update of the occupancy grid, and as many occupied ones."""
    occupancy_decay: float = 0.95
    """Factor on old cell values at each update."""

    learning_rate: float = 1e-2
    """Adam's step size after warm-up."""
    learning_rate_final: float | None = None
    """Factor reached at the end of the schedule; None: 0.1 in short runs, 0.03 in long ones."""
    decay_start: float | None = None
    """Fraction of the run with the full learning rate; exponential decay follows. None: 0.75 in
    short runs, 0.3 in long ones."""
    warmup_steps: int = 50
    """Steps of linear warm-up."""
    weight_decay: float = 1e-6
    """L2 penalty on network weights, never on the table."""
    loss: Literal["l2", "huber"] = "l2"
    """Per-channel color loss; `huber` (delta 0.1) forgives outliers in real photographs."""
    random_background: bool = True
    """Blend random colors behind images with alpha, which clears empty space sooner."""
    distortion_weight: float = 0.0
    """Weight of the distortion loss, which pulls the weights along a ray together."""
    exposure: bool = False
    """Learn a gain per image and color channel."""
    pose_refinement: bool = False
    """Learn a correction to every training camera's pose."""
    pose_learning_rate: float = 1e-3
    """Adam's step size for the pose corrections, made every 16 steps (radians; scene units over the
    side of the bounds)."""

    image_scale: float = 1.0
    """Images are reduced by this factor in (0, 1] when loaded."""
    split_every: int | None = None
    """Every n-th image is a test image where the data has no split of its own (None: 8)."""
    image_budget_gib: float = 4.0
    """Memory for decoded images, in GiB."""

    log_every: int = 20
    """Steps between lines of metrics.jsonl."""
    checkpoint_every_seconds: float = 300.0
    """Time between checkpoints; one is always written at the end."""
    tensorboard: bool = False
    """Also write a TensorBoard log into the run folder (extra `tensorboard`)."""

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{name} = {value}: must lie in [{low:g}, {high:g}]")
        if self.features not in (1, 2, 4, 8):
            raise ConfigError(f"features = {self.features}: must be 1, 2, 4 or 8")
        for name, unit in (("hidden_width", 16), ("grid_resolution", 8)):
            if getattr(self, name) % unit:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be a multiple of {unit}")
        for field in dataclasses.fields(self):
            choices = _CHOICES.get(field.name)
            if choices and getattr(self, field.name) not in choices:
                value, known = getattr(self, field.name), ", ".join(choices)
                raise ConfigError(f"{field.name} = {value!r}: unknown, use one of {known}")

    @property
    def planned_steps(self) -> int | None:
        """Number of steps, or None when time decides."""
        if self.steps is not None:
            return self.steps
        return None if self.seconds is not None else self.default_steps

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("steps", 1, 10**9),
    ("seconds", 1e-3, 10**7),
    ("levels", 1, 32),
    ("log2_table_size", 4, 26),
    ("base_resolution", 2, 4096),
    ("max_resolution", 2, 2**17),
    ("hidden_width", 16, 128),
    ("density_layers", 1, 4),
    ("color_layers", 1, 4),
    ("grid_resolution", 8, 512),
    ("march_steps", 16, 8192),
    ("batch_samples", 256, 2**22),
    ("occupancy_samples", 256, 2**24),
    ("occupancy_decay", 0.0, 1.0),
    ("learning_rate", 1e-8, 1.0),
    ("learning_rate_final", 1e-6, 1.0),
    ("decay_start", 0.0, 1.0),
    ("warmup_steps", 0, 10**6),
    ("weight_decay", 0.0, 1.0),
    ("distortion_weight", 0.0, 100.0),
    ("pose_learning_rate", 0.0, 1.0),
    ("image_scale", 1e-3, 1.0),
    ("split_every", 2, 10**6),
    ("image_budget_gib", 1e-3, 4096.0),
    ("log_every", 1, 10**6),
    ("checkpoint_every_seconds", 1.0, 10**7),
)
_HINTS = typing.get_type_hints(TrainConfig)
_CHOICES = {
    name: typing.get_args(hint)
    for name, hint in _HINTS.items()
    if typing.get_origin(hint) is Literal
}

_LARGE_NETWORKS = {"hidden_width": 64, "color_layers": 2, "log2_table_size": 19}
PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    ("nerf", "tiny"): {},
    ("nerf", "small"): {
        **_LARGE_NETWORKS,
        "max_resolution": 2048,
        "march_steps": 768,
        "batch_samples": 2**17,
        "occupancy_samples": 2**18,
        "default_steps": 10_000,
    },
    ("nerf", "full"): {
        **_LARGE_NETWORKS,
        "levels": 16,
        "features": 2,
        "max_resolution": 2048,
        "march_steps": 1024,
        "batch_samples": 2**18,
        "occupancy_samples": 2**19,
        "default_steps": 20_000,
    },
}


def train_config(method: str = "nerf", preset: str = "tiny", **overrides: Any) -> TrainConfig:
    """The preset's settings with some replaced.

    Raises:
        ConfigError: unknown method, preset or setting, or a value out of range.
    """
    if (method, preset) not in PRESETS:
        known = ", ".join(f"{m}/{p}" for m, p in PRESETS)
        raise ConfigError(f"no preset {preset!r} for method {method!r}; there are {known}")
    values = {"method": method, "preset": preset, **PRESETS[method, preset], **overrides}
    return config_from_dict(values)


def config_from_dict(values: dict[str, Any], where: str = "settings") -> TrainConfig:
    """Rebuild a saved configuration.

    Args:
        where: names the source (a file) in messages.

    Raises:
        ConfigError: an unknown key, a value of the wrong type, or one out of range.
    """
    unknown = sorted(set(values) - set(_HINTS))
    if unknown:
        raise ConfigError(f"{where}: unknown setting {unknown[0]!r}; remove it or fix its name")
    for name, value in values.items():
        if not _has_type(value, _HINTS[name]):
            raise ConfigError(f"{where}: {name} = {value!r} has the wrong type")
    return TrainConfig(**values)


def _has_type(value: Any, hint: Any) -> bool:
    if typing.get_origin(hint) is Literal:
        return isinstance(value, str)
    if isinstance(hint, types.UnionType):
        return any(_has_type(value, option) for option in typing.get_args(hint))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
