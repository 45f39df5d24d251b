"""Colored meshes to PLY, OBJ and GLB, whole or not at all.

PLY and OBJ keep sRGB colors. The colors of glTF vertices are linear, and its default material is a
metal under lamps: GLB gets linear colors in floats, and a material that shows them as they are
(KHR_materials_unlit). Textures are sRGB everywhere: inside a GLB, and for OBJ in files of their own
beside it, whose names begin alike.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lumigraph.core.color import srgb_to_linear
from lumigraph.core.errors import require
from lumigraph.training.files import write_atomic

from .isosurface import Surface
from .texture_baking import TexturedSurface

TEXTURED_SUFFIXES = (".glb", ".obj")
_UNUSUAL = re.compile(r"[^\w.-]")
_COLOR = "_COLOR"


def write_mesh(surface: Surface, path: Path) -> list[Path]:
    """Write by the suffix; earlier files stay until the new one is whole. Returns what was written.

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
    return _write({path: content})


def write_textured(surface: TexturedSurface, path: Path) -> list[Path]:
    """Write by the suffix, .glb, or .obj with its .mtl and .png; the OBJ, which names the others,
    comes last. Returns what was written.

    Raises:
        DataError: a file cannot be written.
        MissingExtraError: trimesh is not installed.
    """
    trimesh = require("trimesh", extra="mesh")
    image = Image.fromarray(surface.image)
    mesh = trimesh.Trimesh(surface.vertices, surface.triangles, process=False)
    if path.suffix.lower() == ".glb":
        material = trimesh.visual.material.PBRMaterial(
            baseColorTexture=image, metallicFactor=0.0, roughnessFactor=1.0
        )
        mesh.visual = trimesh.visual.TextureVisuals(uv=surface.coordinates, material=material)
        content = mesh.export(
            file_type="glb", include_normals=True, tree_postprocessor=_unlit_texture
        )
        return _write({path: content})
    name = texture_files(path)[0].stem
    material = trimesh.visual.material.SimpleMaterial(
        image=image, diffuse=(255, 255, 255, 255), ambient=(255, 255, 255, 255)
    )
    material.name = name
    mesh.visual = trimesh.visual.TextureVisuals(uv=surface.coordinates, material=material)
    text, others = trimesh.exchange.obj.export_obj(
        mesh, return_texture=True, include_normals=True, mtl_name=f"{name}.mtl", header=None
    )
    files: dict[Path, str | bytes] = {path.with_name(each): others[each] for each in others}
    return _write({**files, path: text})


def texture_files(path: Path) -> list[Path]:
    """The files that a textured mesh needs beside it: for OBJ its material and its picture."""
    if path.suffix.lower() != ".obj":
        return []
    name = _UNUSUAL.sub("_", path.stem)  # spaces end a name in these files
    return [path.with_name(f"{name}.mtl"), path.with_name(f"{name}.png")]


def _write(files: dict[Path, str | bytes]) -> list[Path]:
    for path, content in files.items():
        _write_bytes(path, content.encode() if isinstance(content, str) else content)
    return list(files)


def _write_bytes(path: Path, content: bytes) -> None:
    write_atomic(path, lambda temporary: temporary.write_bytes(content))


def _unlit_texture(tree: dict[str, Any]) -> None:
    """Show a texture without lamps."""
    for material in tree["materials"]:
        material["extensions"] = {"KHR_materials_unlit": {}}
    tree["extensionsUsed"] = ["KHR_materials_unlit"]


def _unlit(tree: dict[str, Any]) -> None:
    """Name the colors as glTF does and show them without lamps."""
    rough = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    tree["materials"] = [{"pbrMetallicRoughness": rough, "extensions": {"KHR_materials_unlit": {}}}]
    tree["extensionsUsed"] = ["KHR_materials_unlit"]
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive["attributes"]["COLOR_0"] = primitive["attributes"].pop(_COLOR)
            primitive["material"] = 0
