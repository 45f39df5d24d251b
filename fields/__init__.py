"""Scene representations behind a few protocols."""

from .grid_field import DenseGridField, GridField, HashGridField
from .protocols import GridNetworks, TrainedParameter, VolumeField, to_grid_space
from .tinycudann_field import TinyCudaField

__all__ = [
    "DenseGridField",
    "GridField",
    "GridNetworks",
    "HashGridField",
    "TinyCudaField",
    "TrainedParameter",
    "VolumeField",
    "to_grid_space",
]
