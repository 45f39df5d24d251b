"""Frames to a video file (.mp4, .webm, .gif) or to a folder of numbered PNG files.

Writing is atomic: a file or folder with its final name is whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lumigraph.core.errors import InputError
from lumigraph.export.video_encoders import ENCODERS, disk_errors, encoded
from lumigraph.export.whole_folder import whole_folder


def write_video(
    frames: Iterable[Any], path: str | Path, *, fps: float = 30.0, overwrite: bool = True
) -> int:
    """Write frames, in the order they come, one at a time; arguments as of `open_video`.

    Args:
        frames: arrays or tensors (H, W, 3), all of one size: uint8, or floats in [0, 1] in sRGB.

    Returns:
        How many frames were written.
    """
    count = 0
    with open_video(path, fps=fps, overwrite=overwrite) as write:
        for frame in frames:
            write(frame)
            count += 1
    return count


@contextlib.contextmanager
def open_video(
    path: str | Path, *, fps: float = 30.0, overwrite: bool = True
) -> Iterator[Callable[[Any], None]]:
    """A function that writes one frame, for use in a `with` block; the file or folder appears
    under its name when the block ends without an error.

    Args:
        path: ends in `.mp4` (H.264), `.webm` (VP9) or `.gif` for a video; without a suffix a folder
            of `00000.png`, `00001.png`... Odd widths and heights of .mp4 and .webm are padded by
            one repeated line, as these codecs ask.
        fps: frames a second of the video.
        overwrite: replace an existing file or folder of pictures.

    Raises:
        InputError: no frames, frames of several sizes, an existing or unusable path, a full disk,
            or a failure of ffmpeg; what stood at `path` before is then still there.
    """
    path = Path(path)
    check_output(path, overwrite=overwrite)
    check_fps(path, fps)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    first: tuple[int, ...] | None = None
    count = 0
    with encoded(path, fps) if path.suffix else _picture_folder(path) as add:

        def write(frame: Any) -> None:
            nonlocal first, count
            picture = to_bytes(frame)
            first = first or picture.shape
            if picture.shape != first:
                raise InputError(
                    f"frame {count} is {picture.shape[1]}x{picture.shape[0]} pixels, the first was "
                    f"{first[1]}x{first[0]}: all frames of a video need one size"
                )
            add(picture)
            count += 1

        yield write
        if first is None:
            raise InputError("no frames to write: the camera path is empty")


def check_output(path: str | Path, *, overwrite: bool) -> None:
    """Refuse a path that `write_video` cannot or must not write, before rendering starts.

    Raises:
        InputError: an unknown suffix, an existing path without `overwrite`, or a folder that holds
            anything besides PNG files.
    """
    path = Path(path)
    if path.suffix and path.suffix not in ENCODERS:
        known = ", ".join(ENCODERS)
        raise InputError(
            f"{path}: {path.suffix} files cannot be written; use {known}, or a folder for PNG files"
        )
    if not path.exists():
        return
    if path.suffix and path.is_dir():
        raise InputError(f"{path}: is a folder; choose another name")
    if not path.suffix and not path.is_dir():
        known = ", ".join(ENCODERS)
        raise InputError(f"{path}: is a file; a video ends in {known}, a folder needs another name")
    if not overwrite and (path.is_file() or any(path.iterdir())):
        raise InputError(f"{path}: exists already; choose another name or add --overwrite")
    if path.is_dir() and any(entry.suffix != ".png" for entry in path.iterdir()):
        raise InputError(f"{path}: holds other files than pictures; choose another folder")


def check_fps(path: Path, fps: float) -> None:
    """Refuse a rate that the kind of video does not know.

    Raises:
        InputError: the rate is out of range.
    """
    most = ENCODERS[path.suffix].most_fps if path.suffix else 1000.0
    if not 0.1 <= fps <= most:
        kind = f" of {path.suffix}" if path.suffix else ""
        raise InputError(
            f"fps is {fps:g}: expected between 0.1 and {most:g} frames a second{kind}; set --fps"
        )


def to_bytes(frame: Any) -> np.ndarray:
    """A picture as uint8 (H, W, 3): floats in [0, 1] are rounded, what is not finite is clamped.

    >>> to_bytes(np.full((1, 1, 3), 0.5)).tolist()
    [[[128, 128, 128]]]
    """
    if hasattr(frame, "detach"):
        from lumigraph.training.pictures import to_bytes as rounded

        floating = frame.is_floating_point() and frame.ndim == 3 and frame.shape[2] == 3
        frame = (rounded(frame) if floating else frame.detach()).cpu().numpy()
    picture = np.asarray(frame)
    if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise InputError(f"a frame has shape {picture.shape}: expected (height, width, 3)")
    if picture.dtype == np.uint8:
        return np.ascontiguousarray(picture)
    finite = np.nan_to_num(picture.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    return (finite.clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


@contextlib.contextmanager
def _picture_folder(folder: Path) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that adds a picture to a folder, which appears when the block ends well."""
    import imageio.v3 as imageio

    count = 0
    with whole_folder(folder) as staging:

        def add(picture: np.ndarray) -> None:
            nonlocal count
            with disk_errors(folder):
                imageio.imwrite(staging / f"{count:05}.png", picture)
            count += 1

        yield add
