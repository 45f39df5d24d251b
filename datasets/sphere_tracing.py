"""Pictures of signed-distance shapes by sphere tracing, in plain numpy.

A model is a list of parts. Each part has a signed distance in its own frame, a box that holds it
and a rigid pose, so that a ray need only be traced against parts in its way. For each part: blocks
of 4x4 pixels in the rectangle that its box covers are marched as cones; a block whose cone comes
near the surface sends its rays on from there; finished rays leave the batch. Points are stored as
(3, N) arrays, which keeps each coordinate contiguous. Pictures are best traced a few at a time: the
cost of a numpy call is then shared by more rays, while the arrays still fit a processor's cache.

Sphere tracing: J. C. Hart, The Visual Computer 12 (1996). Soft shadows take the smallest ratio of
clearance to distance along the way to the light, ambient occlusion compares the clearance at a few
steps along the normal with the step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]

HIT_DISTANCE = 1e-4
"""A ray this close to a surface has met it; a pixel is about a hundred times as wide."""
SHADOW_STEPS = 16
SECANT_REACH = 0.03
"""Clearance below which a surface is taken for a plane: less than the thinnest feature."""
STEEPNESS = 0.25
"""Rays that approach a shape that is not convex slower than this keep to plain steps."""
GRAZING_DISTANCE = 1e-3
"""A ray that has used up its steps this close to a surface counts as having met it."""
MAXIMUM_STEPS = 40
BLOCK = 4
"""Pixels along each side of a block that is marched as one cone."""
DIFFERENCE_STEP = 2e-3
"""Half width of the differences for normals: rounding and curvature errors meet at about 1e-4."""


@dataclass(frozen=True)
class Part:
    """One shape with its look and its place in the world."""

    name: str
    distance: Callable[[Array], Array]
    """(3, N) points in the part's frame -> (N,) signed distance or a lower bound of it."""
    albedo: Callable[[Array], Array]
    """(3, N) points in the part's frame -> (3, N) linear reflectance in [0, 1]."""
    box: tuple[tuple[float, float, float], tuple[float, float, float]]
    """Lowest and highest corner of a box in the part's frame that holds the shape."""
    offset: tuple[float, float, float]
    """World position of the part's origin."""
    rotation: Array
    """(3, 3) from the part's frame to the world."""
    specular: float
    """Strength of the highlight, 0 for a matt surface."""
    convex: bool = False
    """Whether the shape is convex: faster to trace, and casting no shadow on itself."""

    def to_local(self, points: Array) -> Array:
        """World points (3, N) in the part's frame."""
        offset = np.asarray(self.offset, np.float32)[:, None]
        return rotated(self.rotation.T, points - offset)

    def corners(self) -> Array:
        """World positions (3, 8) of the box's corners."""
        low, high = self.box
        grid = np.meshgrid(*zip(low, high, strict=True), indexing="ij")
        local = np.stack([axis.ravel() for axis in grid])
        return rotated(self.rotation, local) + np.asarray(self.offset, np.float32)[:, None]


@dataclass(frozen=True)
class PinholeView:
    """A pinhole camera with its principal point in the middle (OpenCV axes)."""

    camera_to_world: NDArray[np.float64]
    """(4, 4) camera to world."""
    width: int
    height: int
    focal: float
    """In pixels."""

    def refined(self, factor: int) -> PinholeView:
        """The same picture with ``factor`` times as many pixels along each side."""
        return PinholeView(
            self.camera_to_world, self.width * factor, self.height * factor, self.focal * factor
        )

    def directions(self) -> Array:
        """Unit ray directions in the world, (3, H, W), through the pixel centres."""
        return self._through(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)

    def block_directions(self) -> Array:
        """Unit directions (3, H / BLOCK, W / BLOCK), rounded up, through the blocks' centres."""
        x = BLOCK * (np.arange(-(-self.width // BLOCK)) + 0.5)
        return self._through(x, BLOCK * (np.arange(-(-self.height // BLOCK)) + 0.5))

    def _through(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> Array:
        """Unit directions through the grid of picture positions in pixels."""
        columns, rows = np.meshgrid(
            ((x - self.width / 2) / self.focal).astype(np.float32),
            ((y - self.height / 2) / self.focal).astype(np.float32),
        )
        plane = np.stack([columns, rows, np.ones_like(columns)])
        plane /= np.sqrt((plane * plane).sum(axis=0))
        return rotated(self.camera_to_world[:3, :3], plane)

    def blocks_over(self, points: Array) -> NDArray[np.intp]:
        """Indices, row by row, of the blocks in the rectangle that holds some points (3, N)."""
        pose = self.camera_to_world
        local = rotated(pose[:3, :3].T, points - pose[:3, 3:4])
        rows, columns = -(-self.height // BLOCK), -(-self.width // BLOCK)
        if local[2].min() <= 1e-3:
            return np.arange(rows * columns)
        ranges = []
        for axis, size, limit in ((1, self.height, rows), (0, self.width, columns)):
            position = self.focal * local[axis] / local[2] + size / 2
            first = max(int(position.min() / BLOCK) - 1, 0)
            ranges.append(np.arange(first, min(int(position.max() / BLOCK) + 2, limit)))
        return (ranges[0][:, None] * columns + ranges[1]).ravel()


@dataclass(frozen=True)
class Hits:
    """Where the rays of some pictures meet the model; P = C * H * W pixels, picture by picture."""

    origins: Array
    """(3, C) camera positions in the world."""
    directions: Array
    """(3, P) unit, in the world."""
    distance: Array
    """(P,) along the ray; infinite where nothing is met."""
    part: NDArray[np.int8]
    """(P,) index into the parts; -1 where nothing is met."""

    def points(self, pixels: NDArray[np.intp]) -> Array:
        """World positions (3, N) that the rays of some pixels (N,) meet."""
        picture = pixels // (self.distance.size // self.origins.shape[1])
        along = self.directions[:, pixels] * self.distance[pixels]
        return np.asarray(self.origins[:, picture] + along, np.float32)


def rotated(rotation: NDArray[np.floating], points: NDArray[np.floating]) -> Array:
    """Points (3, ...) turned by a rotation (3, 3).

    Written out, because the threads of a linear-algebra library spin on products this thin.
    """
    columns = np.asarray(rotation, np.float32).reshape(3, 3, *[1] * (points.ndim - 1))
    x, y, z = points.astype(np.float32, copy=False)
    turned = columns[:, 0] * x
    turned += columns[:, 1] * y
    turned += columns[:, 2] * z
    return np.asarray(turned, np.float32)


def trace(parts: Sequence[Part], views: Sequence[PinholeView]) -> Hits:
    """Find the nearest surface along every ray of some pictures.

    Args:
        parts: the model; large parts in the background cost least at the end.
        views: C cameras of the same size and focal length.
    """
    view = views[0]
    directions = np.stack([each.directions() for each in views], axis=1).reshape(3, -1)
    blocks = np.stack([each.block_directions() for each in views], axis=1).reshape(3, -1)
    origins = np.stack([each.camera_to_world[:3, 3] for each in views], axis=1).astype(np.float32)
    blocks_per_view = blocks.shape[1] // len(views)
    # Half the diagonal of a block at unit distance, a little wide.
    spread = 0.72 * BLOCK / view.focal
    nearest = np.full(directions.shape[1], np.inf, np.float32)
    owner = np.full(directions.shape[1], -1, np.int8)
    for index, part in enumerate(parts):
        corners, to_local = part.corners(), part.rotation.T
        over = [
            number * blocks_per_view + each.blocks_over(corners)
            for number, each in enumerate(views)
        ]
        block = np.concatenate(over)
        starts = part.to_local(origins)
        axes = rotated(to_local, blocks[:, block])
        near, empty, leave = _march_cones(part, starts[:, block // blocks_per_view], axes, spread)
        pixels, cone = _pixels_of(view, block[near])
        start = starts[:, pixels // (view.width * view.height)]
        limit = np.minimum(leave[cone], nearest[pixels])
        met = _march_rays(part, start, rotated(to_local, directions[:, pixels]), empty[cone], limit)
        closer = np.flatnonzero(met < limit)
        nearest[pixels[closer]] = met[closer]
        owner[pixels[closer]] = index
    return Hits(origins, directions, nearest, owner)


def _pixels_of(
    view: PinholeView, blocks: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pixels inside some blocks (counted through all pictures), and which block each is from."""
    rows, columns = -(-view.height // BLOCK), -(-view.width // BLOCK)
    picture, block = np.divmod(blocks, rows * columns)
    corner_row, corner_column = np.divmod(block, columns)
    steps = np.arange(BLOCK)
    shape = (blocks.size, BLOCK, BLOCK)
    row = np.broadcast_to((corner_row * BLOCK)[:, None, None] + steps[:, None], shape)
    column = np.broadcast_to((corner_column * BLOCK)[:, None, None] + steps, shape)
    inside = np.flatnonzero((row < view.height) & (column < view.width))
    first = (picture * (view.width * view.height))[:, None, None]
    pixels = (first + row * view.width + column).ravel()
    return pixels[inside], inside // BLOCK**2


def _march_cones(
    part: Part, start: Array, directions: Array, spread: float
) -> tuple[NDArray[np.intp], Array, Array]:
    """March cones of rays until they come near a part.

    Args:
        part: what to look for.
        start: apexes (3, N) in the part's frame.
        directions: unit axes (3, N) in the part's frame.
        spread: radius of the cones at unit distance.

    Returns:
        Indices of the cones that come near, how far each is empty, and where each leaves the box.
    """
    low, high = (np.asarray(corner) for corner in part.box)
    reach = float(np.linalg.norm(start, axis=0).max(initial=0)) + float(np.linalg.norm(high - low))
    margin = spread * reach
    enter, leave = box_interval((low - margin, high + margin), start, directions)
    active = np.flatnonzero(enter < leave)
    empty = np.full(directions.shape[1], -1, np.float32)
    start, axes = start[:, active], directions[:, active]
    travelled, end = enter[active], leave[active]
    for _ in range(MAXIMUM_STEPS):
        free = part.distance(start + axes * travelled) - np.float32(spread) * travelled
        near = free < 0.5 * np.float32(spread) * travelled
        empty[active[near]] = travelled[near]
        travelled = travelled + free
        going = np.flatnonzero(~near & (travelled < end))
        if going.size == 0:
            break
        active, start, axes = active[going], start[:, going], axes[:, going]
        travelled, end = travelled[going], end[going]
    else:
        empty[active] = travelled
    found = np.flatnonzero(empty >= 0)
    # Rays beside the axis are as long when they are a little less far along it.
    return found, empty[found] * np.float32(1 - spread * spread), leave[found] + margin


def _march_rays(
    part: Part, start: Array, directions: Array, travelled: Array, limit: Array
) -> Array:
    """Distance (N,) at which rays that start at ``travelled`` meet a part, else infinity."""
    result = np.full(directions.shape[1], np.inf, np.float32)
    active = np.arange(directions.shape[1])
    step = clearance = np.zeros(directions.shape[1], np.float32)
    for _ in range(MAXIMUM_STEPS):
        before, clearance = clearance, part.distance(start + directions * travelled)
        met = np.abs(clearance) < HIT_DISTANCE
        finished = met | (travelled > limit)
        if part.convex:
            # The clearance to a convex shape, once it grows along a ray, keeps growing.
            finished |= (clearance > before) & (step > 0) & (clearance > GRAZING_DISTANCE)
        step = _next_step(before, clearance, step, convex=part.convex)
        travelled = travelled + step
        if np.count_nonzero(finished) * 8 < finished.size:
            # Too few to be worth moving the rest; a met ray only creeps closer meanwhile.
            continue
        result[active[met]] = travelled[met]
        going = np.flatnonzero(~finished)
        if going.size == 0:
            return result
        active, start, directions = active[going], start[:, going], directions[:, going]
        travelled, limit = travelled[going], limit[going]
        step, clearance = step[going], clearance[going]
    close = part.distance(start + directions * travelled) < GRAZING_DISTANCE
    result[active[close]] = travelled[close]
    return result


def _next_step(before: Array, clearance: Array, step: Array, *, convex: bool) -> Array:
    """How far to go: the clearance, or near a surface to where a plane would be met.

    The clearance to a convex shape falls ever slower along a ray, so the plane errs on the near
    side everywhere; on other shapes it is used close by, and a ray that ends up inside steps back.
    """
    slope = (before - clearance) / np.where(np.abs(step) < 1e-6, np.float32(np.inf), step)
    usable = (slope > (0.02 if convex else STEEPNESS)) & (slope < 1)
    if not convex:
        usable &= clearance < SECANT_REACH
    return np.where(usable, clearance / np.where(usable, slope, 1), clearance)


def box_interval(
    box: tuple[ArrayLike, ArrayLike], start: Array, directions: Array
) -> tuple[Array, Array]:
    """Distances (N,) at which rays enter and leave a box, enter >= 0; missed: enter > leave.

    Args:
        box: lowest and highest corner.
        start: ray origins (3, N).
        directions: (3, N) or (3, 1), unit.
    """
    low, high = (np.asarray(corner, np.float32)[:, None] for corner in box)
    # A zero component would give 0 * inf; a tiny one puts the slab's planes far away instead.
    inverse = 1 / np.where(np.abs(directions) < 1e-9, np.float32(1e-9), directions)
    first, second = (low - start) * inverse, (high - start) * inverse
    enter = np.minimum(first, second).max(axis=0)
    leave = np.maximum(first, second).min(axis=0)
    return np.maximum(enter, 0), leave


def local_normals(part: Part, points: Array) -> Array:
    """Unit outward normals (3, N) in the part's frame at surface points (3, N) of that frame."""
    gradient = local_gradients(part, points)
    return gradient / np.maximum(np.linalg.norm(gradient, axis=0), 1e-12)


def local_gradients(part: Part, points: Array) -> Array:
    """Gradients (3, N) of the part's distance at points (3, N) of its frame; shorter than one
    where the distance is a lower bound."""
    gradient = np.zeros_like(points)
    # Corners of a tetrahedron: four evaluations, and errors of first order cancel.
    for corner in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        direction = np.asarray(corner, np.float32)[:, None]
        gradient += direction * part.distance(points + np.float32(DIFFERENCE_STEP) * direction)
    return gradient / np.float32(4 * DIFFERENCE_STEP)


def soft_shadow(parts: Sequence[Part], points: Array, direction: Array, softness: float) -> Array:
    """Share of light (N,) in [0, 1] that reaches points (3, N) from a far light.

    Args:
        parts: the model.
        points: world positions just above a surface.
        direction: (3,) unit vector towards the light.
        softness: width of the light seen from the points; wider is softer.
    """
    light = np.ones(points.shape[1], np.float32)
    for part in parts:
        start = part.to_local(points)
        toward = rotated(part.rotation.T, direction[:, None])
        low, high = part.box
        # The penumbra reaches beyond the shape, by half the softness at unit distance.
        margin = 0.6 * softness
        wider = ([value - margin for value in low], [value + margin for value in high])
        enter, leave = box_interval(wider, start, toward)
        active = np.flatnonzero((enter < leave) & (light > 0))
        if active.size:
            reached = _clearance_along(
                part, start[:, active], toward, enter[active] + 0.01, leave[active], softness
            )
            light[active] = np.minimum(light[active], reached)
    return light * light * (3 - 2 * light)


def _clearance_along(
    part: Part, start: Array, toward: Array, travelled: Array, leave: Array, softness: float
) -> Array:
    """Smallest clearance over distance on the way out of the box, as a share of ``softness``.

    Two neighbouring clearances are balls whose common chord is where the ray may come closest to
    the shape between them; without this the few steps would show as bands.
    """
    share = np.ones(start.shape[1], np.float32)
    active = np.arange(start.shape[1])
    before, step = np.zeros_like(share), np.zeros_like(share)
    for _ in range(SHADOW_STEPS):
        clearance = part.distance(start + toward * travelled)
        overlap = clearance * clearance + step * step - before * before
        back = np.clip(overlap / np.maximum(2 * step, 1e-6), 0, step)
        chord = np.sqrt(np.maximum(clearance * clearance - back * back, 0))
        closest = np.where(clearance > 0, chord, clearance)
        ratio = 0.5 + closest / (softness * np.maximum(travelled - back, 1e-3))
        share[active] = np.minimum(share[active], np.clip(ratio, 0, 1))
        step = np.clip(clearance, 0.03, 0.25)
        travelled = travelled + step
        going = np.flatnonzero((travelled < leave) & (ratio > 0))
        if going.size == 0:
            break
        active, start, before, step = active[going], start[:, going], clearance[going], step[going]
        travelled, leave = travelled[going], leave[going]
    return share


def ambient_occlusion(parts: Sequence[Part], points: Array, normals: Array) -> Array:
    """Share of the sky (N,) in [0, 1] seen from world points (3, N) with normals (3, N)."""
    blocked = np.zeros(points.shape[1], np.float32)
    for step, weight in ((0.06, 3.0), (0.18, 1.4)):
        probe = points + np.float32(step) * normals
        clearance = np.full(points.shape[1], step, np.float32)
        for part in parts:
            local = part.to_local(probe)
            low, high = (np.asarray(corner, np.float32)[:, None] for corner in part.box)
            outside = np.maximum(np.maximum(low - local, local - high).max(axis=0), 0)
            near = np.flatnonzero(outside < clearance)
            clearance[near] = np.minimum(clearance[near], part.distance(local[:, near]))
        blocked += np.float32(weight) * (np.float32(step) - clearance)
    return np.clip(1 - blocked, 0, 1)
