"""Gaussians of a run or a file to splat files and to point clouds, in the capture's own frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from plyfile import PlyData, PlyElement

from lumigraph.core import GaussianCloud
from lumigraph.core.errors import DataError, InputError
from lumigraph.export.splat_files.arrays import (
    DEFAULT_MAX_GAUSSIANS,
    Y_0,
    SplatArrays,
    sigmoid,
    to_bytes,
)
from lumigraph.export.splat_files.reading import read_splats
from lumigraph.export.splat_files.writing import (
    WriteOptions,
    WriteReport,
    check_splat_target,
    write_splats,
)
from lumigraph.training.files import write_atomic

if TYPE_CHECKING:
    from lumigraph.training import Run

Frame = Literal["capture", "scene"]
_COLORS = ("red", "green", "blue")


@dataclass(frozen=True)
class PointsReport:
    """A point cloud that was written."""

    path: Path
    count: int
    """Points written."""
    left_out: int
    """Gaussians that were too transparent, or not finite."""

    def line(self) -> str:
        """For people."""
        return f"{self.path}: {self.count:,} points; {self.left_out:,} Gaussians left out"


def cloud_of(
    source: Run | GaussianCloud | str | Path,
    *,
    frame: Frame = "capture",
    max_gaussians: int = DEFAULT_MAX_GAUSSIANS,
) -> tuple[GaussianCloud, bool]:
    """The Gaussians of a run or of a file.

    Args:
        source: a `training.Run` of method gaussians, its folder, a file of Gaussians, or a cloud.
        frame: "capture" moves a run's Gaussians into the frame of its data; "scene" leaves them as
            they were trained. Files and clouds have one frame alone.
        max_gaussians: see `read_splats`.

    Returns:
        The cloud on the CPU, and whether it was trained with the antialiasing filter.

    Raises:
        DataError: no such run or file. InputError: a run of a method without Gaussians.
    """
    if isinstance(source, GaussianCloud):
        return source.to("cpu"), False
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.is_dir():
            if frame == "scene":
                raise InputError(f"{path}: --frame scene is for runs; a file has one frame alone")
            found = read_splats(path, max_gaussians=max_gaussians)
            return found.cloud, found.report.antialiased
        from lumigraph.training import Run

        source = Run.open(path)
    return _cloud_of_run(source, frame)


def _cloud_of_run(run: Any, frame: Frame) -> tuple[GaussianCloud, bool]:
    method = getattr(run.config, "method", "nerf")
    if method != "gaussians":
        raise InputError(
            f"{run.path}: was trained with method {method!r}, which has no Gaussians; "
            "train with --method gaussians"
        )
    cloud: GaussianCloud = run.model("cpu").field.cloud()
    if frame == "capture":
        cloud = cloud.transformed(run.scene().normalization.inverse())
    return cloud, bool(getattr(run.config, "antialiased", False))


def splats(
    run: Run | GaussianCloud | str | Path,
    *,
    out: str | Path,
    frame: Frame = "capture",
    options: WriteOptions | None = None,
    max_gaussians: int = DEFAULT_MAX_GAUSSIANS,
) -> WriteReport:
    """Write the Gaussians of a run: `lg.export.splats(run, out="courtyard.spz")`.

    Args:
        run: see `cloud_of`.
        out: a .ply, .splat or .spz file.
        frame: see `cloud_of`.
        options: harmonics, version, overwriting.
        max_gaussians: see `read_splats`.

    Raises:
        InputError, DataError: see `cloud_of` and `write_splats`.
    """
    options = options or WriteOptions()
    check_splat_target(Path(out), overwrite=options.overwrite)
    cloud, antialiased = cloud_of(run, frame=frame, max_gaussians=max_gaussians)
    return write_splats(cloud, out, options=options.noting(antialiased))


def points(
    run: Run | GaussianCloud | str | Path,
    *,
    out: str | Path,
    frame: Frame = "capture",
    least_opacity: float = 0.1,
    overwrite: bool = False,
    max_gaussians: int = DEFAULT_MAX_GAUSSIANS,
) -> PointsReport:
    """Write the centres of Gaussians as a colored point cloud.

    Args:
        run: see `cloud_of`.
        out: a .ply file: x y z as float, red green blue as uchar.
        frame: see `cloud_of`.
        least_opacity: Gaussians below it are left out, 0 to 1.
        overwrite: replace a file that is there.
        max_gaussians: see `read_splats`.

    Raises:
        InputError: the suffix is not .ply, or the file is there.
        DataError: no Gaussian is as opaque as that; see `cloud_of`, too.
    """
    target = Path(out)
    if target.suffix.lower() != ".ply":
        raise InputError(f"{target}: unknown suffix {target.suffix!r}; points are written as .ply")
    check_splat_target(target, overwrite=overwrite)
    if not 0 <= least_opacity <= 1:
        raise InputError(f"least_opacity {least_opacity}: expected 0 to 1")
    arrays = SplatArrays.of(cloud_of(run, frame=frame, max_gaussians=max_gaussians)[0])
    good = sigmoid(arrays.opacity_logits) >= least_opacity
    good &= np.isfinite(arrays.means).all(axis=1) & np.isfinite(arrays.harmonics[:, 0]).all(axis=1)
    if not good.any():
        raise DataError(
            f"{target}: not written: none of {len(good):,} Gaussians is as opaque as "
            f"{least_opacity}; lower --least-opacity"
        )
    kept = arrays.rows(good)
    rows = np.empty(
        kept.gaussians, dtype=[(a, "<f4") for a in "xyz"] + [(c, "u1") for c in _COLORS]
    )
    colors = to_bytes((kept.harmonics[:, 0] * Y_0 + 0.5) * 255.0)
    for index, (axis, color) in enumerate(zip("xyz", _COLORS, strict=True)):
        rows[axis] = kept.means[:, index]
        rows[color] = colors[:, index]
    element = PlyElement.describe(rows, "vertex")
    write_atomic(target, lambda path: PlyData([element], byte_order="<").write(str(path)))
    return PointsReport(target, kept.gaussians, len(good) - kept.gaussians)
