"""Colored points to PLY, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from plyfile import PlyData, PlyElement

from lumigraph.training.files import write_atomic

COLORS = ("red", "green", "blue")


def write_points(
    path: Path,
    positions: NDArray[Any],
    colors: NDArray[np.uint8] | None,
    *,
    double: bool = False,
) -> None:
    """Write a binary PLY file: x y z, and red green blue as uchar.

    Args:
        positions: (P, 3).
        colors: (P, 3) sRGB, or None.
        double: coordinates of 64 bits instead of 32, which not every program reads.

    Raises:
        DataError: the file cannot be written.
    """
    kinds = [(axis, "<f8" if double else "<f4") for axis in "xyz"]
    kinds += [(name, "u1") for name in COLORS] if colors is not None else []
    rows = np.empty(len(positions), dtype=kinds)
    for index, axis in enumerate("xyz"):
        rows[axis] = positions[:, index]
    for index, name in enumerate(COLORS if colors is not None else ()):
        assert colors is not None
        rows[name] = colors[:, index]
    content = PlyData([PlyElement.describe(rows, "vertex")], byte_order="<")
    write_atomic(path, lambda temporary: content.write(str(temporary)))
