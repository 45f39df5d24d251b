"""How the steps or the time of a run are shared among the moments of a scene. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from lumigraph.core.errors import ConfigError

from .config_neus import NeusConfig

TOLERANCE = 1e-9
"""Fractions of a run this close are the same; a step is more of any run."""


@dataclass(frozen=True)
class SequencePlan:
    """Steps of each moment, in a run of the length that they add up to.

    >>> config = NeusConfig(first_steps=20, later_steps=5, motion_steps=2)
    >>> plan = SequencePlan.of(config, 3)
    >>> plan.total, plan.end(0, 0.0), plan.end(1, 0.5)
    (30, 0.6666666666666666, 0.75)
    """

    steps: tuple[int, ...]

    @classmethod
    def of(cls, config: NeusConfig, moments: int) -> SequencePlan:
        """The plan for a number of moments.

        Raises:
            ConfigError: `steps` of the run leave a moment without one.
        """
        keys = [key_moment(config, k) == k for k in range(moments)]
        plan = cls(tuple(config.first_steps if key else config.later_steps for key in keys))
        least = -(-plan.total // min(plan.steps))
        if config.steps is not None and config.steps < least:
            raise ConfigError(
                f"{config.steps} steps are too few for {moments} moments; give at least {least}, "
                "or --set sequence=false for one surface"
            )
        return plan

    @property
    def total(self) -> int:
        return sum(self.steps)

    def end(self, index: int, begin: float) -> float:
        """At which fraction of the run a moment ends that began at the fraction `begin`: what was
        left then is shared among it and those after it."""
        return begin + (1 - begin) * self.steps[index] / sum(self.steps[index:])


def key_moment(config: NeusConfig, index: int) -> int:
    """The last key moment up to a moment."""
    return 0 if config.keyframe_every is None else index - index % config.keyframe_every
