"""Gaussians of a run or a file to splat files, in the capture's own frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from lumigraph.core import GaussianCloud, Similarity
from lumigraph.core.camera_path import check_time_span
from lumigraph.core.errors import InputError
from lumigraph.export.path_time import check_one_time, is_moving
from lumigraph.export.splat_files.arrays import (
    DEFAULT_MAX_GAUSSIANS,
)
from lumigraph.export.splat_files.moving_file import is_moving_file, read_moving, write_moving
from lumigraph.export.splat_files.moving_splats import MovingSplats
from lumigraph.export.splat_files.reading import MOVING_SUFFIX, read_splats
from lumigraph.export.splat_files.writing import (
    WriteOptions,
    WriteReport,
    check_splat_target,
    write_splats,
)
from lumigraph.export.target_file import check_target
from lumigraph.fields import Gaussians4D

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


class MovingGaussians(Protocol):
    """Gaussians that move."""

    @property
    def moments(self) -> Tensor:
        """(F,) times in [0, 1] that they were trained at, ascending."""
        ...

    @property
    def antialiased(self) -> bool:
        """Whether they were trained with the antialiasing filter."""
        ...

    def at(self, time: float) -> GaussianCloud:
        """What is there at a time in [0, 1], on the CPU."""
        ...


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
    check_one_time(not isinstance(found, tuple), time, _name(source))
    if isinstance(found, tuple):
        return found
    assert time is not None
    return found.at(time), found.antialiased


def open_moving(
    source: Run | MovingSplats | str | Path,
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
    if isinstance(found, tuple):
        raise InputError(f"{_name(source)}: nothing moves in it; leave the times away")
    return found


def moving_splats(
    source: Run | MovingSplats | str | Path,
    *,
    frame: Frame = "capture",
    max_gaussians: int = DEFAULT_MAX_GAUSSIANS,
) -> MovingSplats:
    """Gaussians in space and time, with all of their times; arguments as of `open_moving`.

    Raises:
        InputError: as of `open_moving`, or they move in another way.
    """
    found = open_moving(source, frame=frame, max_gaussians=max_gaussians)
    if not isinstance(found, MovingSplats):
        raise InputError(
            f"{_name(source)}: its Gaussians are known one time after the other; give one with "
            "--time, or several with --times"
        )
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
    if isinstance(source, MovingSplats):
        return source
    run = open_run(source)
    if run is None:
        if frame == "scene":
            raise InputError(f"{source}: --frame scene is for runs; a file has one frame alone")
        if is_moving_file(source):
            return read_moving(source, max_gaussians=max_gaussians).splats
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
    moved = frame == "capture"
    if not is_moving(model):
        cloud: GaussianCloud = model.field.cloud()
        if moved:
            cloud = cloud.transformed(run.scene().normalization.inverse())
        return cloud, antialiased
    if isinstance(model.field, Gaussians4D):
        splats = MovingSplats.of_field(model.field, antialiased=antialiased)
        return splats.transformed(run.scene().normalization.inverse()) if moved else splats
    back = run.scene().normalization.inverse() if moved else Similarity.identity()
    return _Snapshots(model, antialiased, back)


@dataclass(frozen=True, eq=False)
class _Snapshots:
    """Of a field that tells its Gaussians one time after the other."""

    model: Any
    antialiased: bool
    back: Similarity
    """From the frame of the field."""

    @property
    def moments(self) -> Tensor:
        moments: Tensor = self.model.moments
        return moments

    def at(self, time: float) -> GaussianCloud:
        with torch.no_grad():
            cloud = GaussianCloud(*self.model.field.gaussians_at(time))
        return cloud.to("cpu").transformed(self.back)


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
        out: a .ply, .splat or .spz file; or .lg4d, which holds all times of Gaussians that move.
        frame: see `cloud_of`.
        options: harmonics, version, overwriting.
        max_gaussians: see `read_splats`.
        time: see `cloud_of`.

    Raises:
        InputError, DataError: see `cloud_of` and `write_splats`.
    """
    options = options or WriteOptions()
    if Path(out).suffix.lower() == MOVING_SUFFIX:
        return _all_times(run, Path(out), frame, options, max_gaussians, time)
    check_splat_target(Path(out), overwrite=options.overwrite)
    cloud, antialiased = cloud_of(run, frame=frame, max_gaussians=max_gaussians, time=time)
    return write_splats(cloud, out, options=options.noting(antialiased))


def _all_times(
    run: Any,
    target: Path,
    frame: Frame,
    options: WriteOptions,
    max_gaussians: int,
    time: float | None,
) -> WriteReport:
    if time is not None:
        raise InputError(f"{target}: holds all times; leave --time away, or write another kind")
    check_target(target, (MOVING_SUFFIX,), what="moving Gaussians", overwrite=options.overwrite)
    found = moving_splats(run, frame=frame, max_gaussians=max_gaussians)
    return write_moving(found, target, options=options)
