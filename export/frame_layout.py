"""Several pictures as one: side by side, or as a mosaic; pictures of other sizes on a common one.
Letters: H W image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lumigraph.core import Cameras

Layout = Literal["row", "mosaic", "separate"]
LAYOUTS = ("row", "mosaic", "separate")
Picture = NDArray[np.uint8]


def arranged(pictures: Sequence[Picture], layout: Layout) -> Picture:
    """Pictures (H, W, 3) of one size as one: a row, or a mosaic about as wide as high, whose last
    row may end in black.

    >>> arranged([np.zeros((2, 3, 3), np.uint8)] * 3, "mosaic").shape
    (4, 6, 3)
    """
    columns = len(pictures) if layout == "row" else math.ceil(math.sqrt(len(pictures)))
    rows = []
    for start in range(0, len(pictures), columns):
        row = list(pictures[start : start + columns])
        row += [np.zeros_like(pictures[0])] * (columns - len(row))
        rows.append(np.concatenate(row, axis=1))
    return np.concatenate(rows)


def fitting(camera: Cameras, width: int, height: int) -> Cameras:
    """One camera at the largest size of its own shape that fits into width x height pixels."""
    own_width, own_height = camera.size(0)
    scale = min(width / own_width, height / own_height)
    size = (max(1, round(own_width * scale)), max(1, round(own_height * scale)))
    return camera.resized_to(min(size[0], width), min(size[1], height))


def centered(picture: Picture, width: int, height: int) -> Picture:
    """A picture in the middle of a black one of width x height pixels, at least its size."""
    if picture.shape[:2] == (height, width):
        return picture
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
    canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas
