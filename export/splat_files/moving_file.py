"""Gaussians that move in one compact file, `.lg4d`, of our own layout (docs/splat-files.md):

4 bytes   "lg4d"
4 bytes   version, 1, little endian
4 bytes   length of the header, little endian
header    JSON: count, moving, degree and the ranges of `MovingLayout`; origin, which is added to
          positions; moments; antialiased
the rest  one zlib stream of the planes of `moving_packing.py`
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lumigraph.core.errors import DataError
from lumigraph.export.splat_files.arrays import DEFAULT_MAX_GAUSSIANS, check_budget
from lumigraph.export.splat_files.loss import Loss, measure
from lumigraph.export.splat_files.moving_arrays import MovingArrays, repaired_moving
from lumigraph.export.splat_files.moving_packing import (
    MovingLayout,
    in_order,
    pack_moving,
    reachable,
    unpack_moving,
)
from lumigraph.export.splat_files.moving_splats import MovingSplats
from lumigraph.export.splat_files.planes import SpaceLayout
from lumigraph.export.splat_files.reading import MOVING_MAGIC, MOVING_SUFFIX, ReadReport
from lumigraph.export.splat_files.spz import CUSTOMARY_BITS
from lumigraph.export.splat_files.writing import WriteOptions, WriteReport
from lumigraph.export.target_file import check_target
from lumigraph.training.files import write_atomic

VERSION = 1
_HEADER_LIMIT = 16 << 20
_LOSS_TIMES = 9
_SEEN = 1 / 255
_SPACE = ("fractional_bits", "scale_low", "scale_step", "color_low", "color_step")


@dataclass(frozen=True)
class MovingFile:
    """Gaussians of a file and what was found in it."""

    splats: MovingSplats
    """In the capture's own frame and unit."""
    report: ReadReport


def is_moving_file(path: str | Path) -> bool:
    """Whether a file says that it is of this kind."""
    try:
        with Path(path).open("rb") as stream:
            return stream.read(len(MOVING_MAGIC)) == MOVING_MAGIC
    except OSError:
        return False


def write_moving(
    splats: MovingSplats, path: str | Path, *, options: WriteOptions | None = None
) -> WriteReport:
    """Write a .lg4d file; it appears under its name when it is complete and has been read back.

    Args:
        splats: in the frame of the capture.
        options: harmonics and overwriting; those of SPZ alone play no part.

    Raises:
        InputError: another suffix, or a file of that name is there and may not be replaced.
        DataError: there is nothing to write, or the disk does not take it.
    """
    options, target = options or WriteOptions(), Path(path)
    check_target(target, (MOVING_SUFFIX,), what="moving Gaussians", overwrite=options.overwrite)
    given, dropped = _kept(splats, target, options)
    origin = _origin(given)
    centered, near, bits = _centered(given, origin)
    if not near.all():
        dropped.append(f"{int((~near).sum()):,} Gaussians too far off for 24 bits")
        given, centered = given.rows(near), centered.rows(near)
    chosen = options.harmonics_bits
    harmonics_bits = CUSTOMARY_BITS if chosen is None else (chosen, chosen)
    data, layout = pack_moving(centered, bits, harmonics_bits=harmonics_bits)
    header = {
        **layout.to_dict(),
        "origin": origin.tolist(),
        "moments": [round(moment, 9) for moment in splats.moments.tolist()],
        "antialiased": splats.antialiased or options.antialiased,
    }
    found: list[MovingArrays] = []

    def save(temporary: Path) -> None:
        _save(temporary, header, data)
        found.append(_load(temporary, layout.space.count)[0])

    write_atomic(target, save)
    return WriteReport(
        target,
        f"lg4d {VERSION}",
        layout.space.count,
        target.stat().st_size,
        layout.space.degree,
        _measured(given, found[0]),
        tuple(dropped),
    )


def read_moving(path: str | Path, *, max_gaussians: int = DEFAULT_MAX_GAUSSIANS) -> MovingFile:
    """Read a .lg4d file.

    Args:
        max_gaussians: refuse files that say they hold more, before memory is taken for them.

    Raises:
        DataError: no such file, another kind of file, another version, cut short, damaged, empty or
            too large; the message names the file and the way out.
    """
    file = Path(path)
    arrays, header = _load(file, max_gaussians)
    fixed, good, notes = repaired_moving(arrays)
    if not good.any():
        raise DataError(f"{file}: none of its {len(good):,} Gaussians is finite; write it again")
    kept = fixed if good.all() else fixed.rows(good)
    moments = torch.tensor(header["moments"], dtype=torch.float32)
    splats = MovingSplats.of_arrays(kept, moments, antialiased=header["antialiased"])
    report = ReadReport(
        file,
        f"lg4d {VERSION}",
        stored=len(good),
        culled=int((~good).sum()),
        degree=kept.space.degree,
        antialiased=header["antialiased"],
        notes=(f"{kept.moving:,} of them move", *notes),
    )
    return MovingFile(splats, report)


def _kept(
    splats: MovingSplats, target: Path, options: WriteOptions
) -> tuple[MovingArrays, list[str]]:
    """What the file can hold, in its order, and what is missing in words."""
    arrays, good, _ = repaired_moving(splats.arrays())
    if not good.any():
        state = "none of the Gaussians is finite" if len(good) else "there are no Gaussians"
        raise DataError(f"{target}: not written: {state}")
    dropped = []
    if not good.all():
        dropped.append(f"{int((~good).sum()):,} Gaussians that are not finite")
        arrays = arrays.rows(good)
    space, highest = arrays.space, options.degree
    if highest is not None and space.degree > highest:
        first, last = highest + 1, space.degree
        dropped.append(f"harmonics of degree {first}" + (f" to {last}" if last > first else ""))
        space = space._replace(harmonics=space.harmonics[:, : (highest + 1) ** 2])
    return in_order(arrays._replace(space=space)), dropped


def _origin(arrays: MovingArrays) -> np.ndarray:
    """(3,) float64 in the middle of the Gaussians half way through time."""
    means, _ = arrays.at(0.5)
    return np.median(means[np.isfinite(means).all(axis=1)], axis=0)


def _centered(arrays: MovingArrays, origin: np.ndarray) -> tuple[MovingArrays, np.ndarray, int]:
    """Positions less an origin; which of them fit into 24 bits, and the bits after the point."""
    means = (arrays.space.means.astype(np.float64) - origin).astype(np.float32)
    centered = arrays._replace(space=arrays.space._replace(means=means))
    return centered, *reachable(centered)


def _measured(before: MovingArrays, after: MovingArrays) -> Loss:
    """Positions and opacities where and when they are seen, the rest as of Gaussians in space."""
    loss = measure(before.space, after.space)
    squares, seen, opacity = 0.0, 0, 0.0
    means, _ = before.at(0.5)
    low, high = np.quantile(means, [0.01, 0.99], axis=0)
    extent = float(np.linalg.norm(high - low)) or float(np.abs(means).max()) or 1.0
    for time in np.linspace(0.0, 1.0, _LOSS_TIMES):
        (first, there), (second, found) = before.at(time), after.at(time)
        rows = there >= _SEEN
        squares += float(np.square(first[rows] - second[rows]).sum())
        seen += int(rows.sum())
        opacity = max(opacity, float(np.abs(there - found).max()))
    position = (squares / max(seen, 1)) ** 0.5 / extent
    return replace(loss, position=position, opacity=opacity)


def _save(path: Path, header: dict[str, Any], data: bytes) -> None:
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    with path.open("wb") as stream:
        stream.write(MOVING_MAGIC + struct.pack("<II", VERSION, len(text)))
        stream.write(text)
        stream.write(zlib.compress(data, 6))


def _load(path: Path, max_gaussians: int) -> tuple[MovingArrays, dict[str, Any]]:
    """Arrays with the origin added, and the checked header."""
    try:
        with path.open("rb") as stream:
            header, layout = _header(path, stream.read(12), stream, max_gaussians)
            inflater = zlib.decompressobj()
            data = inflater.decompress(stream.read(), layout.size + 1)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except zlib.error:
        raise DataError(f"{path}: its content is damaged; write it again") from None
    if len(data) != layout.size or not inflater.eof:
        raise DataError(
            f"{path}: holds {len(data):,} bytes of Gaussians, expected {layout.size:,}; it is cut "
            "short or damaged: write it again"
        )
    arrays = unpack_moving(data, layout)
    means = arrays.space.means.astype(np.float64) + np.array(header["origin"])
    space = arrays.space._replace(means=means.astype(np.float32))
    return arrays._replace(space=space), header


def _header(
    path: Path, start: bytes, stream: Any, max_gaussians: int
) -> tuple[dict[str, Any], MovingLayout]:
    if start[:4] != MOVING_MAGIC:
        raise DataError(f"{path}: starts with {start[:4]!r}, so it is no {MOVING_SUFFIX} file")
    if len(start) < 12:
        raise DataError(f"{path}: is cut short; write it again")
    version, length = struct.unpack("<II", start[4:])
    if version != VERSION:
        raise DataError(
            f"{path}: is of version {version}, this program reads {VERSION}; write it again"
        )
    damaged = DataError(f"{path}: its header is damaged; write it again")
    if length > _HEADER_LIMIT:
        raise damaged
    try:
        header = json.loads(stream.read(length))
        layout = _layout(header)
        moments = [float(moment) for moment in header["moments"]]
        origin = np.array(header["origin"], dtype=np.float64)
        good = origin.shape == (3,) and bool(np.isfinite(origin).all()) and len(moments) > 0
        good = good and all(0 <= moment <= 1 for moment in moments)
        good = good and all(a < b for a, b in zip(moments, moments[1:], strict=False))
        header["antialiased"] = bool(header["antialiased"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise damaged from error
    if not good:
        raise damaged
    check_budget(path, layout.space.count, max_gaussians)
    return header, layout


def _layout(header: dict[str, Any]) -> MovingLayout:
    """Checked numbers of the header; ValueError, KeyError or TypeError where they are none."""
    count, moving, degree = (int(header[name]) for name in ("count", "moving", "degree"))
    bits = int(header["fractional_bits"])
    if not (0 <= moving <= max(count, 0) and 0 <= degree <= 3 and 0 <= bits <= 64):
        raise ValueError("out of range")
    ranges = [float(header[name]) for name in _SPACE[1:]]
    plateau = [header["plateau_low"], header["plateau_step"]]
    if (plateau[0] is None) != (plateau[1] is None):
        raise ValueError("half a range")
    times = [float(header["duration_low"]), float(header["duration_step"])]
    low, step = (None if value is None else float(value) for value in plateau)
    numbers = [*ranges, *times, *(value for value in (low, step) if value is not None)]
    if not all(np.isfinite(numbers)):
        raise ValueError("not finite")
    space = SpaceLayout(count, degree, bits, *ranges)
    return MovingLayout(space, moving, times[0], times[1], low, step)
