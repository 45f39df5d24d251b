"""Fields and cameras to frames."""

from .occupancy import OccupancyGrid
from .splat import SplatRenderer
from .surface import SurfaceRays, SurfaceRenderer
from .volume import Cancelled, RayColors, VolumeRenderer

__all__ = [
    "Cancelled",
    "OccupancyGrid",
    "RayColors",
    "SplatRenderer",
    "SurfaceRays",
    "SurfaceRenderer",
    "VolumeRenderer",
]
