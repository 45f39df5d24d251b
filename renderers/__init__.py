"""Fields and cameras to frames."""

from .occupancy import OccupancyGrid
from .splat import SplatRenderer
from .volume import Cancelled, RayColors, VolumeRenderer

__all__ = ["Cancelled", "OccupancyGrid", "RayColors", "SplatRenderer", "VolumeRenderer"]
