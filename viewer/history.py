"""What a run has logged, for the curves of everyone who looks."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np

from lumigraph.training import StepEvent
from lumigraph.training.events import Event

MOST_POINTS = 300
"""Of a curve on the screen."""


class History:
    """The steps that were logged, for the curves of everyone who looks. For all threads."""

    def __init__(self) -> None:
        self._steps: list[StepEvent] = []
        self._lock = threading.Lock()

    def add(self, event: Event) -> None:
        """Keep what is a step; a run that is resumed earlier forgets what came after."""
        if isinstance(event, StepEvent):
            with self._lock:
                while self._steps and self._steps[-1].step >= event.step:
                    self._steps.pop()
                self._steps.append(event)

    @property
    def last(self) -> StepEvent | None:
        with self._lock:
            return self._steps[-1] if self._steps else None

    def curves(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Steps, log10 of the loss, PSNR in dB: float64 of one length, thinned, finite."""
        with self._lock:
            events = thinned(self._steps, MOST_POINTS)
        good = [e for e in events if math.isfinite(e.psnr) and math.isfinite(e.loss)]
        rows = [(e.step, math.log10(max(e.loss, 1e-12)), e.psnr) for e in good]
        table = np.array(rows, dtype=np.float64).reshape(-1, 3)
        return table[:, 0].copy(), table[:, 1].copy(), table[:, 2].copy()


def thinned(items: Sequence[StepEvent], most: int) -> list[StepEvent]:
    """At most `most` of them, evenly chosen, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    places = np.linspace(0, len(items) - 1, most).round().astype(int)
    return [items[place] for place in places]
