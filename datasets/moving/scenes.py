"""The built-in scenes that move, as a `Scene`: 12 fixed training cameras and 2 for testing.

All cameras stand on a sphere of radius 4 and look at the origin; every one of them sees every
moment. Pictures are 128x128 with straight alpha before white. They are traced a moment at a time,
when one of them is first asked for, and kept in the cache folder. Order: all training pictures,
then those for testing; in each, moment by moment.
"""

from __future__ import annotations

import logging
import math
import threading
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lumigraph.core.cameras import Cameras
from lumigraph.core.errors import DataError
from lumigraph.core.scene import Scene, cube
from lumigraph.core.transforms import look_at
from lumigraph.datasets import builtin, object_pictures
from lumigraph.datasets.images import reduced_size
from lumigraph.datasets.moving.models import MODELS, MovingModel
from lumigraph.datasets.picture_cache import (
    cache_folder,
    content_key,
    read_pictures,
    write_pictures,
)

logger = logging.getLogger(__name__)

SIDE = 128
"""Width and height of the pictures in pixels, before `image_scale`."""
FILLED = 0.94
"""Share of the width of a picture that the bounds take where they face the camera."""
TRAIN_CAMERAS, TEST_CAMERAS = 12, 2
SOURCES = (
    "builtin",
    "distances",
    "moving/bodies",
    "moving/models",
    "moving/scenes",
    "object_model",
    "object_pictures",
    "sphere_tracing",
)
"""Modules that decide what the pictures look like."""


def load(name: str, image_scale: float = 1.0) -> Scene:
    """One of `MODELS`; nothing is traced yet.

    Args:
        name: without "builtin:".
        image_scale: the pictures are traced at this factor of their side.

    Raises:
        DataError: nothing is left of the pictures at that scale.
    """
    side = reduced_size(SIDE, SIDE, image_scale)[0]
    if side < 1:
        raise DataError(
            f"{builtin.PREFIX}{name}: image_scale {image_scale} leaves no pixels of {SIDE}x{SIDE};"
            " use a larger one"
        )
    model, moments = MODELS[name], MODELS[name].moments
    # So wide is half a picture at the distance of the origin.
    half_width = model.half_bounds / FILLED
    cameras = _cameras(model, side, focal=0.5 * side * builtin.CAMERA_RADIUS / half_width)
    train = TRAIN_CAMERAS * moments
    return Scene(
        name=name,
        source=builtin.PREFIX + name,
        cameras=cameras,
        splits={"train": torch.arange(train), "test": torch.arange(train, len(cameras))},
        bounds=cube(torch.zeros(3), 2 * model.half_bounds),
        images=MomentPictures(name, cameras),
        depths=builtin.ExactDepths(cameras, name),
        background="white",
        has_alpha=True,
    )


class MomentPictures:
    """Pictures of a moving scene, traced or read a moment at a time (an `ImageSource`)."""

    def __init__(self, name: str, cameras: Cameras) -> None:
        """Pictures of the scene `name` as `cameras` of `load` see it."""
        self._name = name
        self._cameras = cameras
        self._moments = MODELS[name].moments
        self._made: dict[int, NDArray[np.uint8]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._cameras)

    def size(self, index: int) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._cameras.size(index)

    def name(self, index: int) -> str:
        """Camera and moment, as in "c03_t12"."""
        moment, camera = self._place(index)
        return f"c{camera:02d}_t{moment:02d}"

    def load(self, index: int) -> Tensor:
        """(H, W, 4) uint8 sRGB with straight alpha."""
        moment, camera = self._place(index)
        with self._lock:
            if moment not in self._made:
                self._made[moment] = self._pictures(moment)
            return torch.from_numpy(self._made[moment][camera])

    def _place(self, index: int) -> tuple[int, int]:
        """Moment and camera of a picture."""
        index = range(len(self))[index]
        train = TRAIN_CAMERAS * self._moments
        if index < train:
            return divmod(index, TRAIN_CAMERAS)
        moment, camera = divmod(index - train, TEST_CAMERAS)
        return moment, TRAIN_CAMERAS + camera

    def _pictures(self, moment: int) -> NDArray[np.uint8]:
        """Pictures (14, H, W, 4) of one moment, from the cache or made and kept there."""
        indices = [index for index in range(len(self)) if self._place(index)[0] == moment]
        width, height = self.size(indices[0])
        path = self._folder(width) / f"moment_{moment:02d}.npz"
        pictures = read_pictures(path, (len(indices), height, width, 4))
        if pictures is None:
            if not path.parent.exists():
                logger.info("making %s%s once; it is kept in %s", builtin.PREFIX, self._name, path)
            pictures = self._trace(moment, indices)
            write_pictures(path, pictures)
        return pictures

    def _folder(self, side: int) -> Path:
        return cache_folder() / "scenes" / f"{self._name}-{content_key(SOURCES)}-{side}"

    def _trace(self, moment: int, indices: list[int]) -> NDArray[np.uint8]:
        parts = MODELS[self._name].parts(moment / (self._moments - 1))
        views = [builtin.pinhole_view(self._cameras, index) for index in indices]
        return object_pictures.render_pictures(parts, views)


def _cameras(model: MovingModel, side: int, *, focal: float) -> Cameras:
    """Training cameras at every moment, then test cameras at every moment."""
    count = np.arange(TRAIN_CAMERAS)
    golden = math.pi * (3 - math.sqrt(5))
    # Evenly in height is evenly on the sphere.
    height = np.linspace(*model.heights, TRAIN_CAMERAS)
    train = _positions(golden * count, height)
    azimuth, test_height = np.array(model.test_cameras).T
    test = _positions(np.radians(azimuth), test_height)
    poses = [
        look_at(torch.from_numpy(positions), torch.zeros(3).double(), up=[0.0, 0.0, 1.0]).float()
        for positions in (train, test)
    ]
    moments = model.moments
    times = torch.arange(moments) / (moments - 1)
    return Cameras.from_intrinsics(
        torch.cat([pose.repeat(moments, 1, 1) for pose in poses]),
        side,
        side,
        focal,
        times=torch.cat([times.repeat_interleave(len(pose)) for pose in poses]),
    )


def _positions(azimuth: NDArray[np.floating], height: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, 3) on the sphere of the cameras; height is a share of its radius."""
    across = np.sqrt(1 - height**2)
    sphere = np.stack([across * np.cos(azimuth), across * np.sin(azimuth), height], axis=-1)
    return builtin.CAMERA_RADIUS * sphere
