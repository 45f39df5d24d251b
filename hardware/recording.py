"""Traces of real renders: which samples the volume renderer shades, ray by ray, in which order.

The picture is rendered once, by the renderer itself, which counts the samples of each pixel in
front of its early stop. The rays of the chosen tiles are then marched again through the same
occupancy grid, and of each the first so many samples are kept: the trace holds what was shaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from lumigraph.core import Cameras
from lumigraph.core.errors import InputError
from lumigraph.cuda.marching import march_rays
from lumigraph.cuda.volume_step import GridNetworks
from lumigraph.fields.protocols import VolumeField, to_grid_space
from lumigraph.renderers.volume import VolumeRenderer

from .trace import Trace, choose_tiles, pixels_of_tiles, tile_grid
from .workloads import Encoding, Network, Workload

MOST_SAMPLES_PER_RAY = 1024  # of the renderer
RAYS_PER_CHUNK = 4096


def workload_of(networks: GridNetworks) -> Workload:
    """The encoding and the networks of a trained radiance field, as the cluster sees them."""
    layout = networks.layout
    encoding = Encoding(
        kind="dense" if layout.dense else "hash",
        dimensions=layout.dimensions,
        levels=layout.levels,
        features=layout.features,
        base_resolution=layout.base_resolution,
        growth=layout.growth,
        log2_table_size=layout.log2_table_size,
    )
    both = (
        Network("density", tuple(networks.density_widths)),
        Network("color", tuple(networks.color_widths)),
    )
    return Workload("nerf", encoding, both, input_bytes=10, output_bytes=8)


def record(
    field: Any,
    renderer: Any,
    camera: Cameras,
    *,
    tiles: int | None = 64,
    seed: int = 0,
    scene: str = "scene",
    facts: Mapping[str, Any] | None = None,
) -> Trace:
    """Render one camera and keep what was asked of the field.

    Args:
        field, renderer: a volume field on a grid with its `VolumeRenderer`, as training makes them.
        camera: a batch of length 1.
        tiles: of 16 x 16 pixels, spread over the picture; None for the whole picture.
        seed: of the choice of tiles.
        scene: name for reports.
        facts: anything worth keeping with the trace.

    Returns:
        The trace. Its `shaded` counts all samples of the whole picture.

    Raises:
        InputError: another kind of field or renderer, or several cameras.

    Example:
        trace = record(model.field, model.renderer, scene.cameras[0], tiles=32)
    """
    networks = field.networks() if isinstance(field, VolumeField) else None
    if networks is None or not isinstance(renderer, VolumeRenderer):
        raise InputError(
            "record: takes radiance fields on a grid with their volume renderer (method nerf, "
            f"encoder lumigraph); got {type(field).__name__} with {type(renderer).__name__}"
        )
    if len(camera) != 1:
        raise InputError(f"record: takes one camera; got {len(camera)}")
    width, height = camera.size(0)
    device = networks.table.device
    with torch.no_grad():
        frame = renderer.render(field, camera.to(device))
    counts = frame.extras["samples"].reshape(-1).cpu().numpy().astype(np.int64)
    across, down = tile_grid(width, height)
    chosen = choose_tiles(width, height, across * down if tiles is None else tiles, seed=seed)
    pixels = pixels_of_tiles(chosen, width, height)
    positions, rays = _samples(field, renderer, camera.to(device), pixels, counts)
    whole = len(chosen) == across * down
    return Trace(
        workload=workload_of(networks),
        scene=scene,
        width=width,
        height=height,
        positions=positions,
        rays=rays.astype(np.uint32),
        rounds=np.zeros(len(rays), np.uint16),
        tiles=np.zeros(0, np.int64) if whole else chosen,
        shaded=int(counts.sum()),
        facts=dict(facts or {}),
    )


def _samples(
    field: VolumeField,
    renderer: VolumeRenderer,
    camera: Cameras,
    pixels: np.ndarray,
    counts: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n, 3) in the unit cube of the encoding, and pixels (n,), of shaded samples."""
    rays = camera.image_rays(0)
    bounds = field.bounds
    extent = 2 ** (field.cascades - 1)
    positions, owners = [], []
    for begin in range(0, len(pixels), RAYS_PER_CHUNK):
        part = pixels[begin : begin + RAYS_PER_CHUNK]
        index = torch.from_numpy(part).to(rays.origins.device)
        marched = march_rays(
            to_grid_space(rays.origins[index], bounds),
            rays.directions[index],
            renderer.occupancy.march_grid,
            near=renderer.near,
            max_samples=RAYS_PER_CHUNK * MOST_SAMPLES_PER_RAY,
            max_samples_per_ray=MOST_SAMPLES_PER_RAY,
        )
        own = marched.ray_indices.cpu().numpy()
        first = marched.ray_offsets[:, 0].cpu().numpy()
        place = np.arange(len(own)) - first[own]
        kept = place < counts[part][own]
        unit = (marched.positions - 0.5) / extent + 0.5
        positions.append(unit.cpu().numpy()[kept])
        owners.append(part[own[kept]])
    if not positions:
        return np.zeros((0, 3), np.float32), np.zeros(0, np.int64)
    return np.concatenate(positions).clip(0, 1), np.concatenate(owners)
