"""ffmpeg as the package imageio-ffmpeg brings it: frames through a pipe to H.264, VP9 or GIF.

Its exit status is checked: a full disk or a missing encoder is an error here, never a short file.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from lumigraph.core.errors import InputError

QUALITY = 18
"""Constant rate factor of H.264: 0 is lossless, 18 looks lossless, 51 is the worst."""
VP9_QUALITY = 24
"""The same for VP9, whose scale ends at 63."""
GIF_MOST_FPS = 50.0
"""Players slow GIFs down that are faster."""

# The BT.709 tags tell players which matrix turned RGB into luma and chroma; without them small
# videos are shown with slightly wrong colors.
_BT709 = ("-vf", "scale=out_color_matrix=bt709:out_range=tv", "-pix_fmt", "yuv420p")
_TAGS = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "iec61966-2-1")

_VP9_SPEED = ("-deadline", "good", "-cpu-used", "4", "-row-mt", "1")


@dataclass(frozen=True)
class Encoder:
    """How a kind of video is made."""

    words: tuple[str, ...]
    """What ffmpeg is told between input and output."""
    even: bool = True
    """Whether widths and heights must be even."""
    most_fps: float = 1000.0
    palette: bool = False
    """Whether 256 colors are chosen for the whole video; frames then wait on disk, unharmed."""


ENCODERS = {
    ".mp4": Encoder(
        (*_BT709, "-c:v", "libx264", "-crf", str(QUALITY), *_TAGS, "-movflags", "+faststart")
    ),
    ".webm": Encoder(
        (*_BT709, "-c:v", "libvpx-vp9", "-crf", str(VP9_QUALITY), "-b:v", "0", *_TAGS, *_VP9_SPEED)
    ),
    ".gif": Encoder(
        ("-c:v", "ffv1", "-pix_fmt", "bgr0"), even=False, most_fps=GIF_MOST_FPS, palette=True
    ),
}
"""Suffix -> how it is made."""
_PALETTE = ("-vf", "palettegen=stats_mode=full", "-update", "1")
_DITHER = ("-lavfi", "paletteuse=dither=sierra2_4a:diff_mode=rectangle", "-loop", "0")


@contextlib.contextmanager
def encoded(path: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that adds a frame (H, W, 3) uint8 to a video; all frames of one size. The video
    is whole, and stands at `path`, when the block ends without an error.

    Raises:
        InputError: ffmpeg failed, or the disk is full.
    """
    encoder = ENCODERS[path.suffix]
    staging = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    frames = staging.with_suffix(".mkv") if encoder.palette else staging
    colors = staging.with_suffix(".png")
    with contextlib.ExitStack() as stack:
        for file in {staging, frames, colors}:
            stack.callback(file.unlink, missing_ok=True)
        job = _Job(path, stack.enter_context(tempfile.TemporaryFile()))
        stack.callback(job.stop)

        def add(picture: np.ndarray) -> None:
            if encoder.even:
                height, width = picture.shape[:2]
                picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if not job.running:
                source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-r", f"{fps:g}"]
                source += ["-s", f"{picture.shape[1]}x{picture.shape[0]}", "-i", "-", "-an"]
                job.start([*source, *encoder.words, str(frames)])
            job.feed(picture.tobytes())

        yield add
        job.finish()
        if encoder.palette:
            job.start(["-i", str(frames), *_PALETTE, str(colors)])
            job.finish()
            job.start(["-i", str(frames), "-i", str(colors), *_DITHER, str(staging)])
            job.finish()
        with disk_errors(path):
            os.replace(staging, path)


class _Job:
    """One run of ffmpeg at a time."""

    def __init__(self, path: Path, log: IO[bytes]) -> None:
        """For the video `path`, which messages name; `log` takes what ffmpeg says."""
        self._path, self._log = path, log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self, words: list[str]) -> None:
        """Begin; words are those after the program and its general options."""
        # A session of its own keeps Ctrl-C in the terminal from reaching ffmpeg before us.
        self._process = subprocess.Popen(
            [_program(), "-y", "-loglevel", "error", *words],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def feed(self, content: bytes) -> None:
        """Send raw frames."""
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(content)
        except BrokenPipeError:
            self.finish(gave_up=True)

    def finish(self, *, gave_up: bool = False) -> None:
        """Wait for the end.

        Raises:
            InputError: ffmpeg says that it failed, or `gave_up` reading.
        """
        if self._process is None:
            return
        process, self._process = self._process, None
        with contextlib.suppress(BrokenPipeError):
            assert process.stdin is not None
            process.stdin.close()
        if process.wait() != 0 or gave_up:
            raise InputError(f"{self._path}: {self._failure()}")

    def stop(self) -> None:
        """End it where it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _failure(self) -> str:
        """The last line that ffmpeg left, or that the disk is full."""
        self._log.seek(0)
        text = self._log.read().decode(errors="replace")
        if "No space left" in text or "Disk quota" in text:
            return "the disk is full; free some space or choose another place with --out"
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return f"ffmpeg could not write it: {lines[-1] if lines else 'no reason given'}"


def _program() -> str:
    from imageio_ffmpeg import get_ffmpeg_exe

    try:
        return str(get_ffmpeg_exe())
    except RuntimeError as error:
        raise InputError(
            "ffmpeg is missing; install it with: pip install imageio-ffmpeg, or write a folder "
            "of PNG files instead of a video"
        ) from error


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Failures to write as one line that names the target and the reason, e.g. a full disk."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{path}: cannot be written ({reason}); free some space or choose another place"
        ) from error
