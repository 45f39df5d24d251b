"""What other rooms call: every operation under one roof."""

from .compositing import Composite, composite
from .grid import grid_encode
from .grid_layout import GridLayout
from .harmonics import harmonics_encode
from .image_loss import ImageLoss, image_loss
from .marching import MarchedSamples, MarchGrid, full_grid, march_rays, march_rays_padded
from .mlp import mlp, mlp_weight_count
from .occupancy import (
    occupancy_threshold,
    pack_cells,
    pinhole_projection,
    sample_cells,
    update_cells,
    visible_cells,
)
from .optimizer import adam_step_, ema_step_
from .optimizer_rows import adam_rows_
from .perturb import perturb_means_
from .splatting import (
    PreparedGaussians4D,
    RasterImages,
    SplatCamera,
    SplatImages,
    SplatOptions,
    TileLists,
    prepare_gaussians4d,
    project_gaussians,
    project_gaussians4d,
    rasterize_splats,
    render_gaussians,
    render_gaussians4d,
    render_prepared4d,
    splat_tiles,
)
from .surface import (
    SurfaceNetworks,
    SurfaceSamples,
    surface_curvature,
    surface_distance,
    surface_query,
)
from .volume_step import (
    GridNetworks,
    LossSettings,
    VolumeGradients,
    VolumePixels,
    VolumeSettings,
    volume_render,
    volume_train,
)

__all__ = [
    "Composite",
    "GridLayout",
    "GridNetworks",
    "ImageLoss",
    "LossSettings",
    "MarchGrid",
    "MarchedSamples",
    "PreparedGaussians4D",
    "RasterImages",
    "SplatCamera",
    "SplatImages",
    "SplatOptions",
    "SurfaceNetworks",
    "SurfaceSamples",
    "TileLists",
    "VolumeGradients",
    "VolumePixels",
    "VolumeSettings",
    "adam_rows_",
    "adam_step_",
    "composite",
    "ema_step_",
    "full_grid",
    "grid_encode",
    "harmonics_encode",
    "image_loss",
    "march_rays",
    "march_rays_padded",
    "mlp",
    "mlp_weight_count",
    "occupancy_threshold",
    "pack_cells",
    "perturb_means_",
    "pinhole_projection",
    "prepare_gaussians4d",
    "project_gaussians",
    "project_gaussians4d",
    "rasterize_splats",
    "render_gaussians",
    "render_gaussians4d",
    "render_prepared4d",
    "sample_cells",
    "splat_tiles",
    "surface_curvature",
    "surface_distance",
    "surface_query",
    "update_cells",
    "visible_cells",
    "volume_render",
    "volume_train",
]
