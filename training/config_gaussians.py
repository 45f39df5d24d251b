"""Settings of methods that train Gaussians, and presets of method `gaussians`. Imports no torch.

Numbers of steps in the schedule (`harmonics_every`, `refine_start`, ...) are steps of the run at
hand; where a schedule should follow the length of the run, it says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lumigraph.core.errors import ConfigError

from .config_run import Ranges, RunConfig

GROW_GRADIENT, GROW_GRADIENT_ABSOLUTE = 2e-4, 8e-4
REGULARIZATION = {"mcmc": 0.01, "default": 0.0}
# Fraction of a run in which the number of Gaussians may change: 15,000 and 25,000 of 30,000 steps.
REFINE_FRACTION = {"mcmc": 25 / 30, "default": 15 / 30}


@dataclass(frozen=True)
class SplatConfig(RunConfig):
    """What methods that train Gaussians share; the defaults are those of `gaussians`, preset
    `full`."""

    RANGES: ClassVar[Ranges] = {
        **RunConfig.RANGES,
        "max_gaussians": (1, 10**8),
        "initial_gaussians": (1, 10**8),
        "harmonics_degree": (0, 3),
        "harmonics_every": (0, 10**6),
        "batch_views": (1, 256),
        "means_rate": (0.0, 1.0),
        "means_rate_final": (1e-6, 1.0),
        "scales_rate": (0.0, 1.0),
        "opacities_rate": (0.0, 10.0),
        "rotations_rate": (0.0, 1.0),
        "harmonics_rate": (0.0, 1.0),
        "harmonics_rest_factor": (0.0, 1.0),
        "ssim_weight": (0.0, 1.0),
        "opacity_regularization": (0.0, 100.0),
        "scale_regularization": (0.0, 100.0),
        "depth_weight": (0.0, 100.0),
        "refine_start": (0, 10**9),
        "refine_stop": (0.0, 10**9),
        "refine_every": (1, 10**6),
        "opacity_reset_every": (1, 10**9),
        "grow_gradient": (0.0, 1.0),
        "grow_scale": (0.0, 100.0),
        "prune_opacity": (0.0, 1.0),
        "prune_scale": (0.0, 100.0),
        "noise_rate": (0.0, 1e9),
        "resolution_start": (1 / 64, 1.0),
        "resolution_doubles_every": (1, 10**6),
        "memory_budget_gib": (1e-3, 4096.0),
    }
    MAIN_RATE: ClassVar[str] = "means_rate"

    preset: Literal["tiny", "small", "full"] = "full"
    """Size the other defaults came from."""
    default_steps: int = 30_000
    """Steps when neither `steps` nor `seconds` is given."""

    strategy: Literal["default", "mcmc"] = "mcmc"
    """How the number of Gaussians follows the scene: `default` clones, splits and prunes by
    gradients on the screen; `mcmc` moves useless Gaussians to where others are opaque and explores
    with noise."""
    max_gaussians: int = 1_000_000
    """There are never more than this many."""
    initialization: Literal["auto", "points", "random"] = "auto"
    """Where they start: at the scene's `points`, at `random` places within its bounds; `auto` takes
    points where the scene has them."""
    initial_gaussians: int = 100_000
    """How many start at random places."""
    harmonics_degree: int = 3
    """Degree of the harmonics that a color depends on its direction by: 0 to 3."""
    harmonics_every: int = 1000
    """Steps until the next degree is trained, from 0 upwards; 0 trains all from the start."""

    batch_views: int = 1
    """Views a step; the gradients are those of the mean of their losses."""
    means_rate: float = 1.6e-4
    """Adam's step size for positions, in sizes of the scene."""
    means_rate_final: float = 0.01
    """Factor on `means_rate` at the end of the run, reached by exponential decay."""
    scales_rate: float = 5e-3
    """Adam's step size for logarithms of scales."""
    opacities_rate: float = 5e-2
    """Adam's step size for logits of opacities."""
    rotations_rate: float = 1e-3
    """Adam's step size for quaternions."""
    harmonics_rate: float = 2.5e-3
    """Adam's step size for the constant term of the harmonics."""
    harmonics_rest_factor: float = 0.05
    """Factor on `harmonics_rate` for all other terms."""
    selective_adam: bool = False
    """Adam moves only the Gaussians that a step has seen."""

    ssim_weight: float = 0.2
    """Share of the structural dissimilarity 1 - SSIM in the loss; the rest is the mean absolute
    error."""
    opacity_regularization: float | None = None
    """Weight of the mean opacity in the loss; None: 0.01 with `mcmc`, 0 with `default`."""
    scale_regularization: float | None = None
    """Weight of the mean scale in the loss; None: 0.01 with `mcmc`, 0 with `default`."""
    depth_weight: float = 0.0
    """Weight of the depth loss, against the scene's depths or, without them, its points."""

    refine_start: int = 500
    """Steps before the number of Gaussians first changes."""
    refine_stop: float | None = None
    """When it changes last: up to 1 a fraction of the run, above a step. None: after 5/6 of the run
    with `mcmc`, half of it with `default`."""
    refine_every: int = 100
    """Steps between changes."""
    opacity_reset_every: int = 3000
    """Steps between resets of all opacities to 0.01 or less (`default`)."""
    grow_gradient: float | None = None
    """Mean gradient on the screen, in half image sizes, above which a Gaussian is cloned or split
    (`default`); None: 2e-4, with `absgrad` 8e-4."""
    absgrad: bool = False
    """Take the sum over pixels of absolute gradients, which do not cancel (`default`)."""
    grow_scale: float = 0.01
    """Scale, in sizes of the scene, up to which a Gaussian is cloned; a larger one is split
    (`default`)."""
    prune_opacity: float = 0.005
    """Opacity below which a Gaussian is removed (`default`) or moved elsewhere (`mcmc`)."""
    prune_scale: float = 0.1
    """Scale, in sizes of the scene, above which a Gaussian is removed (`default`)."""
    noise_rate: float = 5e5
    """Noise on positions for each unit of their learning rate (`mcmc`)."""

    antialiased: bool = False
    """Take opacity from Gaussians smaller than a pixel, so that other resolutions look alike."""
    background: Literal["auto", "black", "white", "random", "learned", "sky"] = "auto"
    """What is behind everything in training: a fixed color, `random` colors (images with alpha),
    one `learned` color, or a learned `sky` around the scene. `auto` is `random` for images with
    alpha, else `learned`."""
    resolution_start: float = 1.0
    """Fraction of width and height of the images that training starts with."""
    resolution_doubles_every: int = 400
    """Steps until width and height double, up to those of the images."""
    memory_budget_gib: float | None = None
    """Memory that the run may take on its device, in GiB; None: what is free."""

    def __post_init__(self) -> None:
        super().__post_init__()
        stop = self.refine_stop
        if stop is not None and stop > 1 and stop != int(stop):
            raise ConfigError(
                f"refine_stop = {stop}: give a fraction of the run up to 1, or a whole step"
            )

    @property
    def opacity_weight(self) -> float:
        """`opacity_regularization`, or what the strategy wants."""
        given = self.opacity_regularization
        return REGULARIZATION[self.strategy] if given is None else given

    @property
    def scale_weight(self) -> float:
        """`scale_regularization`, or what the strategy wants."""
        given = self.scale_regularization
        return REGULARIZATION[self.strategy] if given is None else given

    @property
    def grow_threshold(self) -> float:
        """`grow_gradient`, or what suits `absgrad`."""
        if self.grow_gradient is not None:
            return self.grow_gradient
        return GROW_GRADIENT_ABSOLUTE if self.absgrad else GROW_GRADIENT

    def refine_stop_step(self, planned_steps: int) -> int:
        """First step at which the number of Gaussians stays as it is.

        >>> SplatConfig().refine_stop_step(30_000)
        25000
        """
        stop = REFINE_FRACTION[self.strategy] if self.refine_stop is None else self.refine_stop
        return round(stop * planned_steps) if stop <= 1 else int(stop)

    def learning_rate_factor(self, step: int, fraction: float) -> float:
        """Factor on the learning rate of positions: exponential decay over the run. The other rates
        are constant."""
        return float(self.means_rate_final**fraction)


@dataclass(frozen=True)
class GaussiansConfig(SplatConfig):
    """Settings of method `gaussians`; the defaults are those of preset `full`."""

    method: Literal["gaussians"] = "gaussians"
    """What is trained: `gaussians`, a cloud of 3D Gaussians (splats)."""


# Runs of a few thousand steps want many Gaussians early, large steps and weak regularisers: 34.1 dB
# on Lego after 4,000 steps, where the settings of `full` reach 31.2.
_SHORT_RUN: dict[str, Any] = {
    "harmonics_every": 400,
    "means_rate": 5e-4,
    "harmonics_rate": 5e-3,
    "harmonics_rest_factor": 0.1,
    "opacity_regularization": 0.003,
    "scale_regularization": 0.003,
    "refine_start": 200,
    "refine_every": 50,
}
GAUSSIANS_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        **_SHORT_RUN,
        "default_steps": 4000,
        "max_gaussians": 60_000,
        "initial_gaussians": 30_000,
        "harmonics_degree": 2,
        "resolution_start": 0.25,
    },
    "small": {
        **_SHORT_RUN,
        "default_steps": 7000,
        "max_gaussians": 300_000,
        "initial_gaussians": 50_000,
    },
    "full": {},
}
"""What differs from the defaults of `GaussiansConfig`: `tiny` for two CPU cores, `small` for a
laptop GPU or a patient CPU, `full` for the schedule of the 3D Gaussian splatting paper with a fixed
number of Gaussians."""
