"""Point clouds in PLY files, ASCII or binary: positions and, where there are some, colours and
normals."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from plyfile import PlyData, PlyParseError

from lumigraph.core.errors import DataError
from lumigraph.datasets.poses import Matrix

_COLOR_NAMES = (("red", "green", "blue"), ("r", "g", "b"))


class PlyPoints(NamedTuple):
    """P points; those with a position that is not finite are left out."""

    positions: Matrix
    """(P, 3) float64."""
    colors: np.ndarray | None
    """(P, 3) uint8."""
    normals: Matrix | None
    """(P, 3) float64 of unit length, 0 where the file has none that can be used."""


def read_points(path: Path) -> tuple[Matrix, np.ndarray | None]:
    """Positions (P, 3) float64 and colours (P, 3) uint8 or None; points with NaN are left out."""
    points = read_oriented_points(path)
    return points.positions, points.colors


def read_oriented_points(path: Path) -> PlyPoints:
    """Positions, colours and normals.

    Raises:
        DataError: missing, damaged, or without vertices that have places.
    """
    try:
        data = PlyData.read(str(path))
    except FileNotFoundError:
        raise DataError(f"{path}: point cloud not found; check the path") from None
    except (PlyParseError, OSError, ValueError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not a readable PLY file ({reason}); write it again") from None
    if "vertex" not in {element.name for element in data.elements}:
        raise DataError(f"{path}: has no 'vertex' element; expected a point cloud or a mesh")
    vertex = data["vertex"]
    names = {item.name for item in vertex.properties}
    if not {"x", "y", "z"} <= names:
        raise DataError(f"{path}: its vertices lack x, y or z; expected a point cloud or a mesh")
    positions = np.stack([np.asarray(vertex[axis], dtype=np.float64) for axis in "xyz"], axis=1)
    finite = np.isfinite(positions).all(axis=1)
    colors, normals = None, None
    for trio in _COLOR_NAMES:
        if colors is None and set(trio) <= names:
            colors = np.stack([_eight_bits(np.asarray(vertex[name])) for name in trio], axis=1)
            colors = colors[finite]
    if {"nx", "ny", "nz"} <= names:
        normals = np.stack([np.asarray(vertex[name], np.float64) for name in ("nx", "ny", "nz")], 1)
        normals = _unit(normals[finite])
    return PlyPoints(positions[finite], colors, normals)


def _unit(normals: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    good = np.isfinite(length) & (length > 0)
    return np.where(good, normals / np.where(good, length, 1.0), 0.0)


def _eight_bits(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        # Colours stored as fractions.
        values = np.clip(np.nan_to_num(values), 0.0, 1.0) * 255.0 + 0.5
    return np.clip(values, 0, 255).astype(np.uint8)
