"""Fields and cameras to frames."""

from .medium import MediumLight, MediumRenderer
from .moving import MovedSurfaceRenderer, MovingSurfaceRenderer
from .occupancy import OccupancyGrid
from .plane import PlaneRenderer
from .sphere_tracing import SolidLight, SphereTracer
from .splat import SplatRenderer
from .surface import SurfaceRays, SurfaceRenderer
from .volume import Cancelled, RayColors, VolumeRenderer

__all__ = [
    "Cancelled",
    "MediumLight",
    "MediumRenderer",
    "MovedSurfaceRenderer",
    "MovingSurfaceRenderer",
    "OccupancyGrid",
    "PlaneRenderer",
    "RayColors",
    "SolidLight",
    "SphereTracer",
    "SplatRenderer",
    "SurfaceRays",
    "SurfaceRenderer",
    "VolumeRenderer",
]
