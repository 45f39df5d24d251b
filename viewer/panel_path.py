"""The panel of camera paths: views are added, moved and retimed, previewed, saved and rendered."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from lumigraph.core import CameraPath, PathEditor
from lumigraph.core.errors import InputError

from .callbacks import safe
from .panel_scene import needs_depth
from .places import focus_distance
from .session import Session

LINE_POINTS = 200
LINE_COLOR = (200, 60, 160)
RUNS, STANDS, OF_VIEWS = "runs once", "stands still", "of each view"
FROM_BEGIN_TO_END = (0.0, 1.0)


class PathPanel:
    """One browser's path.

    Callbacks come from several threads; the editor is for one at a time.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.editor = PathEditor(spacing=1.0)
        self.moves = False
        """Whether paths have a time."""
        self.lock = threading.RLock()
        self.playing = False
        self._filling = False
        gui = session.client.gui
        self.table = gui.add_markdown("")
        self.number = gui.add_number("View", 0, min=0, step=1, hint="Of the path, from 0")
        self.buttons = gui.add_button_group("Change", ("add", "insert", "replace", "remove"))
        self.orders = gui.add_button_group("Order", ("go to", "earlier", "later", "undo"))
        self.seconds = gui.add_number("Seconds", 0.0, min=0.0, step=0.1, hint="Of this view")
        self.shift = gui.add_checkbox("Later views move along", True)
        self.duration = gui.add_number("Duration", 0.0, min=0.0, step=0.5, hint="Seconds, of all")
        self.fps = gui.add_number("Frames a second", 30.0, min=1.0, max=240.0, step=1.0)
        self.loop = gui.add_checkbox("Loop", False)
        self.line = gui.add_checkbox("Show the path", True)
        self.time = gui.add_dropdown("Time in the path", (RUNS, STANDS, OF_VIEWS), visible=False)
        self.frozen = gui.add_slider("Frozen at", 0.0, 1.0, 0.001, 0.0, visible=False)
        with gui.add_folder("Preview"):
            self.moment = gui.add_slider("Moment", 0.0, 1.0, 0.001, 0.0, hint="Part of the path")
            self.play = gui.add_button("Play")
        self._listen()
        self.refresh()
        self._know()
        session.tickers.append(self.tick)

    def _listen(self) -> None:
        session = self.session
        changes = {"add": self.add, "insert": self.insert, "replace": self.replace}
        changes["remove"] = self.remove
        orders = {"go to": self.go_to, "earlier": self.earlier, "later": self.later}
        orders["undo"] = self.undo
        self.buttons.on_click(safe(session)(lambda: self._do(changes[self.buttons.value])))
        self.orders.on_click(safe(session)(lambda: self._do(orders[self.orders.value])))
        self.number.on_update(safe(session)(lambda: self._set(lambda: None)))
        self.seconds.on_update(safe(session)(lambda: self._set(self.retime)))
        self.duration.on_update(safe(session)(lambda: self._set(self.stretch)))
        self.fps.on_update(
            safe(session)(lambda: self._set(lambda: self.editor.set_fps(self.fps.value)))
        )
        self.loop.on_update(
            safe(session)(lambda: self._set(lambda: self.editor.set_loop(self.loop.value)))
        )
        self.line.on_update(safe(session)(self.draw))
        self.time.on_update(safe(session)(lambda: self._set(self.choose_time)))
        self.frozen.on_update(safe(session)(lambda: self._set(self.freeze)))
        self.moment.on_update(safe(session)(self.preview))
        self.play.on_click(safe(session)(self.toggle))

    @property
    def index(self) -> int:
        """The view that is worked on."""
        return min(max(int(self.number.value), 0), max(len(self.editor) - 1, 0))

    def _do(self, change: Callable[[], None]) -> None:
        with self.lock:
            try:
                change()
            finally:
                self.refresh()

    def _set(self, change: Callable[[], None]) -> None:
        """An element was changed; not where the panel itself fills it in."""
        with self.lock:  # another thread may be filling in
            if not self._filling:
                self._do(change)

    def view(self) -> dict[str, Any]:
        """The browser's camera as arguments of the editor."""
        frames = self.editor.keyframes
        timed = frames[0].time is not None if frames else self.moves
        return {
            "camera_to_world": self.session.pose(),
            "field_of_view": self.session.field_of_view,
            "time": self.session.moment if timed else None,
        }

    def add(self) -> None:
        self._select(self.editor.add(**self.view()))

    def insert(self) -> None:
        place = self.index if len(self.editor) else -1
        self._select(self.editor.insert_after(place, **self.view()))

    def replace(self) -> None:
        self.editor.set_view(self.index, **self.view())

    def remove(self) -> None:
        self.editor.remove(self.index)

    def earlier(self) -> None:
        self._move(-1)

    def later(self) -> None:
        self._move(1)

    def _move(self, step: int) -> None:
        place = self.index + step
        if 0 <= place < len(self.editor):
            self.editor.move(self.index, place)
            self._select(place)

    def undo(self) -> None:
        if not self.editor.undo():
            raise InputError("there is nothing to undo")

    def go_to(self) -> None:
        if not len(self.editor):
            raise InputError("the path has no views yet; add one")
        self._stand(self.editor.keyframes[self.index].seconds)

    def retime(self) -> None:
        self.editor.retime(self.index, float(self.seconds.value), shift=bool(self.shift.value))

    def stretch(self) -> None:
        self.editor.set_duration(float(self.duration.value))

    def choose_time(self) -> None:
        """Another kind of time; what stands still begins at the time that is shown."""
        if self.time.value == OF_VIEWS and any(f.time is None for f in self.editor.keyframes):
            raise InputError("the views of this path have no times; replace them, or let time run")
        now = (self.session.moment, self.session.moment)
        spans = {RUNS: FROM_BEGIN_TO_END, STANDS: now, OF_VIEWS: None}
        self.editor.set_time_span(spans[self.time.value])

    def freeze(self) -> None:
        """The path stands still at another time, which is shown."""
        moment = float(self.frozen.value)
        self.editor.set_time_span((moment, moment))
        self.session.set_moment(moment)

    def _know(self) -> None:
        """Offer time once the model moves; training may be what brings it."""
        moves = self.session.source.moments is not None
        if moves == self.moves:
            return
        with self.lock:
            self.moves = moves
            if moves and not len(self.editor):
                self.editor = PathEditor(spacing=1.0, time_span=FROM_BEGIN_TO_END)
            self.refresh()

    def show_path(self, path: CameraPath) -> None:
        """Edit a path that was loaded; in a moving scene time runs where it has none."""
        with self.lock:
            if self.moves and not path.is_timed:
                path = path.following_time()
            self.editor = PathEditor.from_path(path)
            self._select(0)
            self.refresh()

    def toggle(self) -> None:
        """Play, or stop."""
        with self.lock:
            self.editor.to_path()  # says what is missing
            self.playing = not self.playing
            self.play.label = "Stop" if self.playing else "Play"

    def preview(self) -> None:
        """The browser's camera stands at a moment of the path."""
        with self.lock:
            if len(self.editor) and not self._filling:
                self._stand(float(self.moment.value) * self.editor.duration)

    def tick(self, seconds: float) -> None:
        """Goes on with the path that plays."""
        self._know()
        if not self.playing:
            return
        with self.lock:
            if not self.editor.duration:
                self.playing = False
                return
            moment = float(self.moment.value) + seconds / self.editor.duration
            if moment >= 1 and not self.editor.loop:
                self.playing, moment = False, 1.0
                self.play.label = "Play"
            moment %= 1.0 if self.editor.loop else math.inf
            with self._fill():
                self.moment.value = moment
            self._stand(moment * self.editor.duration)

    def _stand(self, seconds: float) -> None:
        pose, degrees, time = self.editor.at(seconds)
        camera = self.session.client.camera
        narrow = min(1.0, camera.image_width / camera.image_height)
        angle = 2 * math.atan(math.tan(math.radians(degrees) / 2) / narrow)
        scene = self.session.source.scene
        distance = float(torch.linalg.norm(pose[:3, 3] - self._middle()))
        if scene is not None:
            distance = focus_distance(scene, pose)
        self.session.stand_at(pose, min(angle, math.radians(150)), distance=max(distance, 1e-3))
        if time is not None:
            self.session.set_moment(time)

    def _middle(self) -> torch.Tensor:
        return self.session.source.bounds.mean(dim=0)

    def _select(self, index: int) -> None:
        with self._fill():
            self.number.value = index

    def _fill(self) -> _Filling:
        return _Filling(self)

    def refresh(self) -> None:
        """Show what the editor holds."""
        with self.lock, self._fill():
            editor = self.editor
            self.table.content = path_table(editor, self.index)
            if len(editor):
                self.number.value = self.index
                self.seconds.value = round(editor.keyframes[self.index].seconds, 3)
            self.duration.value = round(editor.duration, 3)
            self.fps.value = editor.fps
            self.loop.value = editor.loop
            self._show_time()
            self.draw()

    def _show_time(self) -> None:
        span = self.editor.time_span
        stands = span is not None and span[0] == span[1]
        self.time.visible, self.frozen.visible = self.moves, self.moves and stands
        self.time.value = OF_VIEWS if span is None else STANDS if stands else RUNS
        if span is not None and stands:
            self.frozen.value = span[0]

    def draw(self) -> None:
        """The path as a line through the scene, with a mark at each view."""
        scene = self.session.client.scene
        shown = bool(self.line.value) and len(self.editor) > 1
        if shown:
            points = path_points(self.editor)
            segments = np.stack([points[:-1], points[1:]], axis=1)
            marks = np.stack([f.camera_to_world[:3, 3].numpy() for f in self.editor.keyframes])
            bounds = self.session.source.bounds
            side = float(bounds[1, 0] - bounds[0, 0])
            scene.add_line_segments(
                "/path/line", segments, LINE_COLOR, thickness=2.0, thickness_units="screen"
            )
            scene.add_point_cloud(
                "/path/views",
                marks.astype(np.float32),
                LINE_COLOR,
                point_size=0.012 * side,
                point_shape="circle",
                precision="float32",
            )
        else:
            scene.remove_by_name("/path")
        needs_depth(self.session, "path", shown)


class _Filling:
    """While the panel fills in its own elements, their callbacks change nothing."""

    def __init__(self, panel: PathPanel) -> None:
        self._panel = panel

    def __enter__(self) -> None:
        self._before, self._panel._filling = self._panel._filling, True

    def __exit__(self, *error: object) -> None:
        self._panel._filling = self._before


def path_table(editor: PathEditor, chosen: int) -> str:
    """The views of a path as a table of markdown."""
    if not len(editor):
        return "No views yet: look from somewhere and press *add*."
    timed = editor.time_span is None and editor.keyframes[0].time is not None
    lines = ["| view | seconds | degrees |", "|---|---|---|"]
    if timed:
        lines = [line + end for line, end in zip(lines, (" time |", "---|"), strict=True)]
    for index, frame in enumerate(editor.keyframes):
        mark = f"**{index}**" if index == chosen else str(index)
        time = f" {frame.time:.3f} |" if timed else ""
        lines.append(f"| {mark} | {frame.seconds:.2f} | {frame.field_of_view:.1f} |{time}")
    if editor.time_span is not None:
        begin, end = editor.time_span
        lines += ["", f"Time {begin:.3f}" + ("" if begin == end else f" to {end:.3f}")]
    return "\n".join(lines)


def path_points(editor: PathEditor) -> np.ndarray:
    """(N, 3) float32 positions along a path of at least two views."""
    moments = np.linspace(0.0, editor.duration, LINE_POINTS, endpoint=not editor.loop)
    points = [editor.at(float(moment))[0][:3, 3].numpy() for moment in moments]
    if editor.loop:
        points.append(points[0])
    return np.stack(points).astype(np.float32)
