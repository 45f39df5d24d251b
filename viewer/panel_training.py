"""The panel of a run in training: how far it is, its curves, pause and checkpoint."""

from __future__ import annotations

from lumigraph.core.errors import require
from lumigraph.training import (
    CheckpointEvent,
    FinishedEvent,
    MessageEvent,
    StepEvent,
    TrainingControl,
)
from lumigraph.training.events import Event

from .callbacks import safe
from .session import Session

CURVE_SECONDS = 1.0
"""Between two updates of the curves."""


def build_training_tab(session: Session, control: TrainingControl) -> None:
    """State and step, two curves, pause and resume, checkpoint now."""
    uplot = require("viser", extra="viewer").uplot
    gui = session.client.gui
    history = session.viewer.history
    state = gui.add_markdown(state_line(control, history.last))
    pause = gui.add_button("Pause")
    save = gui.add_button("Checkpoint now")
    news = gui.add_markdown("")
    steps, loss, psnr = history.curves()
    plots = [
        gui.add_uplot(
            (steps, values),
            (uplot.Series(label="step"), uplot.Series(label=label, stroke=color, width=2)),
            title=label,
            scales={"x": uplot.Scale(time=False), "y": uplot.Scale(auto=True)},
            aspect=2.2,
        )
        for label, values, color in (
            ("log10 of the loss", loss, "#c03020"),
            ("PSNR of training rays, dB", psnr, "#2060c0"),
        )
    ]

    @pause.on_click
    @safe(session)
    def toggled() -> None:
        if control.paused:
            control.resume()
        else:
            control.pause()
        show_state()

    @save.on_click
    @safe(session)
    def saved() -> None:
        control.request_checkpoint()

    def show_state() -> None:
        # viser sends only what has changed
        state.content = state_line(control, history.last)
        pause.label = "Resume" if control.paused else "Pause"
        pause.disabled = save.disabled = control.state in ("finished", "failed")

    waited, drawn_to = 0.0, -1

    def tick(seconds: float) -> None:
        nonlocal waited, drawn_to
        waited += seconds
        if waited < CURVE_SECONDS:
            return
        waited = 0.0
        show_state()
        last = history.last
        if last is not None and last.step != drawn_to:
            steps, loss, psnr = history.curves()
            plots[0].data, plots[1].data = (steps, loss), (steps, psnr)
            drawn_to = last.step

    def told(event: Event) -> None:
        if isinstance(event, CheckpointEvent):
            news.content = f"checkpoint at step {event.step}"
        elif isinstance(event, MessageEvent):
            news.content = event.text
        elif isinstance(event, FinishedEvent):
            show_state()

    session.tickers.append(tick)
    session.listeners.append(told)


def state_line(control: TrainingControl, last: StepEvent | None) -> str:
    """State, steps and figures in a line of markdown."""
    text = f"**{control.state}** · step {control.step:,}"
    if last is None:
        return text
    if last.steps_total is not None:
        text += f" of {last.steps_total:,}"
    text += f" · loss {last.loss:.4g} · PSNR {last.psnr:.2f} dB · {last.elapsed:.0f} s"
    counts = [f"{int(value):,} {name}" for name, value in last.extras.items()]
    return " · ".join([text, *counts])
