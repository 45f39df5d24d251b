"""Time of the schedule. In a run of so many steps it is the step; in a run of so many seconds the
fraction of them times the preset's `default_steps`, so that everything comes in its turn however
fast the machine is."""

from __future__ import annotations

from dataclasses import dataclass

from lumigraph.training.config_gaussians import SplatConfig
from lumigraph.training.method import Progress


@dataclass(frozen=True)
class Clock:
    """Schedule time around one step.

    Example:
        >>> Clock(before=99, after=100, total=3000).passes(100)
        True
    """

    before: float
    after: float
    total: float
    """At the end of the run."""

    def passes(self, every: float) -> bool:
        """Whether a multiple of `every` is reached in this step."""
        return self.after // every > self.before // every


class Schedule:
    """Clocks of a run.

    Args:
        config: settings of the run.
    """

    def __init__(self, config: SplatConfig) -> None:
        self._config = config
        self._last: float | None = None

    def clock(self, progress: Progress) -> Clock:
        """To be asked once a step."""
        planned = self._config.planned_steps
        if planned is not None:
            return Clock(progress.step, progress.step + 1, planned)
        # how long the step at hand will take is not known: it counts in the next one
        now = progress.fraction * self._config.default_steps
        before, self._last = now if self._last is None else self._last, now
        return Clock(before, now, self._config.default_steps)


def refines(config: SplatConfig, clock: Clock) -> bool:
    """Whether the number of Gaussians may still change in this run."""
    return clock.before < config.refine_stop_step(round(clock.total))


def refines_now(config: SplatConfig, clock: Clock) -> bool:
    """Whether the number of Gaussians changes after this step."""
    due = clock.after >= config.refine_start and clock.passes(config.refine_every)
    return due and refines(config, clock)


def harmonics_degree(config: SplatConfig, clock: Clock) -> int:
    """Degree of the harmonics that is trained."""
    if not config.harmonics_every:
        return config.harmonics_degree
    return min(config.harmonics_degree, int(clock.before // config.harmonics_every))


def resolution_scale(config: SplatConfig, clock: Clock) -> float:
    """Factor on width and height of the views."""
    doublings = int(clock.before // config.resolution_doubles_every)
    return float(min(1.0, config.resolution_start * 2.0 ** min(doublings, 64)))
