"""A run as a colored mesh: its depth pictures fused, their surface cleaned, moved into the frame of
the capture and written.

The pictures are rendered twice: once small, to see where voxels are needed, then whole, so that
every voxel hears every picture and empty space is carved out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from lumigraph.core import CameraModel, Cameras, Scene, Similarity
from lumigraph.core.camera_path import CameraPath
from lumigraph.core.devices import available_bytes, choose_device
from lumigraph.core.errors import ConfigError, DataError, require

from .depth_views import DepthKind, DepthView, depth_view
from .distance_mesh import distance_surface, has_distance, surface_parts, unseen_cells
from .isosurface import Surface, extract
from .mesh_files import check_mesh_target, write_mesh
from .render_path import Renders
from .surface_cleaning import count_components, decimated, largest_components
from .tsdf import TRUNCATIONS, BlockCollector, TsdfVolume, VoxelGrid

if TYPE_CHECKING:
    from lumigraph.training import Run

PICTURED_RESOLUTIONS = (64, 512)
"""Range of the resolution that is taken from the pictures."""
LOOK_SCALE = 0.5
"""Size of the pictures of the first round."""
MEMORY_SHARE = 0.8
"""Of the free memory that a volume may take."""
_MODULES = ("trimesh", "skimage", "fast_simplification")
"""What the extra brings; the last one simplifies."""
_RANGES: dict[str, tuple[float, float]] = {
    "resolution": (8, 8192),
    "truncation": TRUNCATIONS,
    "views": (1, 100_000),
    "orbit": (0, 10_000),
    "reach": (0.01, 1000),
    "components": (1, 2**31),
    "least_triangles": (0, 2**31),
    "triangles": (4, 2**31),
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
    depth: DepthKind = "median"
    """median: where half of the light is gone; expected: the mean depth."""
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
        if self.depth not in ("median", "expected"):
            raise ConfigError(f"depth = {self.depth!r}: expected median or expected")


@dataclass(frozen=True)
class MeshReport:
    """A mesh that was written."""

    path: Path
    vertices: int
    triangles: int
    components: int
    """Connected parts in the file."""
    dropped: int
    """Connected parts that were left out."""
    voxel: float
    """Side of a voxel in the unit of the mesh."""
    views: int
    rounding: float
    """Largest error of coordinates as the file keeps them, in voxels."""
    bytes: int
    """Size of the file."""
    seconds: float = field(compare=False)

    def line(self) -> str:
        """One line for people."""
        text = (
            f"{self.path}: {self.vertices:,} vertices, {self.triangles:,} triangles in "
            f"{_counted(self.components, 'part')}, "
            f"voxels of {self.voxel:.4g}, from {self.views} views, {self.bytes / 2**20:.1f} MiB"
        )
        if self.dropped:
            text += f"; left out: {_counted(self.dropped, 'small part')}"
        if self.rounding > 0.05:
            text += (
                f"; coordinates are so large that the file rounds them by {self.rounding:.2g} "
                "voxels: --frame scene keeps the digits"
            )
        return text

    def to_dict(self) -> dict[str, Any]:
        """For machines; `out` is the file."""
        values = asdict(self)
        return {"out": str(values.pop("path")), **values}


def mesh(
    run: Run,
    *,
    out: str | Path,
    frame: Literal["capture", "scene"] = "capture",
    device: str | None = None,
    options: MeshOptions | None = None,
    on_view: Callable[[int, int], None] | None = None,
) -> MeshReport:
    """Write the surface of a run: `lg.export.mesh(run, out="courtyard.glb")`. It is that of fused
    depths; of a signed distance the zero set, unless expected depths or an orbit are asked for.

    Args:
        run: a `training.Run`.
        out: a .ply, .obj or .glb file. GLB has linear colors, as glTF asks for.
        frame: "capture" is the frame and unit of the data; "scene" that of training.
        device: where to render and to fuse; None takes that of the run's settings.
        options: fineness, views, cleaning.
        on_view: told after each picture (or part of the volume) how many are done, and of how many.

    Raises:
        InputError: unknown suffix, an existing file, no median depth.
        ConfigError: the volume does not fit into memory; says what to change.
        DataError: no surface was found.
        MissingExtraError: the extra `mesh` is not installed.
    """
    options, target, started = options or MeshOptions(), Path(out), time.monotonic()
    check_mesh_target(target, overwrite=options.overwrite)
    for module in _MODULES if options.triangles else _MODULES[:2]:
        require(module, extra="mesh")
    scene = run.scene()
    to_frame = scene.normalization.inverse() if frame == "capture" else Similarity.identity()
    cameras = fusion_cameras(scene, options)
    chosen = choose_device(device or run.config.device)
    grid = voxel_grid(scene, options, scale=to_frame.scale, device=chosen)
    model = run.model(device)
    if has_distance(model) and options.orbit == 0 and options.depth == "median":
        field, occupancy = surface_parts(model)
        surface = distance_surface(
            field,
            round(scene.side / grid.voxel),
            limit=_memory(options, torch.device("cpu"))[0],
            unseen=unseen_cells(occupancy),
            on_brick=on_view,
        )
    else:
        surface = fuse(model, cameras, grid, options=options, on_view=on_view)
    kept, dropped = largest_components(
        surface, most=options.components, least_triangles=options.least_triangles
    )
    if len(kept.triangles) == 0:
        raise DataError(
            f"{target}: not written: no surface was found in {len(cameras)} views "
            f"({dropped} parts below {options.least_triangles} triangles); try --depth expected, "
            "a larger --reach or a finer --resolution"
        )
    kept = kept if options.triangles is None else decimated(kept, options.triangles)
    vertices = to_frame.apply(torch.from_numpy(kept.vertices)).numpy()
    write_mesh(kept._replace(vertices=vertices), target)
    voxel = grid.voxel * to_frame.scale
    return MeshReport(
        path=target,
        vertices=len(vertices),
        triangles=len(kept.triangles),
        components=count_components(kept),
        dropped=dropped,
        voxel=voxel,
        views=len(cameras),
        rounding=float(np.spacing(np.float32(np.abs(vertices).max()))) / 2 / voxel,
        bytes=target.stat().st_size,
        seconds=time.monotonic() - started,
    )


def fusion_cameras(scene: Scene, options: MeshOptions) -> Cameras:
    """Training cameras, evenly chosen, and those of the orbit."""
    indices = scene.split("train")
    count = min(options.views, len(indices))
    chosen = indices[torch.linspace(0, len(indices) - 1, count).round().long()]
    cameras = scene.cameras.select(chosen)
    if options.orbit == 0:
        return cameras
    size = scene.cameras.size(int(chosen[0]))
    orbit = CameraPath.orbit(scene).cameras(*size, options.orbit)
    if cameras.times is not None and orbit.times is None:
        orbit = _timed(orbit, float(cameras.times[0]))
    return Cameras.concatenate([cameras, orbit])


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
        on_view: see `mesh`; each camera counts twice.

    Raises:
        ConfigError: the volume does not fit into memory.
    """
    limit, place = _memory(options, grid.origin.device)
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


def _memory(options: MeshOptions, device: torch.device) -> tuple[int, str]:
    """Bytes that a volume may take, and why not more."""
    if options.memory_budget_gib is not None:
        limit = int(options.memory_budget_gib * 2**30)
        return limit, f"the budget is {options.memory_budget_gib:g} GiB"
    free = available_bytes(device)
    return int(MEMORY_SHARE * free), f"{free / 2**30:.1f} GiB are free on {device.type}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _timed(cameras: Cameras, at: float) -> Cameras:
    return Cameras(
        cameras.camera_to_world,
        cameras.intrinsics,
        cameras.sizes,
        cameras.models,
        cameras.distortion,
        torch.full((len(cameras),), at, dtype=cameras.dtype),
    )
