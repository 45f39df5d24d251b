"""Out of a run: videos, pictures and camera paths rendered to files; surfaces as meshes, scored
against the truth; cameras and points; files of Gaussians read and written; web pages that work
offline. Names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lumigraph.export.camera_export import cameras
    from lumigraph.export.medium_export import medium
    from lumigraph.export.mesh_evaluation import (
        MeshEvaluation,
        MeshScoreOptions,
        evaluate_mesh,
        seen_mesh_error,
        true_surface,
    )
    from lumigraph.export.mesh_export import mesh
    from lumigraph.export.mesh_options import MeshOptions
    from lumigraph.export.mesh_reading import TriangleMesh, read_mesh
    from lumigraph.export.mesh_regions import RegionOptions, camera_regions
    from lumigraph.export.mesh_scores import MeshScores, Regions, mesh_error
    from lumigraph.export.mesh_targets import TruePoints
    from lumigraph.export.mesh_truth import read_truth
    from lumigraph.export.moving_meshes import MeshSequenceReport, mesh_sequence
    from lumigraph.export.picture_export import picture
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
    from lumigraph.export.sequence_export import SequenceReport, splat_sequence
    from lumigraph.export.splat_export import splats
    from lumigraph.export.splat_files import (
        MovingSplats,
        WriteOptions,
        read_moving,
        read_splats,
        write_moving,
        write_splats,
    )
    from lumigraph.export.video_writer import check_output, open_video, write_video
    from lumigraph.export.web_page import PageOptions, page

_MODULE_OF = {
    "MeshEvaluation": "mesh_evaluation",
    "MeshOptions": "mesh_options",
    "MeshScoreOptions": "mesh_evaluation",
    "MeshScores": "mesh_scores",
    "MeshSequenceReport": "moving_meshes",
    "MovingSplats": "splat_files",
    "PageOptions": "web_page",
    "PathOptions": "render_path",
    "PointsOptions": "point_export",
    "RegionOptions": "mesh_regions",
    "Regions": "mesh_scores",
    "RenderedPath": "render_path",
    "SequenceReport": "sequence_export",
    "SplatSource": "render_source",
    "TriangleMesh": "mesh_reading",
    "TruePoints": "mesh_targets",
    "WriteOptions": "splat_files",
    "camera_path": "render_path",
    "camera_regions": "mesh_regions",
    "cameras": "camera_export",
    "check_output": "video_writer",
    "comparison": "render_path",
    "evaluate_mesh": "mesh_evaluation",
    "medium": "medium_export",
    "mesh": "mesh_export",
    "mesh_error": "mesh_scores",
    "mesh_sequence": "moving_meshes",
    "open_source": "render_source",
    "open_video": "video_writer",
    "page": "web_page",
    "picture": "picture_export",
    "points": "point_export",
    "read_mesh": "mesh_reading",
    "read_moving": "splat_files",
    "read_splats": "splat_files",
    "read_truth": "mesh_truth",
    "render_cameras": "render_path",
    "seen_mesh_error": "mesh_evaluation",
    "splat_sequence": "sequence_export",
    "splats": "splat_export",
    "true_surface": "mesh_evaluation",
    "video": "render_path",
    "write_moving": "splat_files",
    "write_splats": "splat_files",
    "write_video": "video_writer",
}

__all__ = [
    "MeshEvaluation",
    "MeshOptions",
    "MeshScoreOptions",
    "MeshScores",
    "MeshSequenceReport",
    "MovingSplats",
    "PageOptions",
    "PathOptions",
    "PointsOptions",
    "RegionOptions",
    "Regions",
    "RenderedPath",
    "SequenceReport",
    "SplatSource",
    "TriangleMesh",
    "TruePoints",
    "WriteOptions",
    "camera_path",
    "camera_regions",
    "cameras",
    "check_output",
    "comparison",
    "evaluate_mesh",
    "medium",
    "mesh",
    "mesh_error",
    "mesh_sequence",
    "open_source",
    "open_video",
    "page",
    "picture",
    "points",
    "read_mesh",
    "read_moving",
    "read_splats",
    "read_truth",
    "render_cameras",
    "seen_mesh_error",
    "splat_sequence",
    "splats",
    "true_surface",
    "video",
    "write_moving",
    "write_splats",
    "write_video",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
