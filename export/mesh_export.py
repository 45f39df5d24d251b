"""A run as a colored mesh: its surface taken from fused depth pictures or from its density,
cleaned, colored, moved into the frame of the capture and written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic as clock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from lumigraph.core import Cameras, Scene, Similarity
from lumigraph.core.devices import choose_device
from lumigraph.core.errors import DataError, InputError, require
from lumigraph.renderers import MovedSurfaceRenderer
from lumigraph.training.neus_playback import still_model

from .density_mesh import (
    COLOR_OFFSET,
    DensityGrid,
    density_surface,
    has_density,
    seen_colors,
    volume_parts,
)
from .depth_fusion import LOOK_SCALE, fuse, fusion_cameras, memory_limit, voxel_grid
from .distance_mesh import distance_surface, has_distance, surface_parts, unseen_cells
from .hidden_space import hidden_cells
from .isosurface import Surface
from .mesh_files import SUFFIXES, TEXTURED_SUFFIXES, texture_files, write_mesh, write_textured
from .mesh_options import MeshOptions, MeshSource
from .surface_cleaning import (
    count_components,
    decimated,
    largest_components,
    vertex_normals,
    without_cavities,
)
from .target_file import check_target
from .texture_atlas import unwrapped
from .texture_baking import TexturedSurface, baked
from .tsdf import VoxelGrid

if TYPE_CHECKING:
    from lumigraph.training import Run

TEXTURED_TRIANGLES = 100_000
"""Most triangles of a textured mesh by default: unwrapping them takes about a minute."""
Stages = Callable[[str, int, int], None]
"""Told a stage, how much of it is done, and of how much."""


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
    source: MeshSource
    """What the surface was taken from."""
    views: int
    texture: tuple[int, int] | None
    """Width and height of the texture in pixels."""
    rounding: float
    """Largest error of coordinates as the file keeps them, in voxels."""
    bytes: int
    """Size of all files."""
    seconds: float = field(compare=False)

    def line(self) -> str:
        """One line for people."""
        text = (
            f"{self.path}: {self.vertices:,} vertices, {self.triangles:,} triangles in "
            f"{_counted(self.components, 'part')}, "
            f"voxels of {self.voxel:.4g}, by {self.source}, from {self.views} views, "
            f"{self.bytes / 2**20:.1f} MiB"
        )
        if self.texture:
            text += f", texture of {self.texture[0]}x{self.texture[1]}"
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
    time: float | None = None,
    options: MeshOptions | None = None,
    on_progress: Stages | None = None,
) -> MeshReport:
    """Write the surface of a run: `lg.export.mesh(run, out="courtyard.glb")`.

    Args:
        run: a `training.Run`.
        out: a .ply, .obj or .glb file. GLB has linear colors, as glTF asks for.
        frame: "capture" is the frame and unit of the data; "scene" that of training.
        device: where to render and to fuse; None takes that of the run's settings.
        time: in [0, 1], of a run that moves: the moment nearest to it; all of them make
            `mesh_sequence`.
        options: fineness, views, cleaning, texture.
        on_progress: told the stage, how much of it is done, and of how much.

    Raises:
        InputError: unknown suffix, an existing file, no median depth, no density or distance; a
            time where nothing moves, or none where something does.
        ConfigError: the volume does not fit into memory; says what to change.
        DataError: no surface was found.
        MissingExtraError: the extra `mesh` is not installed.
    """
    options, target = options or MeshOptions(), Path(out)
    check_mesh(target, options)
    chosen = choose_device(device or run.config.device)
    scene, model = shown_moment(run.scene(), run.model(device), time, target)
    return write_surface(
        scene, model, target, frame=frame, device=chosen, options=options, on_progress=on_progress
    )


def write_surface(
    scene: Scene,
    model: Any,
    target: Path,
    *,
    frame: Literal["capture", "scene"],
    device: torch.device,
    options: MeshOptions,
    on_progress: Stages | None = None,
) -> MeshReport:
    """Write the surface of a still model; see `mesh`, of which this is the work.

    Args:
        scene: what the model was trained on; of a moving one, the moment.
        model: a `training.Model` where nothing moves.
        device: where depths are fused.
    """
    started = clock()
    to_frame = scene.normalization.inverse() if frame == "capture" else Similarity.identity()
    cameras = fusion_cameras(scene, options)
    grid = voxel_grid(scene, options, scale=to_frame.scale, device=device)
    job = _Job(scene, model, cameras, grid, options, on_progress or _silent)
    surface, dropped = job.cleaned(job.surface(), target)
    size = None
    if options.texture is None:
        vertices = to_frame.apply(torch.from_numpy(surface.vertices)).numpy()
        paths = write_mesh(surface._replace(vertices=vertices), target)
    else:
        textured = job.textured(surface)
        vertices = to_frame.apply(torch.from_numpy(textured.vertices)).numpy()
        size = (textured.image.shape[1], textured.image.shape[0])
        paths = write_textured(textured._replace(vertices=vertices), target)
    voxel = grid.voxel * to_frame.scale
    return MeshReport(
        path=target,
        vertices=len(vertices),
        triangles=len(surface.triangles),
        components=count_components(surface),
        dropped=dropped,
        voxel=voxel,
        source=job.source,
        views=len(cameras),
        texture=size,
        rounding=float(np.spacing(np.float32(np.abs(vertices).max()))) / 2 / voxel,
        bytes=sum(path.stat().st_size for path in paths),
        seconds=clock() - started,
    )


def shown_moment(scene: Scene, model: Any, time: float | None, target: Path) -> tuple[Scene, Any]:
    """A moment of a scene, and a model that stands still at it; both as they are where nothing
    moves.

    Args:
        target: what is to be written, for messages.

    Raises:
        InputError: a time where nothing moves, none where something does, or one out of range.
    """
    moments = getattr(model, "moments", None)
    if moments is None or scene.moments is None:
        if time is not None:
            raise InputError(f"{target}: this run does not move; leave the time out")
        return scene, model
    if time is None:
        raise InputError(
            f"{target}: this run moves and has {len(moments)} moments; give --time T for one of "
            "them, or name a folder for all"
        )
    if not 0 <= time <= 1:
        raise InputError(f"time must lie in [0, 1]; got {time}")
    nearest = float(moments[int((moments - time).abs().argmin())])
    index = int((scene.moments - nearest).abs().argmin())
    return scene.at_moment(index), still_model(model, nearest)


def check_mesh(target: Path, options: MeshOptions) -> None:
    """Refuse what cannot be written, and name what is not installed, before work is spent."""
    check_target(target, SUFFIXES, what="a mesh", overwrite=options.overwrite)
    if options.texture is not None and target.suffix.lower() not in TEXTURED_SUFFIXES:
        known = " or ".join(TEXTURED_SUFFIXES)
        raise InputError(f"{target}: a textured mesh must end in {known}")
    for beside in texture_files(target) if options.texture is not None else []:
        check_target(beside, (beside.suffix,), what="it", overwrite=options.overwrite)
    modules = ["trimesh", "skimage"]
    modules += ["fast_simplification"] * (options.triangles is not None)
    modules += ["fast_simplification", "xatlas"] * (options.texture is not None)
    for module in modules:
        require(module, extra="mesh")


def _silent(stage: str, done: int, total: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class _Job:
    """One mesh in the making; everything is in the scene frame."""

    scene: Scene
    model: Any
    cameras: Cameras
    grid: VoxelGrid
    options: MeshOptions
    tell: Stages

    @property
    def source(self) -> MeshSource:
        """What the surface is taken from: distance or density where there is one, unless told
        otherwise."""
        if self.options.source is not None:
            return self.options.source
        if self.options.depth is not None or self.options.orbit > 0:
            return "fusion"
        if has_distance(self.model):
            return "distance"
        return "density" if has_density(self.model) else "fusion"

    def surface(self) -> Surface:
        """All that was found."""
        if self.source == "distance":
            return self._of_distance()
        if self.source == "density":
            return self._of_density()
        return fuse(
            self.model,
            self.cameras,
            self.grid,
            options=self.options,
            on_view=lambda done, total: self.tell("fusing", done, total),
        )

    def _of_distance(self) -> Surface:
        field, renderer = surface_parts(self.model)
        found = distance_surface(
            field,
            round(self.scene.side / self.grid.voxel),
            limit=memory_limit(self.options, torch.device("cpu"))[0],
            unseen=unseen_cells(renderer.occupancy),
            on_brick=lambda done, total: self.tell("distance", done, total),
        )
        if not isinstance(renderer, MovedSurfaceRenderer):
            return found
        to_scene = renderer.motion().inverse()
        vertices = to_scene.apply(torch.from_numpy(found.vertices)).numpy()
        return found._replace(vertices=vertices)

    def _of_density(self) -> Surface:
        field, renderer = volume_parts(self.model)
        reach = min(self.options.reach, 2.0 ** (field.cascades - 1))
        cells = DensityGrid(round(self.scene.side * reach / self.grid.voxel), reach)
        low = self.scene.center - self.scene.side * reach / 2
        hidden = hidden_cells(
            self.model,
            self.cameras.resized(LOOK_SCALE),
            low=low,
            side=self.scene.side * reach,
            device=self.grid.origin.device.type,
            on_view=lambda done, total: self.tell("looking", done, total),
        )
        return without_cavities(
            density_surface(
                field,
                renderer.occupancy,
                cells,
                level=self.options.level,
                limit=memory_limit(self.options, torch.device("cpu"))[0],
                hidden=hidden,
                on_brick=lambda done, total: self.tell("density", done, total),
            )
        )

    def cleaned(self, surface: Surface, target: Path) -> tuple[Surface, int]:
        """Without noise, simplified and colored; and how many parts were dropped.

        Raises:
            DataError: nothing is left.
        """
        options = self.options
        kept, dropped = largest_components(
            surface, most=options.components, least_triangles=options.least_triangles
        )
        if len(kept.triangles) == 0:
            ways = {"density": "a lower --level", "distance": "a longer training"}
            way = ways.get(self.source, "--depth expected")
            raise DataError(
                f"{target}: not written: no surface was found in {len(self.cameras)} views "
                f"({dropped} parts below {options.least_triangles} triangles); try {way}, "
                "a larger --reach or a finer --resolution"
            )
        most = options.triangles
        if most is None and options.texture is not None:
            most = TEXTURED_TRIANGLES
        if most is not None:
            kept = decimated(kept, most)
        return (self._colored(kept) if self.source == "density" else kept), dropped

    def _colored(self, surface: Surface) -> Surface:
        """With what is seen from right in front of each vertex."""
        field, renderer = volume_parts(self.model)
        normals = vertex_normals(surface)
        offset = COLOR_OFFSET * self.grid.voxel
        colors, found = seen_colors(renderer, field, surface.vertices, normals, offset)
        colors[~found] = 0.5
        return surface._replace(colors=(colors * 255).round().astype(np.uint8))

    def textured(self, surface: Surface) -> TexturedSurface:
        """With a texture in place of the colors of vertices."""
        assert self.options.texture is not None
        self.tell("unwrapping by xatlas, up to minutes", 0, 1)
        atlas = unwrapped(surface, size=self.options.texture)
        return baked(
            atlas,
            surface,
            self.model,
            self.scene,
            self.options,
            voxel=self.grid.voxel,
            on_view=lambda done, total: self.tell("texture", done, total),
        )


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
