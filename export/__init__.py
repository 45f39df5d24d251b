"""Out of a run: videos, pictures and camera paths rendered to files; surfaces as meshes, scored
against the truth; cameras and points; files of Gaussians read and written; web pages that work
offline. Names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lumigraph.export.camera_export import cameras
    from lumigraph.export.mesh_export import mesh
    from lumigraph.export.mesh_options import MeshOptions
    from lumigraph.export.mesh_reading import TriangleMesh, read_mesh
    from lumigraph.export.mesh_scores import MeshScores, mesh_error
    from lumigraph.export.moving_meshes import MeshSequenceReport, mesh_sequence
    from lumigraph.export.point_export import PointsOptions, points
    from lumigraph.export.render_path import (
        PathOptions,
        RenderedPath,
        camera_path,
        comparison,
        render_cameras,
        video,
    )
    from lumigraph.export.render_source import SplatSource, open_source
    from lumigraph.export.splat_export import splats
    from lumigraph.export.splat_files import WriteOptions, read_splats, write_splats
    from lumigraph.export.video_writer import check_output, open_video, write_video
    from lumigraph.export.web_page import PageOptions, page

_MODULE_OF = {
    "MeshOptions": "mesh_options",
    "MeshScores": "mesh_scores",
    "MeshSequenceReport": "moving_meshes",
    "PageOptions": "web_page",
    "PathOptions": "render_path",
    "PointsOptions": "point_export",
    "RenderedPath": "render_path",
    "SplatSource": "render_source",
    "TriangleMesh": "mesh_reading",
    "WriteOptions": "splat_files",
    "camera_path": "render_path",
    "cameras": "camera_export",
    "check_output": "video_writer",
    "comparison": "render_path",
    "mesh": "mesh_export",
    "mesh_error": "mesh_scores",
    "mesh_sequence": "moving_meshes",
    "open_source": "render_source",
    "open_video": "video_writer",
    "page": "web_page",
    "points": "point_export",
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
    "MeshSequenceReport",
    "PageOptions",
    "PathOptions",
    "PointsOptions",
    "RenderedPath",
    "SplatSource",
    "TriangleMesh",
    "WriteOptions",
    "camera_path",
    "cameras",
    "check_output",
    "comparison",
    "mesh",
    "mesh_error",
    "mesh_sequence",
    "open_source",
    "open_video",
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
