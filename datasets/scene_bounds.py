"""Where a scene lies: the region of interest, how far its surroundings reach, where rays start.

A `Placement` is a similarity from the frame of the files to the frame of the scene, a cube of
interest there, `aabb_scale` (the outermost cascade is so many times larger, about the same centre)
and `near`. Formats with a convention of their own use `cube_placement`; for captures the placement
is chosen from the cameras and, where there are some, the points:

- orbit: the optical axes meet in front of the cameras. The cube stands around that focus, as large
  as what the cameras see there and at most as the ring of cameras.
- forward: the cameras stand together and look the same way. The cube stands in front of them around
  the middle depth and begins at the near depth.
- inside: anything else, such as a drive. The cube holds the cameras and the points near them.

In the last three the scene frame has the cube at [-1, 1]^3 and, if asked, up along +z.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from lumigraph.core.transforms import Similarity
from lumigraph.datasets.poses import Matrix

MAX_AABB_SCALE = 32
"""Largest reach chosen by itself; files may ask for up to 128."""

ORBIT_SPREAD = 0.05
"""Optical axes count as meeting when they spread by more than about 13 degrees (sin^2)."""

UNIT_CUBE = np.array([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
"""Cube of interest of every placement that is chosen."""

HELD_FRACTION = 0.99
"""Fraction of the points that the outermost cascade holds; the rest are outliers of the SfM."""


MIN_POINTS = 8
"""Fewer points say nothing about where the content is."""


@dataclass(frozen=True)
class Placement:
    """Frame, region of interest and reach of a scene; see the head of this file."""

    normalization: Similarity
    """Similarity from the frame of the files to the frame of the scene."""
    bounds: Matrix
    """(2, 3) lower and upper corner of the cube of interest, scene frame."""
    aabb_scale: int = 1
    """Side of the outermost cascade over the side of the cube; a power of two."""
    near: float = 0.0
    """Distance along the ray at which marching starts, scene frame."""
    kind: str = "given"
    """'given', 'orbit', 'forward' or 'inside'."""
    notes: list[str] = field(default_factory=list)
    """Problems found on the way."""


def cube_placement(
    center: NDArray[np.float64], half_side: float, *, aabb_scale: int = 1, near: float = 0.0
) -> Placement:
    """A placement that keeps the frame of the files and takes the given cube."""
    bounds = np.stack([center - half_side, center + half_side])
    return Placement(Similarity.identity(), bounds, aabb_scale, near)


def choose_placement(
    poses: Matrix,
    *,
    points: Matrix | None = None,
    depth_range: tuple[float, float] | None = None,
    align_up: bool = True,
) -> Placement:
    """Choose the placement of a capture from its cameras and points.

    Args:
        poses: (C, 4, 4) camera-to-world, OpenCV axes, frame of the files.
        points: (P, 3) points of the same frame, or None.
        depth_range: Smallest and largest depth of the content in front of the cameras, if known.
        align_up: Turn the mean upward direction of the cameras to +z.
    """
    rotation = _up_rotation(-poses[:, :3, 1]) if align_up else np.eye(3)
    # From here on everything stands in the turned frame, in which the cubes are aligned.
    poses = _turned_poses(rotation, poses)
    points = None if points is None or len(points) < MIN_POINTS else points @ rotation.T
    centers, forward = poses[:, :3, 3], poses[:, :3, 2]
    depth_range = depth_range or _depth_range(poses, points)
    focus, spread = focus_point(centers, forward)
    in_front = np.einsum("ci,ci->c", focus - centers, forward) > 0
    if spread > ORBIT_SPREAD and in_front.mean() > 0.8:
        kind = "orbit"
        center, half_side = _orbit_cube(centers, focus, points)
    elif depth_range is not None and _stand_together(centers, forward, depth_range):
        kind = "forward"
        center, half_side = _forward_cube(poses, points, depth_range)
    else:
        kind = "inside"
        center, half_side = _inside_cube(centers, points)
    near = 0.05 * half_side if depth_range is None else 0.9 * depth_range[0]
    aabb_scale, notes = reach_of(_largest_offset(centers, points, center) / half_side)
    normalization = Similarity(
        1.0 / half_side, torch.from_numpy(rotation), torch.from_numpy(-center / half_side)
    )
    return Placement(normalization, UNIT_CUBE, aabb_scale, near / half_side, kind, notes)


def focus_point(centers: Matrix, forward: Matrix) -> tuple[Matrix, float]:
    """Point closest to all optical axes, and how well they fix it.

    The second value is the smallest eigenvalue of the mean of I - f f^T: 0 for parallel axes, 2/3
    for axes from everywhere.
    """
    across = np.eye(3) - forward[:, :, None] * forward[:, None, :]
    mean = across.mean(axis=0)
    # A little of the identity keeps parallel axes from a singular system.
    pull = np.einsum("cij,cj->i", across, centers) / len(centers) + 1e-9 * centers.mean(axis=0)
    focus = np.linalg.solve(mean + 1e-9 * np.eye(3), pull)
    return focus, float(np.linalg.eigvalsh(mean)[0])


def _orbit_cube(centers: Matrix, focus: Matrix, points: Matrix | None) -> tuple[Matrix, float]:
    radius = float(np.median(np.linalg.norm(centers - focus, axis=1)))
    if points is None:
        # The share of the radius that the NeRF synthetic scenes fill (1.5 of 4).
        return focus, 0.375 * radius
    offsets = np.abs(points - focus).max(axis=1)
    inner = offsets[offsets < radius]
    if len(inner) < MIN_POINTS:
        return focus, 0.375 * radius
    return focus, float(np.clip(1.1 * np.quantile(inner, 0.9), 0.25 * radius, radius))


def _forward_cube(
    poses: Matrix, points: Matrix | None, depth_range: tuple[float, float]
) -> tuple[Matrix, float]:
    center = poses[:, :3, 3].mean(axis=0)
    forward = poses[:, :3, 2].mean(axis=0)
    forward /= np.linalg.norm(forward)
    near, far = depth_range
    # Half of the image detail lies before the harmonic mean of near and far.
    middle = 2.0 * near * far / (near + far)
    if points is not None:
        depth = (points - center) @ forward
        middle = float(np.median(depth[depth > near])) if (depth > near).any() else middle
    half_side = max(middle - 0.9 * near, 0.1 * middle)
    return center + middle * forward, half_side


def _inside_cube(centers: Matrix, points: Matrix | None) -> tuple[Matrix, float]:
    lower, upper = centers.min(axis=0), centers.max(axis=0)
    center = 0.5 * (lower + upper)
    path_half = 0.525 * float((upper - lower).max())
    if points is None:
        return center, path_half or 1.0
    reach = float(np.quantile(np.abs(points - center).max(axis=1), 0.8))
    if path_half < 1e-6:
        return center, max(reach, 1e-6)
    return center, float(np.clip(reach, path_half, 4.0 * path_half))


def _stand_together(centers: Matrix, forward: Matrix, depth_range: tuple[float, float]) -> bool:
    """True when the axes agree within about 45 degrees and no camera reaches the content."""
    mean = forward.mean(axis=0)
    mean = mean / max(float(np.linalg.norm(mean)), 1e-9)
    extent = float(np.linalg.norm(centers - centers.mean(axis=0), axis=1).max())
    along = float(np.ptp(centers @ mean))
    return bool((forward @ mean).min() > 0.7 and extent < depth_range[1] and along < depth_range[0])


def _depth_range(poses: Matrix, points: Matrix | None) -> tuple[float, float] | None:
    """Near (halved for safety) and far depth of the points that cameras look at, if any.

    Fields of view are not known here: a point counts when it is within 45 degrees of the axis.
    """
    if points is None:
        return None
    sample = points[:: max(1, len(points) // 20_000)]
    ahead = []
    for pose in poses[:: max(1, len(poses) // 50)]:
        local = (sample - pose[:3, 3]) @ pose[:3, :3]
        ahead.append(local[np.hypot(local[:, 0], local[:, 1]) < local[:, 2], 2])
    depth = np.concatenate(ahead)
    if len(depth) < MIN_POINTS:
        return None
    near, far = np.quantile(depth, [0.001, 0.99])
    return 0.5 * float(near), float(far)


def _largest_offset(centers: Matrix, points: Matrix | None, center: Matrix) -> float:
    held = float(np.abs(centers - center).max())
    if points is not None:
        offsets = np.abs(points - center).max(axis=1)
        held = max(held, float(np.quantile(offsets, HELD_FRACTION)))
    return held


def reach_of(ratio: float) -> tuple[int, list[str]]:
    """Smallest power of two that is at least `ratio`, at most MAX_AABB_SCALE."""
    aabb_scale = 1
    while aabb_scale < ratio and aabb_scale < MAX_AABB_SCALE:
        aabb_scale *= 2
    if aabb_scale >= ratio:
        return aabb_scale, []
    return aabb_scale, [
        f"the surroundings reach {ratio:.0f} times as far as the region of interest;"
        f" only {aabb_scale} times are modelled"
    ]


def _turned_poses(rotation: Matrix, poses: Matrix) -> Matrix:
    turned = poses.copy()
    turned[:, :3] = rotation @ poses[:, :3]
    return turned


def _up_rotation(up: Matrix) -> Matrix:
    """Smallest rotation that turns the mean of the directions (C, 3) to +z."""
    mean = up.mean(axis=0)
    length = float(np.linalg.norm(mean))
    if length < 0.1:
        # Cameras turned every way: there is no upward direction to speak of.
        return np.eye(3)
    x, y, z = mean / length
    if z < -1.0 + 1e-6:
        return np.diag([1.0, -1.0, -1.0])
    # Rodrigues' formula for the axis up x z, written out.
    factor = 1.0 / (1.0 + z)
    return np.array(
        [
            [1.0 - x * x * factor, -x * y * factor, -x],
            [-x * y * factor, 1.0 - y * y * factor, -y],
            [x, y, z],
        ]
    )
