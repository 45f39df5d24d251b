"""Depth pictures of many cameras fused into one surface.

The pictures are rendered twice: once small, to see where voxels are needed, then whole, so that
every voxel hears every picture and empty space is carved out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from lumigraph.core import CameraModel, Cameras, Scene
from lumigraph.core.camera_path import CameraPath
from lumigraph.core.devices import available_bytes

from .depth_views import DepthView, depth_view
from .isosurface import Surface, extract
from .mesh_options import MeshOptions
from .render_source import Renders
from .tsdf import BlockCollector, TsdfVolume, VoxelGrid

PICTURED_RESOLUTIONS = (64, 512)
"""Range of the resolution that is taken from the pictures."""
LOOK_SCALE = 0.5
"""Size of the pictures of the first round."""
MEMORY_SHARE = 0.8
"""Of the free memory that a volume may take."""


def chosen_views(scene: Scene, most: int) -> list[int]:
    """Training cameras, evenly chosen."""
    indices = scene.split("train")
    places = torch.linspace(0, len(indices) - 1, min(most, len(indices))).round().long()
    return [int(index) for index in indices[places]]


def fusion_cameras(scene: Scene, options: MeshOptions) -> Cameras:
    """Training cameras, evenly chosen, and those of the orbit."""
    chosen = chosen_views(scene, options.views)
    cameras = scene.cameras.select(chosen)
    if options.orbit == 0:
        return cameras
    size = scene.cameras.size(chosen[0])
    orbit = CameraPath.orbit(scene).cameras(*size, options.orbit)
    # A path around a moving scene runs through time; a surface is that of one moment.
    moment = None if cameras.times is None else float(cameras.times[0])
    return Cameras.concatenate([cameras, orbit.at_time(moment)])


def fuse(
    model: Renders,
    cameras: Cameras,
    grid: VoxelGrid,
    *,
    options: MeshOptions,
    on_view: Callable[[int, int], None] | None = None,
) -> Surface:
    """The surface that all cameras see together, in the scene frame.

    Args:
        model: renders one camera at a time.
        cameras: C of them.
        grid: where voxels lie; its device is where depths are fused.
        options: truncation, depth and memory.
        on_view: told after each picture how many are done, and of how many; each camera counts
            twice.

    Raises:
        ConfigError: the volume does not fit into memory.
    """
    limit, place = memory_limit(options, grid.origin.device)
    collector = BlockCollector(grid, limit=limit, place=place)
    total = 2 * len(cameras)
    small = cameras.resized(LOOK_SCALE)
    for index in range(len(cameras)):
        view = _look(model, small[index], grid, options)
        reach = options.truncation * grid.voxel + view.spacing / 2
        collector.add(view.points, reach)
        if on_view is not None:
            on_view(index + 1, total)
    volume = TsdfVolume(grid, collector.keys, truncation=options.truncation)
    for index in range(len(cameras)):
        volume.integrate(_look(model, cameras[index], grid, options))
        if on_view is not None:
            on_view(len(cameras) + index + 1, total)
    return extract(volume)


def _look(model: Renders, camera: Cameras, grid: VoxelGrid, options: MeshOptions) -> DepthView:
    frame = model.render(camera, channels=("color", "opacity", "depth"))
    device, truncation = grid.origin.device, options.truncation * grid.voxel
    return depth_view(
        frame.to(device), camera.to(device), kind=options.depth, truncation=truncation
    )


def voxel_grid(
    scene: Scene, options: MeshOptions, *, scale: float, device: torch.device
) -> VoxelGrid:
    """Voxels over the bounds of a scene.

    Args:
        scale: from the scene's unit to that of `options.voxel`.
        device: where depths are fused.
    """
    if options.voxel is not None:
        voxel = options.voxel / scale
    else:
        voxel = scene.side / (options.resolution or _pictured_resolution(scene))
    middle = scene.center.to(device)
    half = scene.side * options.reach / 2
    return VoxelGrid(middle, voxel, torch.stack([middle - half, middle + half]))


def _pictured_resolution(scene: Scene) -> int:
    cameras = scene.cameras.select(scene.split("train")).to("cpu")
    distance = (cameras.positions - scene.center.cpu()).norm(dim=1)
    distance = torch.where(cameras.models == CameraModel.ORTHOGRAPHIC, 1.0, distance)
    pixel = float((distance / cameras.intrinsics[:, :2].amax(dim=1)).median())
    low, high = PICTURED_RESOLUTIONS
    return round(min(max(scene.side / max(pixel, 1e-12), low), high))


def memory_limit(options: MeshOptions, device: torch.device) -> tuple[int, str]:
    """Bytes that a volume may take, and why not more."""
    if options.memory_budget_gib is not None:
        limit = int(options.memory_budget_gib * 2**30)
        return limit, f"the budget is {options.memory_budget_gib:g} GiB"
    free = available_bytes(device)
    return int(MEMORY_SHARE * free), f"{free / 2**30:.1f} GiB are free on {device.type}"
