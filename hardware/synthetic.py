"""Traces without a trained scene: samples of the four applications on scenes given by formulas, and
patterns whose cost is known in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lumigraph.core.errors import ConfigError

from .trace import Trace, choose_tiles, pixels_of_tiles
from .workloads import workload

Points = NDArray[np.float32]
MARCH_STEP = math.sqrt(3) / 1024
"""Of the NeRF renderer, in sides of the cube."""
TRACE_ROUNDS = 64
HIT_DISTANCE = 2e-4
FOG_DENSITY = 18.0
"""Collisions for each side of the cube at the fog ball's core."""
SCENES = {"nerf": "two boxes", "nsdf": "sphere on a torus", "nvr": "fog ball", "gia": "image"}


def synthetic_trace(
    application: str,
    encoding: str = "hash",
    *,
    width: int = 1920,
    height: int = 1080,
    tiles: int = 32,
    seed: int = 0,
) -> Trace:
    """Samples of an application on its scene, from a camera that sees the whole cube.

    Args:
        encoding: hash, dense or lowres.
        tiles: of 16 x 16 pixels, spread over the picture.

    Raises:
        ConfigError: unknown application or encoding, or no tiles.

    >>> trace = synthetic_trace("gia", tiles=2)
    >>> len(trace.positions), round(trace.samples_of_frame().value)
    (512, 2073600)
    """
    work = workload(application, encoding)
    if tiles < 1 or min(width, height) < 1:
        raise ConfigError(f"tiles = {tiles}, {width} x {height}: all must be 1 or more")
    chosen = choose_tiles(width, height, tiles, seed=seed)
    pixels = pixels_of_tiles(chosen, width, height)
    rng = np.random.default_rng(seed + 1)
    if application == "gia":
        y, x = np.divmod(pixels, width)
        points = np.stack([(x + 0.5) / width, (y + 0.5) / height], 1).astype(np.float32)
        rays, rounds = pixels, np.zeros(len(pixels), np.int64)
    else:
        origin, directions = _camera_rays(pixels, width, height)
        follow: dict[str, Callable[..., tuple[Points, NDArray[np.int64], NDArray[np.int64]]]]
        follow = {"nerf": _march_boxes, "nsdf": _trace_sphere, "nvr": _track_fog}
        points, local, rounds = follow[application](origin, directions, rng)
        rays = pixels[local]
    return Trace(
        workload=work,
        scene=f"synthetic: {SCENES[application]}",
        width=width,
        height=height,
        positions=points,
        rays=rays.astype(np.uint32),
        rounds=rounds.astype(np.uint16),
        tiles=chosen if len(chosen) < len(_all_tiles(width, height)) else np.array([], np.int64),
        facts={"generated": True, "seed": seed},
    )


def pattern(
    kind: str, count: int, *, dimensions: int = 3, seed: int = 0, stride: int = 1, cells: int = 128
) -> Points:
    """Positions (count, D) with known cost.

    Args:
        kind: uniform (independent in the cube), walk (a random walk of small steps), repeat (one
            point), stride (cells of a grid with `cells` cells a side, every `stride`-th along x).

    Raises:
        ConfigError: an unknown kind.
    """
    rng = np.random.default_rng(seed)
    if kind == "uniform":
        return rng.random((count, dimensions), dtype=np.float32)
    if kind == "walk":
        steps = rng.normal(scale=2e-3, size=(count, dimensions))
        folded = np.abs((np.cumsum(steps, 0) + 0.5) % 2 - 1)  # reflected at the walls
        return folded.astype(np.float32)
    if kind == "repeat":
        return np.tile(rng.random((1, dimensions), dtype=np.float32), (count, 1))
    if kind == "stride":
        points = np.full((count, dimensions), 0.5 / cells)
        points[:, 0] = (np.arange(count) * stride % cells + 0.5) / cells
        return points.astype(np.float32)
    raise ConfigError(f"pattern {kind!r}: use uniform, walk, repeat or stride")


def _all_tiles(width: int, height: int) -> NDArray[np.int64]:
    return choose_tiles(width, height, 1 << 40)


def _camera_rays(
    pixels: NDArray[np.int64], width: int, height: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Origin (3,) and unit directions (n, 3): the cube's centre fills the picture's height."""
    origin = np.array([0.5, 0.62, -1.1])
    y, x = np.divmod(pixels, width)
    right = (x + 0.5 - width / 2) / height * 0.45
    down = (y + 0.5 - height / 2) / height * 0.45
    forward = np.array([0.5, 0.5, 0.5]) - origin
    forward /= np.linalg.norm(forward)
    side = np.cross(forward, [0.0, 1.0, 0.0])
    side /= np.linalg.norm(side)
    below = np.cross(forward, side)
    directions = forward + right[:, None] * side + down[:, None] * below
    return origin, directions / np.linalg.norm(directions, axis=1, keepdims=True)


def _cube_span(
    origin: NDArray[np.float64],
    directions: NDArray[np.float64],
    low: NDArray[np.float64] | float = 0.0,
    high: NDArray[np.float64] | float = 1.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances at which rays enter and leave a box; enter >= leave for those that miss."""
    with np.errstate(divide="ignore"):
        inverse = 1 / directions
    a, b = (low - origin) * inverse, (high - origin) * inverse
    return np.maximum(np.minimum(a, b).max(1), 0.0), np.maximum(a, b).min(1)


Issued = tuple[Points, NDArray[np.int64], NDArray[np.int64]]


def _march_boxes(
    origin: NDArray[np.float64], directions: NDArray[np.float64], rng: np.random.Generator
) -> Issued:
    """Equal steps through the occupied neighbourhood of two boxes; a ray ends 60 steps inside."""
    del rng
    boxes = [([0.12, 0.15, 0.2], [0.5, 0.55, 0.62]), ([0.45, 0.3, 0.4], [0.88, 0.8, 0.85])]
    margin, most_inside = 0.02, 60
    spans = [
        (
            _cube_span(origin, directions, np.array(low) - margin, np.array(high) + margin),
            _cube_span(origin, directions, np.array(low), np.array(high)),
        )
        for low, high in boxes
    ]
    last = max(float(outer[1].max()) for outer, _ in spans)
    steps = np.arange(0, last, MARCH_STEP) + MARCH_STEP / 2
    points, rays, rounds = [], [], []
    for begin in range(0, len(directions), 4096):
        part = slice(begin, begin + 4096)
        near = np.zeros((len(directions[part]), len(steps)), bool)
        inside = near.copy()
        for (enter, leave), (enter_box, leave_box) in spans:
            near |= (steps > enter[part, None]) & (steps < leave[part, None])
            inside |= (steps > enter_box[part, None]) & (steps < leave_box[part, None])
        near &= np.cumsum(inside, 1) <= most_inside
        ray, step = np.nonzero(near)
        points.append(origin + directions[part][ray] * steps[step, None])
        rays.append(ray + begin)
        rounds.append(np.zeros(len(ray), np.int64))
    return _issued(points, rays, rounds)


def _trace_sphere(
    origin: NDArray[np.float64], directions: NDArray[np.float64], rng: np.random.Generator
) -> Issued:
    """Sphere tracing, a round a step; three more queries at a hit for its normal."""
    del rng
    enter, leave = _cube_span(origin, directions)
    alive = np.flatnonzero(enter < leave)
    distance = enter[alive] + 1e-6
    points, rays, rounds = [], [], []
    hits: list[NDArray[np.float64]] = []
    hit_rays: list[NDArray[np.int64]] = []
    for step in range(TRACE_ROUNDS):
        at = origin + directions[alive] * distance[:, None]
        points.append(at)
        rays.append(alive)
        rounds.append(np.full(len(alive), step))
        value = _distance(at)
        hit = value < HIT_DISTANCE
        hits.append(at[hit])
        hit_rays.append(alive[hit])
        distance = distance + value
        on = ~hit & (distance < leave[alive])
        alive, distance = alive[on], distance[on]
        if not len(alive):
            break
    at, hit_of = np.concatenate(hits), np.concatenate(hit_rays)
    for axis in range(3):
        points.append(at + 5e-4 * np.eye(3)[axis])
        rays.append(hit_of)
        rounds.append(np.full(len(at), TRACE_ROUNDS))
    return _issued(points, rays, rounds)


def _distance(at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of a sphere above a torus."""
    x, y, z = (at - 0.5).T
    sphere = np.sqrt(x**2 + (y - 0.08) ** 2 + z**2) - 0.2
    ring = np.sqrt(x**2 + z**2) - 0.3
    return np.minimum(sphere, np.sqrt(ring**2 + (y + 0.16) ** 2) - 0.09)


def _track_fog(
    origin: NDArray[np.float64], directions: NDArray[np.float64], rng: np.random.Generator
) -> Issued:
    """Delta tracking through a ball of fog inside its box: free flights against the largest
    density, absorbed or passed on at each."""
    enter, leave = _cube_span(origin, directions, 0.15, 0.85)
    alive = np.flatnonzero(enter < leave)
    distance = enter[alive]
    points, rays, rounds = [], [], []
    for step in range(TRACE_ROUNDS):
        distance = distance + rng.exponential(1 / FOG_DENSITY, len(alive))
        on = distance < leave[alive]
        alive, distance = alive[on], distance[on]
        if not len(alive):
            break
        at = origin + directions[alive] * distance[:, None]
        points.append(at)
        rays.append(alive)
        rounds.append(np.full(len(alive), step))
        radius = np.linalg.norm(at - 0.5, axis=1) / 0.35
        passed = rng.random(len(alive)) > np.clip(1 - radius, 0, 1)
        alive, distance = alive[passed], distance[passed]
    return _issued(points, rays, rounds)


def _issued(
    points: list[NDArray[np.float64]],
    rays: list[NDArray[np.int64]],
    rounds: list[NDArray[np.int64]],
) -> Issued:
    if not points:
        return np.zeros((0, 3), np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64)
    places = np.concatenate(points).clip(0, 1).astype(np.float32)
    return places, np.concatenate(rays), np.concatenate(rounds)
