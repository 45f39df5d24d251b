"""Camera paths of the viewer as files: saved, listed, and rendered as the command does."""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from lumigraph import export
from lumigraph.core import CameraPath, Cameras, Frame
from lumigraph.core.errors import InputError

from .render_loop import CLOSED, RenderLoop
from .source import FrameSource

FORMATS = {"video (.mp4)": ".mp4", "pictures (.png)": ""}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,63}")
FRAME_SECONDS = 120.0
"""How long one frame may take at most, with all that is rendered before it."""


def checked_name(text: str) -> str:
    """A name of a file without folder and suffix, as a browser may choose it.

    Raises:
        InputError: anything but letters, digits, - and _.
    """
    if not _NAME.fullmatch(text):
        raise InputError(f"name {text[:80]!r}: use letters, digits, - and _, at most 64")
    return text


def path_folder(source: FrameSource) -> Path | None:
    """Where the paths of a run are kept; None where there is no run folder."""
    run = getattr(source, "run", None)
    return None if run is None else run.path / "paths"


def saved_paths(source: FrameSource) -> dict[str, Path]:
    """Path files of the run by name."""
    folder = path_folder(source)
    if folder is None or not folder.is_dir():
        return {}
    return {file.stem: file for file in sorted(folder.glob("*.json"))}


def path_from_bytes(name: str, content: bytes) -> CameraPath:
    """A path file that a browser sent.

    Raises:
        InputError: what `CameraPath.from_file` finds wrong; the message names the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "path.json"
        file.write_bytes(content)
        try:
            return CameraPath.from_file(file)
        except InputError as error:
            raise InputError(str(error).replace(str(file), name)) from None


def path_bytes(path: CameraPath) -> bytes:
    """The content of a path file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "path.json"
        path.to_file(file)
        return file.read_bytes()


class PathRenderer:
    """Renders one path at a time beside the pictures of the viewer.

    Args:
        source: what is rendered.
        loop: its render thread.
    """

    def __init__(self, source: FrameSource, loop: RenderLoop) -> None:
        self._source, self._loop = source, loop
        self._busy = threading.Lock()

    def render(
        self,
        path: CameraPath,
        name: str,
        *,
        size: tuple[int, int],
        suffix: str,
        on_frame: Callable[[int, int], None],
    ) -> Path:
        """Write `renders/NAME` of the run; other sources write to a temporary folder.

        Of a run this is `export.video`, which `lumigraph render` calls, on a model of its own.

        Args:
            size: width and height in pixels.
            suffix: ".mp4", or "" for a folder of pictures.
            on_frame: told how many frames are done, and of how many.

        Raises:
            InputError: the file exists, another path is being rendered, the disk is full.
        """

        def still_wanted(done: int, total: int) -> None:
            if self._loop.closed:
                raise InputError(f"{CLOSED}; the path was not finished")
            on_frame(done, total)

        if not self._busy.acquire(blocking=False):
            raise InputError("another path is being rendered; wait for its end")
        try:
            run = getattr(self._source, "run", None)
            if run is None:
                out = Path(tempfile.mkdtemp(prefix="lumigraph-view-")) / f"{name}{suffix}"
                cameras = path.cameras(*size)
                options = export.PathOptions(fps=path.fps)
                model = _OnLoop(self._loop)
                done = export.render_cameras(
                    model, cameras, out, options=options, on_frame=still_wanted
                )
            else:
                out = run.path / "renders" / f"{name}{suffix}"
                done = export.video(run, path=path, out=out, size=size, on_frame=still_wanted)
            return done.paths[0]
        finally:
            self._busy.release()


class _OnLoop:
    """Renders on the viewer's thread, between the pictures of those who look."""

    def __init__(self, loop: RenderLoop) -> None:
        self._loop = loop

    def render(self, cameras: Cameras, *, channels: Sequence[str] = ("color",)) -> Frame:
        """One frame, as `training.Model.render`."""
        work = self._loop.call(lambda model: model.render(cameras, channels=channels))
        frame: Frame = work.result(timeout=FRAME_SECONDS)
        return frame
