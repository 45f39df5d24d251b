"""Seeded inputs of the benchmarks: query points, an occupancy grid, camera rays and their colors.

They follow the project's benchmark protocol, by which the peers were recorded too (`peers.json`):
all numbers are drawn on the CPU, so a seed gives the same bytes on every machine with AVX2. The
order of draws and of roundings is part of the protocol; a test holds the checksums.

The scene of `occupancy_cells`, `camera_rays` and `first_hits` is a sphere and two boxes in the cube
[-1.5, 1.5]^3 before white. Letters: M points, N rays, C cameras, G cells along an axis.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lumigraph.core import Cameras, MemoryImages, Scene

HALF_SIDE = 1.5  # of the scene's cube
SPHERE_CENTER, SPHERE_RADIUS = (-0.35, 0.0, 0.1), 0.55
BOXES = (
    ((0.35, -0.5, -0.45), (0.95, 0.5, 0.35)),
    ((-0.9, -0.75, -0.9), (0.95, -0.55, 0.9)),
)
SPHERE_COLORS = ((0.9, 0.3, 0.2), (0.2, 0.4, 0.9))
BOX_COLORS = ((0.3, 0.8, 0.3), (0.8, 0.75, 0.6))
LIGHT = (0.5, 0.3, 0.81)
FAR = 1e9
SURFACE_CELLS = 1.75  # cells within this many of a surface are occupied
CAMERA_SEED = 12345  # the cameras are the same for every seed of the rays
CAMERA_DISTANCE, FIELD_OF_VIEW = 4.0, 40.0  # units, degrees
INSIDE = 1e-6  # ray points stay this far within the unit cube


def generator_of(seed: int) -> torch.Generator:
    return torch.Generator(device="cpu").manual_seed(seed)


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)


def points_uniform(count: int, *, seed: int = 0, dimensions: int = 3) -> Tensor:
    """(M, D) evenly in the unit cube: the worst case for the caches behind a grid."""
    return torch.rand(count, dimensions, generator=generator_of(seed))


def points_rays(count: int, *, seed: int = 0, per_ray: int = 128) -> Tensor:
    """(M, 3) in the unit cube, ray after ray as a ray marcher writes them.

    Rays start on a sphere of radius 1.5 about the middle of the cube and aim at a point of
    [0.2, 0.8]^3; `per_ray` even steps, with a random start, fill their way through the cube.
    """
    generator = generator_of(seed)
    rays = -(-count // per_ray)
    outward = torch.randn(rays, 3, generator=generator)
    origins = 0.5 + 1.5 * outward / outward.norm(dim=-1, keepdim=True)
    targets = 0.2 + 0.6 * torch.rand(rays, 3, generator=generator)
    directions = _unit(targets - origins)
    at_low, at_high = (0.0 - origins) / directions, (1.0 - origins) / directions
    enter = torch.minimum(at_low, at_high).amax(-1)
    leave = torch.maximum(at_low, at_high).amin(-1)
    start = torch.rand(rays, 1, generator=generator)
    part = (torch.arange(per_ray)[None] + start) / per_ray
    distances = enter[:, None] + (leave - enter)[:, None] * part
    points = origins[:, None] + distances[..., None] * directions[:, None]
    return points.clamp(INSIDE, 1 - INSIDE).reshape(-1, 3)[:count].contiguous()


def occupancy_cells(resolution: int = 128) -> Tensor:
    """(G, G, G) bool, indexed x, y, z: cells near a surface, as in a trained grid."""
    side = 2 * HALF_SIDE
    centers = (torch.arange(resolution) + 0.5) / resolution * side - HALF_SIDE
    points = torch.stack(torch.meshgrid(centers, centers, centers, indexing="ij"), -1)
    reach = side / resolution * SURFACE_CELLS
    from_center = (points - torch.tensor(SPHERE_CENTER)).norm(dim=-1)
    occupied = (from_center - SPHERE_RADIUS).abs() < reach
    for corners in BOXES:
        low, high = torch.tensor(corners[0]), torch.tensor(corners[1])
        beyond = (points - (low + high) / 2).abs() - (high - low) / 2
        distance = beyond.clamp_min(0).norm(dim=-1) + beyond.amax(-1).clamp_max(0)
        occupied |= distance.abs() < reach
    return occupied


def camera_positions(count: int = 100, *, radius: float = CAMERA_DISTANCE) -> Tensor:
    """(C, 3) random on a sphere about the origin."""
    outward = torch.randn(count, 3, generator=generator_of(CAMERA_SEED))
    return radius * outward / outward.norm(dim=-1, keepdim=True)


def world_to_camera(positions: Tensor) -> Tensor:
    """(C, 3, 3) rotations of cameras that look at the origin with +z up."""
    eyes = positions.double()
    forward = -eyes / eyes.norm(dim=1, keepdim=True)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand_as(forward)
    right = torch.linalg.cross(forward, up)
    right = right / right.norm(dim=1, keepdim=True)
    down = torch.linalg.cross(forward, right)
    return torch.stack([right, down, forward], dim=1).float()


def camera_rays(
    count: int,
    *,
    seed: int = 0,
    radius: float = CAMERA_DISTANCE,
    field_of_view: float = FIELD_OF_VIEW,
    cameras: int = 100,
) -> tuple[Tensor, Tensor]:
    """Origins and unit directions (N, 3) of random pixels of `camera_positions`."""
    generator = generator_of(seed)
    positions = camera_positions(cameras, radius=radius)
    rotations = world_to_camera(positions)
    places = torch.randint(cameras, (count,), generator=generator)
    half_width = math.tan(math.radians(field_of_view) / 2)
    lens = (torch.rand(count, 2, generator=generator) * 2 - 1) * half_width
    local = torch.cat([lens, torch.ones(count, 1)], -1)
    directions = _unit(torch.einsum("nij,ni->nj", rotations[places], local))
    return positions[places].contiguous(), directions.contiguous()


def shade_rays(origins: Tensor, directions: Tensor) -> Tensor:
    """(N, 3) sRGB of the first surface that rays meet, white where there is none."""
    return first_hits(origins, directions)[0]


def first_hits(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Colors (N, 3) in [0, 1] as `shade_rays`, and (N,) bool, which rays meet a surface."""
    device, rays = origins.device, len(origins)
    nearest = torch.full((rays,), FAR, device=device)
    normals = torch.zeros(rays, 3, device=device)
    albedo = torch.ones(rays, 3, device=device)
    for surface in (_sphere, *(lambda o, d, k=k: _box(o, d, k) for k in range(len(BOXES)))):
        distance, normal, color = surface(origins, directions)
        closer = distance < nearest
        nearest = torch.where(closer, distance, nearest)
        normals = torch.where(closer[:, None], normal, normals)
        albedo = torch.where(closer[:, None], color, albedo)
    lit = 0.35 + 0.65 * (normals @ torch.tensor(LIGHT, device=device)).clamp_min(0)
    hit = nearest < FAR / 10
    white = torch.ones(rays, 3, device=device)
    return torch.where(hit[:, None], albedo * lit[:, None], white).clamp(0, 1), hit


Surface = tuple[Tensor, Tensor, Tensor]  # distance (FAR when missed), normal, color


def _sphere(origins: Tensor, directions: Tensor) -> Surface:
    center = torch.tensor(SPHERE_CENTER, device=origins.device)
    offset = origins - center
    half_b = (offset * directions).sum(-1)
    discriminant = half_b * half_b - ((offset * offset).sum(-1) - SPHERE_RADIUS**2)
    distance = -half_b - discriminant.clamp_min(0).sqrt()
    hit = (discriminant > 0) & (distance > 0)
    normal = (origins + distance[:, None] * directions - center) / SPHERE_RADIUS
    checker = ((normal * 5).floor().sum(-1) % 2)[:, None]
    first, second = (torch.tensor(color, device=origins.device) for color in SPHERE_COLORS)
    return torch.where(hit, distance, FAR), normal, checker * first + (1 - checker) * second


def _box(origins: Tensor, directions: Tensor, place: int) -> Surface:
    low, high = (torch.tensor(corner, device=origins.device) for corner in BOXES[place])
    at_low, at_high = (low - origins) / directions, (high - origins) / directions
    leave = torch.maximum(at_low, at_high).amin(-1)
    enter, axis = torch.minimum(at_low, at_high).max(-1)
    hit = (enter < leave) & (enter > 0)
    points = origins + enter[:, None] * directions
    facing = -torch.sign(directions.gather(1, axis[:, None]))
    normal = torch.zeros_like(points).scatter_(1, axis[:, None], facing)
    checker = ((points * 6 + 1e-4).floor().sum(-1) % 2)[:, None]
    color = torch.tensor(BOX_COLORS[place], device=origins.device) * (0.55 + 0.45 * checker)
    return torch.where(hit, enter, FAR), normal, color


def benchmark_scene(*, size: int = 200, train: int = 100, test: int = 4) -> Scene:
    """Pictures of the scene by the protocol's cameras, and by `test` more, with alpha.

    Args:
        size: width and height in pixels.
    """
    positions = torch.cat([camera_positions(train), _held_out_positions(test)])
    poses = torch.eye(4).repeat(len(positions), 1, 1)
    poses[:, :3, :3] = world_to_camera(positions).transpose(1, 2)
    poses[:, :3, 3] = positions
    focal = 0.5 * size / math.tan(math.radians(FIELD_OF_VIEW) / 2)
    cameras = Cameras.from_intrinsics(poses, size, size, focal)
    return Scene(
        name="sphere and boxes",
        source="the benchmark protocol",
        cameras=cameras,
        splits={
            "train": torch.arange(train),
            "test": torch.arange(train, train + test),
        },
        bounds=torch.tensor([[-HALF_SIDE] * 3, [HALF_SIDE] * 3]),
        images=MemoryImages([_picture(cameras, index, size) for index in range(len(cameras))]),
        background="white",
        has_alpha=True,
    )


def _held_out_positions(count: int) -> Tensor:
    outward = torch.randn(count, 3, generator=generator_of(CAMERA_SEED + 1))
    return CAMERA_DISTANCE * outward / outward.norm(dim=-1, keepdim=True)


def _picture(cameras: Cameras, index: int, size: int) -> Tensor:
    rays = cameras.image_rays(index)
    color, hit = first_hits(rays.origins, rays.directions)
    rgba = torch.cat([color, hit[:, None].float()], dim=1)
    return (rgba * 255 + 0.5).to(torch.uint8).reshape(size, size, 4)
