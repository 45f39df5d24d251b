"""Progress lines. On a terminal one live line that ends as a record of the result; in a log file
a plain line every few seconds."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from lumigraph.training.events import CheckpointEvent, Event, MessageEvent, StepEvent, ViewEvent

LOG_SECONDS = 5.0
"""Time between lines where no live line can be drawn."""


class _Line:
    """A line with a bar, or its plain copies in a log."""

    def __init__(self, console: Console, label: str) -> None:
        self.console = console
        self.label = label
        self._text = ""
        self._shown_at = 0.0
        self._shown = ""
        self._live: Progress | None = None

    def __enter__(self) -> _Line:
        if self.console.is_terminal:
            self._live = Progress(
                SpinnerColumn(finished_text="[green]✓[/green]"),
                TextColumn("[bold]{task.description}[/bold]"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[text]}"),
                console=self.console,
            )
            self._live.add_task(self.label, total=1.0, text="")
            self._live.start()
        return self

    def update(self, fraction: float, text: str) -> None:
        self._text = text
        if self._live is not None:
            task = self._live.task_ids[0]
            self._live.update(task, completed=min(fraction, 1.0), text=escape(text))
        elif time.monotonic() - self._shown_at >= LOG_SECONDS:
            self._print()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            if error is None:
                self._live.update(self._live.task_ids[0], completed=1.0)
            self._live.stop()
        elif self._text != self._shown:
            self._print()

    def _print(self) -> None:
        self._shown_at = time.monotonic()
        self._shown = self._text
        self.console.print(f"{self.label}: {escape(self._text)}")


class EventProgress(_Line):
    """A listener of a run's events."""

    def __enter__(self) -> EventProgress:
        super().__enter__()
        self._psnr_sum = 0.0
        return self

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepEvent):
            self.update(event.budget_fraction, step_text(event))
        elif isinstance(event, ViewEvent):
            self._psnr_sum += event.psnr
            done = event.index + 1
            text = f"view {done}/{event.total}  mean PSNR {self._psnr_sum / done:.2f} dB"
            self.update(done / event.total, text)
        elif isinstance(event, MessageEvent):
            self.console.print(escape(event.text))
        elif isinstance(event, CheckpointEvent) and self._live is None:
            self.console.print(f"{self.label}: checkpoint at step {event.step}")


class FrameProgress(_Line):
    """A callback `(done, total)` for pictures of a video."""

    def __enter__(self) -> FrameProgress:
        super().__enter__()
        self._started = time.monotonic()
        return self

    def __call__(self, done: int, total: int) -> None:
        seconds = time.monotonic() - self._started
        left = seconds / max(done, 1) * (total - done)
        rest = f"{clock(left)} left" if done < total else f"in {clock(seconds)}"
        self.update(done / max(total, 1), f"frame {done}/{total}  {rest}")


class StageProgress(_Line):
    """A callback `(stage, done, total)`; the bar starts anew with each stage."""

    def __enter__(self) -> StageProgress:
        super().__enter__()
        return self

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.update(done / max(total, 1), f"{stage} {done}/{total}")


def step_text(event: StepEvent) -> str:
    """`step 1200/6000  loss 0.0041  PSNR 27.3 dB  185k rays/s  48k Gaussians  0:32 left`."""
    done = event.budget_fraction >= 1
    rest = f"in {clock(event.elapsed)}" if done else f"{clock(event.eta_seconds)} left"
    steps = f"{event.step}" if event.steps_total is None else f"{event.step}/{event.steps_total}"
    parts = [
        f"step {steps}",
        f"loss {event.loss:.4f}",
        f"PSNR {event.psnr:.2f} dB",
        f"{short_number(event.rays_per_second)} rays/s",
    ]
    if "gaussians" in event.extras:
        parts.append(f"{short_number(event.extras['gaussians'])} Gaussians")
    if "moment" in event.extras:
        parts.append(f"moment {event.extras['moment']:.0f}")
    return "  ".join([*parts, rest])


def short_number(value: float) -> str:
    """950 -> '950', 185200 -> '185k', 3.2e6 -> '3.2M'."""
    if value >= 999_500:
        return f"{value / 1e6:.1f}M"
    return f"{value / 1e3:.0f}k" if value >= 1000 else f"{value:.0f}"


def clock(seconds: float) -> str:
    """75 -> '1:15', 4000 -> '1:06:40'."""
    if not seconds < 1e7:
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
