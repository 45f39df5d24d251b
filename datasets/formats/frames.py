"""A folder for each moment of a dynamic capture: frame_000, frame_001 and so on.

Each holds a scene of any other format with the same cameras, in one common frame of the world. The
pictures become one scene whose times run from 0 (first folder) to 1 (last). Placement, bounds and
points are those of the first folder.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lumigraph.core.errors import DataError
from lumigraph.datasets.options import LoadOptions
from lumigraph.datasets.views import SceneParts, View, stack_poses

_FRAME = re.compile(r"frame[_-]?(\d+)", re.IGNORECASE)
SAME_PLACE = 1e-3
"""Cameras that move by less than this share of their extent stand still."""


def recognises(path: Path) -> bool:
    """True for a folder that holds a folder named frame_N."""
    return path.is_dir() and bool(_numbered(path))


def read(path: Path, options: LoadOptions) -> SceneParts:
    """Read every frame folder with the reader of its format."""
    folders = _frame_folders(path)
    format = _format_of(folders[0])
    frames = [_read_frame(folder, format, options) for folder in folders]
    _require_one_moment_each(frames, folders)
    last = max(len(frames) - 1, 1)
    views = [
        replace(view, name=f"{folder.name}/{view.name}", time=index / last)
        for index, (folder, frame) in enumerate(zip(folders, frames, strict=True))
        for view in frame.views
    ]
    notes = list(dict.fromkeys(note for frame in frames for note in frame.notes))
    return replace(
        frames[0],
        name=path.resolve().name,
        source=path,
        views=views,
        notes=[*notes, *_moved_cameras(frames, folders)],
    )


def _numbered(path: Path) -> list[tuple[int, Path]]:
    """Numbers and frame folders, ascending."""
    found = []
    for child in path.iterdir():
        match = _FRAME.fullmatch(child.name)
        if match and child.is_dir():
            found.append((int(match[1]), child))
    return sorted(found)


def _frame_folders(path: Path) -> list[Path]:
    """The frame folders in order, without a gap or a double."""
    numbered = _numbered(path)
    for (number, folder), (following, other) in itertools.pairwise(numbered):
        if following == number:
            raise DataError(
                f"{path}: {folder.name} and {other.name} are the same frame; remove one of them"
            )
        if following > number + 1:
            missing = folder.with_name(_name_like(folder.name, number + 1))
            until = f" to {_name_like(folder.name, following - 1)}" * (following > number + 2)
            raise DataError(
                f"{missing}: this frame{until} is missing between {folder.name} and {other.name};"
                " restore it, or number the frames without a gap"
            )
    return [folder for _, folder in numbered]


def _name_like(name: str, number: int) -> str:
    """The name of a frame with another number, as many digits wide."""
    digits = re.search(r"\d+$", name)
    assert digits is not None  # the name matched
    return f"{name[: digits.start()]}{number:0{len(digits[0])}d}"


def _format_of(folder: Path) -> str:
    from lumigraph.datasets.registry import recognise  # the table of formats lists this module

    _require_content(folder)
    return recognise(folder)[0]


def _read_frame(folder: Path, format: str, options: LoadOptions) -> SceneParts:
    from lumigraph.datasets.registry import FORMATS, reader_of

    _require_content(folder)
    reader = reader_of(format)
    if not reader.recognises(folder):
        raise DataError(
            f"{folder}: this frame is not of format '{format}' as the first one is; it would hold"
            f" {FORMATS[format]}"
        )
    return reader.read(folder, options)


def _require_content(folder: Path) -> None:
    if not any(folder.iterdir()):
        raise DataError(
            f"{folder}: this frame folder is empty; put its images and cameras there, as in the"
            " other frames"
        )


def _require_one_moment_each(frames: Sequence[SceneParts], folders: Sequence[Path]) -> None:
    expected = len(frames[0].views)
    for folder, frame in zip(folders, frames, strict=True):
        if len({view.time for view in frame.views}) > 1:
            raise DataError(
                f"{folder}: its images are of several times; a frame folder holds one moment, so"
                " give one folder for each time or load this one alone"
            )
        if len(frame.views) != expected:
            raise DataError(
                f"{folder}: {len(frame.views)} images, {folders[0].name} has {expected}; every"
                " frame needs one image of every camera"
            )


def _moved_cameras(frames: Sequence[SceneParts], folders: Sequence[Path]) -> list[str]:
    """A note where cameras do not stand still, which may mean frames of the world that differ."""
    first = _positions(frames[0].views)
    extent = max(float(np.ptp(first, axis=0).max()), 1e-9)
    shifts = [
        float(np.linalg.norm(_positions(frame.views) - first, axis=1).max()) / extent
        for frame in frames
    ]
    moving = [
        folder.name for folder, shift in zip(folders, shifts, strict=True) if shift > SAME_PLACE
    ]
    if not moving:
        return []
    return [
        f"in {len(moving)} frames (first: {moving[0]}) cameras stand elsewhere than in"
        f" {folders[0].name}; all frames must share one frame of the world"
    ]


def _positions(views: Sequence[View]) -> np.ndarray:
    return stack_poses(views)[:, :3, 3]
