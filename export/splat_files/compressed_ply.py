"""PlayCanvas' compressed PLY, read only: 16 bytes a Gaussian, quantised within chunks of 256.

Element `chunk` holds the ranges of position, log scale and (newer files) color of 256 Gaussians;
`vertex` holds four 32-bit words each: position and scale as 11, 10 and 11 bits between the ranges,
the rotation as the index of its largest part (2 bits, w first) and the other three of 10 bits
within +-sqrt(1/2), color and opacity of 8 bits each. `sh`, where there is one, holds the
harmonics beyond degree 0 as channel-major bytes: 0 is -4, 255 is 4, b between is (b + 0.5) / 32
less 4.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lumigraph.core.errors import DataError
from lumigraph.core.harmonics import Y_0
from lumigraph.export.splat_files.arrays import (
    Loaded,
    SplatArrays,
    check_budget,
    logits_of_bytes,
)
from lumigraph.export.splat_files.gaussian_ply import REST_COUNTS, rest_names
from lumigraph.export.splat_files.ply_header import PlyHeader, columns, read_body

CHUNK = 256
_WORDS = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
_AXES = ("x", "y", "z")
_COLORS = ("r", "g", "b")


def is_compressed(header: PlyHeader) -> bool:
    """Whether the header is of this format."""
    vertex = header.elements.get("vertex")
    return "chunk" in header.elements and vertex is not None and _WORDS[0] in vertex.types


def load(path: Path, header: PlyHeader, *, max_gaussians: int) -> Loaded:
    """Read a file for which `is_compressed` holds.

    Raises:
        DataError: elements do not fit each other, or rows cannot be read.
    """
    vertex, chunk = header.elements["vertex"], header.elements["chunk"]
    _check_types(path, "vertex", vertex.types, list(_WORDS), {"uint", "uint32"})
    ranges = [f"{end}_{name}" for end in ("min", "max") for name in _AXES]
    ranges += [f"{end}_scale_{name}" for end in ("min", "max") for name in _AXES]
    color_ranges = [f"{end}_{name}" for end in ("min", "max") for name in _COLORS]
    if not chunk.types.keys().isdisjoint(color_ranges):
        ranges += color_ranges
    _check_types(path, "chunk", chunk.types, ranges, {"float", "float32"})
    check_budget(path, vertex.count, max_gaussians)
    if chunk.count != -(-vertex.count // CHUNK):
        raise DataError(
            f"{path}: {chunk.count:,} chunks do not fit {vertex.count:,} Gaussians, expected one "
            f"for each {CHUNK}; write it again"
        )
    rest = _rest(path, header)
    data = read_body(path)
    rows, chunks = data["vertex"], data["chunk"]
    means = _between(chunks, "", _AXES, _three(rows["packed_position"]))
    log_scales = _between(chunks, "scale_", _AXES, _three(rows["packed_scale"]))
    base, logits = _color(chunks, np.asarray(rows["packed_color"], dtype=np.uint32))
    harmonics = np.zeros((vertex.count, REST_COUNTS[rest], 3), dtype=np.float32)
    harmonics[:, 0] = base
    if rest:
        values = columns(data["sh"], rest_names(rest))
        values = np.where(values == 0, -4, np.where(values == 255, 4, (values + 0.5) / 32 - 4))
        harmonics[:, 1:] = values.reshape(vertex.count, 3, rest // 3).transpose(0, 2, 1)
    rotations = _rotations(np.asarray(rows["packed_rotation"], dtype=np.uint32))
    return Loaded(SplatArrays(means, rotations, log_scales, logits, harmonics), "compressed PLY")


def _check_types(
    path: Path, element: str, types: dict[str, str], names: list[str], kinds: set[str]
) -> None:
    for name in names:
        if types.get(name) not in kinds:
            found = types.get(name, "missing")
            raise DataError(
                f"{path}: compressed PLY whose property {name} of element {element!r} is {found}, "
                f"expected {min(kinds)}"
            )


def _rest(path: Path, header: PlyHeader) -> int:
    """Number of f_rest properties of the element `sh`, or 0."""
    element = header.elements.get("sh")
    if element is None:
        return 0
    names = rest_names(len(element.types))
    good = len(names) in REST_COUNTS and set(element.types) == set(names)
    if not good or element.count != header.elements["vertex"].count:
        raise DataError(
            f"{path}: its element 'sh' has {len(element.types)} properties and {element.count:,} "
            "rows; expected 9, 24 or 45 f_rest_* and a row for each Gaussian"
        )
    _check_types(path, "sh", element.types, names, {"uchar", "uint8"})
    return len(names)


def _three(words: Any) -> np.ndarray:
    """Fractions (G, 3) in [0, 1] of words of 11, 10 and 11 bits."""
    bits = np.asarray(words, dtype=np.uint32)
    return np.stack(
        [(bits >> 21) / 2047.0, ((bits >> 11) & 1023) / 1023.0, (bits & 2047) / 2047.0], axis=1
    )


def _between(chunks: Any, prefix: str, names: tuple[str, ...], share: np.ndarray) -> np.ndarray:
    """Values (G, 3) at the given shares of the way between the ranges of their chunks."""
    of_row = np.arange(len(share)) // CHUNK
    low = columns(chunks, [f"min_{prefix}{name}" for name in names])[of_row]
    high = columns(chunks, [f"max_{prefix}{name}" for name in names])[of_row]
    with np.errstate(over="ignore", invalid="ignore"):
        return (low * (1 - share) + high * share).astype(np.float32)


def _color(chunks: Any, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Harmonics of degree 0 (G, 3) and opacity logits (G,)."""
    color = np.stack([(words >> shift) & 255 for shift in (24, 16, 8)], axis=1) / 255.0
    if "min_r" in (chunks.dtype.names or ()):
        color = _between(chunks, "", _COLORS, color)
    alpha = (words & 255).astype(np.uint8)
    return ((color - 0.5) / Y_0).astype(np.float32), logits_of_bytes(alpha)


def _rotations(words: np.ndarray) -> np.ndarray:
    """Quaternions (G, 4) w x y z."""
    parts = np.stack([(words >> shift) & 1023 for shift in (20, 10, 0)], axis=1)
    small = (parts / 1023.0 - 0.5) * np.sqrt(2.0)
    large = np.sqrt(np.maximum(0.0, 1.0 - np.square(small).sum(axis=1)))
    rotations = np.empty((len(words), 4), dtype=np.float32)
    for index in range(4):
        chosen = (words >> 30) == index
        others = [other for other in range(4) if other != index]
        rotations[np.ix_(chosen, others)] = small[chosen]
        rotations[chosen, index] = large[chosen]
    return rotations
