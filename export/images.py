"""A rendered picture to a PNG file, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lumigraph.core.errors import InputError


def to_bytes(picture: Any) -> np.ndarray:
    """A picture as uint8 (H, W, 3): floats in [0, 1] are rounded, what is not finite is clamped.

    Args:
        picture: array or tensor (H, W, 3), uint8 or floating, sRGB.

    Raises:
        InputError: another shape.

    >>> to_bytes(np.full((1, 1, 3), 0.5)).tolist()
    [[[128, 128, 128]]]
    """
    if hasattr(picture, "detach"):
        picture = picture.detach().cpu().numpy()
    array = np.asarray(picture)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise InputError(f"a picture has shape {array.shape}: expected (height, width, 3)")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    finite = np.nan_to_num(array.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    return (finite.clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def write_image(path: str | Path, picture: Any) -> None:
    """Write a PNG; a failure leaves an earlier file of that name as it was.

    Args:
        path: ends in `.png`; missing folders are made.
        picture: see `to_bytes`.

    Raises:
        InputError: a wrong shape, or the file cannot be written.
    """
    import imageio.v3 as imageio

    path = Path(path)
    pixels = to_bytes(picture)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".png")
        os.close(handle)
        try:
            imageio.imwrite(name, pixels, extension=".png")
            os.chmod(name, 0o644)
            os.replace(name, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)


@contextlib.contextmanager
def disk_errors(path: Path) -> Any:
    """Failures to write as one line that names the target and the reason, e.g. a full disk."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{path}: cannot be written ({reason}); free some space or choose another place"
        ) from error
