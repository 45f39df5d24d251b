"""Scene representations behind a few protocols."""

from .gaussians import Gaussians
from .grid_field import DenseGridField, GridField, HashGridField
from .grid_network import GridNetwork
from .medium_field import MediumField
from .picture_field import PictureField
from .protocols import (
    ColorPlane,
    DistanceField,
    GaussianTensors,
    GridNetworks,
    MediumLike,
    PrimitiveField,
    RayBackground,
    SurfaceField,
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
    "GaussianTensors",
    "Gaussians",
    "GridField",
    "GridNetwork",
    "GridNetworks",
    "HashGridField",
    "MediumField",
    "MediumLike",
    "NeuralSurface",
    "PictureField",
    "PrimitiveField",
    "RayBackground",
    "SolidField",
    "SurfaceField",
    "Surroundings",
    "TinyCudaField",
    "TrainedParameter",
    "VolumeField",
    "progressive_levels",
    "to_grid_space",
]
