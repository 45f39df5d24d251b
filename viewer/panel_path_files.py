"""The tab of camera paths: the editor, its files, and rendering."""

from __future__ import annotations

import shutil

from lumigraph.core import CameraPath

from .callbacks import safe
from .panel_path import PathPanel
from .path_render import (
    FORMATS,
    checked_name,
    path_bytes,
    path_folder,
    path_from_bytes,
    saved_paths,
)
from .session import Session

MOST_DOWNLOAD = 200 * 2**20


def build_path_tab(session: Session) -> None:
    """The editor, files, and rendering."""
    panel = PathPanel(session)
    _build_files(session, panel)
    _build_render(session, panel)


def _build_files(session: Session, panel: PathPanel) -> None:
    gui = session.client.gui
    with gui.add_folder("Path file"):
        name = gui.add_text("Name", "path")
        save = gui.add_button("Save in the run folder")
        download = gui.add_button("Download")
        upload = gui.add_upload_button("Open a path file (.json)", mime_type=".json")
        known = saved_paths(session.source)
        choice = gui.add_dropdown("Of the run", ("none", *known), initial_value="none")
    folder = path_folder(session.source)
    save.visible = choice.visible = folder is not None

    @save.on_click
    @safe(session)
    def saved() -> None:
        assert folder is not None
        file = folder / f"{checked_name(name.value)}.json"
        with panel.lock:
            path = panel.editor.to_path()
        folder.mkdir(exist_ok=True)
        path.to_file(file)
        choice.options = ("none", *saved_paths(session.source))
        session.notify("Saved", f"{file.name}: lumigraph render RUN --path {file}")

    @download.on_click
    @safe(session)
    def downloaded() -> None:
        with panel.lock:
            path = panel.editor.to_path()
        session.download(f"{checked_name(name.value)}.json", path_bytes(path))

    @upload.on_upload
    @safe(session)
    def uploaded() -> None:
        panel.show_path(path_from_bytes(upload.value.name, upload.value.content))

    @choice.on_update
    @safe(session)
    def opened() -> None:
        file = saved_paths(session.source).get(choice.value)
        if file is not None:
            name.value = choice.value
            panel.show_path(CameraPath.from_file(file))


def _build_render(session: Session, panel: PathPanel) -> None:
    gui = session.client.gui
    width, height = render_size(session)
    with gui.add_folder("Render this"):
        name = gui.add_text("File name", "path")
        kind = gui.add_dropdown("As", tuple(FORMATS))
        wide = gui.add_number("Width", width, min=16, max=7680, step=2)
        high = gui.add_number("Height", height, min=16, max=4320, step=2)
        button = gui.add_button("Render this")
        bar = gui.add_progress_bar(0.0, visible=False)
        news = gui.add_markdown("")

    def told(done: int, total: int) -> None:
        bar.value = 100.0 * done / total
        news.content = f"{done} of {total} frames"

    @button.on_click
    @safe(session)
    def rendered() -> None:
        with panel.lock:
            path = panel.editor.to_path()
        suffix = FORMATS[kind.value]
        button.disabled = bar.visible = True
        try:
            written = session.viewer.renderer.render(
                path,
                checked_name(name.value),
                size=(int(wide.value), int(high.value)),
                suffix=suffix,
                on_frame=told,
            )
            kept = getattr(session.source, "run", None) is not None
            news.content = f"`{written}`" if kept else "done"
            if written.is_file() and written.stat().st_size < MOST_DOWNLOAD:
                session.download(written.name, written.read_bytes())
            if not kept and written.is_file():
                shutil.rmtree(written.parent)
            elif not kept:
                news.content = f"`{written}`"
        finally:
            button.disabled = bar.visible = False


def render_size(session: Session) -> tuple[int, int]:
    """Width and height of a video to begin with: that of the capture, or 640 x 480; even."""
    scene = session.source.scene
    width, height = (640, 480) if scene is None else scene.cameras.size(0)
    return max(16, width - width % 2), max(16, height - height % 2)
