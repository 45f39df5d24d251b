"""Sharp frames of a video, evenly spread over its length.

The video is cut into as many windows as frames are wanted; ffmpeg delivers a few candidates from
each, and the sharpest is kept. Sharpness is the variance of the Laplacian of the brightness at
about 480 pixels: motion blur removes the fine detail that this measures.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lumigraph.core.errors import DataError, require

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")
CANDIDATES = 5
"""Frames looked at for each one kept."""
SHARPNESS_SIDE = 480
JPEG_QUALITY = 95


def extract_frames(
    path: Path,
    folder: Path,
    *,
    count: int,
    max_side: int,
    on_frame: Callable[[int], None] | None = None,
) -> list[Path]:
    """Write the sharpest frames of a video as JPEG files.

    Args:
        path: the video.
        folder: where `frame_0000.jpg` and so on are written; it exists.
        count: frames wanted; a video with fewer frames gives what it has.
        max_side: longer side of the frames written at most, in pixels.
        on_frame: called with the number of frames written so far.

    Returns:
        The files, in order of time.

    Raises:
        DataError: not a video that ffmpeg can read, or one without frames.
    """
    duration, rate = _length(path)
    wanted_rate = min(rate, count * CANDIDATES / duration)
    # Rounded up, so that a window never ends before its last candidate.
    window = max(1, -(-int(round(wanted_rate * duration)) // count))
    written: list[Path] = []
    best: tuple[float, NDArray[np.uint8]] | None = None
    for number, frame in enumerate(_frames(path, rate=wanted_rate, max_side=max_side)):
        if number % window == 0 and best is not None:
            written.append(_write(best[1], folder, len(written)))
            best = None
            if on_frame is not None:
                on_frame(len(written))
        score = sharpness(frame)
        if best is None or score > best[0]:
            best = (score, frame)
    if best is None:
        raise DataError(f"{path}: the video has no frames; check that it plays")
    written.append(_write(best[1], folder, len(written)))
    return written


def sharpness(frame: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of the brightness; larger is sharper.

    >>> edges = np.zeros((8, 8, 3), np.uint8)
    >>> edges[:, ::2] = 255
    >>> sharpness(edges) > sharpness(np.full((8, 8, 3), 128, np.uint8)) == 0.0
    True
    """
    picture = Image.fromarray(frame).convert("L")
    picture.thumbnail((SHARPNESS_SIDE, SHARPNESS_SIDE), Image.Resampling.BOX)
    grey = np.asarray(picture, np.float32)
    middle = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * middle).var()) if middle.size else 0.0


def _length(path: Path) -> tuple[float, float]:
    """Duration in seconds and frames per second."""
    ffmpeg = require("imageio_ffmpeg", extra="sfm")
    try:
        frames, duration = ffmpeg.count_frames_and_secs(str(path))
    except (OSError, RuntimeError, IndexError) as error:
        raise DataError(unreadable(path)) from error
    if frames < 1 or duration <= 0:
        raise DataError(f"{path}: the video has no frames; check that it plays")
    return float(duration), frames / duration


def _frames(path: Path, *, rate: float, max_side: int) -> Iterator[NDArray[np.uint8]]:
    """Frames (H, W, 3) at a given rate, reduced to `max_side`."""
    # Even sides, because many encoders of the frames' later uses want them.
    limit = f"min(1,{max_side}/max(iw,ih))"
    scale = f"scale=w='2*trunc(iw*{limit}/2)':h='2*trunc(ih*{limit}/2)':flags=area"
    # Commas separate filters unless they stand inside quotes.
    yield from decoded(path, f"fps={rate:.6f},{scale}")


def decoded(path: Path, filters: str, *options: str) -> Iterator[NDArray[np.uint8]]:
    """Frames (H, W, 3) of a video, in order, after ffmpeg's filters and with its output options.

    Raises:
        DataError: ffmpeg cannot read the video.
    """
    ffmpeg = require("imageio_ffmpeg", extra="sfm")
    generator = ffmpeg.read_frames(str(path), output_params=["-vf", filters, *options])
    try:
        with _WITHOUT_SIZE_WARNING:
            width, height = next(generator)["size"]
        for content in generator:
            yield np.frombuffer(content, np.uint8).reshape(height, width, 3)
    except (OSError, RuntimeError, StopIteration, IndexError) as error:
        raise DataError(unreadable(path)) from error
    finally:
        generator.close()


class _SizeWarning:
    """Keeps imageio_ffmpeg from warning, as it starts, that frames come out reduced: we ask for
    that. One start at a time, for several threads share its logger."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()
        logging.getLogger("imageio_ffmpeg").addFilter(_drop_size_warning)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("imageio_ffmpeg").removeFilter(_drop_size_warning)
        self._lock.release()


_WITHOUT_SIZE_WARNING = _SizeWarning()


def _drop_size_warning(record: logging.LogRecord) -> bool:
    return "frame size for reading" not in record.getMessage()


def _write(frame: NDArray[np.uint8], folder: Path, number: int) -> Path:
    path = folder / f"frame_{number:04d}.jpg"
    Image.fromarray(frame).save(path, quality=JPEG_QUALITY, subsampling=0)
    return path


def unreadable(path: Path) -> str:
    """What to say where ffmpeg cannot read a file."""
    return f"{path}: ffmpeg cannot read this video; convert it to MP4 (H.264) or give photographs"
