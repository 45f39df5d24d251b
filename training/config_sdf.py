"""Settings and presets of method `sdf`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lumigraph.core.axes import AxisName

from .config_fitting import FITTING_RANGES, FittingConfig, Presets
from .config_run import Ranges


@dataclass(frozen=True)
class SdfConfig(FittingConfig):
    """Settings of method `sdf`; the defaults are those of preset `tiny`."""

    RANGES: ClassVar[Ranges] = {
        **FITTING_RANGES,
        "pool_samples": (2**12, 2**26),
        "fresh_samples": (0, 2**22),
    }
    UNUSED: ClassVar[tuple[str, ...]] = (*FittingConfig.UNUSED, "image_scale")

    method: Literal["sdf"] = "sdf"
    """What is trained: `sdf`, the signed distance of a mesh."""
    log2_table_size: int = 19
    """Largest number of entries of one level of a hashgrid, as a power of two."""
    max_resolution: int | None = None
    """Vertices per axis of the finest level; none: 2048 for hashgrids, else 173 and 128."""
    batch_samples: int = 2**15
    """Samples of one step."""
    pool_samples: int = 2**19
    """Points with their true distances that steps draw from: three eighths on the surface, half of
    them near it, and one eighth anywhere in the bounds."""
    fresh_samples: int = 2**12
    """Points of the pool that are replaced in each step, in blocks of 4096; 0: none."""
    signs: Literal["normals", "winding"] = "normals"
    """What is inside: by the `normals` of a closed mesh, or, for open ones, where it winds around
    a point by more than a half."""
    up: AxisName = "y"
    """What points up in the mesh: for cameras and light."""
    default_steps: int = 2000
    """Steps when neither `steps` nor `seconds` is given."""


SDF_PRESETS: Presets = {
    "tiny": {},
    "small": {"batch_samples": 2**16, "default_steps": 6_000},
    "full": {"batch_samples": 2**18, "fresh_samples": 2**14, "default_steps": 10_000},
}
"""What differs from the defaults of `SdfConfig`: `tiny` for two CPU cores, `small` for a laptop GPU
or a patient CPU, `full` for the settings of the papers with large batches."""
