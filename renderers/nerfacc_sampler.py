"""Marching and compositing by the package nerfacc, where a user has it: the same cells, step
lengths and early stop as ours, results in the same units.

One thing differs: its steps start at `near`, ours where a ray enters the outermost cascade, so the
samples of one ray may be shifted by a part of a step. Letters: N rays, M samples.

Source: nerfacc 0.5, Li et al. 2023.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
from torch import Tensor

from lumigraph.core.errors import BackendError, ConfigError, require
from lumigraph.cuda.marching import MarchGrid
from lumigraph.cuda.reference.marching import unpack_bits
from lumigraph.fields.protocols import VolumeField

from .volume import RayColors, VolumeRenderer

DENSITY_CHUNK = 2**20  # samples whose density is looked up at a time


def nerfacc_library(device: torch.device) -> ModuleType:
    """The package `nerfacc`, whose kernels are compiled on first use.

    Raises:
        MissingExtraError: it is not installed.
        BackendError: the device is not a GPU, or its kernels cannot be compiled here.
    """
    library = require("nerfacc", extra="peers")
    if device.type != "cuda":
        raise BackendError(
            f"sampler nerfacc needs an NVIDIA GPU and the device is {device.type}; "
            "use --device cuda, or --sampler lumigraph"
        )
    try:
        kernels = importlib.import_module("nerfacc.cuda._backend")._C
    except (ImportError, OSError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BackendError(
            f"nerfacc's kernels cannot be compiled ({reason}); use --sampler lumigraph"
        ) from error
    if kernels is None:
        raise BackendError(
            "nerfacc finds no CUDA compiler for its kernels; install nvcc, "
            "or use --sampler lumigraph"
        )
    return library


def cascade_boxes(grid: MarchGrid) -> Tensor:
    """(K, 6) lower and upper corner of each cascade."""
    half = torch.tensor([2.0**k / 2 for k in range(grid.cascades)], device=grid.bits.device)
    return torch.stack([0.5 - half] * 3 + [0.5 + half] * 3, dim=1)


def _march(
    library: ModuleType,
    renderer: VolumeRenderer,
    origins: Tensor,
    directions: Tensor,
    jitter: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Ray, start and end (M,) of each step in occupied cells."""
    grid = renderer.occupancy.march_grid
    near = torch.full_like(origins[:, 0], renderer.near)
    if jitter is not None:
        near += jitter * grid.minimum_step
    cells = unpack_bits(grid.bits, grid.resolution, grid.cascades)  # z, y, x
    intervals, samples, _ = library.traverse_grids(
        origins.contiguous(),
        directions.contiguous(),
        cells.permute(0, 3, 2, 1).contiguous(),
        cascade_boxes(grid),
        near_planes=near,
        step_size=grid.minimum_step,
        cone_angle=grid.cone,
    )
    starts, ends = intervals.vals[intervals.is_left], intervals.vals[intervals.is_right]
    return samples.ray_indices.long(), starts, ends


@torch.no_grad()
def _visible(
    library: ModuleType,
    renderer: VolumeRenderer,
    field: VolumeField,
    samples: tuple[Tensor, Tensor, Tensor],
    rays: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """The samples in front of the early stop."""
    indices, starts, ends = samples
    origins, directions = rays
    positions = origins[indices] + directions[indices] * ((starts + ends) / 2)[:, None]
    density = torch.cat([field.density(part) for part in positions.split(DENSITY_CHUNK)])
    kept = library.render_visibility_from_density(
        starts,
        ends,
        density,
        ray_indices=indices,
        n_rays=len(origins),
        early_stop_eps=renderer.early_stop,
    )
    return indices[kept], starts[kept], ends[kept]


def render_rays(
    renderer: VolumeRenderer,
    field: VolumeField,
    origins: Tensor,
    directions: Tensor,
    *,
    jitter: Tensor | None = None,
    background: Tensor | None = None,
    distortion: bool = False,
) -> RayColors:
    """`VolumeRenderer.render_rays` by nerfacc; takes as much memory as the samples need.

    Raises:
        ConfigError: `distortion`, which this back end does not have.
        BackendError, MissingExtraError: see `nerfacc_library`.
    """
    if distortion:
        raise ConfigError(
            "distortion_weight: sampler nerfacc has no distortion loss; use 0, "
            "or --sampler lumigraph"
        )
    library = nerfacc_library(origins.device)
    if not len(origins):
        none = origins.new_zeros(0)
        counts = none.int()
        return RayColors(origins.new_zeros(0, 3), none, none, None, counts, counts.sum())
    rays = (origins.detach(), directions.detach())
    samples = _march(library, renderer, *rays, jitter)
    indices, starts, ends = _visible(library, renderer, field, samples, rays)
    middles, toward = ((starts + ends) / 2)[:, None], directions[indices]
    density, color = field.query(origins[indices] + middles * toward, toward)
    along = {"ray_indices": indices, "n_rays": len(origins)}
    weights, _, _ = library.render_weight_from_density(starts, ends, density, **along)
    pixel = library.accumulate_along_rays(weights, color, **along)
    opacity = library.accumulate_along_rays(weights, None, **along)
    distance = library.accumulate_along_rays(weights, middles, **along)[:, 0]
    if background is not None:
        left = 1 - opacity
        pixel = pixel + background * torch.where(left < renderer.early_stop, 0.0, left)
    counts = torch.bincount(indices, minlength=len(origins)).int()
    return RayColors(pixel, opacity[:, 0], distance, None, counts, counts.sum())
