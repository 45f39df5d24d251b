"""Scene representations behind a few protocols."""

from .gaussians import Gaussians
from .grid_field import DenseGridField, GridField, HashGridField
from .protocols import (
    GaussianTensors,
    GridNetworks,
    PrimitiveField,
    TrainedParameter,
    VolumeField,
    to_grid_space,
)
from .tinycudann_field import TinyCudaField

__all__ = [
    "DenseGridField",
    "GaussianTensors",
    "Gaussians",
    "GridField",
    "GridNetworks",
    "HashGridField",
    "PrimitiveField",
    "TinyCudaField",
    "TrainedParameter",
    "VolumeField",
    "to_grid_space",
]
