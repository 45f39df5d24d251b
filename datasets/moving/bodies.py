"""What the built-in scenes that move are made of: parts of `object_model` and a bending figure.

Shapes are moved rigidly by their pose (`placed`), made smaller (`scaled`), or deformed by a
distance function of their own for each time. A bend shifts every height of the figure sideways, a
stretch scales it along z and across so that its volume stays; the distance to the straight figure
over the steepest slope of that map is a lower bound of the distance, and its zero is exact. Colours
stand in the straight figure, so that they move with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lumigraph.datasets import object_model
from lumigraph.datasets.distances import (
    Array,
    ellipsoid,
    mix,
    profile,
    shifted,
    smooth_step,
    smooth_union,
    soft_noise,
    sphere,
    stripes,
    tapered_capsule,
)
from lumigraph.datasets.sphere_tracing import Part, rotated

FIGURE_FOOT, FIGURE_TOP = -0.55, 0.58
"""Lowest and highest point of the figure when it stands straight."""


def toy(name: str) -> Part:
    """A part of the object scene by its name, e.g. "duck"."""
    return next(part for part in object_model.model() if part.name == name)


def scaled(part: Part, factor: float) -> Part:
    """A part made smaller or larger about its own origin."""
    size = np.float32(factor)
    (x, y, z), (last_x, last_y, last_z) = part.box
    low, high = (
        (factor * x, factor * y, factor * z),
        (factor * last_x, factor * last_y, factor * last_z),
    )
    return replace(
        part,
        distance=lambda points: part.distance(points / size) * size,
        albedo=lambda points: part.albedo(points / size),
        box=(low, high),
    )


def turn(axis: Sequence[float], degrees: float) -> Array:
    """Rotation (3, 3) about a unit axis."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]], np.float64)
    angle = math.radians(degrees)
    matrix = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * (cross @ cross)
    return matrix.astype(np.float32)


def placed(part: Part, rotation: Array, offset: Sequence[float]) -> Part:
    """A part with another pose."""
    x, y, z = offset
    return replace(part, rotation=rotation, offset=(float(x), float(y), float(z)))


def moved(part: Part, rotation: Array, offset: Sequence[float]) -> Part:
    """A part moved from where it is: turned about the world's origin, then shifted."""
    place = rotated(rotation, np.asarray(part.offset, np.float32)[:, None])[:, 0]
    return placed(part, rotation @ part.rotation, (place + np.asarray(offset, np.float32)).tolist())


@dataclass(frozen=True)
class Pose:
    """How the figure is bent at one time."""

    lean: tuple[float, float]
    """How far the top is shifted along x and y; the foot stays."""
    stretch: float
    """Height over the height at rest; the width shrinks so that the volume stays."""
    lift: float
    """Angle of the arms above the horizontal in degrees."""


def figure(pose: Pose) -> Part:
    """A figure with a head and two arms that leans, stretches and waves."""
    height = FIGURE_TOP - FIGURE_FOOT
    lean = np.asarray(pose.lean, np.float32)
    along, across = np.float32(pose.stretch), np.float32(pose.stretch**-0.5)
    # The shift grows with the square of the height, so its slope is twice the lean at the top.
    slope = 2 * float(np.linalg.norm(lean)) / height
    shear = 0.5 * (slope + math.sqrt(slope * slope + 4))
    steepest = shear * max(1 / float(along), 1 / float(across))

    def straight(points: Array) -> Array:
        z = points[2] / along
        share = np.clip((z - np.float32(FIGURE_FOOT)) / np.float32(height), 0, 1)
        bend = share * share
        x, y = points[0] - lean[0] * bend, points[1] - lean[1] * bend
        return np.stack([x / across, y / across, z])

    def distance(points: Array) -> Array:
        return _figure_distance(straight(points), pose.lift) / np.float32(steepest)

    def albedo(points: Array) -> Array:
        return _figure_albedo(straight(points))

    reach = 0.46 * float(across)
    low = [-reach + min(side, 0.0) for side in pose.lean]
    high = [reach + max(side, 0.0) for side in pose.lean]
    box = (
        (low[0], low[1], (FIGURE_FOOT - 0.02) * pose.stretch),
        (high[0], high[1], (FIGURE_TOP + 0.02) * pose.stretch),
    )
    return Part("figure", distance, albedo, box, (0, 0, 0), np.eye(3, dtype=np.float32), 0.2)


def _figure_distance(points: Array, lift: float) -> Array:
    """Distance to the straight figure; its arms lie in the plane of y and z."""
    flat = profile(points)
    foot = ellipsoid(shifted(flat, 0, -0.44), (0.24, 0.11))
    body = tapered_capsule(shifted(flat, 0, -0.37), 0.52, 0.17, 0.11)
    head = sphere(shifted(flat, 0, 0.40), 0.18)
    trunk = smooth_union(smooth_union(foot, body, 0.10), head, 0.05)
    mirrored = shifted(np.stack([points[0], np.abs(points[1]), points[2]]), 0, 0.10, 0.12)
    angle = math.radians(lift)
    outward = np.float32(math.cos(angle)) * mirrored[1] + np.float32(math.sin(angle)) * mirrored[2]
    upward = np.float32(math.cos(angle)) * mirrored[2] - np.float32(math.sin(angle)) * mirrored[1]
    arm = tapered_capsule(np.stack([mirrored[0], upward, outward]), 0.27, 0.055, 0.07)
    return smooth_union(trunk, arm, 0.04)


def _figure_albedo(points: Array) -> Array:
    """A striped coat, and a pale head with two dark eyes on the side of +x."""
    swirl = soft_noise(4.0 * points)
    coat = mix((0.10, 0.30, 0.16), (0.85, 0.72, 0.25), stripes(4.2 * points[2] + 0.2 * swirl, 0.08))
    skin = mix((0.86, 0.56, 0.42), (0.90, 0.68, 0.50), 0.5 + 0.5 * soft_noise(7.0 * points))
    dressed = mix(coat, skin, smooth_step(points[2], 0.20, 0.25))
    mirrored = np.stack([points[0], np.abs(points[1]), points[2]])
    eye = sphere(shifted(mirrored, 0.155, 0.065, 0.44), 0.045)
    return mix((0.03, 0.03, 0.04), dressed, smooth_step(eye, -0.006, 0.012))
