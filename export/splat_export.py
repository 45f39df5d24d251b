"""Gaussians of a run or a file to splat files, in the capture's own frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from lumigraph.core import GaussianCloud
from lumigraph.core.camera_path import check_time_span
from lumigraph.core.errors import InputError
from lumigraph.export.path_time import is_moving
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


@dataclass(frozen=True, eq=False)
class MovingGaussians:
    """Gaussians that move, of a run or a file."""

    name: str
    """Of the run or file, for messages."""
    moments: Tensor
    """(F,) times in [0, 1] that they were trained at, ascending."""
    antialiased: bool
    """Whether they were trained with the antialiasing filter."""
    at: Callable[[float], GaussianCloud]
    """The cloud at a time in [0, 1], on the CPU."""


def cloud_of(
    source: Run | GaussianCloud | str | Path,
    *,
    frame: Frame = "capture",
    max_gaussians: int = DEFAULT_MAX_GAUSSIANS,
    time: float | None = None,
) -> tuple[GaussianCloud, bool]:
    """The Gaussians of a run or of a file.

    Args:
        source: a `training.Run` of Gaussians, its folder, a file of Gaussians, or a cloud.
        frame: "capture" moves a run's Gaussians into the frame of its data; "scene" leaves them as
            they were trained. Files and clouds have one frame alone.
        max_gaussians: see `read_splats`.
        time: in [0, 1], of Gaussians that move; None for others.

    Returns:
        The cloud on the CPU, and whether it was trained with the antialiasing filter.

    Raises:
        DataError: no such run or file. InputError: a run of a method without Gaussians, no time
            for what moves, or a time for what does not.
    """
    if time is not None:
        check_time_span((time, time))
    found = _opened(source, frame, max_gaussians)
    if isinstance(found, MovingGaussians):
        if time is None:
            raise InputError(
                f"{found.name}: moves, and this holds one time: name it with --time 0.5, say"
            )
        return found.at(time), found.antialiased
    if time is not None:
        raise InputError(f"{_name(source)}: nothing moves in it; leave the time away")
    return found


def open_moving(
    source: Run | str | Path,
    *,
    frame: Frame = "capture",
    max_gaussians: int = DEFAULT_MAX_GAUSSIANS,
) -> MovingGaussians:
    """Gaussians that move; arguments as of `cloud_of`.

    Raises:
        DataError: no such run or file. InputError: a run of a method without Gaussians, or nothing
            moves.
    """
    found = _opened(source, frame, max_gaussians)
    if not isinstance(found, MovingGaussians):
        raise InputError(f"{_name(source)}: nothing moves in it; leave the times away")
    return found


def has_gaussians(run: Any) -> bool:
    """Whether a run is of a method whose field is made of Gaussians."""
    return str(getattr(run.config, "method", "nerf")).startswith("gaussians")


def _name(source: Any) -> str:
    return str(getattr(source, "path", "cloud" if isinstance(source, GaussianCloud) else source))


def _opened(
    source: Any, frame: Frame, max_gaussians: int
) -> tuple[GaussianCloud, bool] | MovingGaussians:
    if isinstance(source, GaussianCloud):
        return source.to("cpu"), False
    run = open_run(source)
    if run is None:
        if frame == "scene":
            raise InputError(f"{source}: --frame scene is for runs; a file has one frame alone")
        found = read_splats(source, max_gaussians=max_gaussians)
        return found.cloud, found.report.antialiased
    return _opened_run(run, frame)


def _opened_run(run: Any, frame: Frame) -> tuple[GaussianCloud, bool] | MovingGaussians:
    if not has_gaussians(run):
        method = getattr(run.config, "method", "nerf")
        raise InputError(
            f"{run.path}: was trained with method {method!r}, which has no Gaussians; "
            "train with --method gaussians"
        )
    model = run.model("cpu")
    antialiased = bool(getattr(run.config, "antialiased", False))

    def placed(cloud: GaussianCloud) -> GaussianCloud:
        return cloud.transformed(run.scene().normalization.inverse()) if moved else cloud

    moved = frame == "capture"
    if not is_moving(model):
        return placed(model.field.cloud()), antialiased

    def at(time: float) -> GaussianCloud:
        with torch.no_grad():
            return placed(GaussianCloud(*model.field.gaussians_at(time)))

    return MovingGaussians(str(run.path), model.moments, antialiased, at)


def splats(
    run: Run | GaussianCloud | str | Path,
    *,
    out: str | Path,
    frame: Frame = "capture",
    options: WriteOptions | None = None,
    max_gaussians: int = DEFAULT_MAX_GAUSSIANS,
    time: float | None = None,
) -> WriteReport:
    """Write the Gaussians of a run: `lg.export.splats(run, out="courtyard.spz")`.

    Args:
        run: see `cloud_of`.
        out: a .ply, .splat or .spz file.
        frame: see `cloud_of`.
        options: harmonics, version, overwriting.
        max_gaussians: see `read_splats`.
        time: see `cloud_of`.

    Raises:
        InputError, DataError: see `cloud_of` and `write_splats`.
    """
    options = options or WriteOptions()
    check_splat_target(Path(out), overwrite=options.overwrite)
    cloud, antialiased = cloud_of(run, frame=frame, max_gaussians=max_gaussians, time=time)
    return write_splats(cloud, out, options=options.noting(antialiased))
