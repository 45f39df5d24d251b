"""Scene representations behind a few protocols."""

from .gaussians import Gaussians
from .gaussians4d import Gaussian4DTensors, Gaussians4D
from .grid_field import DenseGridField, GridField, HashGridField
from .protocols import (
    GaussianTensors,
    GridNetworks,
    MovingField,
    PrimitiveField,
    RayBackground,
    ShownGaussians,
    SplattedField,
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
    "Gaussian4DTensors",
    "GaussianTensors",
    "Gaussians",
    "Gaussians4D",
    "GridField",
    "GridNetworks",
    "HashGridField",
    "MovingField",
    "NeuralSurface",
    "PrimitiveField",
    "RayBackground",
    "ShownGaussians",
    "SplattedField",
    "SurfaceField",
    "Surroundings",
    "TinyCudaField",
    "TrainedParameter",
    "VolumeField",
    "progressive_levels",
    "to_grid_space",
]
