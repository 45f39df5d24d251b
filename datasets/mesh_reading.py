"""Meshes from PLY, OBJ and GLB files: triangles with colors or a texture, checked, as plain arrays.
Letters: V vertices, T triangles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lumigraph.core.color import linear_to_srgb
from lumigraph.core.errors import DataError, InputError, require

Points = NDArray[np.float64]
SUFFIXES = (".ply", ".obj", ".glb")
"""Kinds of files that can be read; lower case."""


@dataclass(frozen=True, eq=False)
class MeshPart:
    """Triangles that share one look."""

    vertices: Points
    """(V, 3)"""
    triangles: NDArray[np.int64]
    """(T, 3) numbers of vertices."""
    colors: NDArray[np.uint8] | None = None
    """(V, 3) sRGB."""
    uv: NDArray[np.float64] | None = None
    """(V, 2) places in the texture, (0, 0) at its lower left corner."""
    texture: NDArray[np.uint8] | None = None
    """(H, W, 3) sRGB."""


@dataclass(frozen=True, eq=False)
class TriangleMesh:
    """A mesh of one or more parts, with finite vertices and at least one triangle.

    >>> mesh = TriangleMesh.of([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]])
    >>> mesh.vertices.shape, mesh.triangles.shape
    ((3, 3), (1, 3))
    """

    parts: Sequence[MeshPart]
    name: str = "mesh"
    """For messages, e.g. the file."""

    def __post_init__(self) -> None:
        for part in self.parts:
            _check_part(part, self.name)
        if not any(len(part.triangles) for part in self.parts):
            raise DataError(f"{self.name}: holds no triangles; give a file with a surface in it")

    @classmethod
    def of(
        cls,
        vertices: ArrayLike,
        triangles: ArrayLike,
        *,
        colors: NDArray[np.uint8] | None = None,
        name: str = "mesh",
    ) -> TriangleMesh:
        """A mesh of arrays: (V, 3), (T, 3) and perhaps sRGB colors (V, 3)."""
        part = MeshPart(np.asarray(vertices, np.float64), np.asarray(triangles, np.int64), colors)
        return cls([part], name)

    @cached_property
    def vertices(self) -> Points:
        """(V, 3) of all parts."""
        return np.concatenate([part.vertices for part in self.parts])

    @cached_property
    def triangles(self) -> NDArray[np.int64]:
        """(T, 3) of all parts, numbered in `vertices`."""
        starts = np.cumsum([0, *(len(part.vertices) for part in self.parts)])
        return np.concatenate(
            [part.triangles + start for part, start in zip(self.parts, starts, strict=False)]
        )


def read_mesh(path: str | Path) -> TriangleMesh:
    """Read a .ply, .obj or .glb file; polygons become triangles, nodes stand where the file says.

    Raises:
        InputError: another kind of file. MissingExtraError: trimesh is not installed.
        DataError: missing, damaged, without triangles, or with vertices that are not finite.
    """
    file = Path(path)
    if file.suffix.lower() not in SUFFIXES:
        raise InputError(f"{file}: unknown kind of mesh; use one of {', '.join(SUFFIXES)}")
    if not file.is_file():
        raise DataError(f"{file}: no such file; check the path")
    trimesh = require("trimesh", extra="mesh")
    try:
        loaded = trimesh.load(str(file), force="scene", process=False)
        placed = [loaded.graph[node] for node in loaded.graph.nodes_geometry]
        shapes = [(loaded.geometry[name], matrix) for matrix, name in placed]
        is_linear = file.suffix.lower() == ".glb"
        parts = [
            _part(shape, np.asarray(matrix, np.float64), is_linear)
            for shape, matrix in shapes
            if isinstance(shape, trimesh.Trimesh)
        ]
    except Exception as error:  # trimesh raises whatever its parsers meet
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        kind = file.suffix[1:].upper()
        raise DataError(f"{file}: not a readable {kind} mesh ({reason}); write it again") from error
    return TriangleMesh(parts, str(file))


def _part(shape: Any, matrix: Points, is_linear: bool) -> MeshPart:
    """One geometry of trimesh, moved into the frame of the file."""
    vertices = np.asarray(shape.vertices, np.float64) @ matrix[:3, :3].T + matrix[:3, 3]
    triangles = np.asarray(shape.faces, np.int64).reshape(-1, 3)
    shades, uv, texture = None, None, None  # colors as the file has them: bytes or fractions
    visual = shape.visual
    if visual.kind == "vertex":
        shades = np.asarray(visual.vertex_colors)
    elif visual.kind == "face":
        # Each triangle has a color of its own: no vertex can be shared.
        shades = np.asarray(visual.face_colors).repeat(3, axis=0)
        vertices = vertices[triangles.reshape(-1)]
        triangles = np.arange(len(vertices)).reshape(-1, 3)
    elif visual.kind == "texture":
        texture, uv = _texture(visual)
        if texture is None:
            shades = _material_colors(visual, len(vertices))
    colors = None if shades is None else _to_srgb_bytes(shades[:, :3], is_linear)
    return MeshPart(vertices, triangles, colors, uv, texture)


def _texture(visual: Any) -> tuple[NDArray[np.uint8] | None, NDArray[np.float64] | None]:
    """Image and places in it, both or neither."""
    material = visual.material
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if image is None or visual.uv is None:
        return None, None
    return np.asarray(image.convert("RGB"), np.uint8), np.asarray(visual.uv, np.float64)[:, :2]


def _material_colors(visual: Any, count: int) -> NDArray[Any] | None:
    """Colors of vertices beside a material, or the one color of the material."""
    colors = visual.vertex_attributes.get("color")
    if colors is not None and len(colors) == count:
        return np.asarray(colors)
    if getattr(visual.material, "baseColorFactor", None) is None:
        return None
    return np.tile(np.asarray(visual.material.main_color), (count, 1))


def _to_srgb_bytes(shades: NDArray[Any], is_linear: bool) -> NDArray[np.uint8]:
    """Fractions or integers (N, 3), linear as in glTF or sRGB."""
    whole = 1.0 if shades.dtype.kind == "f" else np.iinfo(shades.dtype).max
    fractions = torch.from_numpy(shades / whole)
    srgb = linear_to_srgb(fractions) if is_linear else fractions
    return np.asarray((srgb.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy())


def _check_part(part: MeshPart, name: str) -> None:
    count = len(part.vertices)
    for what, array in (("vertices", part.vertices), ("triangles", part.triangles)):
        if array.ndim != 2 or array.shape[1] != 3:
            raise InputError(f"{name}: {what} must be N x 3; got {array.shape}")
    broken = int((~np.isfinite(part.vertices)).any(axis=1).sum())
    if broken:
        raise DataError(f"{name}: {broken:,} of {count:,} vertices are not finite; write it again")
    if part.triangles.size and not 0 <= part.triangles.min() <= part.triangles.max() < count:
        raise DataError(f"{name}: its triangles name vertices that are not there; write it again")
    if part.colors is not None and part.colors.shape != (count, 3):
        raise InputError(f"{name}: colors must be {count} x 3; got {part.colors.shape}")
