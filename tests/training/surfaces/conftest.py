"""Balls and rings in memory: exact pictures of them from cameras all around."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from lumigraph.core import Cameras, MemoryImages, PointCloud, Scene, Similarity, cube
from lumigraph.core.transforms import look_at, rotation_exp
from lumigraph.training import NeusConfig, train_config

PIXELS = 48
SIDE = 2.0  # of the bounds, which hold the unit sphere
Distance = Callable[[Tensor], Tensor]


class MemoryMaps:
    """Masks or depths that are in memory."""

    def __init__(self, maps: list[Tensor]) -> None:
        self._maps = maps

    def __len__(self) -> int:
        return len(self._maps)

    def load(self, index: int) -> Tensor:
        return self._maps[index]


def ball(points: Tensor) -> Tensor:
    """Signed distance to a ball beside the middle of the bounds."""
    return (points - torch.tensor([0.1, -0.05, 0.0])).norm(dim=-1) - 0.5


def ring(points: Tensor) -> Tensor:
    """Signed distance to a torus that lies in the xy plane."""
    around = points[..., :2].norm(dim=-1) - 0.5
    return torch.stack([around, points[..., 2]], -1).norm(dim=-1) - 0.2


SHAPES: dict[str, Distance] = {"ball": ball, "ring": ring}


def spread(count: int) -> Tensor:
    """(count, 3) unit vectors, evenly spread."""
    place = torch.arange(count) + 0.5
    height, angle = 1 - 2 * place / count, place * 2.39996323
    flat = (1 - height**2).sqrt()
    return torch.stack([flat * angle.cos(), flat * angle.sin(), height], 1)


def pictures(
    cameras: Cameras, distance: Distance, motion: Similarity | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """RGBA pictures and depths of a shape painted by where its points lie, moved from its own frame
    by a rigid motion."""
    images, depths = [], []
    if motion is not None:
        still = motion.inverse().apply_poses(cameras.camera_to_world)
        cameras = cameras.with_poses(still)
    for k in range(len(cameras)):
        rays = cameras.image_rays(k)
        along = torch.full((len(rays),), 0.5)
        for _ in range(80):
            along = along + distance(rays.origins + along[:, None] * rays.directions)
        points = rays.origins + along[:, None] * rays.directions
        hit = distance(points).abs() < 1e-3
        color = 0.5 + 0.25 * torch.sin(torch.tensor([5.0, 6.0, 7.0]) * points)
        rgba = torch.cat([color, hit[:, None].float()], 1) * hit[:, None]
        size = cameras.size(k)[::-1]
        images.append((rgba * 255).round().to(torch.uint8).reshape(*size, 4))
        depth = torch.where(hit, along * cameras.depth_factors(rays), 0.0)
        depths.append(depth.reshape(size))
    return images, depths


def make_scene(shape: str, *, views: int = 16, pixels: int = PIXELS) -> Scene:
    eyes = 3.0 * spread(views + 2)
    poses = look_at(eyes, torch.zeros(3), up=[0.0, 0.1, 1.0])
    cameras = Cameras.from_intrinsics(poses, pixels, pixels, 1.3 * pixels)
    images, depths = pictures(cameras, SHAPES[shape])
    return Scene(
        name=shape,
        source="memory",
        cameras=cameras,
        splits={"train": torch.arange(views), "test": torch.tensor([views, views + 1])},
        bounds=cube(torch.zeros(3), SIDE),
        images=MemoryImages(images),
        depths=MemoryMaps(depths),
        has_alpha=True,
    )


def motions(count: int, shift: float, turn: float) -> list[Similarity]:
    """Of something that moves along x and turns about z by as much (radians) at each moment."""
    found = []
    for k in range(count):
        rotation = rotation_exp(torch.tensor([0.0, 0.0, turn * k]))
        found.append(Similarity(1.0, rotation, torch.tensor([shift * (k - 1), 0.0, 0.0])))
    return found


def moving_scene(
    moves: list[Similarity], *, views: int = 10, pixels: int = PIXELS, shape: str = "ring"
) -> Scene:
    """A shape at several moments, each seen by the same cameras; the last one is for tests."""
    poses = look_at(3.0 * spread(views + 1), torch.zeros(3), up=[0.0, 0.1, 1.0])
    parts, images, depths = [], [], []
    for k, move in enumerate(moves):
        time = k / max(len(moves) - 1, 1)
        cameras = Cameras.from_intrinsics(poses, pixels, pixels, 1.3 * pixels, times=time)
        seen = pictures(cameras, SHAPES[shape], move)
        parts.append(cameras)
        images += seen[0]
        depths += seen[1]
    place = torch.arange(len(images))
    held = place % (views + 1) == views
    return Scene(
        name="moving",
        source="memory",
        cameras=Cameras.concatenate(parts),
        splits={"train": place[~held], "test": place[held]},
        bounds=cube(torch.zeros(3), SIDE),
        images=MemoryImages(images),
        depths=MemoryMaps(depths),
        has_alpha=True,
    )


def with_masks(scene: Scene) -> Scene:
    """Opaque pictures, gray around the object, with masks."""
    images, masks = [], []
    for k in range(len(scene.cameras)):
        rgba = scene.images.load(k)
        inside = rgba[..., 3:] > 0
        images.append(torch.where(inside, rgba[..., :3], torch.tensor(77, dtype=torch.uint8)))
        masks.append(inside[..., 0])
    kept = {"images": MemoryImages(images), "masks": MemoryMaps(masks), "has_alpha": False}
    return replace(scene, **kept)


def points_on(shape: str, count: int = 2000) -> PointCloud:
    """Points on a shape, found from around."""
    points = 0.95 * spread(count) * torch.tensor([1.0, 1.0, 0.6])
    for _ in range(40):
        points = points.requires_grad_()
        distance = SHAPES[shape](points)
        (normal,) = torch.autograd.grad(distance.sum(), points)
        points = (points - distance[:, None] * normal).detach()
    return PointCloud(points)


@dataclass(frozen=True)
class Shape:
    """A shape, its pictures and points on it."""

    scene: Scene
    distance: Distance
    points: PointCloud


@pytest.fixture(scope="session")
def shapes() -> dict[str, Shape]:
    """Ball and ring; the scenes have alpha and depths, and no points."""
    return {
        name: Shape(make_scene(name), distance, points_on(name))
        for name, distance in SHAPES.items()
    }


@pytest.fixture(scope="session")
def ball_scene(shapes: dict[str, Shape]) -> Scene:
    return shapes["ball"].scene


@pytest.fixture(scope="session")
def masked_scene(ball_scene: Scene) -> Scene:
    return with_masks(ball_scene)


@pytest.fixture
def quick() -> NeusConfig:
    """Settings for a few steps of seconds."""
    return train_config(
        "neus",
        "tiny",
        steps=20,
        levels=4,
        log2_table_size=12,
        base_resolution=8,
        max_resolution=32,
        grid_resolution=32,
        march_steps=96,
        batch_samples=2048,
        occupancy_samples=2048,
        level_base_step=10,
        warmup_steps=10,
        initial_radius=0.2,
        log_every=5,
        device="cpu",
    )


@dataclass(frozen=True)
class Moving:
    """A shape that moves as a whole."""

    scene: Scene
    motions: list[Similarity]
    """From the shape's own frame to the scene's, at each moment."""


@pytest.fixture(scope="session")
def moving() -> Moving:
    """Three moments of a ring that slides by an eighth of the bounds and turns by 14 degrees."""
    moves = motions(3, 0.25, 0.25)
    return Moving(moving_scene(moves), moves)


@pytest.fixture(scope="session")
def fast() -> Moving:
    """Two moments of a ring that slides by more than a sixth of the bounds."""
    moves = motions(2, 0.35, 0.25)
    return Moving(moving_scene(moves), moves)


@pytest.fixture
def sequence(quick: NeusConfig) -> NeusConfig:
    """Settings for 20 steps: 8 of the first moment and 6 of each other one, 2 of them moving."""
    changes = {"first_steps": 8, "later_steps": 6, "motion_steps": 2, "warmup_steps": 2}
    return replace(quick, steps=None, log_every=1, later_sharpness=1.0, **changes)
