"""The panel of time: a slider, a clock that plays, and the moments that a model was trained at."""

from __future__ import annotations

import bisect

from .callbacks import safe
from .session import Session

PLAY_SECONDS = 4.0
"""Time of a moving scene passes from 0 to 1 in this long, to begin with."""
LEAST_SECONDS, MOST_SECONDS = 0.2, 600.0
CLOSE = 1e-6
"""Times nearer to each other are the same."""


class TimePanel:
    """Time in one browser; hidden while nothing moves.

    Args:
        session: of the browser.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.playing = False
        self.clock = session.moment
        """Goes on evenly, while the time that is shown may jump from moment to moment."""
        self._own = False
        self._shown_for: object = ()
        gui = session.client.gui
        self.folder = gui.add_folder("Time", visible=False)
        with self.folder:
            self.slider = gui.add_slider("Time", 0.0, 1.0, 0.001, 0.0, hint="Of the scene, 0 to 1")
            self.play = gui.add_button("Play")
            self.steps = gui.add_button_group("Moments", ("first", "back", "forward", "last"))
            self.seconds = gui.add_number(
                "Seconds",
                PLAY_SECONDS,
                min=LEAST_SECONDS,
                max=MOST_SECONDS,
                step=0.1,
                hint="That playing takes from time 0 to 1",
            )
            self.loop = gui.add_checkbox("Loop time", True, hint="Else playing ends at 1")
            self.snaps = gui.add_checkbox(
                "Trained moments alone", False, hint="Nothing between the times of the data"
            )
            self.note = gui.add_markdown("")
        self._listen()
        session.on_moment = self.told
        session.tickers.append(self.tick)
        self._know()

    def _listen(self) -> None:
        session = self.session
        self.slider.on_update(safe(session)(self.chosen))
        self.play.on_click(safe(session)(self.toggle))
        self.steps.on_click(safe(session)(lambda: self.step(self.steps.value)))
        self.snaps.on_update(safe(session)(lambda: self.go_to(self.clock)))

    @property
    def moments(self) -> list[float]:
        """Times that the model was trained at; none while nothing moves."""
        moments = self.session.source.moments
        return [] if moments is None else moments.tolist()

    def chosen(self) -> None:
        """The slider was moved, by hand or from here."""
        if abs(float(self.slider.value) - self.session.moment) > CLOSE:
            self.go_to(float(self.slider.value))

    def toggle(self) -> None:
        """Play, or pause."""
        self._set_playing(not self.playing)
        if self.playing and self.clock >= 1 - CLOSE:
            self.go_to(0.0)

    def step(self, where: str) -> None:
        """To another moment, and stand still there."""
        self._set_playing(False)
        moments, now = self.moments, self.session.moment
        if not moments:
            return
        before = bisect.bisect_left(moments, now - CLOSE) - 1
        after = bisect.bisect_right(moments, now + CLOSE)
        place = {"first": 0, "back": before, "forward": after, "last": len(moments) - 1}[where]
        self.go_to(moments[min(max(place, 0), len(moments) - 1)])

    def tick(self, seconds: float) -> None:
        """The clock goes on; the panel appears when the model begins to move."""
        self._know()
        if not self.playing:
            return
        pace = min(max(float(self.seconds.value), LEAST_SECONDS), MOST_SECONDS)
        clock = self.clock + seconds / pace
        if clock >= 1 and not self.loop.value:
            clock = 1.0
            self._set_playing(False)
        self.go_to(clock % 1.0 if clock > 1 else clock)

    def go_to(self, clock: float) -> None:
        """Show a time, or the moment next to it."""
        self.clock, self._own = clock, True
        try:
            moments = self.moments if self.snaps.value else []
            near = min(moments, key=lambda moment: abs(moment - clock)) if moments else clock
            self.session.set_moment(near)
        finally:
            self._own = False

    def told(self, moment: float) -> None:
        """The session shows another time; where others chose it, playing ends."""
        if not self._own:
            self._set_playing(False)
            self.clock = moment
        self.slider.value = moment
        self.note.content = place_among(self.moments, moment)

    def _set_playing(self, playing: bool) -> None:
        if playing != self.playing:
            self.playing = playing
            self.play.label = "Pause" if playing else "Play"

    def _know(self) -> None:
        """Fit the panel to the moments of the model, which training may add to."""
        moments = self.moments
        if moments != self._shown_for:
            self._shown_for = moments
            self.folder.visible = bool(moments)
            self.note.content = place_among(moments, self.session.moment)


def place_among(moments: list[float], time: float) -> str:
    """Where a time lies among ascending moments, in words."""
    count = len(moments)
    if not count:
        return ""
    after = bisect.bisect_right(moments, time + CLOSE)
    if after and abs(moments[after - 1] - time) <= CLOSE:
        return f"moment {after} of {count}"
    if 0 < after < count:
        return f"between the moments {after} and {after + 1} of {count}"
    return f"{'after the last' if after else 'before the first'} of {count} moments"
