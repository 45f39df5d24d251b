"""The panel beside the picture: what it shows, how, and what stands in the scene.

Every browser has its own; callbacks read the present values of their elements, since messages may
be handled out of order.
"""

from __future__ import annotations

import io
import math
import threading

import imageio.v3 as iio
import torch

from .callbacks import safe
from .display import CHANNELS, MOST_STOPS
from .panel_path_files import build_path_tab
from .panel_scene import build_scene_tab
from .panel_time import TimePanel
from .panel_training import build_training_tab
from .session import CAPS, Session

BACKGROUNDS = {"of the model": None, "white": (255, 255, 255), "black": (0, 0, 0), "chosen": None}
DRAWN_BY = ("server frames", "Gaussians in the browser")
REST_SECONDS = 0.3
"""Time must have stood still for this long before a browser gets its Gaussians."""


def build_panel(session: Session) -> None:
    """Fill the panel of a browser."""
    gui = session.client.gui
    tabs = gui.add_tab_group()
    with tabs.add_tab("View"):
        build_view_tab(session)
    with tabs.add_tab("Scene"):
        build_scene_tab(session)
    if session.source.renders:
        with tabs.add_tab("Path"):
            build_path_tab(session)
    control = getattr(session.source, "control", None)
    if control is not None:
        with tabs.add_tab("Training"):
            build_training_tab(session, control)


def build_view_tab(session: Session) -> None:
    """Size and time of the picture, channel, tone, lens, resolution, time, crop box."""
    gui = session.client.gui
    source = session.source
    status = gui.add_markdown(f"{source.kind} on {source.device}")

    def show_status(text: str) -> None:
        status.content = f"{text} · {source.kind} on {source.device}"

    session.on_status = show_status
    if source.renders:
        _build_drawn_by(session)
        _build_tone(session)
    _build_lens(session)
    if source.renders:
        TimePanel(session)
        _build_crop(session)
        _build_screenshot(session)


def _build_drawn_by(session: Session) -> None:
    if not session.viewer.has_gaussians:
        return
    gui = session.client.gui
    choice = gui.add_dropdown("Drawn by", DRAWN_BY, initial_value=DRAWN_BY[0])
    note = gui.add_markdown(
        "The browser draws the Gaussians itself: base colors without the harmonics of the view, "
        "sorted by centre. Channels, tone and crop box are those of server frames. Of a moving "
        "scene it has one time; another one is sent when time has stood still for a moment.",
        visible=False,
    )

    @choice.on_update
    @safe(session)
    def switched() -> None:
        alone = choice.value == DRAWN_BY[1]
        note.visible = alone
        if alone:
            session.on_status("**drawn by the browser**")
        session.viewer.show_gaussians(session, alone)

    rest = _Rest()

    def keep_up(seconds: float) -> None:
        """Another snapshot for another time, beside the clock that all browsers share."""
        if choice.value == DRAWN_BY[1] and rest.over(session.moment, seconds):
            send = safe(session)(lambda: session.viewer.show_gaussians(session, True))
            threading.Thread(target=send, args=(None,), daemon=True).start()

    session.tickers.append(keep_up)


class _Rest:
    """Whether time has moved and then stood still."""

    def __init__(self) -> None:
        self._moment, self._still, self._moved = 0.0, 0.0, False

    def over(self, moment: float, seconds: float) -> bool:
        """Once after each move, when the time has been the same for a while."""
        if moment != self._moment:
            self._moment, self._still, self._moved = moment, 0.0, True
            return False
        self._still += seconds
        done = self._moved and self._still >= REST_SECONDS
        self._moved = self._moved and not done
        return done


def _build_tone(session: Session) -> None:
    gui = session.client.gui
    channel = gui.add_dropdown("Channel", CHANNELS, initial_value="color")
    exposure = gui.add_slider(
        "Exposure", -MOST_STOPS, MOST_STOPS, 0.1, 0.0, hint="Stops: twice as bright for each"
    )
    background = gui.add_dropdown("Background", tuple(BACKGROUNDS), initial_value="of the model")
    color = gui.add_rgb("Color", (128, 160, 200), visible=False)

    @channel.on_update
    @safe(session)
    def channel_chosen() -> None:
        session.restyle(channel=channel.value)
        wish, _, _ = session.view.newest()
        if channel.value == "error" and (wish is None or wish.camera is None):
            known = session.source.scene is not None and session.source.scene.images is not None
            way = "go to a camera in the tab Scene" if known else "there are none here"
            session.notify("Compared with photographs", f"Errors are shown at cameras: {way}.")

    @exposure.on_update
    @safe(session)
    def exposed() -> None:
        session.restyle(exposure=float(exposure.value))

    @background.on_update
    @color.on_update
    @safe(session)
    def background_chosen() -> None:
        color.visible = background.value == "chosen"
        chosen = color.value if color.visible else BACKGROUNDS[background.value]
        shown = None if chosen is None else tuple(value / 255 for value in chosen)
        session.restyle(background=shown)


def _build_lens(session: Session) -> None:
    gui = session.client.gui
    angle = gui.add_slider(
        "Field of view",
        10.0,
        120.0,
        0.5,
        round(min(max(math.degrees(session.client.camera.fov), 10), 120), 1),
        hint="Degrees from the lower to the upper edge",
    )

    @angle.on_update
    @safe(session)
    def lens_changed() -> None:
        session.client.camera.fov = math.radians(float(angle.value))

    def show_angle(radians: float) -> None:
        angle.value = round(min(max(math.degrees(radians), 10), 120), 1)

    session.on_lens = show_angle
    if not session.source.renders:
        return
    caps = tuple(str(cap) for cap in CAPS)
    cap = gui.add_dropdown(
        "Resolution cap",
        caps,
        initial_value=str(session.cap),
        hint="Longer side of a still picture in pixels, at most; the browser enlarges it",
    )
    reduce = gui.add_checkbox("Fewer pixels while moving", True)

    @cap.on_update
    @reduce.on_update
    @safe(session)
    def resolution_chosen() -> None:
        session.cap = min(max(int(cap.value), CAPS[0]), CAPS[-1])
        session.change(cap=session.cap, reduce=bool(reduce.value))


def _build_crop(session: Session) -> None:
    gui = session.client.gui
    low, high = session.source.bounds.tolist()
    step = float(session.source.bounds[1, 0] - session.source.bounds[0, 0]) / 200
    with gui.add_folder("Crop box", expand_by_default=False):
        active = gui.add_checkbox("Show the inside of a box alone", False)
        corner = gui.add_vector3("From", tuple(low), step=step)
        opposite = gui.add_vector3("To", tuple(high), step=step)

    @active.on_update
    @corner.on_update
    @opposite.on_update
    @safe(session)
    def box_changed() -> None:
        box = torch.tensor([corner.value, opposite.value], dtype=torch.float32)
        ordered = torch.stack([box.amin(dim=0), box.amax(dim=0)])
        session.change(box=ordered if active.value else None)


def _build_screenshot(session: Session) -> None:
    button = session.client.gui.add_button("Save this picture")

    @button.on_click
    @safe(session)
    def save() -> None:
        drawn = session.last
        if drawn is None:
            return
        file = io.BytesIO()
        iio.imwrite(file, drawn.picture, extension=".png")
        session.download(f"{session.source.title}.png", file.getvalue())
