"""The model of the scene ``builtin:object``: toys on a round wooden stand, and how they are lit.

A pawn, a ring, a block with a ball on it, a candy column and a bath duck. Lengths are scene units;
z is up; everything stays within 1.2 of the origin along each axis. Colours are linear reflectances.
Textures are wider than two pixels of a 200-pixel picture and highlights are mild, so that a small
model can learn the scene in a minute.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lumigraph.datasets.distances import (
    Array,
    ellipsoid,
    mix,
    profile,
    rounded_box,
    shifted,
    smooth_step,
    smooth_union,
    soft_noise,
    sphere,
    stripes,
    tapered_capsule,
    torus,
)
from lumigraph.datasets.sphere_tracing import (
    Part,
    ambient_occlusion,
    local_normals,
    rotated,
    soft_shadow,
)

FLOOR = -0.42
"""Height of the stand's top."""
SUN_DIRECTION = np.array([0.45, -0.55, 0.75]) / np.linalg.norm([0.45, -0.55, 0.75])
SUN_COLOR = np.array([[0.86], [0.82], [0.74]], np.float32)
SKY_COLOR = np.array([[0.50], [0.54], [0.60]], np.float32)
GROUND_COLOR = np.array([[0.30], [0.27], [0.24]], np.float32)
SHADOW_SOFTNESS = 0.22
HIGHLIGHT_SHARPNESS = 24.0


def model() -> tuple[Part, ...]:
    """All parts of the scene."""
    return (
        _pawn(),
        _ring(),
        _block(),
        _ball(),
        _candy(),
        _duck(),
        _stand(),
    )


def shade(
    parts: Sequence[Part], index: int, points: Array, to_camera: Array
) -> tuple[Array, Array]:
    """Light that leaves surface points of one part, less the reflectance.

    Args:
        parts: the whole model, which casts shadows.
        index: the part that the points lie on.
        points: world positions (3, N).
        to_camera: unit directions (3, N) from the points to the camera.

    Returns:
        Irradiance (3, N) to be multiplied with the albedo, and highlight (N,) to be added.
    """
    part = parts[index]
    # A convex shape turns away from the sun where it would shade itself.
    casters = [caster for caster in parts if not (caster is part and part.convex)]
    normals = rotated(part.rotation, local_normals(part, part.to_local(points)))
    # Start above the surface, or every point shades itself.
    lifted = points + np.float32(0.012) * normals
    sun = SUN_DIRECTION.astype(np.float32)[:, None]
    facing = np.maximum((sun * normals).sum(axis=0), 0)
    sunlit = np.zeros_like(facing)
    lit = np.flatnonzero(facing > 0)
    sunlit[lit] = facing[lit] * soft_shadow(casters, lifted[:, lit], SUN_DIRECTION, SHADOW_SOFTNESS)
    openness = ambient_occlusion(parts, points, normals)
    sky = mix(GROUND_COLOR, SKY_COLOR, 0.5 + 0.5 * normals[2]) * openness
    half = to_camera + sun
    half = half / np.linalg.norm(half, axis=0)
    gloss = np.maximum((half * normals).sum(axis=0), 0) ** HIGHLIGHT_SHARPNESS
    highlight = part.specular * gloss * np.minimum(4 * sunlit, 1)
    return (SUN_COLOR * sunlit + sky).astype(np.float32), highlight.astype(np.float32)


def _turned(z_degrees: float, x_degrees: float = 0.0) -> Array:
    """Rotation about z after one about x."""
    z, x = math.radians(z_degrees), math.radians(x_degrees)
    about_z = [[math.cos(z), -math.sin(z), 0], [math.sin(z), math.cos(z), 0], [0, 0, 1]]
    about_x = [[1, 0, 0], [0, math.cos(x), -math.sin(x)], [0, math.sin(x), math.cos(x)]]
    return np.asarray(np.array(about_z) @ np.array(about_x), np.float32)


def _wood(points: Array, light: Sequence[float], dark: Sequence[float], rings: float) -> Array:
    """Year rings around an axis beside the shape, bent by slow noise, with a slow stain."""
    x, y, z = points
    bend = soft_noise(np.stack([2.0 * x, 2.0 * y, 1.2 * z]))
    radius = np.hypot(x - 0.5, y + 0.9 + 0.15 * z)
    grain = 0.5 + 0.5 * np.sin(2 * np.pi * (rings * radius + 0.55 * bend))
    stain = 0.5 + 0.5 * soft_noise(3.1 * points + 1.0)
    return mix(light, dark, np.asarray(0.75 * grain**1.5 + 0.25 * stain, np.float32))


def _stand() -> Part:
    def distance(points: Array) -> Array:
        return rounded_box(profile(points), (1.16, 0.07), 0.04)

    def albedo(points: Array) -> Array:
        return _wood(points, (0.66, 0.45, 0.26), (0.42, 0.24, 0.11), 5.5)

    box = ((-1.17, -1.17, -0.08), (1.17, 1.17, 0.08))
    return Part("stand", distance, albedo, box, (0, 0, FLOOR - 0.07), _turned(0), 0.08, convex=True)


def _pawn() -> Part:
    def distance(points: Array) -> Array:
        flat = profile(points)
        foot = rounded_box(shifted(flat, 0, 0.06), (0.30, 0.06), 0.05)
        swell = ellipsoid(shifted(flat, 0, 0.18), (0.24, 0.12))
        body = tapered_capsule(shifted(flat, 0, 0.16), 0.58, 0.17, 0.085)
        collar = ellipsoid(shifted(flat, 0, 0.76), (0.19, 0.055))
        head = sphere(shifted(flat, 0, 0.97), 0.19)
        column = smooth_union(smooth_union(foot, swell, 0.05), body, 0.14)
        return smooth_union(smooth_union(column, collar, 0.05), head, 0.04)

    def albedo(points: Array) -> Array:
        return _wood(points, (0.36, 0.17, 0.08), (0.15, 0.055, 0.025), 7.0)

    box = ((-0.32, -0.32, -0.03), (0.32, 0.32, 1.18))
    return Part("pawn", distance, albedo, box, (-0.02, 0.1, FLOOR), _turned(20), 0.25)


def _ring() -> Part:
    def distance(points: Array) -> Array:
        return torus(points, 0.30, 0.125)

    def albedo(points: Array) -> Array:
        turns = np.arctan2(points[1], points[0]) / np.float32(2 * np.pi)
        tilt = np.arctan2(points[2], profile(points)[0] - np.float32(0.30))
        phase = 7 * turns + tilt / np.float32(2 * np.pi)
        return mix((0.02, 0.33, 0.36), (0.86, 0.80, 0.62), stripes(phase, 0.06))

    box = ((-0.43, -0.43, -0.13), (0.43, 0.43, 0.13))
    # Leaning back a little, with its lowest point on the stand.
    lean = 72.0
    height = 0.125 + 0.30 * math.sin(math.radians(lean))
    place = (-0.66, 0.30, FLOOR + height)
    return Part("ring", distance, albedo, box, place, _turned(38, lean), 0.25)


def _block() -> Part:
    def distance(points: Array) -> Array:
        return rounded_box(points, (0.27, 0.27, 0.27), 0.045)

    def albedo(points: Array) -> Array:
        # Three fields a side; the product of waves changes sign over every line of the board. The
        # faces lie well inside the outer fields: on a line they would show a blend.
        x, y, z = points * np.float32(np.pi / 0.216)
        wave = np.cos(x) * np.cos(y) * np.cos(z)
        return mix((0.80, 0.76, 0.68), (0.62, 0.07, 0.05), smooth_step(wave, -0.12, 0.12))

    box = ((-0.28,) * 3, (0.28,) * 3)
    place = (0.58, 0.38, FLOOR + 0.27)
    return Part("block", distance, albedo, box, place, _turned(24), 0.12, convex=True)


def _ball() -> Part:
    def distance(points: Array) -> Array:
        return sphere(points, 0.215)

    def albedo(points: Array) -> Array:
        swirl = soft_noise(5.0 * points)
        phase = points[2] * np.float32(4.6) + 0.35 * swirl
        bands = mix((0.05, 0.13, 0.42), (0.30, 0.55, 0.80), stripes(phase, 0.12))
        cream = smooth_step(np.sin(np.pi * phase + 0.6), 0.86, 0.99)
        return mix(bands, np.array([0.88, 0.84, 0.74], np.float32), cream)

    box = ((-0.22,) * 3, (0.22,) * 3)
    place = (0.58, 0.38, FLOOR + 0.54 + 0.213)
    return Part("ball", distance, albedo, box, place, _turned(60, 25), 0.3, convex=True)


def _candy() -> Part:
    def distance(points: Array) -> Array:
        return tapered_capsule(points, 0.42, 0.15, 0.15)

    def albedo(points: Array) -> Array:
        turns = np.arctan2(points[1], points[0]) / np.float32(2 * np.pi)
        phase = 2 * turns + points[2] * np.float32(3.4)
        return mix((0.86, 0.82, 0.78), (0.70, 0.05, 0.22), stripes(phase, 0.05))

    box = ((-0.16, -0.16, -0.16), (0.16, 0.16, 0.58))
    return Part(
        "candy", distance, albedo, box, (-0.62, -0.42, FLOOR + 0.14), _turned(0), 0.25, convex=True
    )


def _duck() -> Part:
    def distance(points: Array) -> Array:
        mirrored = np.stack([points[0], np.abs(points[1]), points[2]])
        body = ellipsoid(points, (0.36, 0.27, 0.22))
        tail = ellipsoid(shifted(points, -0.33, 0, 0.12), (0.13, 0.12, 0.09))
        wing = ellipsoid(shifted(mirrored, -0.05, 0.24, 0.05), (0.20, 0.06, 0.12))
        head = sphere(shifted(points, 0.20, 0, 0.32), 0.195)
        beak = ellipsoid(shifted(points, 0.41, 0, 0.28), (0.11, 0.095, 0.04))
        trunk = smooth_union(smooth_union(body, tail, 0.14), wing, 0.04)
        return smooth_union(smooth_union(trunk, head, 0.12), beak, 0.025)

    def albedo(points: Array) -> Array:
        mirrored = np.stack([points[0], np.abs(points[1]), points[2]])
        beak = ellipsoid(shifted(points, 0.41, 0, 0.28), (0.11, 0.095, 0.04))
        eye = sphere(shifted(mirrored, 0.345, 0.105, 0.385), 0.042)
        feathers = mix((0.90, 0.60, 0.04), (0.92, 0.70, 0.12), 0.5 + 0.5 * soft_noise(6 * points))
        beaked = mix((0.85, 0.23, 0.02), feathers, smooth_step(beak, 0.004, 0.022))
        return mix((0.02, 0.02, 0.025), beaked, smooth_step(eye, -0.006, 0.010))

    box = ((-0.47, -0.33, -0.24), (0.53, 0.33, 0.53))
    place = (0.36, -0.50, FLOOR + 0.19)
    return Part("duck", distance, albedo, box, place, _turned(-50), 0.25)
