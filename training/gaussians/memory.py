"""How much memory a run will take, in bytes, before it starts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from lumigraph.core import Scene
from lumigraph.core.devices import available_bytes
from lumigraph.core.errors import ConfigError
from lumigraph.training.config_gaussians import SplatConfig

FLOAT = 4
SHAPE_NUMBERS = 11  # position, rotation, scales and opacity
COPIES = 4  # parameter, gradient and two moments
SPLAT_NUMBERS = (
    2 * 12 + 2 * 2 + 3
)  # a projected row with its gradient, screen gradients, statistics
TILES_PER_GAUSSIAN = 6  # seen in scenes of some 10,000 to 1,000,000 Gaussians
TILE_BYTES = {"cpu": 48, "cuda": 128}  # of one (tile, Gaussian): keys, order, partial gradients
PIXEL_NUMBERS = 40  # colors, target, SSIM maps and their gradients, of one pixel
SAFETY = 1.1  # what allocators lose


@dataclass(frozen=True)
class Forecast:
    """Bytes at the most, by what they are for."""

    gaussians: int
    """Parameters, gradients, moments and statistics."""
    tiles: int
    """Lists of Gaussians by tile, at one view."""
    views: int
    """Images of one step and those that are kept."""

    @property
    def total(self) -> int:
        return self.gaussians + self.tiles + self.views

    def note(self, config: SplatConfig) -> str:
        """For the user, before the first step."""
        return f"up to {config.max_gaussians:,} Gaussians take about {self.total / 2**30:.1f} GiB"


def forecast(
    scene: Scene, config: SplatConfig, device: torch.device, *, shape_numbers: int = SHAPE_NUMBERS
) -> Forecast:
    """What a run with as many Gaussians as allowed takes at most.

    Args:
        shape_numbers: of a Gaussian, without its color.

    Example:
        >>> Forecast(gaussians=200, tiles=50, views=6).total
        256
    """
    numbers = shape_numbers + 3 * (config.harmonics_degree + 1) ** 2
    rows = config.max_gaussians
    # an edit of the rows holds the largest tensor twice
    gaussians = rows * FLOAT * (COPIES * numbers + SPLAT_NUMBERS + (numbers - shape_numbers))
    tiles = rows * TILES_PER_GAUSSIAN * TILE_BYTES[device.type]
    pixels = scene.cameras.sizes[scene.split("train")].prod(dim=1)
    channels = (4 if scene.has_alpha else 3) + FLOAT * (
        (scene.masks is not None) + (config.depth_weight > 0)
    )
    kept = min(int(pixels.sum()) * channels, int(config.image_budget_gib * 2**30))
    views = int(pixels.max()) * PIXEL_NUMBERS * FLOAT + kept
    return Forecast(*(int(SAFETY * part) for part in (gaussians, tiles, views)))


def check_memory(
    scene: Scene, config: SplatConfig, device: torch.device, *, shape_numbers: int = SHAPE_NUMBERS
) -> Forecast:
    """The forecast of a run that fits; arguments as of `forecast`.

    Raises:
        ConfigError: it does not fit; says what to lower.
    """
    wanted = forecast(scene, config, device, shape_numbers=shape_numbers)
    limit = available_bytes(device)
    place = f"{limit / 2**30:.1f} GiB are free on {device.type}"
    if config.memory_budget_gib is not None:
        limit = int(config.memory_budget_gib * 2**30)
        place = f"memory_budget_gib is {config.memory_budget_gib:g}"
    if wanted.total <= limit:
        return wanted
    largest = max(dataclasses.asdict(wanted).items(), key=lambda item: item[1])[0]
    advice = "image_scale or image_budget_gib" if largest == "views" else "max_gaussians"
    raise ConfigError(
        f"max_gaussians = {config.max_gaussians}: training would need about "
        f"{wanted.total / 2**30:.1f} GiB ({wanted.views / 2**30:.1f} for images), but {place}; "
        f"lower {advice}"
    )
