"""Gaussians that move as a folder of files, one for each time.

FOLDER/00000.ply, 00001.ply...    snapshots, in the order of their times
FOLDER/times.json                 {"format": "lumigraph-splat-sequence", "version": 1,
                                   "files": [{"file": "00000.ply", "time": 0.0}, ...]}
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.export.splat_export import Frame, open_moving
from lumigraph.export.splat_files.arrays import DEFAULT_MAX_GAUSSIANS
from lumigraph.export.splat_files.writing import WriteOptions, WriteReport, write_splats
from lumigraph.export.whole_folder import whole_folder

if TYPE_CHECKING:
    from lumigraph.training import Run

FORMAT = "lumigraph-splat-sequence"
VERSION = 1
TIMES_FILE = "times.json"
ALL = "all"
MOST_TIMES = 100_000
Kind = Literal["ply", "splat", "spz"]
KINDS: tuple[Kind, ...] = ("ply", "splat", "spz")


@dataclass(frozen=True)
class SequenceReport:
    """A folder of snapshots that was written."""

    path: Path
    times: tuple[float, ...]
    files: tuple[WriteReport, ...]
    """In the order of the times."""

    @property
    def bytes(self) -> int:
        """Of all snapshots."""
        return sum(report.bytes for report in self.files)

    def line(self) -> str:
        """For people: the first file stands for all in what it lost."""
        first = self.files[0]
        dropped = f"; dropped: {', '.join(first.dropped)}" if first.dropped else ""
        return (
            f"{self.path}: {len(self.files)} files of {first.format} and {TIMES_FILE}, "
            f"{self.bytes / 2**20:.2f} MiB; the first one lost: {first.loss.line()}{dropped}"
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "out": str(self.path),
            "bytes": self.bytes,
            "times": list(self.times),
            "files": [report.to_dict() for report in self.files],
        }


def sequence_times(text: str | int, moments: Tensor) -> list[float]:
    """Times of a sequence: "all" moments (F,), or so many evenly spread from the first to the last.

    Raises:
        InputError: neither "all" nor a number of at least 1.

    >>> sequence_times(3, torch.tensor([0.0, 0.1, 1.0]))
    [0.0, 0.5, 1.0]
    """
    if text == ALL:
        return [float(moment) for moment in moments]
    try:
        count = int(text)
    except ValueError:
        count = 0
    if not 1 <= count <= MOST_TIMES:
        raise InputError(f"times {text!r}: give {ALL}, or a number of times from 1 to {MOST_TIMES}")
    return torch.linspace(float(moments[0]), float(moments[-1]), count).tolist()


def splat_sequence(
    run: Run | str | Path,
    *,
    out: str | Path,
    times: str | int = ALL,
    kind: Kind = "ply",
    frame: Frame = "capture",
    options: WriteOptions | None = None,
    max_gaussians: int = DEFAULT_MAX_GAUSSIANS,
    on_file: Callable[[int, int], None] | None = None,
) -> SequenceReport:
    """Write moving Gaussians as they are at several times: a folder of numbered files.

    Args:
        run: a run of Gaussians that move, its folder, or a file of them.
        out: the folder; it appears when it is whole.
        times: see `sequence_times`.
        kind: suffix of the files without its dot.
        frame, max_gaussians: see `cloud_of`.
        options: see `write_splats`; `overwrite` replaces a folder that holds such a sequence.
        on_file: told after each file how many are done, and of how many.

    Raises:
        InputError, DataError: nothing moves, an unusable folder; see `cloud_of`, `write_splats`.
    """
    options, folder = options or WriteOptions(), Path(out)
    if kind not in KINDS:
        raise InputError(f"kind {kind!r}: expected {', '.join(KINDS)}")
    _check_folder(folder, overwrite=options.overwrite)
    moving = open_moving(run, frame=frame, max_gaussians=max_gaussians)
    chosen = sequence_times(times, moving.moments)
    reports, entries = [], []
    folder.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(folder) as staging:
        for index, time in enumerate(chosen):
            name = f"{index:05}.{kind}"
            noted = options.noting(moving.antialiased)
            reports.append(write_splats(moving.at(time), staging / name, options=noted))
            entries.append({"file": name, "time": round(time, 9)})
            if on_file is not None:
                on_file(index + 1, len(chosen))
        content = {"format": FORMAT, "version": VERSION, "files": entries}
        (staging / TIMES_FILE).write_text(json.dumps(content, indent=1) + "\n")
    return SequenceReport(folder, tuple(chosen), tuple(reports))


def _check_folder(folder: Path, *, overwrite: bool) -> None:
    if folder.suffix:
        raise InputError(f"{folder}: several times are written to a folder; leave its suffix away")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; several times are written to a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise InputError(f"{folder}: exists already; replace it with --overwrite, or name another")
    if not (folder / TIMES_FILE).is_file():
        raise InputError(f"{folder}: holds other files than a sequence; choose another folder")
