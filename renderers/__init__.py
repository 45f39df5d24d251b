"""Fields and cameras to frames."""

from .moving import MovedSurfaceRenderer, MovingSurfaceRenderer
from .occupancy import OccupancyGrid
from .splat import SplatRenderer
from .surface import SurfaceRays, SurfaceRenderer
from .volume import Cancelled, RayColors, VolumeRenderer

__all__ = [
    "Cancelled",
    "MovedSurfaceRenderer",
    "MovingSurfaceRenderer",
    "OccupancyGrid",
    "RayColors",
    "SplatRenderer",
    "SurfaceRays",
    "SurfaceRenderer",
    "VolumeRenderer",
]
