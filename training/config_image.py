"""Settings and presets of method `image`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .config_fitting import FittingConfig, Presets


@dataclass(frozen=True)
class ImageConfig(FittingConfig):
    """Settings of method `image`; the defaults are those of preset `tiny`."""

    method: Literal["image"] = "image"
    """What is trained: `image`, a picture on a 2-D grid."""
    log2_table_size: int = 20
    """Largest number of entries of one level of a hashgrid, as a power of two."""
    max_resolution: int | None = None
    """Vertices per axis of the finest level; none: half of the picture's longer side for
    hashgrids, else 173 and 128."""
    loss: Literal["auto", "l2", "relative_l2"] = "auto"
    """Error of each channel, squared; `relative_l2` divides it by the square of the prediction, for
    linear light of any brightness. `auto` takes it for OpenEXR files and `l2` for all others."""
    default_steps: int = 2000
    """Steps when neither `steps` nor `seconds` is given."""


IMAGE_PRESETS: Presets = {
    "tiny": {},
    "small": {"log2_table_size": 22, "batch_samples": 2**17, "default_steps": 5_000},
    "full": {"log2_table_size": 24, "batch_samples": 2**18, "default_steps": 10_000},
}
"""What differs from the defaults of `ImageConfig`: `tiny` for two CPU cores, `small` for a laptop
GPU or a patient CPU, `full` for the settings of the papers."""
