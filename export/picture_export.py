"""The picture that a run was fitted to, written whole, in strips: no more than the pixels of the
file itself are held."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lumigraph.core.color import linear_to_srgb, srgb_to_linear
from lumigraph.core.errors import InputError, require
from lumigraph.datasets.targets.picture import LINEAR_SUFFIX
from lumigraph.fields import PictureField
from lumigraph.training.files import write_atomic
from lumigraph.training.pictures import to_bytes

from .target_file import check_target

if TYPE_CHECKING:
    from lumigraph.training import Run

PICTURE_SUFFIXES = (LINEAR_SUFFIX, ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
STRIP_PIXELS = 2**20
LOSSY_QUALITY = 95
MOST_SIDE = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}
"""Pixels along a side that a format holds, where that is little."""


@dataclass(frozen=True)
class PictureReport:
    """A picture that was written."""

    path: Path
    width: int
    height: int
    cut: bool
    """Whether linear light was cut off at 1 and encoded as sRGB."""
    bytes: int
    seconds: float = field(compare=False)

    def line(self) -> str:
        """One line for people."""
        text = f"{self.path}: {self.width} x {self.height} pixels, {self.bytes / 2**20:.1f} MiB"
        return text + ("; linear light above 1 was cut off, .exr keeps it" if self.cut else "")

    def to_dict(self) -> dict[str, Any]:
        """For machines; `out` is the file."""
        values = asdict(self)
        return {"out": str(values.pop("path")), **values}


def picture(
    run: Run,
    *,
    out: str | Path,
    overwrite: bool = False,
    device: str | None = None,
    on_row: Callable[[int, int], None] | None = None,
) -> PictureReport:
    """Write the picture of a run of method `image`: `lg.export.picture(run, out="x.png")`.

    Args:
        out: .exr for linear light, or an 8-bit file: .png, .jpg, .tif, .webp.
        overwrite: replace a file that is there.
        device: where to compute; None takes that of the run's settings.
        on_row: told after each strip how many rows are done, and of how many.

    Raises:
        InputError: unknown suffix, an existing file, or a run of another method.
        MissingExtraError: an .exr without OpenEXR. DataError: the file cannot be written.
    """
    target, started = Path(out), time.monotonic()
    check_target(target, PICTURE_SUFFIXES, what="a picture", overwrite=overwrite)
    is_linear = target.suffix.lower() == LINEAR_SUFFIX
    if is_linear:
        require("OpenEXR", extra="fitting")
    model = run.model(device)
    fitted = model.field
    if not isinstance(fitted, PictureField):
        raise InputError(
            f"{run.path}: is a run of method {run.config.method} and holds no picture; render it "
            "with lumigraph render"
        )
    width, height = fitted.size
    most = MOST_SIDE.get(target.suffix.lower())
    if most is not None and max(width, height) > most:
        raise InputError(
            f"{target}: this format ends at {most:,} pixels along a side, the picture has "
            f"{width} x {height}; use .png or .tif"
        )
    pixels = np.empty((height, width, 3), np.float32 if is_linear else np.uint8)
    rows = max(1, STRIP_PIXELS // width)
    for first in range(0, height, rows):
        count = min(rows, height - first)
        values = fitted.rows(first, count)
        if is_linear:
            found = values if fitted.is_linear else srgb_to_linear(values.clamp(0, 1))
        else:
            found = to_bytes(linear_to_srgb(values.clamp(0, 1)) if fitted.is_linear else values)
        pixels[first : first + count] = found.cpu().numpy()
        if on_row is not None:
            on_row(first + count, height)
    _write(target, pixels)
    return PictureReport(
        path=target,
        width=width,
        height=height,
        cut=fitted.is_linear and not is_linear,
        bytes=target.stat().st_size,
        seconds=time.monotonic() - started,
    )


def _write(target: Path, pixels: NDArray[Any]) -> None:
    suffix = target.suffix.lower()
    if suffix == LINEAR_SUFFIX:
        library = require("OpenEXR", extra="fitting")
        header = {"compression": library.ZIP_COMPRESSION, "type": library.scanlineimage}
        write_atomic(target, lambda file: library.File(header, {"RGB": pixels}).write(str(file)))
        return
    from PIL import Image

    kind = {"jpg": "JPEG", "tif": "TIFF"}.get(suffix[1:], suffix[1:].upper())
    options: dict[str, Any] = {"quality": LOSSY_QUALITY} if suffix in MOST_SIDE else {}
    image = Image.fromarray(pixels)
    write_atomic(target, lambda file: image.save(file, format=kind, **options))
