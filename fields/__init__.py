"""Scene representations behind a few protocols."""

from .gaussians import Gaussians
from .grid_field import DenseGridField, GridField, HashGridField
from .protocols import (
    GaussianTensors,
    GridNetworks,
    PrimitiveField,
    RayBackground,
    SurfaceField,
    TrainedParameter,
    VolumeField,
    to_grid_space,
)
from .surface_field import NeuralSurface, progressive_levels
from .surroundings import Surroundings
from .tinycudann_field import TinyCudaField

__all__ = [
    "DenseGridField",
    "GaussianTensors",
    "Gaussians",
    "GridField",
    "GridNetworks",
    "HashGridField",
    "NeuralSurface",
    "PrimitiveField",
    "RayBackground",
    "SurfaceField",
    "Surroundings",
    "TinyCudaField",
    "TrainedParameter",
    "VolumeField",
    "progressive_levels",
    "to_grid_space",
]
