"""What the built-in scenes that move hold at a time.

`moving`: a duck and a block circle around a figure that leans, stretches and waves. `moving-fast`:
the same, and the whole group moves as one rigid body, a tenth of the side of the bounds and 15
degrees from one moment to the next. `dynamic`: on a stand with a ring, which stay, a figure waves,
a ball bounces, a block is knocked away between two moments, and a duck is there for some of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lumigraph.datasets.moving.bodies import (
    Pose,
    figure,
    moved,
    placed,
    scaled,
    toy,
    turn,
)
from lumigraph.datasets.object_model import FLOOR
from lumigraph.datasets.sphere_tracing import Part

GROUP_MOMENTS = 20
GROUP_TURN = 15.0
"""Degrees about z that the fast group turns by from one moment to the next."""
GROUP_CIRCLE = 0.42
"""Radius of the circle on which the fast group travels."""
GROUP_TRAVEL = 34.62
"""Degrees along that circle from one moment to the next: a chord of 0.25, a tenth of the side."""

STAGE_MOMENTS = 24
KNOCK = 11.5
"""Where between the moments of `dynamic` the block is knocked away."""
DUCK_COMES, DUCK_GOES = 6.5, 16.5
"""Between which moments of `dynamic` the duck is there."""


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


def stage(time: float) -> tuple[Part, ...]:
    """What stays, what moves smoothly and abruptly, and what comes and goes, at a time."""
    step = time * (STAGE_MOMENTS - 1)
    wave = 2 * math.pi * time
    pose = Pose(
        lean=(0.14 * math.sin(1.5 * wave), 0.10 * math.sin(wave + 0.6)),
        stretch=1 + 0.08 * math.sin(2 * wave),
        lift=30 * math.sin(2.5 * wave),
    )
    standing = moved(
        figure(pose), turn((0, 0, 1), -70), (0.0, 0.12, _on_floor(0.55 * pose.stretch))
    )
    leap = abs(math.sin(1.25 * wave))
    ball = placed(
        scaled(toy("ball"), 0.7),
        turn((0, 1, 0), 120 * time),
        (0.02, -0.84, _on_floor(0.15 + 0.75 * leap)),
    )
    return (
        standing,
        *_coming_and_going(step),
        ball,
        _knocked_block(step),
        toy("ring"),
        toy("stand"),
    )


def _on_floor(height: float) -> float:
    """World height of what stands so high above the stand."""
    return FLOOR + height


def _knocked_block(step: float) -> Part:
    """Still, but for one blow between two moments."""
    block = scaled(toy("block"), 0.85)
    if step < KNOCK:
        return placed(block, turn((0, 0, 1), 24), (0.60, 0.40, _on_floor(0.23)))
    return placed(block, turn((0, 0, 1), 80), (0.62, -0.42, _on_floor(0.23)))


def _coming_and_going(step: float) -> tuple[Part, ...]:
    """The duck, which drives a little while it is there."""
    if not DUCK_COMES <= step <= DUCK_GOES:
        return ()
    way = (step - DUCK_COMES) / (DUCK_GOES - DUCK_COMES)
    place = (-0.62 + 0.22 * way, -0.56 + 0.08 * way, _on_floor(0.14))
    return (placed(scaled(toy("duck"), 0.72), turn((0, 0, 1), -30 + 60 * way), place),)


@dataclass(frozen=True)
class MovingModel:
    """One scene that moves."""

    parts: Callable[[float], tuple[Part, ...]]
    """Its parts at a time in [0, 1]."""
    moments: int
    """Times at which pictures are taken, evenly from 0 to 1."""
    half_bounds: float
    """Half the side of the cube about the origin that holds it at all times."""
    heights: tuple[float, float] = (-0.2, 0.8)
    """Of the lowest and the highest training camera, over their distance from the origin."""
    test_cameras: tuple[tuple[float, float], ...] = ((135.0, 0.30), (285.0, 0.35))
    """Direction about z in degrees and height of each, between training cameras."""


MODELS = {
    "moving": MovingModel(group, GROUP_MOMENTS, 0.95),
    "moving-fast": MovingModel(fast_group, GROUP_MOMENTS, 1.25),
    "dynamic": MovingModel(
        stage,
        STAGE_MOMENTS,
        1.25,
        heights=(0.12, 0.85),
        test_cameras=((165.0, 0.45), (300.0, 0.45)),
    ),
}
"""The scenes by name."""
