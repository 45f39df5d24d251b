"""Settings and presets of method `gaussians4d`. Imports no torch.

Times and durations are parts of the clip, which runs over [0, 1]; frames are the least distance of
two of its moments. Starts and stops up to 1 are fractions of the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from .config_gaussians import SplatConfig
from .config_run import Ranges


@dataclass(frozen=True)
class Gaussians4DConfig(SplatConfig):
    """Settings of method `gaussians4d`; the defaults are those of preset `full`."""

    RANGES: ClassVar[Ranges] = {
        **SplatConfig.RANGES,
        "clip_length": (1e-2, 1e4),
        "initial_duration": (1e-4, 1e3),
        "times_rate": (0.0, 1.0),
        "shortest_duration": (1e-3, 100.0),
        "entropy_weight": (0.0, 100.0),
        "consistency_weight": (0.0, 100.0),
        "consistency_neighbors": (1, 64),
        "consistency_time": (0.0, 1e6),
        "consistency_rows": (1, 10**7),
        "consistency_every": (1, 10**6),
        "grow_time_gradient": (0.0, 1e6),
        "split_duration": (0.0, 1e3),
        "noise_time": (0.0, 1e3),
        "still_start": (0.0, 1.0),
        "still_every": (1, 10**6),
        "still_travel": (0.0, 1e3),
        "still_fade": (0.0, 1.0),
        "prune_share": (0.0, 0.99),
        "prune_views": (1, 10**6),
    }

    method: Literal["gaussians4d"] = "gaussians4d"
    """What is trained: `gaussians4d`, Gaussians in space and time that move, appear and vanish."""
    start_run: str | None = None
    """Run folder of method `gaussians` to start from, with moving Gaussians at random places."""
    clip_length: float = 10.0
    """Length of the clip in training: things that cross a scene unit in one of time are learned
    best. Times and durations elsewhere are parts of the clip all the same."""
    initial_duration: float | None = None
    """Standard deviation in time at the start; None: about as long as 16 views take, with
    `points` 0.45, and for places that are never empty the whole clip."""
    times_rate: float = 5e-4
    """Adam's step size for the times of Gaussians; falls as `means_rate` does."""
    shortest_duration: float = 0.1
    """Standard deviation in time that none falls below, in frames."""
    plateaus: bool = False
    """Gaussians stay whole for a time of their own before they fade (a flat top)."""

    entropy_weight: float = 0.0
    """Weight of the mean of -o ln o over opacities, which makes them 0 or 1."""
    consistency_weight: float = 0.0
    """Weight of the difference of a velocity to the mean of its neighbors', mean over Gaussians, in
    scene units per clip over `clip_length`."""
    consistency_neighbors: int = 8
    """Neighbors of a Gaussian in space and time."""
    consistency_time: float = 5.0
    """How far apart neighbors count that are a whole clip apart, in scene units."""
    consistency_rows: int = 16384
    """Gaussians that are compared with their neighbors in a step."""
    consistency_every: int = 100
    """Steps between searches for neighbors; they are also searched where rows change."""

    grow_time_gradient: float = 2e-4
    """Mean gradient by the time above which a Gaussian is cloned or split (`default`)."""
    split_duration: float = 0.2
    """Duration above which such a one is split (`default`)."""
    noise_time: float = 0.05
    """Noise on the times of faint Gaussians, in their durations (`mcmc`)."""

    still: bool = True
    """Gaussians that do not change are kept as Gaussians in space, which cost less."""
    still_places: bool = False
    """Random places that are never empty start as Gaussians in space: smaller, with lower scores
    where something moves before them."""
    still_start: float = 0.3
    """Fraction of the run after which they are looked for."""
    still_every: int = 200
    """Steps between looks."""
    still_travel: float = 2.0
    """How far such a Gaussian may move while it is there, in its own mean sizes."""
    still_fade: float = 0.2
    """How much of its opacity it may lose within the clip."""
    prune_share: float = 0.0
    """Part of the Gaussians that is removed when refinement stops: those that add least to the
    training views for their duration."""
    prune_views: int = 200
    """Training views that are asked for that, at most."""


_SHORT_RUN: dict[str, Any] = {
    "harmonics_every": 400,
    "means_rate": 5e-4,
    "rotations_rate": 2e-3,
    "harmonics_rate": 5e-3,
    "harmonics_rest_factor": 0.1,
    "opacity_regularization": 0.003,
    "scale_regularization": 0.003,
    "refine_start": 200,
    "refine_every": 50,
}
GAUSSIANS4D_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        **_SHORT_RUN,
        "default_steps": 8000,
        "max_gaussians": 30_000,
        "initial_gaussians": 15_000,
        "harmonics_degree": 1,
        "consistency_rows": 1024,
    },
    "small": {
        **_SHORT_RUN,
        "default_steps": 10_000,
        "max_gaussians": 150_000,
        "initial_gaussians": 60_000,
        "harmonics_degree": 2,
        "batch_views": 2,
    },
    "full": {"batch_views": 4},
}
"""What differs from the defaults of `Gaussians4DConfig`: `tiny` for two CPU cores, `small` for a
laptop GPU or minutes on a large one, `full` for videos of many cameras."""
