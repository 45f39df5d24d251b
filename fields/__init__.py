"""Scene representations behind a few protocols."""

from .grid_field import DenseGridField, GridField, HashGridField
from .protocols import GridNetworks, VolumeField, to_grid_space

__all__ = [
    "DenseGridField",
    "GridField",
    "GridNetworks",
    "HashGridField",
    "VolumeField",
    "to_grid_space",
]
