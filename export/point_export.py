"""Colored point clouds: the centres of Gaussians, or where the training cameras of a volume see
surfaces; in the capture's own frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from lumigraph.core import GaussianCloud, Scene, Similarity
from lumigraph.core.errors import ConfigError, DataError, InputError
from lumigraph.core.harmonics import Y_0

from .depth_fusion import chosen_views
from .depth_views import EMPTY_DEPTH, depth_view
from .path_time import at_time, check_one_time, is_moving
from .point_files import write_points
from .splat_export import Frame, cloud_of, has_gaussians, open_run
from .splat_files.arrays import (
    DEFAULT_MAX_GAUSSIANS,
    SplatArrays,
    sigmoid,
    to_bytes,
)
from .target_file import check_target

if TYPE_CHECKING:
    from lumigraph.training import Run

SMOOTHNESS = 0.01
"""Steps in depth below this part of the scene's side are noise, not edges."""


@dataclass(frozen=True)
class PointsOptions:
    """Which points are written. Checked on construction."""

    least_opacity: float = 0.1
    """Gaussians below it are left out, 0 to 1."""
    views: int = 200
    """Training cameras that look for surfaces, evenly chosen; for methods without Gaussians."""
    max_points: int = 1_000_000
    """Points that they give at most, drawn evenly from all pixels that show a surface."""
    max_gaussians: int = DEFAULT_MAX_GAUSSIANS
    """See `read_splats`."""
    overwrite: bool = False
    """Replace a file that is there."""

    def __post_init__(self) -> None:
        if not 0 <= self.least_opacity <= 1:
            raise InputError(f"least_opacity {self.least_opacity}: expected 0 to 1")
        for name in ("views", "max_points"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: expected at least 1")


@dataclass(frozen=True)
class PointsReport:
    """A point cloud that was written."""

    path: Path
    count: int
    """Points written."""
    left_out: int
    """Gaussians that were too transparent or not finite, or pixels that were not drawn."""
    source: str = "Gaussians"
    """What the points were: "Gaussians" or "pixels"."""

    def line(self) -> str:
        """For people."""
        return f"{self.path}: {self.count:,} points; {self.left_out:,} {self.source} left out"

    def to_dict(self) -> dict[str, Any]:
        """For machines; `out` is the file."""
        return {"out": str(self.path), "points": self.count, "left_out": self.left_out}


def points(
    run: Run | GaussianCloud | str | Path,
    *,
    out: str | Path,
    frame: Frame = "capture",
    device: str | None = None,
    options: PointsOptions | None = None,
    time: float | None = None,
    on_view: Callable[[int, int], None] | None = None,
) -> PointsReport:
    """Write a colored point cloud: `lg.export.points(run, out="courtyard.ply")`.

    Args:
        run: see `cloud_of`; a run of another method becomes the points that it renders at its
            training cameras.
        out: a .ply file: x y z as float, red green blue as uchar.
        frame: see `cloud_of`.
        device: where to render; None takes that of the run's settings.
        options: which points.
        time: see `cloud_of`; of what moves in another method, too.
        on_view: told after each picture how many are done, and of how many.

    Raises:
        InputError: the suffix is not .ply, or the file is there.
        DataError: there are no such points; see `cloud_of`, too.
    """
    options, target = options or PointsOptions(), Path(out)
    if target.suffix.lower() != ".ply":
        raise InputError(f"{target}: unknown suffix {target.suffix!r}; points are written as .ply")
    check_target(target, (".ply",), what="points", overwrite=options.overwrite)
    opened = open_run(run)
    if opened is not None and not has_gaussians(opened):
        model = opened.model(device)
        check_one_time(is_moving(model), time, opened.path)
        scene = opened.scene() if time is None else at_time(opened.scene(), time)
        return _surface_points(scene, model, target, frame, options, on_view)
    return _centres(run if opened is None else opened, target, frame, options, time)


def _centres(
    source: Run | GaussianCloud | str | Path,
    target: Path,
    frame: Frame,
    options: PointsOptions,
    time: float | None,
) -> PointsReport:
    cloud, _ = cloud_of(source, frame=frame, max_gaussians=options.max_gaussians, time=time)
    arrays = SplatArrays.of(cloud)
    good = sigmoid(arrays.opacity_logits) >= options.least_opacity
    good &= np.isfinite(arrays.means).all(axis=1) & np.isfinite(arrays.harmonics[:, 0]).all(axis=1)
    if not good.any():
        raise DataError(
            f"{target}: not written: none of {len(good):,} Gaussians is as opaque as "
            f"{options.least_opacity}; lower --least-opacity"
        )
    kept = arrays.rows(good)
    write_points(target, kept.means, to_bytes((kept.harmonics[:, 0] * Y_0 + 0.5) * 255.0))
    return PointsReport(target, kept.gaussians, len(good) - kept.gaussians)


def _surface_points(
    scene: Scene,
    model: Any,
    target: Path,
    frame: Frame,
    options: PointsOptions,
    on_view: Callable[[int, int], None] | None,
) -> PointsReport:
    to_frame = scene.normalization.inverse() if frame == "capture" else Similarity.identity()
    draw = torch.Generator().manual_seed(0)
    places: list[NDArray[np.float64]] = []
    colors: list[NDArray[np.uint8]] = []
    indices = chosen_views(scene, options.views)
    share = -(-options.max_points // len(indices))
    seen = 0
    for done, index in enumerate(indices, start=1):
        camera = scene.cameras[index].to("cpu")
        picture = model.render(camera, channels=("color", "opacity", "depth")).to("cpu")
        view = depth_view(picture, camera, kind=None, truncation=SMOOTHNESS * scene.side)
        rows = (view.known & (view.depth < EMPTY_DEPTH)).reshape(-1).nonzero()[:, 0]
        seen += len(rows)
        rows = rows[torch.randperm(len(rows), generator=draw)[:share]]
        rays = camera.image_rays(0)
        distance = view.depth.reshape(-1)[rows] * view.stretch.reshape(-1)[rows]
        found = rays.origins[rows] + rays.directions[rows] * distance[:, None]
        places.append(to_frame.apply(found.double()).numpy())
        colors.append((view.color.reshape(-1, 3)[rows] * 255).round().byte().numpy())
        if on_view is not None:
            on_view(done, len(indices))
    if not any(len(part) for part in places):
        raise DataError(f"{target}: not written: no surface was seen in {len(indices)} views")
    kept = torch.randperm(sum(map(len, places)), generator=draw)[: options.max_points].numpy()
    write_points(target, np.concatenate(places)[kept], np.concatenate(colors)[kept])
    return PointsReport(target, len(kept), seen - len(kept), "pixels")
