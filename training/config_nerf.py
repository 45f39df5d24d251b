"""Settings and presets of method `nerf`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lumigraph.core.errors import ConfigError

from .config_run import Ranges, RunConfig

# Runs of tens of thousands of steps gain from a long decay; a few thousand need every step.
SHORT_RUN, LONG_RUN = 6_000, 20_000  # steps
SHORT_DECAY, LONG_DECAY = (0.75, 0.1), (0.3, 0.03)  # where it starts, factor at the end


@dataclass(frozen=True)
class NerfConfig(RunConfig):
    """Settings of method `nerf`; the defaults are those of preset `tiny`."""

    RANGES: ClassVar[Ranges] = {
        **RunConfig.RANGES,
        "levels": (1, 32),
        "log2_table_size": (4, 26),
        "base_resolution": (2, 4096),
        "max_resolution": (2, 2**17),
        "hidden_width": (16, 128),
        "density_layers": (1, 4),
        "color_layers": (1, 4),
        "grid_resolution": (8, 512),
        "march_steps": (16, 8192),
        "batch_samples": (256, 2**22),
        "occupancy_samples": (256, 2**24),
        "occupancy_decay": (0.0, 1.0),
        "learning_rate": (1e-8, 1.0),
        "learning_rate_final": (1e-6, 1.0),
        "decay_start": (0.0, 1.0),
        "warmup_steps": (0, 10**6),
        "weight_decay": (0.0, 1.0),
        "distortion_weight": (0.0, 100.0),
    }
    MAIN_RATE: ClassVar[str] = "learning_rate"

    method: Literal["nerf"] = "nerf"
    """What is trained: `nerf`, a hash-grid (or dense-grid) radiance field."""

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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.features not in (1, 2, 4, 8):
            raise ConfigError(f"features = {self.features}: must be 1, 2, 4 or 8")
        for name, unit in (("hidden_width", 16), ("grid_resolution", 8)):
            if getattr(self, name) % unit:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be a multiple of {unit}")

    def learning_rate_factor(self, step: int, fraction: float) -> float:
        """Factor on all learning rates: linear warm-up, constant until `decay_start`, then
        exponential down to `learning_rate_final`. Where the settings leave these open, they follow
        the length of the run in steps, planned or by its pace so far."""
        warmup = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        total = self.planned_steps or step / max(fraction, 1e-6)
        long = min(max((total - SHORT_RUN) / (LONG_RUN - SHORT_RUN), 0.0), 1.0)
        start, final = (a + long * (b - a) for a, b in zip(SHORT_DECAY, LONG_DECAY, strict=True))
        start = start if self.decay_start is None else self.decay_start
        final = final if self.learning_rate_final is None else self.learning_rate_final
        late = max(0.0, fraction - start) / max(1.0 - start, 1e-9)
        return warmup * final**late


_LARGE_NETWORKS = {"hidden_width": 64, "color_layers": 2, "log2_table_size": 19}
NERF_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {
        **_LARGE_NETWORKS,
        "max_resolution": 2048,
        "march_steps": 768,
        "batch_samples": 2**17,
        "occupancy_samples": 2**18,
        "default_steps": 10_000,
    },
    "full": {
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
"""What differs from the defaults of `NerfConfig`: `tiny` for two CPU cores, `small` for a laptop
GPU or a patient CPU, `full` for the settings of the Instant-NGP paper."""
