"""Signed distances of simple shapes and smooth procedural patterns on (3, N) points, in numpy.

Distances are negative inside; most functions also take flat shapes, as points (2, N). Each is
exact or a lower bound of the true one, which is what sphere tracing needs. Patterns give values in
[0, 1] and change over a finite width, so that they can be sampled without flicker.
Letters: x, y, z are the coordinates; lengths are scene units.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]


def sphere(points: Array, radius: float) -> Array:
    """Ball around the origin; a disc for points (2, N)."""
    return length(points) - np.float32(radius)


def torus(points: Array, radius: float, thickness: float) -> Array:
    """Ring around the z axis: ``radius`` to the middle of a tube of radius ``thickness``."""
    across, along = profile(points)
    ring = across - np.float32(radius)
    return np.sqrt(ring * ring + along * along) - np.float32(thickness)


def rounded_box(points: Array, half_sizes: tuple[float, ...], rounding: float) -> Array:
    """Box with rounded edges; a rounded rectangle for points (2, N)."""
    inner = np.asarray(half_sizes, np.float32)[:, None] - np.float32(rounding)
    outside = np.abs(points) - inner
    farthest = outside[0]
    for axis in outside[1:]:
        farthest = np.maximum(farthest, axis)
    inside = np.minimum(farthest, 0) - np.float32(rounding)
    return length(np.maximum(outside, 0, out=outside)) + inside


def tapered_capsule(
    points: Array, height: float, lower_radius: float, upper_radius: float
) -> Array:
    """Rounded column on the last axis from 0 to ``height`` whose radius changes evenly."""
    along = np.clip(points[-1] * np.float32(1 / height), 0, 1)
    rest = points[-1] - np.float32(height) * along
    squares = rest * rest
    for axis in points[:-1]:
        squares += axis * axis
    slope = (upper_radius - lower_radius) / height
    radius = np.float32(lower_radius) + np.float32(upper_radius - lower_radius) * along
    # The radius changes along the way, so the plain difference overstates the distance.
    return (np.sqrt(squares) - radius) * np.float32(1 / np.sqrt(1 + slope * slope))


def ellipsoid(points: Array, half_axes: tuple[float, ...]) -> Array:
    """Lower bound of the distance to an ellipsoid: its convex gauge over the gauge's slope."""
    gauge_square = np.zeros(points.shape[1:], np.float32)
    slope_square = np.full(points.shape[1:], 1e-12, np.float32)
    for axis, half in zip(points, half_axes, strict=True):
        weight = np.float32(1 / half**2)
        term = axis * axis
        term *= weight
        gauge_square += term
        term *= weight
        slope_square += term
    distance = (gauge_square - np.sqrt(gauge_square)) / np.sqrt(slope_square)
    return np.asarray(distance, np.float32)


def profile(points: Array) -> Array:
    """Distance from the z axis, and z: (2, N), in which solids of revolution are flat shapes."""
    # np.hypot guards against overflow, at several times the cost.
    return np.stack([np.sqrt(points[0] * points[0] + points[1] * points[1]), points[2]])


def smooth_union(first: Array, second: Array, width: float) -> Array:
    """Union whose seam is filled with a fillet of about ``width`` (polynomial, still a bound)."""
    overlap = np.maximum(np.float32(width) - np.abs(first - second), 0)
    return np.minimum(first, second) - overlap * overlap * np.float32(0.25 / width)


def shifted(points: Array, *center: float) -> Array:
    """Points (3, N) or (2, N) relative to a centre."""
    return points - np.asarray(center, np.float32)[:, None]


def length(points: Array) -> Array:
    """Euclidean length (N,)."""
    squares = points[0] * points[0]
    for axis in points[1:]:
        squares += axis * axis
    return np.sqrt(squares, out=squares)


def smooth_step(value: Array, low: float, high: float) -> Array:
    """0 below ``low``, 1 above ``high``, a cubic without kinks between."""
    share = np.clip((value - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    return share * share * (3 - 2 * share)


def stripes(phase: Array, softness: float) -> Array:
    """Bands of period 1 in ``phase``, half 0 and half 1; ``softness`` is the edge in periods."""
    # A sine has slope 2 pi at its zeros, where the edge is.
    wave = np.sin(np.float32(2 * np.pi) * phase)
    return smooth_step(wave, -np.pi * softness, np.pi * softness)


def mix(first: ArrayLike, second: ArrayLike, share: Array) -> Array:
    """Colours between ``first`` and ``second``, each (3,) or (3, N), by ``share`` (N,)."""
    low = np.asarray(first, np.float32).reshape(3, -1)
    high = np.asarray(second, np.float32).reshape(3, -1)
    return low + (high - low) * share


def soft_noise(points: Array) -> Array:
    """Smooth, band-limited noise in [-1, 1] with features of about one unit.

    A sum of sines along directions without a common period: cheap, seedless, the same everywhere.
    """
    x, y, z = points
    total = np.sin(2.1 * x + 1.3 * y + 0.4 + 1.2 * np.sin(1.7 * z - 0.9 * x))
    total += np.sin(2.3 * y - 1.1 * z + 2.2 + 1.1 * np.sin(1.9 * x + 0.7 * y))
    total += np.sin(1.9 * z + 1.7 * x - 1.3 + 1.3 * np.sin(2.2 * y - 0.6 * z))
    return np.asarray(total / 3, np.float32)
