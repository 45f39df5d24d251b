"""Shapes of camera paths, made to fit a capture: orbit, spiral, a tour through its cameras."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.core.camera_models import CameraModel
from lumigraph.core.cameras import Cameras
from lumigraph.core.errors import DataError
from lumigraph.core.scene import Scene
from lumigraph.core.transforms import look_at

_KEYFRAMES_PER_TURN = 48
_FULL_CIRCLE_FROM = math.radians(240)  # a capture that covers more of the circle is gone around
_LEAST_TURN = 0.05  # mean square of horizontal axes across their main direction
_LEAST_LEVEL = 0.1  # of it, along the way up
_LEAST_ELEVATIONS = math.radians(20)  # over which the rings of a grid are spread
_HIGHEST_ELEVATION = math.radians(85)  # beyond it there is no way up in the picture
_DEFAULT_FIELD_OF_VIEW = 50.0  # degrees, where the capture's own lens has no such angle
_HELD_BY_VIEW = 1.5  # radius of what a turntable shows whole, in half sides of the bounds
_FLAT_MODELS = (CameraModel.PINHOLE, CameraModel.OPENCV, CameraModel.FISHEYE)


def fields_of_view(cameras: Cameras) -> Tensor:
    """(C,) degrees across the shorter side of each image, as of a pinhole."""
    shorter, axis = cameras.sizes.min(dim=1)
    focal = cameras.intrinsics[:, :2].gather(1, axis[:, None])[:, 0].double()
    angles = torch.rad2deg(2 * torch.atan(shorter / (2 * focal)))
    flat = torch.isin(cameras.models, torch.tensor(_FLAT_MODELS, device=cameras.device))
    return torch.where(flat, angles, _DEFAULT_FIELD_OF_VIEW)


def median_field_of_view(cameras: Cameras) -> float:
    """The middle one of :func:`fields_of_view`; 50 without cameras."""
    if len(cameras) == 0:
        return _DEFAULT_FIELD_OF_VIEW
    return float(fields_of_view(cameras).median())


def orbit_poses(scene: Scene) -> Tensor:
    """(K, 4, 4) poses of a closed orbit, see :meth:`CameraPath.orbit`."""
    cameras = _checked(scene)
    up = upward(cameras)
    target = focus(scene)
    right, ahead = _plane_axes(up)
    offsets = cameras.positions.double() - target
    heights = offsets @ up
    east, north = offsets @ right, offsets @ ahead
    radius = float((east.square() + north.square()).sqrt().median())
    height = float(heights.median())
    if radius < 0.2 * abs(height) or radius < 1e-3 * scene.side:
        # Cameras above the target, or all at it: go around the region of interest instead.
        radius = max(scene.side, 0.5 * abs(height))
    start, arc = _covered_arc(torch.atan2(north, east))
    steps = torch.arange(_KEYFRAMES_PER_TURN, dtype=torch.float64) / _KEYFRAMES_PER_TURN
    if arc >= _FULL_CIRCLE_FROM:
        angles = start + 2 * math.pi * steps
    else:
        angles = start + arc * (0.5 - 0.5 * torch.cos(2 * math.pi * steps))
    ring = torch.cos(angles)[:, None] * right + torch.sin(angles)[:, None] * ahead
    return look_at(target + radius * ring + height * up, target, up=up)


@dataclass(frozen=True, eq=False)
class OrbitGrid:
    """Poses on rings of A azimuths at E elevations around a point."""

    poses: Tensor
    """(E, A, 4, 4) float64, all looking at the point."""
    azimuths: Tensor
    """(A,) float64 radians, rising."""
    elevations: Tensor
    """(E,) float64 radians above the level of the point, rising."""
    closed: bool
    """Whether the last azimuth is followed by the first."""


def orbit_grid(scene: Scene, *, azimuths: int, elevations: int) -> OrbitGrid:
    """Views around what the cameras look at, over the heights and the arc that they cover.

    Args:
        azimuths: how many on a ring, at least 1.
        elevations: how many rings, at least 1.
    """
    cameras = _checked(scene)
    up, target = upward(cameras), focus(scene)
    right, ahead = _plane_axes(up)
    offsets = cameras.positions.double() - target
    radius = offsets.norm(dim=1)
    heights = torch.asin((offsets @ up / radius.clamp_min(1e-12)).clamp(-1, 1))
    distance = float(radius.median())
    if distance < 0.2 * scene.side:  # cameras that look outwards: show the region of interest
        distance = scene.side
    low, middle, high = torch.quantile(heights, heights.new_tensor([0.1, 0.5, 0.9])).tolist()
    if high - low < _LEAST_ELEVATIONS:
        low, high = middle - _LEAST_ELEVATIONS / 2, middle + _LEAST_ELEVATIONS / 2
    start, arc = _covered_arc(torch.atan2(offsets @ ahead, offsets @ right))
    closed = arc >= _FULL_CIRCLE_FROM
    if closed:
        around = start + 2 * math.pi * torch.arange(azimuths, dtype=torch.float64) / azimuths
    else:
        around = _evenly(start, start + arc, azimuths)
    level = _evenly(low, high, elevations).clamp(-_HIGHEST_ELEVATION, _HIGHEST_ELEVATION)
    ring = torch.cos(around)[:, None] * right + torch.sin(around)[:, None] * ahead
    directions = torch.cos(level)[:, None, None] * ring + torch.sin(level)[:, None, None] * up
    return OrbitGrid(look_at(target + distance * directions, target, up=up), around, level, closed)


def turntable_poses(scene: Scene, *, elevation: float, up: Tensor) -> Tensor:
    """(K, 4, 4) poses of a full circle around the middle of the bounds.

    As far away as the cameras of the scene are in the middle, but not within the bounds; without
    cameras so far that what is within the bounds is in view.

    Args:
        elevation: degrees above the horizon, -90 to 90, both left out.
        up: (3,) of any length above 0.
    """
    center, up = scene.center.double().cpu(), up.double() / up.double().norm()
    if len(scene.cameras):
        distances = (scene.cameras.positions.double().cpu() - center).norm(dim=1)
        radius = max(float(distances.median()), scene.side / 2)
    else:
        half_angle = math.radians(_DEFAULT_FIELD_OF_VIEW) / 2
        radius = _HELD_BY_VIEW * scene.side / 2 / math.sin(half_angle)
    right, ahead = _plane_axes(up)
    steps = torch.arange(_KEYFRAMES_PER_TURN, dtype=torch.float64) / _KEYFRAMES_PER_TURN
    angles = 2 * math.pi * steps
    ring = torch.cos(angles)[:, None] * right + torch.sin(angles)[:, None] * ahead
    lift = math.radians(elevation)
    return look_at(center + radius * (math.cos(lift) * ring + math.sin(lift) * up), center, up=up)


def spiral_poses(scene: Scene, *, turns: int) -> Tensor:
    """(K, 4, 4) poses of a closed spiral about the mean view."""
    cameras = _checked(scene)
    positions = cameras.positions.double()
    middle = positions.mean(dim=0)
    forward = _unit(cameras.forwards.double().mean(dim=0), fallback=cameras.forwards[0].double())
    up = upward(cameras)
    axes = look_at(middle, middle + forward, up=up)[:3, :3]
    spread = ((positions - middle) @ axes).abs().quantile(0.8, dim=0)
    distance = _focus_distance(scene, middle, forward)
    spread = spread.clamp_min(0.02 * distance)
    steps = torch.arange(_KEYFRAMES_PER_TURN * turns, dtype=torch.float64) / _KEYFRAMES_PER_TURN
    angles = 2 * math.pi * steps
    waves = torch.stack(
        [torch.cos(angles), torch.sin(angles), torch.sin(angles / max(1, turns))], dim=-1
    )
    # Half of the capture's own depth range: farther forward things come too close.
    reach = spread * torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64)
    return look_at(middle + (waves * reach) @ axes.T, middle + forward * distance, up=up)


def spread_tour(cameras: Cameras, views: int) -> list[int]:
    """Up to `views` cameras far from each other, ordered by going to the nearest next."""
    positions = cameras.positions.double().cpu()
    # A turn of the view counts like a move by the size of the capture.
    extent = float((positions - positions.mean(dim=0)).norm(dim=-1).median())
    forwards = cameras.forwards.double().cpu() * max(extent, 1e-9)
    place = torch.cat([positions, forwards], dim=1)
    chosen = [0]
    nearest = (place - place[0]).norm(dim=-1)
    while len(chosen) < min(views, len(cameras)):
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (place - place[chosen[-1]]).norm(dim=-1))
    order = [chosen.pop(0)]
    while chosen:
        gaps = [float((place[index] - place[order[-1]]).norm()) for index in chosen]
        order.append(chosen.pop(gaps.index(min(gaps))))
    return order


def upward(cameras: Cameras) -> Tensor:
    """(3,) float64 unit vector that is up in the scene.

    Cameras that are held level have their horizontal axes across it, whichever way they look up or
    down: the direction across all of those. Where they are nearly parallel, or cameras are not held
    level, the mean direction that is up in the images, which leans with cameras that look down.
    """
    axes = cameras.camera_to_world[:, :3].double().cpu()
    ups, rights = -axes[:, :, 1], axes[:, :, 0]
    mean = _unit(ups.mean(dim=0), fallback=ups[0])
    spread, directions = torch.linalg.eigh(rights.T @ rights / len(rights))
    across = directions[:, 0] * torch.sign(directions[:, 0] @ mean)
    level = float(spread[1]) > _LEAST_TURN and float(spread[0]) < _LEAST_LEVEL * float(spread[1])
    return across if level and float(across @ mean) > 0.5 else mean


def focus(scene: Scene) -> Tensor:
    """(3,) float64 point that the cameras look at.

    The point nearest to all optical axes; the middle of the bounds where the axes are nearly
    parallel or meet outside the bounds.
    """
    cameras = scene.cameras.to("cpu")
    forwards, positions = cameras.forwards.double(), cameras.positions.double()
    # Sum of the projections across each axis: singular when all axes are parallel.
    identity = torch.eye(3, dtype=torch.float64)
    across = identity - forwards[:, :, None] * forwards[:, None, :]
    total = across.mean(dim=0)
    middle = scene.center.double().cpu()
    if float(torch.linalg.eigvalsh(total)[0]) < 1e-2:
        return middle
    point = torch.linalg.solve(total, (across @ positions[:, :, None]).mean(dim=0)[:, 0])
    inside = bool(((point - middle).abs() <= scene.side / 2).all())
    return point if inside else middle


def _focus_distance(scene: Scene, middle: Tensor, forward: Tensor) -> float:
    if scene.points is not None and len(scene.points):
        depths = (scene.points.positions.double().cpu() - middle) @ forward
        ahead = depths[depths > 0]
        if ahead.numel():
            return float(ahead.median())
    distance = float((scene.center.double().cpu() - middle) @ forward)
    return distance if distance > 0.05 * scene.side else scene.side


def _covered_arc(angles: Tensor) -> tuple[float, float]:
    """Start and length of the shortest arc that holds all angles."""
    ordered = angles.sort().values
    gaps = torch.diff(ordered, append=ordered[:1] + 2 * math.pi)
    widest = int(gaps.argmax())
    start = float(ordered[(widest + 1) % len(ordered)])
    return start, max(2 * math.pi - float(gaps[widest]), math.radians(20))


def _evenly(first: float, last: float, count: int) -> Tensor:
    """(count,) float64 from first to last; the middle for one alone."""
    if count == 1:
        return torch.tensor([(first + last) / 2], dtype=torch.float64)
    return torch.linspace(first, last, count, dtype=torch.float64)


def _plane_axes(up: Tensor) -> tuple[Tensor, Tensor]:
    axes = look_at(torch.zeros_like(up), up, up=[0.0, 0.0, 1.0])
    return axes[:3, 0], -axes[:3, 1]


def _unit(vector: Tensor, *, fallback: Tensor) -> Tensor:
    length = vector.norm()
    return vector / length if float(length) > 1e-3 else fallback


def _checked(scene: Scene) -> Cameras:
    if len(scene.cameras) == 0:
        raise DataError(f"{scene.source}: has no cameras to fit a path to")
    return scene.cameras.to("cpu")
