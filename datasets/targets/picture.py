"""Pictures of any size to be fitted: 8-bit files as sRGB, OpenEXR files as linear light.

Large ones stay 8-bit in memory (three bytes a pixel). Pixels are as stored: EXIF rotations are not
applied. Letters: H W picture.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lumigraph.core.cameras import Cameras
from lumigraph.core.color import linear_to_srgb
from lumigraph.core.errors import DataError, require
from lumigraph.core.scene import cube
from lumigraph.core.shapes import check_shapes
from lumigraph.datasets.images import (
    IMAGE_SUFFIXES,
    area_average,
    decode_image,
    image_header,
    reduced_size,
)

from .target_scene import TargetScene

LINEAR_SUFFIX = ".exr"
MOST_CAMERA_PIXELS = 1024
"""Longer side of what the scene's camera sees; the picture itself may be any size."""
DEFAULT_BUDGET_BYTES = 4 << 30


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels that a field of two dimensions can be fitted to.

    >>> Picture(torch.zeros(2, 3, 3, dtype=torch.uint8)).size
    (3, 2)
    """

    pixels: Tensor
    """(H, W, 3) uint8 sRGB, or float32: linear light without an upper end."""

    def __post_init__(self) -> None:
        check_shapes(("pixels", self.pixels, "H W 3"), dtype=(torch.uint8, torch.float32))

    @property
    def is_linear(self) -> bool:
        """Whether values are linear light; else sRGB."""
        return self.pixels.dtype == torch.float32

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = self.pixels.shape[:2]
        return width, height

    def values(self, rows: Tensor | slice, columns: Tensor | slice) -> Tensor:
        """(..., 3) float32 of some pixels: sRGB in [0, 1], or linear light."""
        found = self.pixels[rows, columns]
        return found if self.is_linear else found.float() / 255

    def shown(self, values: Tensor) -> Tensor:
        """sRGB in [0, 1] of values (..., 3) as `values` gives them: linear light is cut off at 1
        and encoded."""
        return linear_to_srgb(values.clamp(0, 1)) if self.is_linear else values.clamp(0, 1)


def load_picture(
    path: str | Path, *, image_scale: float = 1.0, budget_bytes: int = DEFAULT_BUDGET_BYTES
) -> TargetScene:
    """Read a picture as a scene: a flat rectangle about the origin in the plane z = 0, its longer
    side 1, x to the right and y down, before one camera that sees it whole.

    Args:
        path: .exr (OpenEXR), or any 8-bit picture.
        image_scale: factor on both sides, in (0, 1].
        budget_bytes: memory that the pixels may take.

    Raises:
        DataError: missing, damaged, too large, one pixel high or wide, of a single color, or with
            values that are not finite. MissingExtraError: OpenEXR is not installed.
    """
    file = Path(path).expanduser()
    _check_file(file)
    notes: list[str] = []
    pixels: NDArray[Any]
    if file.suffix.lower() == LINEAR_SUFFIX:
        pixels = _read_linear(file, image_scale, budget_bytes, notes)
    else:
        pixels = _read_bytes(file, image_scale, budget_bytes, notes)
    _check_pixels(file, pixels)
    picture = Picture(torch.from_numpy(np.ascontiguousarray(pixels)))
    return TargetScene(
        name=file.stem,
        source=file,
        cameras=camera_before(picture.size),
        splits={"train": torch.zeros(1, dtype=torch.int64)},
        bounds=cube(torch.zeros(3), 1.0),
        notes=notes,
        target=picture,
    )


def camera_before(size: tuple[int, int]) -> Cameras:
    """One camera that sees a picture of that width and height in pixels whole and upright."""
    width, height = size
    scale = min(1.0, MOST_CAMERA_PIXELS / max(size))
    seen = (max(1, round(width * scale)), max(1, round(height * scale)))
    pose = torch.eye(4)
    pose[2, 3] = -1.0
    focal = (seen[0] / (width / max(size)), seen[1] / (height / max(size)))
    return Cameras.from_intrinsics(pose, *seen, *focal)


def _check_file(file: Path) -> None:
    known = ", ".join((LINEAR_SUFFIX, *IMAGE_SUFFIXES))
    if file.is_dir():
        raise DataError(f"{file}: is a folder; name a picture in it ({known})")
    if not file.is_file():
        raise DataError(f"{file}: no such picture; check the path")
    if file.suffix.lower() not in (LINEAR_SUFFIX, *IMAGE_SUFFIXES):
        raise DataError(f"{file}: is no picture that can be read; use one of {known}")


def _read_bytes(file: Path, scale: float, budget_bytes: int, notes: list[str]) -> NDArray[np.uint8]:
    with _any_size():
        width, height, has_alpha = image_header(file)
        channels = 4 if has_alpha else 3
        _check_size(file, width, height, channels, budget_bytes)
        pixels = decode_image(file, channels)
    if scale != 1.0:
        pixels = area_average(pixels, *_scaled(file, width, height, scale))
    if has_alpha:
        notes.append(f"{file.name}: has alpha; it is fitted over black")
        rows = range(0, len(pixels), 256)
        # in strips, so that no second picture of floats stands beside the first
        over = [pixels[row : row + 256].astype(np.float32) for row in rows]
        strips = [strip[..., :3] * (strip[..., 3:] / 255) for strip in over]
        pixels = np.concatenate([(strip + 0.5).astype(np.uint8) for strip in strips])
    return pixels


@contextlib.contextmanager
def _any_size() -> Iterator[None]:
    """Pillow refuses large pictures as attacks; here the memory budget decides."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _read_linear(
    file: Path, scale: float, budget_bytes: int, notes: list[str]
) -> NDArray[np.float32]:
    library = require("OpenEXR", extra="fitting")
    try:
        header = library.File(str(file), header_only=True).header()
        low, high = (np.asarray(corner, np.int64) for corner in header["dataWindow"])
        width, height = (int(side) for side in high - low + 1)
    except Exception as error:  # the library raises whatever its parser meets
        raise DataError(f"{file}: not a readable OpenEXR file; export it again") from error
    _check_size(file, width, height, 16, budget_bytes)
    try:
        channels = library.File(str(file)).channels()
        planes = {name: np.asarray(channel.pixels) for name, channel in channels.items()}
    except Exception as error:
        raise DataError(f"{file}: damaged or cut short; export it again") from error
    pixels, alpha = _colors(file, planes)
    if alpha is not None and not (alpha == 1).all():
        notes.append(f"{file.name}: has alpha; its colors are taken as they are, over black")
    if scale != 1.0:
        pixels = _averaged(pixels, *_scaled(file, width, height, scale))
    return pixels


def _colors(
    file: Path, planes: dict[str, NDArray[np.generic]]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """(H, W, 3), and alpha (H, W) where there is one; OpenEXR colors are premultiplied."""
    joined = planes.get("RGBA", planes.get("RGB"))
    if joined is not None:
        values = joined.astype(np.float32)
        return values[..., :3], values[..., 3] if values.shape[2] == 4 else None
    if "Y" in planes:
        gray = planes["Y"].astype(np.float32)
        return np.repeat(gray.reshape(*gray.shape[:2], 1), 3, axis=2), None
    listed = ", ".join(planes) or "none"
    raise DataError(f"{file}: has no channels R, G, B or Y, but {listed}; export it with colors")


def _averaged(pixels: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    reduced = torch.nn.functional.interpolate(image, (height, width), mode="area")
    return np.asarray(reduced[0].permute(1, 2, 0).numpy(), np.float32)


def _scaled(file: Path, width: int, height: int, scale: float) -> tuple[int, int]:
    size = reduced_size(width, height, scale)
    if min(size) < 1:
        raise DataError(f"{file}: image_scale {scale:g} leaves no pixel; use a larger one")
    return size


def _check_size(file: Path, width: int, height: int, channel_bytes: int, budget: int) -> None:
    needed = width * height * channel_bytes
    if needed > budget:
        raise DataError(
            f"{file}: {width} x {height} pixels take {needed / 2**30:.1f} GiB, more than the "
            f"budget of {budget / 2**30:.1f} GiB; raise image_budget_gib"
        )


def _check_pixels(file: Path, pixels: NDArray[Any]) -> None:
    height, width = pixels.shape[:2]
    if min(width, height) < 2:
        raise DataError(
            f"{file}: is {width} x {height}; a picture needs two pixels along each side"
        )
    if pixels.dtype == np.float32:
        broken = int((~np.isfinite(pixels)).any(axis=2).sum())
        if broken:
            raise DataError(
                f"{file}: {broken:,} of {width * height:,} pixels are not finite; export it again"
            )
    if bool((pixels == pixels[0, 0]).all()):
        raise DataError(f"{file}: every pixel has the same color; there is nothing to fit")
