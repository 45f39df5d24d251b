"""A scene: posed pictures and all that is known about them. Anything missing is None.

The scene frame is the capture moved by `normalization`; `to_source` goes back. Letters: C cameras,
H W image, P points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from lumigraph.core.cameras import Cameras
from lumigraph.core.errors import DataError, InputError
from lumigraph.core.shapes import check_shapes
from lumigraph.core.transforms import Similarity

BACKGROUNDS = ("white", "black")
"""Colours that a scene may be known to stand before."""
OPAQUE = 128
"""Alpha in 255ths from which a pixel belongs to the object."""


@runtime_checkable
class ImageSource(Protocol):
    """Images of the cameras of a scene, in the same order, decoded when asked for."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def load(self, index: int) -> Tensor:
        """(H, W, 3) or (H, W, 4) uint8 sRGB with straight alpha, on the CPU."""
        ...

    def size(self, index: int) -> tuple[int, int]:
        """Width and height in pixels, without decoding where possible."""
        ...

    def name(self, index: int) -> str:
        """A name for messages and file names, e.g. the file's name."""
        ...


@runtime_checkable
class MapSource(Protocol):
    """One number a pixel for every camera of a scene: masks or depths, decoded when asked for."""

    def __len__(self) -> int:
        """Number of maps."""
        ...

    def load(self, index: int) -> Tensor:
        """(H, W): for masks bool, True where a pixel counts; for depths float32, 0 unknown."""
        ...


class MemoryImages:
    """Images that are already in memory.

    >>> images = MemoryImages([torch.zeros(2, 3, 3, dtype=torch.uint8)])
    >>> len(images), images.size(0), images.name(0)
    (1, (3, 2), '0000')
    """

    def __init__(self, images: Sequence[Tensor], *, names: Sequence[str] | None = None) -> None:
        """Keep a list of uint8 tensors (H, W, 3) or (H, W, 4) and their names."""
        for index, image in enumerate(images):
            check_shapes((f"image {index}", image, "H W _"), dtype=torch.uint8)
            if image.shape[2] not in {3, 4}:
                raise DataError(f"image {index} must have 3 or 4 channels; got {image.shape[2]}")
        if names is not None and len(names) != len(images):
            raise DataError(f"names must be one for each image; got {len(names)}, {len(images)}")
        self._images = list(images)
        self._names = list(names) if names is not None else None

    def __len__(self) -> int:
        return len(self._images)

    def load(self, index: int) -> Tensor:
        """(H, W, 3) or (H, W, 4) uint8."""
        return self._images[index]

    def size(self, index: int) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = self._images[index].shape[:2]
        return width, height

    def name(self, index: int) -> str:
        """The name given, or the index with four digits."""
        return f"{index:04d}" if self._names is None else self._names[index]


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points of the scene, from structure from motion or a lidar."""

    positions: Tensor
    """(P, 3) float in the scene frame."""
    colors: Tensor | None = None
    """(P, 3) uint8 sRGB."""

    def __post_init__(self) -> None:
        check_shapes(("positions", self.positions, "P 3"), ("colors", self.colors, "P 3"))

    def __len__(self) -> int:
        return self.positions.shape[0]


@dataclass(frozen=True, eq=False)
class Scene:
    """Cameras, images and what else a capture holds, in one frame.

    >>> scene = Scene(name="one", source="memory",
    ...     cameras=Cameras.from_intrinsics(torch.eye(4), 4, 4, 4.0),
    ...     splits={"train": torch.tensor([0])}, bounds=cube(torch.zeros(3), 2.0))
    >>> scene.split("train").tolist(), scene.side
    ([0], 2.0)
    """

    name: str
    """Short name, e.g. the folder's."""
    source: Path | str
    """Where the scene was read from."""
    cameras: Cameras
    """C cameras in the scene frame."""
    splits: Mapping[str, Tensor]
    """Camera indices, int64, by split name: "train", "test" and perhaps "val"."""
    bounds: Tensor
    """(2, 3) lower and upper corner of the region of interest, a cube in the scene frame."""
    images: ImageSource | None = None
    """One image for each camera."""
    masks: MapSource | None = None
    """One mask for each camera, True where a pixel counts."""
    depths: MapSource | None = None
    """One depth image for each camera, along the optical axis in scene units, 0 unknown."""
    points: PointCloud | None = None
    """Known points in the scene frame."""
    background: str | None = None
    """"white" or "black" where the scene is known to stand before that colour."""
    normalization: Similarity = field(default_factory=Similarity.identity)
    """From the capture's own frame to the scene frame."""
    has_alpha: bool = False
    """Whether the images have a fourth channel that says what is scene."""
    aabb_scale: int = 1
    """How many times larger than `bounds` the surroundings reach: a power of two, 1 to 128."""
    near: float = 0.0
    """Distance from the camera, in scene units, before which there is nothing."""
    notes: Sequence[str] = ()
    """Problems found on loading, one line each."""

    def __post_init__(self) -> None:
        _check_bounds(self.bounds)
        count = len(self.cameras)
        for kind in ("images", "masks", "depths"):
            maps = getattr(self, kind)
            if maps is not None and len(maps) != count:
                raise DataError(f"{self.source}: {len(maps)} {kind} for {count} cameras")
        for name, indices in self.splits.items():
            if indices.numel() and not (0 <= int(indices.min()) <= int(indices.max()) < count):
                raise DataError(f"{self.source}: split {name!r} names cameras beyond {count - 1}")
        if self.background is not None and self.background not in BACKGROUNDS:
            raise InputError(f"background must be white, black or None; got {self.background!r}")
        if self.aabb_scale not in {2**power for power in range(8)}:
            raise InputError(
                f"aabb_scale must be a power of two from 1 to 128; got {self.aabb_scale}"
            )
        if not self.near >= 0:
            raise InputError(f"near must be a distance of at least 0; got {self.near}")

    @property
    def center(self) -> Tensor:
        """(3,) middle of the bounds."""
        return self.bounds.mean(dim=0)

    @property
    def side(self) -> float:
        """Side of the cube `bounds` in scene units."""
        return float(self.bounds[1, 0] - self.bounds[0, 0])

    def split(self, name: str) -> Tensor:
        """Camera indices (int64) of a split.

        Raises:
            DataError: there is no such split, or it is empty; the message lists the others.
        """
        indices = self.splits.get(name)
        if indices is None or indices.numel() == 0:
            found = [key for key, value in self.splits.items() if value.numel()]
            state = "no such split" if indices is None else "an empty split"
            others = ", ".join(found) if found else "none at all"
            raise DataError(f"{self.source}: {name!r} is {state}; available: {others}")
        return indices

    def select(self, indices: Tensor | Sequence[int]) -> Scene:
        """The scene with some of its cameras only, in the order given; splits follow."""
        chosen = torch.as_tensor(indices, dtype=torch.int64, device="cpu")
        place = {int(old): new for new, old in enumerate(chosen.tolist())}
        splits = {
            name: torch.tensor([place[int(i)] for i in old.tolist() if int(i) in place]).long()
            for name, old in self.splits.items()
        }
        order = chosen.tolist()
        return replace(
            self,
            cameras=self.cameras.select(chosen),
            splits=splits,
            images=None if self.images is None else _SelectedImages(self.images, order),
            masks=None if self.masks is None else _SelectedMaps(self.masks, order),
            depths=None if self.depths is None else _SelectedMaps(self.depths, order),
        )

    @property
    def moments(self) -> Tensor | None:
        """(F,) the different times of a moving scene in [0, 1], ascending; None where nothing
        moves."""
        times = self.cameras.times
        return None if times is None else times.cpu().unique()

    def at_moment(self, index: int) -> Scene:
        """What the cameras saw at one of `moments`: the scene with these cameras only.

        Raises:
            DataError: the scene has no times. IndexError: there is no such moment.
        """
        moments = self.moments
        if moments is None:
            raise DataError(f"{self.source}: has no times; give data with a time for every image")
        if not 0 <= index < len(moments):
            raise IndexError(f"moment {index} of {len(moments)} does not exist")
        assert self.cameras.times is not None
        return self.select((self.cameras.times.cpu() == moments[index]).nonzero()[:, 0])

    def outline(self, index: int) -> Tensor | None:
        """(H, W) bool: where a camera sees the object, as alpha of at least one half or else the
        mask says; None where the scene has neither."""
        if self.has_alpha and self.images is not None:
            image = self.images.load(index)
            return None if image.shape[2] < 4 else image[..., 3] >= OPAQUE
        return None if self.masks is None else self.masks.load(index)

    def to_source(self, points: Tensor) -> Tensor:
        """Points (..., 3) of the scene frame in the capture's own frame and unit."""
        return self.normalization.inverse().apply(points)


def cube(center: Tensor, side: float) -> Tensor:
    """(2, 3) bounds of a cube from its centre (3,) and side.

    >>> cube(torch.zeros(3), 2.0).tolist()
    [[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]
    """
    middle = torch.as_tensor(center, dtype=torch.float32)
    return torch.stack([middle - side / 2, middle + side / 2])


def _check_bounds(bounds: Tensor) -> None:
    check_shapes(("bounds", bounds, "2 3"))
    sides = bounds[1] - bounds[0]
    if not bool(torch.isfinite(bounds).all()) or float(sides.min()) <= 0:
        raise InputError(f"bounds must be a finite box with positive sides; got {bounds.tolist()}")
    if float(sides.max()) > float(sides.min()) * (1 + 1e-4):
        raise InputError(f"bounds must be a cube; got sides {sides.tolist()}")


class _SelectedMaps:
    def __init__(self, maps: MapSource, order: Sequence[int]) -> None:
        self._maps = maps
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    def load(self, index: int) -> Tensor:
        return self._maps.load(self._order[index])


class _SelectedImages:
    def __init__(self, images: ImageSource, order: Sequence[int]) -> None:
        self._images = images
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    def load(self, index: int) -> Tensor:
        return self._images.load(self._order[index])

    def size(self, index: int) -> tuple[int, int]:
        return self._images.size(self._order[index])

    def name(self, index: int) -> str:
        return self._images.name(self._order[index])
