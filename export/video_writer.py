"""Frames to a video file (H.264 in .mp4) or to a folder of numbered PNG files.

Frames go through a pipe to the ffmpeg program that the package imageio-ffmpeg brings, and its exit
status is checked: a full disk or a missing encoder is an error here, never a short file. Writing
is atomic: a file or folder with its final name is whole.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from lumigraph.core.errors import InputError

QUALITY = 18
"""Constant rate factor of H.264: 0 is lossless, 18 looks lossless, 51 is the worst."""


def write_video(
    frames: Iterable[Any], path: str | Path, *, fps: float = 30.0, overwrite: bool = True
) -> int:
    """Write frames, in the order they come, one at a time.

    Args:
        frames: arrays or tensors (H, W, 3), all of one size: uint8, or floats in [0, 1] in sRGB.
        path: ends in `.mp4` for a video; without a suffix a folder of `00000.png`, `00001.png`...
            Odd widths and heights of a video are padded by one repeated line, as H.264 asks.
        fps: frames a second of the video.
        overwrite: replace an existing file or folder of pictures.

    Returns:
        How many frames were written.

    Raises:
        InputError: no frames, frames of several sizes, an existing or unusable path, a full disk,
            or a failure of ffmpeg; what stood at `path` before is then still there.
    """
    path = Path(path)
    check_output(path, overwrite=overwrite)
    if not 0.1 <= fps <= 1000:
        raise InputError(f"fps is {fps:g}: expected between 0.1 and 1000 frames a second")
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix:
        return _write_mp4(frames, path, fps)
    return _write_pictures(frames, path)


def check_output(path: str | Path, *, overwrite: bool) -> None:
    """Refuse a path that `write_video` cannot or must not write, before rendering starts.

    Raises:
        InputError: a suffix other than .mp4, an existing path without `overwrite`, or a folder
            that holds anything besides PNG files.
    """
    path = Path(path)
    if path.suffix not in ("", ".mp4"):
        raise InputError(
            f"{path}: {path.suffix} files cannot be written; use .mp4, or a folder for PNG files"
        )
    if not path.exists():
        return
    if path.suffix and path.is_dir():
        raise InputError(f"{path}: is a folder; choose another name")
    if not path.suffix and not path.is_dir():
        raise InputError(f"{path}: is a file; a video ends in .mp4, a folder needs another name")
    if not overwrite and (path.is_file() or any(path.iterdir())):
        raise InputError(f"{path}: exists already; choose another name or add --overwrite")
    if path.is_dir() and any(entry.suffix != ".png" for entry in path.iterdir()):
        raise InputError(f"{path}: holds other files than pictures; choose another folder")


def to_bytes(frame: Any) -> np.ndarray:
    """A picture as uint8 (H, W, 3): floats in [0, 1] are rounded, what is not finite is clamped.

    >>> to_bytes(np.full((1, 1, 3), 0.5)).tolist()
    [[[128, 128, 128]]]
    """
    if hasattr(frame, "detach"):
        frame = frame.detach().cpu().numpy()
    picture = np.asarray(frame)
    if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise InputError(f"a frame has shape {picture.shape}: expected (height, width, 3)")
    if picture.dtype == np.uint8:
        return np.ascontiguousarray(picture)
    finite = np.nan_to_num(picture.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    return (finite.clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _checked(frames: Iterable[Any]) -> Iterator[np.ndarray]:
    """Frames as bytes; all must have the size of the first, and there must be one."""
    first: tuple[int, ...] | None = None
    for index, frame in enumerate(frames):
        picture = to_bytes(frame)
        first = first or picture.shape
        if picture.shape != first:
            raise InputError(
                f"frame {index} is {picture.shape[1]}x{picture.shape[0]} pixels, the first was "
                f"{first[1]}x{first[0]}: all frames of a video need one size"
            )
        yield picture
    if first is None:
        raise InputError("no frames to write: the camera path is empty")


def _write_pictures(frames: Iterable[Any], folder: Path) -> int:
    import imageio.v3 as imageio

    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    count = 0
    try:
        with _disk_errors(folder):
            for count, picture in enumerate(_checked(frames), start=1):
                imageio.imwrite(staging / f"{count - 1:05}.png", picture)
            staging.chmod(0o755)
            if folder.exists():
                shutil.rmtree(folder)
            staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return count


def _write_mp4(frames: Iterable[Any], path: Path, fps: float) -> int:
    staging = path.with_name(f".{path.stem}-{os.getpid()}.mp4")
    count = 0
    with contextlib.ExitStack() as stack:
        stack.callback(staging.unlink, missing_ok=True)
        log = stack.enter_context(tempfile.TemporaryFile())
        encoder: subprocess.Popen[bytes] | None = None
        try:
            for picture in _checked(frames):
                count += 1
                even = _even(picture)
                if encoder is None:
                    encoder = _start_ffmpeg(even.shape, staging, fps, log)
                assert encoder.stdin is not None
                encoder.stdin.write(even.tobytes())
            if encoder is not None and encoder.stdin is not None:
                encoder.stdin.close()
        except BrokenPipeError:
            pass  # ffmpeg gave up; its exit status and log say why
        except BaseException:
            if encoder is not None:
                encoder.kill()
                encoder.wait()
            raise
        if encoder is not None and encoder.wait() != 0:
            raise InputError(f"{path}: {_failure(log)}")
        with _disk_errors(path):
            os.replace(staging, path)
    return count


def _start_ffmpeg(
    shape: tuple[int, ...], target: Path, fps: float, log: IO[bytes]
) -> subprocess.Popen[bytes]:
    from imageio_ffmpeg import get_ffmpeg_exe

    try:
        program = get_ffmpeg_exe()
    except RuntimeError as error:
        raise InputError(
            "ffmpeg is missing; install it with: pip install imageio-ffmpeg, or write a folder "
            "of PNG files instead of .mp4"
        ) from error
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{shape[1]}x{shape[0]}"]
    # The BT.709 tags tell players which matrix turned RGB into luma and chroma; without them
    # small videos are shown with slightly wrong colors.
    matrix = "scale=out_color_matrix=bt709:out_range=tv"
    tags = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "iec61966-2-1"]
    codec = ["-c:v", "libx264", "-crf", str(QUALITY), "-pix_fmt", "yuv420p"]
    words = [program, "-y", "-loglevel", "error", *source, "-r", f"{fps:g}", "-i", "-", "-an"]
    words += ["-vf", matrix, *codec, *tags, "-movflags", "+faststart", str(target)]
    # A session of its own keeps Ctrl-C in the terminal from reaching ffmpeg before us.
    return subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
    )


def _even(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _failure(log: IO[bytes]) -> str:
    """The last line that ffmpeg left, or that the disk is full."""
    log.seek(0)
    text = log.read().decode(errors="replace")
    if "No space left" in text or "Disk quota" in text:
        return "the disk is full; free some space or choose another place with --out"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"ffmpeg could not write it: {lines[-1] if lines else 'no reason given'}"


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Failures to write as one line that names the target and the reason, e.g. a full disk."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{path}: cannot be written ({reason}); free some space or choose another place"
        ) from error
