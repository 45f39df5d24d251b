"""Out of a run: videos, pictures and camera paths rendered to files; surfaces as meshes, scored
against the truth; files of Gaussians read and written; web pages that work offline. Names load on
first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lumigraph.export.mesh_export import MeshOptions, mesh
    from lumigraph.export.mesh_reading import TriangleMesh, read_mesh
    from lumigraph.export.mesh_scores import MeshScores, mesh_error
    from lumigraph.export.render_path import (
        PathOptions,
        RenderedPath,
        camera_path,
        render_cameras,
        video,
    )
    from lumigraph.export.splat_export import points, splats
    from lumigraph.export.splat_files import WriteOptions, read_splats, write_splats
    from lumigraph.export.video_writer import check_output, write_video
    from lumigraph.export.web_page import PageOptions, page

_MODULE_OF = {
    "MeshOptions": "mesh_export",
    "MeshScores": "mesh_scores",
    "PageOptions": "web_page",
    "PathOptions": "render_path",
    "RenderedPath": "render_path",
    "TriangleMesh": "mesh_reading",
    "WriteOptions": "splat_files",
    "camera_path": "render_path",
    "check_output": "video_writer",
    "mesh": "mesh_export",
    "mesh_error": "mesh_scores",
    "page": "web_page",
    "points": "splat_export",
    "read_mesh": "mesh_reading",
    "read_splats": "splat_files",
    "render_cameras": "render_path",
    "splats": "splat_export",
    "video": "render_path",
    "write_splats": "splat_files",
    "write_video": "video_writer",
}

__all__ = [
    "MeshOptions",
    "MeshScores",
    "PageOptions",
    "PathOptions",
    "RenderedPath",
    "TriangleMesh",
    "WriteOptions",
    "camera_path",
    "check_output",
    "mesh",
    "mesh_error",
    "page",
    "points",
    "read_mesh",
    "read_splats",
    "render_cameras",
    "splats",
    "video",
    "write_splats",
    "write_video",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
