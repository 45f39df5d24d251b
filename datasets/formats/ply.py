"""Point clouds in PLY files, ASCII or binary: positions and, where there are some, colours."""

from pathlib import Path

import numpy as np
from plyfile import PlyData, PlyParseError

from lumigraph.core.errors import DataError
from lumigraph.datasets.poses import Matrix

_COLOR_NAMES = (("red", "green", "blue"), ("r", "g", "b"))


def read_points(path: Path) -> tuple[Matrix, np.ndarray | None]:
    """Positions (P, 3) float64 and colours (P, 3) uint8 or None; points with NaN are left out."""
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
    for trio in _COLOR_NAMES:
        if set(trio) <= names:
            colors = np.stack([_eight_bits(np.asarray(vertex[name])) for name in trio], axis=1)
            return positions[finite], colors[finite]
    return positions[finite], None


def _eight_bits(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        # Colours stored as fractions.
        values = np.clip(np.nan_to_num(values), 0.0, 1.0) * 255.0 + 0.5
    return np.clip(values, 0, 255).astype(np.uint8)
