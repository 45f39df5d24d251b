"""Scene representations behind a few protocols."""

from .gaussians import Gaussians
from .gaussians4d import Gaussian4DTensors, Gaussians4D
from .grid_field import DenseGridField, GridField, HashGridField
from .moving_surface import MovingSurface
from .protocols import (
    GaussianTensors,
    GridNetworks,
    MovingField,
    MovingSurfaceField,
    PrimitiveField,
    RayBackground,
    ShownGaussians,
    SplattedField,
    SurfaceField,
    SurfaceMoment,
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
    "MovingSurface",
    "MovingSurfaceField",
    "NeuralSurface",
    "PrimitiveField",
    "RayBackground",
    "ShownGaussians",
    "SplattedField",
    "SurfaceField",
    "SurfaceMoment",
    "Surroundings",
    "TinyCudaField",
    "TrainedParameter",
    "VolumeField",
    "progressive_levels",
    "to_grid_space",
]
