"""The truth that meshes are held against, from files: a mesh, or points of a scan."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lumigraph.core.errors import DataError, InputError
from lumigraph.datasets.formats.ply import read_oriented_points
from lumigraph.datasets.mesh_reading import SUFFIXES, TriangleMesh, read_mesh

from .mesh_targets import TruePoints
from .splat_files.ply_header import read_header
from .splat_files.reading import SPLAT_SUFFIXES

Kind = Literal["mesh", "Gaussians", "points"]


def ply_kind(path: Path) -> Kind:
    """What a .ply file holds, by its header.

    Raises:
        DataError: a damaged file.
    """
    elements = read_header(path).elements
    vertex = elements.get("vertex")
    names = set() if vertex is None else set(vertex.types)
    if "chunk" in elements or {"scale_0", "rot_0"} <= names:
        return "Gaussians"
    faces = elements.get("face")
    return "mesh" if faces is not None and faces.count else "points"


def read_truth(path: str | Path) -> TriangleMesh | TruePoints:
    """A mesh (.ply, .obj, .glb), or points (.ply) with normals where the file has some.

    Raises:
        InputError: another kind of file, or Gaussians. DataError: missing, damaged or empty.
        MissingExtraError: trimesh is not installed.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{file}: no such file; give the true surface as {', '.join(SUFFIXES)}")
    suffix = file.suffix.lower()
    kind: Kind = "Gaussians" if suffix in SPLAT_SUFFIXES else "mesh"
    if suffix == ".ply":
        kind = ply_kind(file)
    if kind == "Gaussians":
        raise InputError(f"{file}: holds Gaussians; the truth must be a mesh or points")
    if kind == "mesh":
        return read_mesh(file)
    points = read_oriented_points(file)
    return TruePoints(points.positions, points.normals, str(file))
