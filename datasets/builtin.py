"""Scenes that need no download: rendered on first use and kept in the user's cache folder.

`builtin:object` shows toys on a wooden stand before a white background, seen from cameras on a
sphere (radius 4) that look at the origin: 100 for training, spread evenly over the upper half with
a little seeded disorder, and 20 for testing on a path between them. Pictures are 200x200 with
straight alpha. Depths and normals are exact: they are traced when asked for, for any pinhole view.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lumigraph.core.cameras import CameraModel, Cameras
from lumigraph.core.errors import DataError
from lumigraph.core.scene import MemoryImages, Scene, cube
from lumigraph.core.transforms import look_at
from lumigraph.datasets import object_model, object_pictures
from lumigraph.datasets.sphere_tracing import PinholeView

logger = logging.getLogger(__name__)

PREFIX = "builtin:"
NAMES = ("object",)
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


def load(name: str) -> Scene:
    """A built-in scene; made in seconds on first use, then read from the cache.

    Args:
        name: "builtin:object", or "object" for short.

    Returns:
        The scene with splits "train" and "test", RGBA images, white background and exact depths.

    Raises:
        DataError: there is no such scene.
    """
    short = name.removeprefix(PREFIX)
    if short not in NAMES:
        known = ", ".join(PREFIX + each for each in NAMES)
        raise DataError(f"{PREFIX}{short}: no such built-in scene; available: {known}")
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
    """Depth pictures of the object scene, traced when asked for (a `MapSource`)."""

    def __init__(self, cameras: Cameras) -> None:
        """Depths as `cameras` (pinhole, principal point in the middle) see them."""
        self._cameras = cameras

    def __len__(self) -> int:
        return len(self._cameras)

    def load(self, index: int) -> Tensor:
        """(H, W) float32 depth along the optical axis through pixel centres, 0 for nothing."""
        view = _view(self._cameras, index)
        return torch.from_numpy(object_pictures.trace_geometry(object_model.model(), view).depth)


def normals(scene: Scene, index: int) -> Tensor:
    """Exact normals of a built-in scene as one of its cameras sees them.

    Args:
        scene: a scene of `load`, or a part of it by `Scene.select`.
        index: the camera.

    Returns:
        (H, W, 3) float32 unit outward normals in the scene frame through the pixel centres; 0
        where nothing is seen.

    Raises:
        DataError: the scene is not built in, so that no exact normals are known.
    """
    if scene.source != PREFIX + "object":
        raise DataError(f"{scene.source}: exact normals are known for {PREFIX}object only")
    view = _view(scene.cameras, index)
    return torch.from_numpy(object_pictures.trace_geometry(object_model.model(), view).normal)


def render_view(cameras: Cameras, index: int) -> Tensor:
    """The object scene from any pinhole camera: (H, W, 4) uint8, sRGB and straight alpha."""
    picture = object_pictures.render_pictures(object_model.model(), [_view(cameras, index)])
    return torch.from_numpy(picture[0])


def cache_folder() -> Path:
    """`LUMIGRAPH_CACHE`, else `~/.cache/lumigraph`."""
    return Path(os.environ.get("LUMIGRAPH_CACHE") or Path.home() / ".cache" / "lumigraph")


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


def _view(cameras: Cameras, index: int) -> PinholeView:
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
    path = cache_folder() / "scenes" / f"{name}-{_content_key()}.npz"
    shape = (len(cameras), SIDE, SIDE, 4)
    pictures = _read_cache(path, shape)
    if pictures is None:
        logger.info("making the scene %s%s once; it is kept in %s", PREFIX, name, path.parent)
        pictures = _render_all(cameras)
        _write_cache(path, pictures)
    return pictures


def _content_key() -> str:
    """Changes with any module that decides what the pictures look like."""
    digest = hashlib.sha256()
    for module in SOURCES:
        digest.update(Path(__file__).with_name(f"{module}.py").read_bytes())
    return digest.hexdigest()[:16]


def _render_all(cameras: Cameras) -> NDArray[np.uint8]:
    """Pictures of all cameras, a few at a time."""
    model = object_model.model()
    views = [_view(cameras, index) for index in range(len(cameras))]
    batches = [
        object_pictures.render_pictures(model, views[start : start + BATCH])
        for start in range(0, len(views), BATCH)
    ]
    return np.concatenate(batches)


def _read_cache(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The kept pictures; None when there are none or the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            pictures = archive["pictures"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        logger.warning("%s is damaged (%s) and is made again", path, error)
        return None
    if pictures.shape != shape or pictures.dtype != np.uint8:
        logger.warning("%s holds other pictures than expected and is made again", path)
        return None
    return np.asarray(pictures, np.uint8)


def _write_cache(path: Path, pictures: NDArray[np.uint8]) -> None:
    """Keep the pictures, whole or not at all; a scene that cannot be kept is still usable."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, pictures=pictures)
        os.replace(temporary, path)
    except OSError as error:
        logger.warning(
            "cannot keep the scene in %s (%s); set LUMIGRAPH_CACHE to a folder that can be written",
            path.parent,
            error.strerror,
        )
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
