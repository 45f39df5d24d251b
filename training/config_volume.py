"""Settings and presets of method `volume`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lumigraph.core.axes import AxisName

from .config_fitting import FITTING_RANGES, FittingConfig, Presets
from .config_run import Ranges


@dataclass(frozen=True)
class VolumeConfig(FittingConfig):
    """Settings of method `volume`; the defaults are those of preset `tiny`."""

    RANGES: ClassVar[Ranges] = {
        **FITTING_RANGES,
        "density_scale": (1e-6, 1e6),
        "albedo_weight": (0.0, 100.0),
        "samples_per_pixel": (0, 2**16),
        "anisotropy": (-0.95, 0.95),
    }
    UNUSED: ClassVar[tuple[str, ...]] = (*FittingConfig.UNUSED, "image_scale")

    method: Literal["volume"] = "volume"
    """What is trained: `volume`, density and albedo of a medium."""
    log2_table_size: int = 17
    """Largest number of entries of one level of a hashgrid, as a power of two."""
    max_resolution: int | None = None
    """Vertices per axis of the finest level; none: 613 for hashgrids, else 173 and 128."""
    batch_samples: int = 2**15
    """Samples of one step: half of them anywhere, half where the medium is."""
    density_scale: float = 1.0
    """Extinction over the longest axis of the grid of a density of 1 in the file."""
    albedo_weight: float = 0.5
    """Weight of the squared error of the albedo where the medium is, beside that of the density
    over its peak."""
    samples_per_pixel: int = 0
    """Paths of light in a pixel of a frame, by delta tracking; 0 marches a quick preview."""
    anisotropy: float = 0.0
    """Mean cosine of the angle that light scatters by."""
    up: AxisName = "z"
    """What points up in the grid: for cameras and light."""
    default_steps: int = 1500
    """Steps when neither `steps` nor `seconds` is given."""


VOLUME_PRESETS: Presets = {
    "tiny": {},
    "small": {"log2_table_size": 19, "batch_samples": 2**16, "default_steps": 4_000},
    "full": {"log2_table_size": 19, "batch_samples": 2**18, "default_steps": 10_000},
}
"""What differs from the defaults of `VolumeConfig`: `tiny` for two CPU cores, `small` for a laptop
GPU or a patient CPU, `full` for the settings of the papers with large batches."""
