"""PLY in the layout of the first 3D Gaussian splatting code: raw parameters as they are trained.

An element `vertex` with x y z, nx ny nz (0, unused), f_dc_0..2, f_rest_*, opacity, scale_0..2,
rot_0..3. f_rest is channel-major: with K - 1 coefficients beyond degree 0, f_rest_i belongs to
channel i // (K - 1) and coefficient 1 + i % (K - 1). Nothing is lost but what float32 cannot hold.
Read are properties in any order, float or double, ASCII or binary of both byte orders.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from plyfile import PlyData, PlyElement

from lumigraph.core.errors import DataError
from lumigraph.export.splat_files.arrays import Loaded, SplatArrays, check_budget
from lumigraph.export.splat_files.ply_header import FLOATS, PlyHeader, columns, read_body

MEANS = ["x", "y", "z"]
BASE = ["f_dc_0", "f_dc_1", "f_dc_2"]
SCALES = ["scale_0", "scale_1", "scale_2"]
ROTATIONS = ["rot_0", "rot_1", "rot_2", "rot_3"]
_NEEDED = [*MEANS, *BASE, "opacity", *SCALES, *ROTATIONS]
_KNOWN = {*_NEEDED, "nx", "ny", "nz"}
REST_COUNTS = {0: 1, 9: 4, 24: 9, 45: 16}
"""Number of f_rest properties -> harmonics a channel."""
_REST_OF_DEGREE_4 = 72


def load(path: Path, header: PlyHeader, *, max_gaussians: int) -> Loaded:
    """Read a file whose header has been parsed.

    Raises:
        DataError: properties are missing or make no set of harmonics, or rows cannot be read.
    """
    vertex = header.elements.get("vertex")
    if vertex is None:
        raise DataError(f"{path}: has no element 'vertex'; expected a PLY file of Gaussians")
    missing = [name for name in _NEEDED if name not in vertex.types]
    if missing:
        raise DataError(f"{path}: {_kind(missing)}: its vertices lack {', '.join(missing)}")
    wrong = [name for name in _NEEDED if vertex.types[name] not in FLOATS]
    if wrong:
        raise DataError(
            f"{path}: property {wrong[0]} is {vertex.types[wrong[0]]}, expected float or double"
        )
    rest = _rest(path, vertex.types)
    check_budget(path, vertex.count, max_gaussians)
    rows = read_body(path)["vertex"]
    extra = [name for name in vertex.types if name not in _KNOWN and not name.startswith("f_rest_")]
    notes = [f"properties left out: {', '.join(extra[:5])}"] if extra else []
    if rest == _REST_OF_DEGREE_4:
        notes.append("harmonics of degree 4 left out")
    arrays = SplatArrays(
        columns(rows, MEANS),
        columns(rows, ROTATIONS),
        columns(rows, SCALES),
        columns(rows, ["opacity"])[:, 0],
        _harmonics(columns(rows, BASE), columns(rows, rest_names(rest))),
    )
    return Loaded(arrays, "PLY", notes=tuple(notes))


def rest_names(count: int) -> list[str]:
    """Names of the first properties of the harmonics beyond degree 0."""
    return [f"f_rest_{index}" for index in range(count)]


def _kind(missing: list[str]) -> str:
    if missing == ["scale_2"]:
        return "holds flat (2D) Gaussians, which are not supported"
    if "f_dc_0" in missing and "rot_0" in missing:
        return "a point cloud or mesh, not a file of Gaussians"
    return "an unknown set of properties"


def _rest(path: Path, types: dict[str, str]) -> int:
    """Number of f_rest properties, checked."""
    found = {name for name in types if name.startswith("f_rest_")}
    count = len(found)
    known = {*REST_COUNTS, _REST_OF_DEGREE_4}
    if count not in known or found != {f"f_rest_{index}" for index in range(count)}:
        raise DataError(
            f"{path}: has {count} properties f_rest_*; expected f_rest_0 to f_rest_8, f_rest_23 "
            "or f_rest_44, or none"
        )
    return count


def _harmonics(base: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """(G, K, 3) from f_dc (G, 3) and channel-major f_rest (G, 3 (K - 1))."""
    each = rest.shape[1] // 3
    kept = min(each, 15)
    harmonics = np.empty((len(base), 1 + kept, 3), dtype=np.float32)
    harmonics[:, 0] = base
    harmonics[:, 1:] = rest.reshape(len(rest), 3, each)[:, :, :kept].transpose(0, 2, 1)
    return harmonics


def save(path: Path, arrays: SplatArrays) -> None:
    """Write binary little endian PLY of float32."""
    rest = 3 * (arrays.harmonics.shape[1] - 1)
    names = [*MEANS, "nx", "ny", "nz", *BASE, *rest_names(rest), "opacity", *SCALES, *ROTATIONS]
    table = np.zeros((arrays.gaussians, len(names)), dtype="<f4")
    table[:, 0:3] = arrays.means
    table[:, 6:9] = arrays.harmonics[:, 0]
    channel_major = arrays.harmonics[:, 1:].transpose(0, 2, 1)
    table[:, 9 : 9 + rest] = channel_major.reshape(arrays.gaussians, rest)
    table[:, 9 + rest] = arrays.opacity_logits
    table[:, 10 + rest : 13 + rest] = arrays.log_scales
    table[:, 13 + rest :] = arrays.rotations
    rows = table.view([(name, "<f4") for name in names])[:, 0]
    element = PlyElement.describe(rows, "vertex")
    PlyData([element], byte_order="<", comments=["written by lumigraph"]).write(str(path))
