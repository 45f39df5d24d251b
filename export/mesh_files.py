"""Colored meshes to PLY, OBJ and GLB, whole or not at all.

PLY and OBJ keep sRGB colors. The colors of glTF vertices are linear, and its default material is a
metal under lamps: GLB gets linear colors in floats, and a material that shows them as they are
(KHR_materials_unlit).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lumigraph.core.color import srgb_to_linear
from lumigraph.core.errors import require
from lumigraph.training.files import write_atomic

from .isosurface import Surface

SUFFIXES = (".ply", ".obj", ".glb")
_COLOR = "_COLOR"


def write_mesh(surface: Surface, path: Path) -> None:
    """Write by the suffix; earlier files stay until the new one is whole.

    Raises:
        DataError: the file cannot be written.
        MissingExtraError: trimesh is not installed.
    """
    trimesh = require("trimesh", extra="mesh")
    suffix = path.suffix.lower()
    mesh = trimesh.Trimesh(surface.vertices, surface.triangles, process=False)
    if suffix == ".glb":
        linear = srgb_to_linear(torch.from_numpy(surface.colors / 255.0)).numpy()
        mesh.vertex_attributes[_COLOR] = linear.astype(np.float32)
        content = mesh.export(file_type="glb", include_normals=True, tree_postprocessor=_unlit)
    else:
        mesh.visual.vertex_colors = surface.colors
        normals = {".ply": {"vertex_normal": True}, ".obj": {"include_normals": True}}[suffix]
        content = mesh.export(file_type=suffix[1:], **normals)
    if isinstance(content, str):
        content = content.encode()
    write_atomic(path, lambda temporary: temporary.write_bytes(content))


def _unlit(tree: dict[str, Any]) -> None:
    """Name the colors as glTF does and show them without lamps."""
    rough = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    tree["materials"] = [{"pbrMetallicRoughness": rough, "extensions": {"KHR_materials_unlit": {}}}]
    tree["extensionsUsed"] = ["KHR_materials_unlit"]
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive["attributes"]["COLOR_0"] = primitive["attributes"].pop(_COLOR)
            primitive["material"] = 0
