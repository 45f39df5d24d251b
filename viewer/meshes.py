"""Mesh files for the browser: GLB as it is, OBJ and PLY turned into GLB; nothing is fetched."""

from __future__ import annotations

import io
import json
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lumigraph.core import Similarity, cube
from lumigraph.core.errors import DataError, InputError, require
from lumigraph.core.transforms import (
    pose_matrix,
    quaternion_from_rotation,
    rotation_from_quaternion,
)
from lumigraph.export.isosurface import Surface
from lumigraph.export.mesh_files import write_mesh
from lumigraph.export.splat_files.ply_header import read_header

MESH_SUFFIXES = (".glb", ".obj", ".ply")
MOST_BYTES = 512 * 2**20
_MAGIC, _JSON = b"glTF", 0x4E4F534A
# Their decoders would be fetched from another server, or are not there at all.
_FOREIGN = ("KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_texture_basisu")


@dataclass(frozen=True)
class MeshFile:
    """A mesh as bytes of GLB."""

    name: str
    content: bytes

    @classmethod
    def open(cls, path: str | Path) -> MeshFile:
        """Read a .glb, .obj or .ply file.

        Raises:
            DataError: missing, too large or damaged. InputError: another kind of file.
            MissingExtraError: trimesh, which reads .obj and .ply, is not installed.
        """
        file = Path(path)
        try:
            if file.is_file() and file.stat().st_size > MOST_BYTES:
                raise DataError(f"{file}: larger than {MOST_BYTES >> 20} MiB; decimate it first")
            content = file.read_bytes()
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None
        return cls.from_bytes(file.name, content, folder=file.parent)

    @classmethod
    def from_bytes(cls, name: str, content: bytes, *, folder: Path | None = None) -> MeshFile:
        """A file that is in memory; `name` tells its kind, `folder` where its materials lie."""
        suffix = Path(name).suffix.lower()
        if suffix not in MESH_SUFFIXES:
            raise InputError(f"{name}: unknown kind of mesh; use {', '.join(MESH_SUFFIXES)}")
        if suffix != ".glb":
            content = _to_glb(name, content, folder)
        _check_glb(name, content)
        return cls(name, content)

    def bounds(self) -> Tensor:
        """(2, 3) cube around the vertices, from the extremes that the file states.

        Transforms of its nodes count.
        """
        tree = _tree(self.name, self.content)
        corners = [c for node, matrix in _placed(tree) for c in _corners(tree, node, matrix)]
        if not corners:
            raise DataError(f"{self.name}: holds no mesh; write it again")
        points = torch.stack(corners)
        low, high = points.amin(dim=0), points.amax(dim=0)
        return cube((low + high) / 2, max(float((high - low).max()), 1e-6))


@dataclass(frozen=True)
class Placement:
    """Where a node of the browser's scene stands: scaled, turned, moved."""

    scale: float = 1.0
    wxyz: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def from_similarity(cls, similarity: Similarity) -> Placement:
        """The node that moves points as `similarity` does, e.g. `Scene.normalization` for what was
        exported in the capture's own frame."""
        w, x, y, z = quaternion_from_rotation(similarity.rotation).tolist()
        a, b, c = similarity.translation.tolist()
        return cls(similarity.scale, (w, x, y, z), (a, b, c))


def has_triangles(path: Path) -> bool:
    """Whether a .ply file is a mesh; those without faces hold points or Gaussians."""
    try:
        faces = read_header(path).elements.get("face")
    except (DataError, OSError):
        return False
    return faces is not None and faces.count > 0


def _to_glb(name: str, content: bytes, folder: Path | None) -> bytes:
    trimesh = require("trimesh", extra="mesh")
    resolver = None if folder is None else trimesh.resolvers.FilePathResolver(str(folder))
    kind = Path(name).suffix.lower()[1:]
    try:
        scene = trimesh.load_scene(io.BytesIO(content), file_type=kind, resolver=resolver)
        shapes = [g for g in scene.geometry.values() if len(getattr(g, "faces", ()))]
        if not shapes:
            raise DataError(f"{name}: holds no triangles")
        if all(shape.visual.kind == "vertex" for shape in shapes):
            return _colored(trimesh.util.concatenate(shapes))
        return bytes(scene.export(file_type="glb"))
    except DataError:
        raise
    except Exception as error:  # trimesh raises whatever its parser meets
        raise DataError(f"{name}: not a readable mesh ({type(error).__name__})") from error


def _colored(mesh: Any) -> bytes:
    """Colors of vertices as our own exporter writes them: linear, without lamps."""
    colors = np.ascontiguousarray(mesh.visual.vertex_colors[:, :3])
    surface = Surface(np.asarray(mesh.vertices), np.asarray(mesh.faces), colors)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mesh.glb"
        write_mesh(surface, file)
        return file.read_bytes()


def _check_glb(name: str, content: bytes) -> None:
    tree = _tree(name, content)
    for extension in tree.get("extensionsRequired", []):
        if extension in _FOREIGN:
            raise InputError(
                f"{name}: is compressed ({extension}), which the viewer does not unpack; "
                "write it without compression"
            )
    for kind in ("buffers", "images"):
        for entry in tree.get(kind, []):
            uri = entry.get("uri", "data:")
            if not str(uri).startswith("data:"):
                raise InputError(f"{name}: keeps {kind} in another file ({uri}); embed them")


def _tree(name: str, content: bytes) -> dict[str, Any]:
    """The JSON part of a GLB file."""
    try:
        magic, version, length = struct.unpack_from("<4sII", content)
        size, kind = struct.unpack_from("<II", content, 12)
        if magic != _MAGIC or version != 2 or kind != _JSON or length > len(content):
            raise ValueError("header")
        tree = json.loads(content[20 : 20 + size])
        if not isinstance(tree, dict):
            raise ValueError("tree")
    except (struct.error, ValueError) as error:
        raise DataError(f"{name}: not a GLB file, or cut short; write it again") from error
    return tree


def _placed(tree: dict[str, Any]) -> list[tuple[dict[str, Any], Tensor]]:
    """Every node of the shown scene with its matrix (4, 4) to the file's frame."""
    nodes = tree.get("nodes", [])
    scenes = tree.get("scenes", [])
    shown = scenes[tree.get("scene", 0)] if scenes else {"nodes": list(range(len(nodes)))}
    waiting = [(index, torch.eye(4)) for index in shown.get("nodes", [])]
    found = []
    for _ in range(len(nodes)):  # a tree visits each node once; a circle must not hang
        if not waiting:
            break
        index, above = waiting.pop()
        matrix = above @ _local(nodes[index])
        found.append((nodes[index], matrix))
        waiting += [(child, matrix) for child in nodes[index].get("children", [])]
    return found


def _local(node: dict[str, Any]) -> Tensor:
    if "matrix" in node:
        return torch.tensor(node["matrix"], dtype=torch.float32).reshape(4, 4).T
    x, y, z, w = node.get("rotation", (0.0, 0.0, 0.0, 1.0))
    turn = rotation_from_quaternion(torch.tensor([w, x, y, z]))
    stretched = turn * torch.tensor(node.get("scale", (1.0, 1.0, 1.0)))
    return pose_matrix(stretched, torch.tensor(node.get("translation", (0.0, 0.0, 0.0))))


def _corners(tree: dict[str, Any], node: dict[str, Any], matrix: Tensor) -> list[Tensor]:
    if "mesh" not in node:
        return []
    corners = []
    for primitive in tree["meshes"][node["mesh"]]["primitives"]:
        accessor = tree["accessors"][primitive["attributes"]["POSITION"]]
        low, high = (torch.tensor(accessor[side], dtype=torch.float32) for side in ("min", "max"))
        choice = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
        points = low + choice * (high - low)
        corners += list(points @ matrix[:3, :3].T + matrix[:3, 3])
    return corners
