"""Settings that the methods share which fit a network to samples of one thing: a picture, a solid,
a medium. Imports no torch.

The three encodings and their sizes are those of "Hardware Acceleration of Neural Graphics" (Mubarik
et al. 2023), which are those of Instant Neural Graphics Primitives (Mueller et al. 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from lumigraph.core.errors import ConfigError

from .config_run import Ranges, RunConfig

Encoding = Literal["hashgrid", "densegrid", "low_res_densegrid"]
FITTING_RANGES: Ranges = {
    **RunConfig.RANGES,
    "levels": (1, 32),
    "log2_table_size": (4, 26),
    "base_resolution": (2, 4096),
    "max_resolution": (2, 2**17),
    "hidden_width": (16, 128),
    "hidden_layers": (1, 4),
    "batch_samples": (64, 2**22),
    "learning_rate": (1e-8, 1.0),
    "learning_rate_final": (1e-6, 1.0),
    "decay_start": (0.0, 1.0),
    "warmup_steps": (0, 10**6),
    "weight_decay": (0.0, 1.0),
}


class GridShape(NamedTuple):
    """Levels of an encoding."""

    levels: int
    features: int
    base_resolution: int
    max_resolution: int
    is_dense: bool


@dataclass(frozen=True)
class FittingConfig(RunConfig):
    """Settings of a network that is fitted to samples. Derived classes say of what."""

    RANGES: ClassVar[Ranges] = FITTING_RANGES
    MAIN_RATE: ClassVar[str] = "learning_rate"
    UNUSED: ClassVar[tuple[str, ...]] = (
        "exposure",
        "pose_refinement",
        "split_every",
        "test_views",
        "frames",
    )
    """Settings of all runs that mean nothing without photographs; refused where they are given."""

    encoding: Encoding = "hashgrid"
    """Of positions: `hashgrid` hashes the fine levels, `densegrid` stores all of them in full,
    `low_res_densegrid` has two equal levels with many features."""
    levels: int | None = None
    """Resolution levels; none: 16, 8 or 2, by encoding."""
    features: int | None = None
    """Features per level: 1, 2, 4 or 8; none: 2, 2 or 8, by encoding."""
    log2_table_size: int = 19
    """Largest number of entries of one level of a hashgrid, as a power of two."""
    base_resolution: int | None = None
    """Vertices per axis of the coarsest level; none: 16, 16 or 128, by encoding."""
    max_resolution: int | None = None
    """Vertices per axis of the finest level; none: by encoding and method."""
    hidden_width: int = 64
    """Units of every hidden layer, 16 to 128 in steps of 16."""
    hidden_layers: int = 2
    """Hidden layers of the network."""
    batch_samples: int = 2**16
    """Samples of one step."""

    learning_rate: float = 1e-2
    """Adam's step size after warm-up."""
    learning_rate_final: float = 0.03
    """Factor on it at the end of the schedule."""
    decay_start: float = 0.4
    """Fraction of the run with the full learning rate; exponential decay follows."""
    warmup_steps: int = 20
    """Steps of linear warm-up."""
    weight_decay: float = 0.0
    """L2 penalty on network weights, never on the table."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.features not in (None, 1, 2, 4, 8):
            raise ConfigError(f"features = {self.features}: must be 1, 2, 4 or 8")
        if self.hidden_width % 16:
            raise ConfigError(f"hidden_width = {self.hidden_width}: must be a multiple of 16")
        low, high = self.base_resolution, self.max_resolution
        if low is not None and high is not None and high < low:
            raise ConfigError(f"max_resolution = {high}: must not be below base_resolution {low}")
        for name in self.UNUSED:
            if getattr(self, name) != getattr(RunConfig, name):
                raise ConfigError(
                    f"{name} = {getattr(self, name)}: method {self.method} sees no photographs; "
                    "leave it out"
                )

    def grid_shape(self, finest: int) -> GridShape:
        """Levels with all that the settings leave open.

        Args:
            finest: vertices per axis of the finest level of a hashgrid.

        Raises:
            ConfigError: the coarsest level would be finer than the finest.
        """
        usual = {
            "hashgrid": GridShape(16, 2, 16, max(finest, 16), False),
            "densegrid": GridShape(8, 2, 16, 173, True),
            "low_res_densegrid": GridShape(2, 8, 128, 128, True),
        }[self.encoding]
        base = self.base_resolution or usual.base_resolution
        most = self.max_resolution or max(usual.max_resolution, base)
        if most < base:
            raise ConfigError(
                f"max_resolution = {most}: must not be below base_resolution {base}; set both"
            )
        return GridShape(
            self.levels or usual.levels,
            self.features or usual.features,
            base,
            most,
            usual.is_dense,
        )

    def learning_rate_factor(self, step: int, fraction: float) -> float:
        """Factor on the learning rate: linear warm-up, constant until `decay_start`, then
        exponential down to `learning_rate_final`."""
        warmup = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        late = max(0.0, fraction - self.decay_start) / max(1.0 - self.decay_start, 1e-9)
        return warmup * self.learning_rate_final**late


Presets = dict[str, dict[str, Any]]
