"""Gaussians of a run or a file to splat files, in the capture's own frame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lumigraph.core import GaussianCloud
from lumigraph.core.errors import InputError
from lumigraph.export.splat_files.arrays import (
    DEFAULT_MAX_GAUSSIANS,
)
from lumigraph.export.splat_files.reading import read_splats
from lumigraph.export.splat_files.writing import (
    WriteOptions,
    WriteReport,
    check_splat_target,
    write_splats,
)

if TYPE_CHECKING:
    from lumigraph.training import Run

Frame = Literal["capture", "scene"]


def open_run(source: Any) -> Any:
    """The run, where a source is one or is its folder; None for files and clouds."""
    if isinstance(source, GaussianCloud):
        return None
    if isinstance(source, (str, Path)):
        if not Path(source).is_dir():
            return None
        from lumigraph.training import Run

        return Run.open(source)
    return source


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
    run = open_run(source)
    if run is None:
        assert isinstance(source, (str, Path))
        if frame == "scene":
            raise InputError(f"{source}: --frame scene is for runs; a file has one frame alone")
        found = read_splats(source, max_gaussians=max_gaussians)
        return found.cloud, found.report.antialiased
    return _cloud_of_run(run, frame)


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
