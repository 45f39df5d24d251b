"""Scenes that need no download: rendered on first use and kept in the user's cache folder.

`builtin:object` shows toys on a wooden stand before a white background, seen from cameras on a
sphere (radius 4) that look at the origin: 100 for training, spread evenly over the upper half with
a little seeded disorder, and 20 for testing on a path between them. Pictures are 200x200 with
straight alpha. Depths and normals are exact: they are traced when asked for, for any pinhole view.

The scenes that move stand in `moving/`; depths, normals and distances of all scenes are asked here.
"""

from __future__ import annotations

import logging
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lumigraph.core.cameras import CameraModel, Cameras
from lumigraph.core.errors import DataError, InputError
from lumigraph.core.scene import MemoryImages, Scene, cube
from lumigraph.core.transforms import look_at
from lumigraph.datasets import object_model, object_pictures
from lumigraph.datasets.moving.models import MODELS
from lumigraph.datasets.picture_cache import (
    cache_folder,
    content_key,
    read_pictures,
    write_pictures,
)
from lumigraph.datasets.sphere_tracing import Array, Part, PinholeView, local_gradients

logger = logging.getLogger(__name__)

PREFIX = "builtin:"
NAMES = ("object", *MODELS)
"""Built-in scenes, without the prefix."""

SIDE = 200
"""Width and height of the pictures in pixels."""
FOCAL = 300.0
"""Focal length in pixels."""
TRAIN_VIEWS, TEST_VIEWS = 100, 20
CAMERA_RADIUS = 4.0
HALF_BOUNDS = 1.25
"""Half the side of the region of interest."""
BATCH = 4
"""Pictures made together. No threads: numpy holds the interpreter's lock for half of this work."""
SEED = 2035
"""Chosen so that no test camera comes within 0.2 of a training camera."""
SOURCES = ("builtin", "distances", "object_model", "object_pictures", "sphere_tracing")
"""Modules that decide what the pictures look like; their content names the cache file."""


def load(name: str, image_scale: float = 1.0) -> Scene:
    """A built-in scene; made in seconds on first use, then read from the cache.

    Args:
        name: "builtin:object", or "object" for short.
        image_scale: factor on the side of the pictures, for scenes that move.

    Returns:
        The scene with splits "train" and "test", RGBA images, white background and exact depths.

    Raises:
        DataError: there is no such scene, or not in that size.
    """
    short = name.removeprefix(PREFIX)
    if short not in NAMES:
        known = ", ".join(PREFIX + each for each in NAMES)
        raise DataError(f"{PREFIX}{short}: no such built-in scene; available: {known}")
    if short in MODELS:
        from lumigraph.datasets.moving import scenes  # builds on this module

        return scenes.load(short, image_scale)
    if image_scale != 1.0:
        raise DataError(f"{name}: this scene comes in one size; leave image_scale at 1")
    cameras = _cameras()
    pictures = [torch.from_numpy(picture) for picture in _cached_pictures(short, cameras)]
    names = [f"train_{index:03d}" for index in range(TRAIN_VIEWS)]
    names += [f"test_{index:03d}" for index in range(TEST_VIEWS)]
    return Scene(
        name=short,
        source=PREFIX + short,
        cameras=cameras,
        splits={
            "train": torch.arange(TRAIN_VIEWS),
            "test": torch.arange(TRAIN_VIEWS, TRAIN_VIEWS + TEST_VIEWS),
        },
        bounds=cube(torch.zeros(3), 2 * HALF_BOUNDS),
        images=MemoryImages(pictures, names=names),
        depths=ExactDepths(cameras),
        background="white",
        has_alpha=True,
    )


class ExactDepths:
    """Depth pictures of a built-in scene, traced when asked for (a `MapSource`)."""

    def __init__(self, cameras: Cameras, name: str = "object") -> None:
        """Depths of the scene `name`, as `cameras` (pinhole, centred) see it at their times."""
        self._cameras = cameras
        self._name = name

    def __len__(self) -> int:
        return len(self._cameras)

    def load(self, index: int) -> Tensor:
        """(H, W) float32 depth along the optical axis through pixel centres, 0 for nothing."""
        return torch.from_numpy(_geometry(self._name, self._cameras, index).depth)


def parts(source: str, time: float | None = None) -> tuple[Part, ...]:
    """What a built-in scene is made of.

    Args:
        source: "builtin:moving", or "moving" for short.
        time: in [0, 1], any and not only the moments; needed where the scene moves.

    Raises:
        DataError: there is no such scene. InputError: no time, or one out of range.
    """
    name = str(source).removeprefix(PREFIX)
    if name not in NAMES:
        raise DataError(f"{source}: not a built-in scene, so that its exact shape is not known")
    if name not in MODELS:
        return object_model.model()
    if time is None or not 0 <= time <= 1:
        raise InputError(f"{source} moves: time must be within 0 and 1; got {time}")
    return MODELS[name].parts(time)


def signed_distance(source: str, points: Tensor, time: float | None = None) -> Tensor:
    """Distance of points from the exact surface of a built-in scene, to judge meshes by.

    Args:
        source: the scene, see `parts`.
        points: (N, 3) in the scene frame.
        time: in [0, 1]; needed where the scene moves.

    Returns:
        (N,) float32, negative inside: the lower bound that the tracer uses, over the length of its
        gradient. Its zero is exact, and near the surface it is the distance up to second order.
    """
    local = points.detach().cpu().float().numpy().T
    found = [_first_order(part, part.to_local(local)) for part in parts(source, time)]
    return torch.from_numpy(np.min(found, axis=0))


def _first_order(part: Part, points: Array) -> Array:
    """Distance (N,) of points (3, N) in a part's frame."""
    slope = np.linalg.norm(local_gradients(part, points), axis=0)
    # Where the gradient fades, as inside a ridge, the bound itself is the better guess.
    return np.asarray(part.distance(points) / np.clip(slope, 0.3, 1), np.float32)


def normals(scene: Scene, index: int) -> Tensor:
    """Exact normals of a built-in scene as one of its cameras sees them.

    Args:
        scene: a scene of `load`, or a part of it by `Scene.select` or `Scene.at_moment`.
        index: the camera.

    Returns:
        (H, W, 3) float32 unit outward normals in the scene frame through the pixel centres; 0
        where nothing is seen.

    Raises:
        DataError: the scene is not built in, so that no exact normals are known.
    """
    return torch.from_numpy(_geometry(str(scene.source), scene.cameras, index).normal)


def render_view(cameras: Cameras, index: int) -> Tensor:
    """The object scene from any pinhole camera: (H, W, 4) uint8, sRGB and straight alpha."""
    picture = object_pictures.render_pictures(object_model.model(), [pinhole_view(cameras, index)])
    return torch.from_numpy(picture[0])


def _geometry(source: str, cameras: Cameras, index: int) -> object_pictures.Geometry:
    """What the rays of one camera meet at its time."""
    time = None if cameras.times is None else float(cameras.times[index])
    return object_pictures.trace_geometry(parts(source, time), pinhole_view(cameras, index))


def _cameras() -> Cameras:
    """Training cameras, then test cameras."""
    disorder = np.random.default_rng(SEED)
    count = np.arange(TRAIN_VIEWS)
    golden = math.pi * (3 - math.sqrt(5))
    azimuth = golden * count + disorder.uniform(-0.08, 0.08, TRAIN_VIEWS)
    # Evenly in height is evenly on the sphere; 3 to 77 degrees above the stand.
    height = np.linspace(0.06, 0.97, TRAIN_VIEWS) + disorder.uniform(-0.01, 0.01, TRAIN_VIEWS)
    turn = 2 * math.pi * (np.arange(TEST_VIEWS) + 0.5) / TEST_VIEWS
    azimuth = np.concatenate([azimuth, turn])
    height = np.concatenate([height, np.sin(np.radians(32 + 18 * np.sin(3 * turn)))])
    across = np.sqrt(1 - height**2)
    sphere = np.stack([across * np.cos(azimuth), across * np.sin(azimuth), height], axis=-1)
    positions = torch.from_numpy(CAMERA_RADIUS * sphere)
    poses = look_at(positions, torch.zeros(3, dtype=torch.float64), up=[0.0, 0.0, 1.0])
    return Cameras.from_intrinsics(poses.float(), SIDE, SIDE, FOCAL)


def pinhole_view(cameras: Cameras, index: int) -> PinholeView:
    """One camera as the tracer wants it."""
    width, height = cameras.size(index)
    fx, fy, cx, cy = cameras.intrinsics[index].tolist()
    centred = math.isclose(cx, width / 2, abs_tol=1e-3) and math.isclose(
        cy, height / 2, abs_tol=1e-3
    )
    square = math.isclose(fx, fy, rel_tol=1e-5)
    if int(cameras.models[index]) != CameraModel.PINHOLE or not (centred and square):
        raise DataError(
            f"camera {index}: built-in scenes are traced for pinhole cameras with square pixels"
            " and the principal point in the middle; render such a view and crop it"
        )
    pose = cameras.camera_to_world[index].detach().cpu().double().numpy()
    return PinholeView(pose, width, height, fx)


def _cached_pictures(name: str, cameras: Cameras) -> NDArray[np.uint8]:
    """Pictures (C, H, W, 4) from the cache, or made and kept there."""
    path = cache_folder() / "scenes" / f"{name}-{content_key(SOURCES)}.npz"
    shape = (len(cameras), SIDE, SIDE, 4)
    pictures = read_pictures(path, shape)
    if pictures is None:
        logger.info("making the scene %s%s once; it is kept in %s", PREFIX, name, path.parent)
        pictures = _render_all(cameras)
        write_pictures(path, pictures)
    return pictures


def _render_all(cameras: Cameras) -> NDArray[np.uint8]:
    """Pictures of all cameras, a few at a time."""
    model = object_model.model()
    views = [pinhole_view(cameras, index) for index in range(len(cameras))]
    batches = [
        object_pictures.render_pictures(model, views[start : start + BATCH])
        for start in range(0, len(views), BATCH)
    ]
    return np.concatenate(batches)
