""".splat, the layout of the first viewer in a browser: 32 bytes a Gaussian and no header.

Three float32 of position, three of scale (standard deviations, not logarithms), red green blue and
opacity of 8 bits each, a rotation w x y z of 8 bits each as 128 + 128 q. Colors are cut to [0, 1];
harmonics beyond degree 0 have no place.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lumigraph.core.errors import DataError
from lumigraph.core.harmonics import Y_0
from lumigraph.export.splat_files.arrays import (
    Loaded,
    SplatArrays,
    check_budget,
    logits_of_bytes,
    sigmoid,
    to_bytes,
    unit,
)

ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("color", "u1", 4), ("rotation", "u1", 4)])
_LEAST_SENSIBLE = 0.5
"""Share of the rows with finite positions and scales, below which a file is of another kind."""


def load(path: Path, *, max_gaussians: int) -> Loaded:
    """Read a file; it has nothing by which to know it but its length and sensible numbers.

    Raises:
        DataError: the length is no multiple of 32 bytes, or most rows make no sense.
    """
    size = path.stat().st_size
    count, left = divmod(size, ROW.itemsize)
    if left:
        raise DataError(
            f"{path}: {size:,} bytes are no multiple of {ROW.itemsize}: cut short, or no .splat "
            "file; copy or download it again"
        )
    check_budget(path, count, max_gaussians)
    rows = np.fromfile(path, dtype=ROW)
    means, scales = rows["mean"].astype(np.float32), rows["scale"].astype(np.float32)
    with np.errstate(invalid="ignore"):
        sensible = np.isfinite(means).all(axis=1) & (scales >= 0).all(axis=1)
        sensible &= (scales < 1e30).all(axis=1) & (np.abs(means) < 1e30).all(axis=1)
    if sensible.mean() < _LEAST_SENSIBLE:
        raise DataError(f"{path}: most of its rows make no sense; is it a .splat file?")
    with np.errstate(divide="ignore", invalid="ignore"):
        log_scales = np.log(scales)
    color = rows["color"]
    base = (color[:, :3].astype(np.float32) / 255.0 - 0.5) / Y_0
    rotations = (rows["rotation"].astype(np.float32) - 128.0) / 128.0
    arrays = SplatArrays(
        means,
        rotations,
        log_scales,
        logits_of_bytes(color[:, 3]),
        base[:, None].astype(np.float32),
    )
    return Loaded(arrays, "splat")


def save(path: Path, arrays: SplatArrays) -> None:
    """Write all rows in order."""
    rows = np.empty(arrays.gaussians, dtype=ROW)
    rows["mean"] = arrays.means
    rows["scale"] = np.exp(arrays.log_scales)
    rows["color"][:, :3] = to_bytes((arrays.harmonics[:, 0] * Y_0 + 0.5) * 255.0)
    rows["color"][:, 3] = to_bytes(sigmoid(arrays.opacity_logits) * 255.0)
    rows["rotation"] = to_bytes(unit(arrays.rotations) * 128.0 + 128.0)
    rows.tofile(path)
