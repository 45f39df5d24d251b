"""How a mesh is made from a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lumigraph.core.errors import ConfigError

from .depth_views import DepthKind
from .tsdf import TRUNCATIONS

MeshSource = Literal["fusion", "density", "distance"]
TextureColors = Literal["photographs", "renderings"]

_CHOICES = {
    "depth": ("median", "expected"),
    "source": ("fusion", "density", "distance"),
    "texture_colors": ("photographs", "renderings"),
}
_RANGES: dict[str, tuple[float, float]] = {
    "resolution": (8, 8192),
    "truncation": TRUNCATIONS,
    "level": (1e-6, 1e6),
    "texture": (64, 16384),
    "views": (1, 100_000),
    "orbit": (0, 10_000),
    "reach": (0.01, 1000),
    "components": (1, 2**31),
    "least_triangles": (0, 2**31),
    "triangles": (4, 2**31),
    "trim_hull": (0, 10_000),
    "trim_allowed": (0, 100_000),
}


@dataclass(frozen=True)
class MeshOptions:
    """How a mesh is made. Checked on construction."""

    voxel: float | None = None
    """Side of a voxel, in the unit of the mesh's frame; None takes `resolution`."""
    resolution: int | None = None
    """Voxels along the side of the scene's bounds, 8 to 8192; None takes voxels as large as a pixel
    at the middle of the scene, and 64 to 512 of them."""
    truncation: float = 4.0
    """Distance from the surface up to which depths count, in voxels, 2 to 8."""
    depth: DepthKind | None = None
    """median: where half of the light is gone; expected: the mean depth; None takes the first where
    the method renders it."""
    source: MeshSource | None = None
    """fusion: rendered depths are fused; density: the surface of a volume's density; distance:
    where a signed distance is zero; None takes distance or density where there is one."""
    level: float = 20.0
    """Density at the surface, per side of the scene's bounds; for source density."""
    texture: int | None = None
    """Longer side of a texture in pixels, 64 to 16384; None writes colors of vertices."""
    texture_colors: TextureColors = "photographs"
    """Whether a texture shows the training photographs or renderings at their cameras."""
    views: int = 200
    """Training cameras used at most, evenly chosen."""
    orbit: int = 0
    """Further cameras on an orbit around the scene."""
    reach: float = 1.0
    """How far the mesh may reach, in multiples of the scene's bounds."""
    components: int | None = None
    """Keep so many connected parts, the largest; None keeps all that are large enough."""
    least_triangles: int = 64
    """Connected parts with fewer triangles are dropped as noise."""
    triangles: int | None = None
    """Simplify the mesh to about so many; None keeps all."""
    trim_hull: int | None = None
    """Leave out triangles that lie beside the outline of the object (alpha or masks), widened by so
    many pixels, 0 to 10000, in a training view that they are in; None trims nothing."""
    trim_allowed: int = 0
    """Views in which a triangle may lie beside the outline without being trimmed."""
    memory_budget_gib: float | None = None
    """Memory that the volume may take; None is four fifths of what is free."""
    overwrite: bool = False
    """Replace a file that is there."""

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{name} = {value}: expected {low:g} to {high:g}")
        for name in ("voxel", "memory_budget_gib"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} = {value}: expected a number above 0")
        if self.voxel is not None and self.resolution is not None:
            raise ConfigError("voxel and resolution say the same; give one of them")
        if self.trim_allowed and self.trim_hull is None:
            raise ConfigError("trim_allowed is for trim_hull, which is not set")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in (None, *known):
                value = getattr(self, name)
                raise ConfigError(f"{name} = {value!r}: expected {' or '.join(known)}")
        if self.source in ("density", "distance") and (self.depth is not None or self.orbit):
            option = "depth" if self.depth is not None else "orbit"
            raise ConfigError(f"{option} is for a fusion of depths, not for the {self.source}")
