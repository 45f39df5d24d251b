"""Frames of videos as JPEG files in the user's cache folder, decoded once.

A folder of the cache belongs to one video (its path, size and time of change) at one size of frame;
files are named by the frame's number, so that other choices of frames share it. Files are written
whole or not at all, and those that are there are not made again: work that was cut off goes on
where it stopped. Frames are averaged over areas by ffmpeg while they are decoded.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lumigraph.core.errors import DataError, require
from lumigraph.datasets.picture_cache import cache_folder
from lumigraph.datasets.video_frames import JPEG_QUALITY, decoded, unreadable

logger = logging.getLogger(__name__)

_COUNT = re.compile(r"frame=\s*(\d+)")


@dataclass(frozen=True)
class Clip:
    """What a video says about itself."""

    frames: int
    rate: float
    """Frames per second."""
    width: int
    height: int


def probe(path: Path) -> Clip:
    """Look at a video without decoding it; what was found is kept.

    Raises:
        DataError: ffmpeg cannot read it, or it has no frames.
    """
    file = _folder(path, "about") / "clip.json"
    try:
        return Clip(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        clip = _probe(path)
    _write(file, lambda temporary: temporary.write_text(json.dumps(asdict(clip))))
    return clip


def frame_files(
    path: Path, clip: Clip, numbers: Sequence[int], size: tuple[int, int]
) -> list[Path]:
    """Files of some frames of a video, decoded where they are not there yet.

    Args:
        path: the video.
        clip: what `probe` says of it.
        numbers: frames from 0, ascending.
        size: width and height of the files in pixels.

    Raises:
        DataError: the video ends or breaks before the last of them, or the cache folder cannot be
            written.
    """
    folder = _folder(path, f"{size[0]}x{size[1]}")
    files = [folder / f"{number:06d}.jpg" for number in numbers]
    present = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    missing = {
        number: file
        for number, file in zip(numbers, files, strict=True)
        if file.name not in present
    }
    if missing:
        logger.info("decoding %d frames of %s into %s, once", len(missing), path.name, folder)
        _decode(path, clip, missing, size)
    return files


def _decode(path: Path, clip: Clip, missing: dict[int, Path], size: tuple[int, int]) -> None:
    last = max(missing)
    rate = f"{clip.rate:.9g}"
    # Counted anew, times fit the rate: ffmpeg then neither doubles nor drops a frame.
    filters = f"setpts=N/({rate}*TB),scale=w={size[0]}:h={size[1]}:flags=area"
    frames = decoded(path, filters, "-r", rate, "-frames:v", str(last + 1))
    number = -1
    for number, frame in enumerate(frames):
        if number in missing:
            _write(missing[number], _jpeg(frame))
    if number < last:
        raise DataError(
            f"{path}: the video breaks off after {number + 1} of {last + 1} frames; copy it again,"
            f" or choose fewer with frames 0:{number + 1}"
        )


def _jpeg(frame: NDArray[np.uint8]) -> Callable[[Path], Any]:
    options: dict[str, Any] = {"quality": JPEG_QUALITY, "subsampling": 0}
    return lambda path: Image.fromarray(frame).save(path, "JPEG", **options)


def _folder(path: Path, purpose: str) -> Path:
    """Where the cache keeps what belongs to a video as it is now."""
    state = path.stat()
    identity = f"{path.resolve()}|{state.st_size}|{state.st_mtime_ns}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return cache_folder() / "videos" / f"{path.stem}-{key}" / purpose


def _probe(path: Path) -> Clip:
    ffmpeg = require("imageio_ffmpeg", extra="sfm")
    try:
        reader = ffmpeg.read_frames(str(path))
        about = next(reader)
        reader.close()
    except (OSError, RuntimeError, StopIteration, IndexError) as error:
        raise DataError(unreadable(path)) from error
    # Counts the packets of the first video stream, which takes no decoding.
    command = [ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-map", "0:v:0", "-c", "copy"]
    result = subprocess.run([*command, "-f", "null", "-"], capture_output=True, check=False)
    counts = _COUNT.findall(result.stderr.decode(errors="ignore"))
    if result.returncode or not counts or int(counts[-1]) < 1 or not about["fps"] > 0:
        raise DataError(unreadable(path))
    width, height = about["source_size"]
    return Clip(int(counts[-1]), float(about["fps"]), int(width), int(height))


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    """A file of the cache, whole or not at all."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(
            f"{path.parent}: frames of the videos cannot be kept there ({error.strerror}); free"
            " some space, or set LUMIGRAPH_CACHE to a folder that can be written"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
