"""Gaussians to pictures: projection, tile lists, blending, and the three in a row."""

from .camera import SplatCamera
from .pipeline import SplatImages, SplatOptions, render_gaussians
from .projection import project_gaussians
from .rasterization import RasterImages, rasterize_splats
from .tiles import TileLists, splat_tiles

__all__ = [
    "RasterImages",
    "SplatCamera",
    "SplatImages",
    "SplatOptions",
    "TileLists",
    "project_gaussians",
    "rasterize_splats",
    "render_gaussians",
    "splat_tiles",
]
