"""Settings and presets of method `neus`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lumigraph.core.errors import ConfigError

from .config_run import Ranges, RunConfig


@dataclass(frozen=True)
class NeusConfig(RunConfig):
    """Settings of method `neus`; the defaults are those of preset `tiny`."""

    RANGES: ClassVar[Ranges] = {
        **RunConfig.RANGES,
        "levels": (1, 32),
        "log2_table_size": (4, 26),
        "base_resolution": (2, 4096),
        "max_resolution": (2, 2**17),
        "hidden_width": (32, 64),
        "surface_layers": (1, 3),
        "color_layers": (1, 3),
        "initial_radius": (1e-3, 0.49),
        "grid_resolution": (8, 512),
        "march_steps": (16, 1024),
        "batch_samples": (256, 2**22),
        "occupancy_samples": (256, 2**24),
        "occupancy_decay": (0.0, 1.0),
        "empty_pixels": (0.0, 1.0),
        "background_samples": (4, 512),
        "learning_rate": (1e-8, 1.0),
        "sharpness_rate": (0.0, 1.0),
        "learning_rate_final": (1e-6, 1.0),
        "decay_start": (0.0, 1.0),
        "warmup_steps": (0, 10**6),
        "weight_decay": (0.0, 1.0),
        "average_decay": (0.0, 0.9999),
        "level_base_step": (0, 10**6),
        "level_rate": (1e-4, 1000.0),
        "annealing_steps": (0, 10**7),
        "eikonal_weight": (0.0, 100.0),
        "mask_weight": (0.0, 100.0),
        "curvature_weight": (0.0, 100.0),
        "point_weight": (0.0, 100.0),
        "depth_weight": (0.0, 100.0),
        "first_steps": (1, 10**7),
        "later_steps": (1, 10**7),
        "motion_steps": (0, 10**7),
        "motion_rate": (0.0, 1.0),
        "later_rate": (1e-4, 10.0),
        "later_sharpness": (1e-3, 1.0),
        "later_levels": (0.0, 1.0),
        "later_margin": (1.0, 64.0),
        "keyframe_every": (1, 10**6),
    }
    MAIN_RATE: ClassVar[str] = "learning_rate"

    method: Literal["neus"] = "neus"
    """What is trained: `neus`, a neural surface (signed distance and color on a hash grid)."""

    levels: int = 10
    """Resolution levels of the encoding."""
    features: int = 2
    """Features per level: 1, 2, 4 or 8."""
    log2_table_size: int = 17
    """Largest number of entries of one level, as a power of two."""
    base_resolution: int = 16
    """Vertices per axis of the coarsest level."""
    max_resolution: int = 512
    """Vertices per axis of the finest level."""
    interpolation: Literal["linear", "smooth"] = "linear"
    """Of the grid between its vertices; `smooth` (smooth-step) has normals without jumps."""
    hidden_width: int = 32
    """Units of every hidden layer: 32 or 64."""
    surface_layers: int = 1
    """Hidden layers of the distance network."""
    color_layers: int = 1
    """Hidden layers of the color network."""
    activation: Literal["relu", "softplus"] = "relu"
    """Of the distance network; `softplus` gives rounder surfaces and takes longer."""
    initial_radius: float = 0.1
    """Radius of the sphere that training begins with, over the side of the bounds."""

    silhouette: Literal["auto", "alpha", "masks", "none"] = "auto"
    """Where the outline of the object is known from: the images' alpha, mask images, or nowhere.
    `auto` takes what there is; images before a known plain background need none."""
    background: Literal["random", "scene", "white", "black", "model"] = "random"
    """What stands behind the object in training: another random color behind each ray, which
    teaches the outline too; the plain color that the pictures were taken before (`scene`: as the
    data says); or `model`, a radiance field around the bounds, for pictures without outlines."""
    background_samples: int = 32
    """Samples of each ray behind the bounds, with background `model`."""
    empty_pixels: float = 1.0
    """Part of the drawn pixels outside the outline that are trained on."""

    grid_resolution: int = 128
    """Cells per axis of the occupancy grid; a multiple of 8."""
    march_steps: int = 512
    """Steps along the diagonal of the cube."""
    batch_samples: int = 2**14
    """Samples of one step that light reaches, which the number of rays follows."""
    occupancy_samples: int = 2**15
    """Random cells looked at in one update of the occupancy grid, and as many occupied ones."""
    occupancy_decay: float = 0.95
    """Factor on old cell values at each update."""

    learning_rate: float = 1e-2
    """Adam's step size after warm-up."""
    sharpness_rate: float = 1e-3
    """Adam's step size for v, the tenth of the logarithm of the sharpness."""
    learning_rate_final: float = 0.1
    """Factor on both at the end of the schedule."""
    decay_start: float = 0.5
    """Fraction of the run with the full learning rate; exponential decay follows."""
    warmup_steps: int = 50
    """Steps of linear warm-up."""
    weight_decay: float = 1e-6
    """L2 penalty on network weights, never on the table."""
    average_decay: float = 0.95
    """Pictures and meshes come from a running mean of the weights with this decay; 0: from the
    weights themselves."""
    level_base_step: int = 100
    """Steps with the coarse levels alone: a fifth of all, and one more."""
    level_rate: float = 0.02
    """Levels that come on in each step after that."""
    annealing_steps: int = 0
    """Steps over which surfaces seen from behind lose their weight."""

    color_loss: Literal["huber", "l1"] = "huber"
    """Color loss of each channel: Huber (delta 0.1, divided by 5) or absolute error."""
    eikonal_weight: float = 0.01
    """Weight of (|gradient| - 1)^2, mean over samples: makes distances of what is learnt."""
    mask_weight: float = 0.0
    """Weight of the cross entropy between opacity and outline."""
    curvature_weight: float = 0.0
    """Weight of the size of the curvature along a random tangent, mean over samples."""
    point_weight: float = 0.0
    """Weight of |distance| at the scene's points inside the bounds, mean over points."""
    depth_weight: float = 0.0
    """Weight of the error of depth against the scene's depth images, over the side of the
    bounds, mean over rays."""

    sequence: bool = True
    """Where the data has times: a surface for each moment, learnt one after the other; false: one
    surface for all of it."""
    first_steps: int = 2000
    """Steps of the first moment of a sequence, and of key moments. `steps` and `seconds` of the run
    are shared among the moments in proportion to their steps."""
    later_steps: int = 500
    """Steps of every other moment."""
    predict_motion: bool = True
    """Find how the whole has moved before the surface of a later moment is fitted."""
    motion_steps: int = 80
    """Steps of a later moment in which it only moves; fewer than `later_steps`."""
    motion_rate: float = 1e-2
    """Adam's step size for that motion (radians; grid units); a tenth of it while the surface is
    fitted."""
    later_rate: float = 1.0
    """Factor on the learning rates of later moments."""
    later_sharpness: float = 0.7
    """Factor on the sharpness when the fitting of a later moment begins: a softer surface moves
    more easily. What it loses it must win back in `later_steps`."""
    later_levels: float = 0.3
    """Part of the fitting of a later moment after which all levels are on; 0: from its start."""
    later_margin: float = 1.0
    """Cells by which the occupancy grid is wider than the surface when the fitting of a later
    moment begins, 1 from the middle of it on; more lets the surface jump further and leaves fewer
    rays in a step."""
    keyframe_every: int | None = None
    """Every n-th moment is a key moment that starts anew; None: only the first."""
    keyframe_restart: Literal["network", "scratch"] = "network"
    """What starts anew at a key moment: the distance network and the sharpness, or everything."""
    stored_moments: Literal["deltas", "whole"] = "deltas"
    """Files of moments hold tables as differences to their key moment in half precision, or
    whole."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.features not in (1, 2, 4, 8):
            raise ConfigError(f"features = {self.features}: must be 1, 2, 4 or 8")
        if self.hidden_width not in (32, 64):
            raise ConfigError(f"hidden_width = {self.hidden_width}: must be 32 or 64")
        if self.grid_resolution % 8:
            raise ConfigError(f"grid_resolution = {self.grid_resolution}: must be a multiple of 8")
        if self.background == "random" and self.silhouette == "none":
            raise ConfigError(
                "silhouette = 'none' needs another background: add --set background=white, black, "
                "model, or scene where the data knows it"
            )
        parts = {"later_steps": self.later_steps}
        if self.keyframe_every is not None and self.keyframe_restart == "network":
            parts["first_steps"] = self.first_steps
        for name, steps in parts.items():
            if self.predict_motion and self.motion_steps >= steps:
                raise ConfigError(
                    f"motion_steps = {self.motion_steps}: must be fewer than {name} = {steps}, of "
                    "which they are a part"
                )

    def learning_rate_factor(self, step: int, fraction: float) -> float:
        """Factor on all learning rates: linear warm-up, constant until `decay_start`, then
        exponential down to `learning_rate_final`."""
        warmup = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        late = max(0.0, fraction - self.decay_start) / max(1.0 - self.decay_start, 1e-9)
        return warmup * self.learning_rate_final**late


_LARGE: dict[str, Any] = {
    "hidden_width": 64,
    "color_layers": 2,
    "log2_table_size": 19,
    "batch_samples": 2**18,
    "decay_start": 0.3,
    "learning_rate_final": 0.02,
    "average_decay": 0.99,
}
NEUS_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {
        **_LARGE,
        "levels": 12,
        "max_resolution": 1024,
        "march_steps": 768,
        "occupancy_samples": 2**18,
        "default_steps": 8_000,
    },
    "full": {
        **_LARGE,
        "levels": 14,
        "max_resolution": 2048,
        "march_steps": 1024,
        "occupancy_samples": 2**19,
        "level_base_step": 200,
        "empty_pixels": 0.1,
        "default_steps": 15_000,
    },
}
"""What differs from the defaults of `NeusConfig`: `tiny` for two CPU cores, `small` for a laptop
GPU or minutes on a large one, `full` for the sizes of the NeuS2 paper (its DTU configuration)."""
