"""Depth maps in PFM files, as multi-view stereo writes them: read when asked for.

A PFM file is three lines of text (`Pf` for one channel, width and height, a scale whose sign tells
the byte order) and rows of float32 from the lowest to the highest. Depth runs along the optical
axis; 0 and all that is no finite positive number count as unknown.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from lumigraph.core.errors import DataError

SUFFIX = ".pfm"


def pfm_size(path: Path) -> tuple[int, int]:
    """Width and height, read without the numbers."""
    with _opened(path) as stream:
        width, height, _ = _header(stream, path)
    return width, height


def read_pfm(path: Path) -> np.ndarray:
    """(H, W) float32 of a file with one channel, first row on top; unknown depths are 0."""
    with _opened(path) as stream:
        width, height, order = _header(stream, path)
        content = stream.read()
    if len(content) < 4 * width * height:
        raise DataError(
            f"{path}: the file is cut short ({len(content)} of {4 * width * height} bytes);"
            " copy it again"
        )
    values = np.frombuffer(content, f"{order}f4", width * height).reshape(height, width)[::-1]
    known = np.isfinite(values) & (values > 0)
    return np.where(known, values, 0).astype(np.float32)


class DepthFiles:
    """Depth maps of a scene: a `MapSource` that reads a file for each call."""

    def __init__(
        self, paths: Sequence[Path], sizes: Sequence[tuple[int, int]], *, scale: float
    ) -> None:
        """Maps of some files.

        Args:
            paths: one file for each camera.
            sizes: width and height of each camera's image; a map of another size but of the same
                shape is sampled at the nearest pixel, because a mean of near and far is neither.
            scale: scene units for a unit of the files.
        """
        self._paths = list(paths)
        self._sizes = list(sizes)
        self._scale = scale
        for path, size in zip(self._paths, self._sizes, strict=True):
            require_shape(path, size)

    def __len__(self) -> int:
        return len(self._paths)

    def load(self, index: int) -> Tensor:
        """(H, W) float32 in scene units, 0 unknown."""
        depth = torch.from_numpy(read_pfm(self._paths[index]) * np.float32(self._scale))
        return sampled(depth, self._sizes[index])


class DepthOutlines:
    """Masks that are true where a depth map knows something: a `MapSource`."""

    def __init__(self, depths: DepthFiles) -> None:
        self._depths = depths

    def __len__(self) -> int:
        return len(self._depths)

    def load(self, index: int) -> Tensor:
        """(H, W) bool."""
        return self._depths.load(index) > 0


def sampled(depth: Tensor, size: tuple[int, int]) -> Tensor:
    """A map (H, W) at another width and height, nearest pixel."""
    width, height = size
    if (height, width) == tuple(depth.shape):
        return depth
    rows = ((torch.arange(height) + 0.5) * depth.shape[0] / height).long()
    columns = ((torch.arange(width) + 0.5) * depth.shape[1] / width).long()
    return depth[rows[:, None], columns]


def require_shape(path: Path, size: tuple[int, int], tolerance: float = 0.02) -> None:
    """Refuse a map whose sides are not in the proportion of its image's."""
    width, height = pfm_size(path)
    if abs(width * size[1] / (height * size[0]) - 1) > tolerance:
        raise DataError(
            f"{path}: the depth map has {width}x{height} pixels, its image {size[0]}x{size[1]};"
            " they must agree in shape"
        )


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); restore this depth map"
        ) from None


def _header(stream: BinaryIO, path: Path) -> tuple[int, int, str]:
    """Width, height and NumPy's sign of the byte order."""
    kind = stream.readline(16).strip()
    try:
        width, height = (int(word) for word in stream.readline(64).split())
        factor = float(stream.readline(64))
    except ValueError:
        kind, width, height, factor = b"", 0, 0, 0.0
    if kind != b"Pf" or min(width, height) < 1 or factor == 0:
        raise DataError(f"{path}: not a PFM file with one channel; write the depth map again")
    return width, height, "<" if factor < 0 else ">"
