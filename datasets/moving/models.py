"""What the built-in scenes that move hold at a time.

`moving`: a duck and a block circle around a figure that leans, stretches and waves. `moving-fast`:
the same, and the whole group moves as one rigid body, a tenth of the side of the bounds and 15
degrees from one moment to the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lumigraph.datasets.moving.bodies import Pose, figure, moved, placed, scaled, toy, turn
from lumigraph.datasets.sphere_tracing import Part

GROUP_MOMENTS = 20
GROUP_TURN = 15.0
"""Degrees about z that the fast group turns by from one moment to the next."""
GROUP_CIRCLE = 0.42
"""Radius of the circle on which the fast group travels."""
GROUP_TRAVEL = 34.62
"""Degrees along that circle from one moment to the next: a chord of 0.25, a tenth of the side."""


def group(time: float) -> tuple[Part, ...]:
    """Two rigid movers and a deforming body at a time in [0, 1]."""
    wave = 2 * math.pi * time
    pose = Pose(
        lean=(0.18 * math.sin(1.25 * wave), 0.12 * math.sin(1.75 * wave + 0.6)),
        stretch=1 + 0.10 * math.sin(1.5 * wave + 0.9),
        lift=25 * math.sin(2 * wave),
    )
    around = 20 + 130 * time
    place = math.radians(around)
    duck = placed(
        scaled(toy("duck"), 0.6),
        turn((0, 0, 1), around + 90) @ turn((1, 0, 0), 12 * math.sin(2 * wave)),
        (0.46 * math.cos(place), 0.46 * math.sin(place), -0.30 + 0.05 * math.sin(1.5 * wave)),
    )
    place = math.radians(215 - 110 * time)
    block = placed(
        scaled(toy("block"), 0.5),
        turn((0.6, 0.0, 0.8), 30 + 140 * time),
        (0.52 * math.cos(place), 0.52 * math.sin(place), 0.24 + 0.12 * time),
    )
    return figure(pose), duck, block


def fast_group(time: float) -> tuple[Part, ...]:
    """The same, carried around as a whole."""
    step = time * (GROUP_MOMENTS - 1)
    place = math.radians(GROUP_TRAVEL * step)
    offset = (GROUP_CIRCLE * math.cos(place), GROUP_CIRCLE * math.sin(place), 0.0)
    return tuple(moved(part, turn((0, 0, 1), GROUP_TURN * step), offset) for part in group(time))


@dataclass(frozen=True)
class MovingModel:
    """One scene that moves."""

    parts: Callable[[float], tuple[Part, ...]]
    """Its parts at a time in [0, 1]."""
    moments: int
    """Times at which pictures are taken, evenly from 0 to 1."""
    half_bounds: float
    """Half the side of the cube about the origin that holds it at all times."""


MODELS = {
    "moving": MovingModel(group, GROUP_MOMENTS, 0.95),
    "moving-fast": MovingModel(fast_group, GROUP_MOMENTS, 1.25),
}
"""The scenes by name."""
