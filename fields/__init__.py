"""Scene representations behind a few protocols."""

from .gaussians import Gaussians
from .gaussians4d import Gaussian4DTensors, Gaussians4D
from .grid_field import DenseGridField, GridField, HashGridField
from .grid_network import GridNetwork
from .medium_field import MediumField
from .moving_surface import MovingSurface
from .picture_field import PictureField
from .protocols import (
    ColorPlane,
    DistanceField,
    GaussianTensors,
    GridNetworks,
    MediumLike,
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
from .solid_field import SolidField
from .surface_field import NeuralSurface, progressive_levels
from .surroundings import Surroundings
from .tinycudann_field import TinyCudaField

__all__ = [
    "ColorPlane",
    "DenseGridField",
    "DistanceField",
    "Gaussian4DTensors",
    "GaussianTensors",
    "Gaussians",
    "Gaussians4D",
    "GridField",
    "GridNetwork",
    "GridNetworks",
    "HashGridField",
    "MediumField",
    "MediumLike",
    "MovingField",
    "MovingSurface",
    "MovingSurfaceField",
    "NeuralSurface",
    "PictureField",
    "PrimitiveField",
    "RayBackground",
    "ShownGaussians",
    "SplattedField",
    "SolidField",
    "SurfaceField",
    "SurfaceMoment",
    "Surroundings",
    "TinyCudaField",
    "TrainedParameter",
    "VolumeField",
    "progressive_levels",
    "to_grid_space",
]
