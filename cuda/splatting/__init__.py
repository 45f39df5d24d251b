"""Gaussians to pictures: projection, tile lists, blending, and the three in a row."""

from .camera import SplatCamera
from .pipeline import SplatImages, SplatOptions, render_gaussians
from .pipeline4d import render_gaussians4d
from .prepared4d import PreparedGaussians4D, prepare_gaussians4d, render_prepared4d
from .projection import project_gaussians
from .projection4d import project_gaussians4d
from .rasterization import RasterImages, rasterize_splats
from .tiles import TileLists, splat_tiles

__all__ = [
    "PreparedGaussians4D",
    "RasterImages",
    "SplatCamera",
    "SplatImages",
    "SplatOptions",
    "TileLists",
    "prepare_gaussians4d",
    "project_gaussians",
    "project_gaussians4d",
    "rasterize_splats",
    "render_gaussians",
    "render_gaussians4d",
    "render_prepared4d",
    "splat_tiles",
]
