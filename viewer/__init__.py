"""Looking at scenes: the interactive viewer in the browser (extra `viewer`), and pictures of
geometry with PyVista (extra `geometry`). Names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lumigraph.viewer.pictures.drawing import (
        PictureOptions,
        PictureReport,
        check_picture_target,
        picture,
    )
    from lumigraph.viewer.pictures.errors import picture_of_errors
    from lumigraph.viewer.pictures.items import (
        BoundsItem,
        CamerasItem,
        ErrorItem,
        GaussiansItem,
        MeshItem,
        PointErrorItem,
        PointsItem,
    )
    from lumigraph.viewer.pictures.sources import (
        SubjectOptions,
        SubjectReport,
        picture_of_file,
        picture_of_run,
        picture_of_scene,
    )
    from lumigraph.viewer.pictures.view import PictureView
    from lumigraph.viewer.pictures.window import CANNOT_DRAW
    from lumigraph.viewer.source import (
        FrameSource,
        MeshSource,
        ModelSource,
        RunSource,
        SplatFileSource,
        TrainingSource,
        open_source,
    )
    from lumigraph.viewer.timing import measure_rate
    from lumigraph.viewer.viewer import Pick, Viewer, serve, serve_training

_PLACES = {
    "pictures.items": (
        "BoundsItem",
        "CamerasItem",
        "ErrorItem",
        "GaussiansItem",
        "MeshItem",
        "PointErrorItem",
        "PointsItem",
    ),
    "pictures.errors": ("picture_of_errors",),
    "pictures.sources": (
        "SubjectOptions",
        "SubjectReport",
        "picture_of_file",
        "picture_of_run",
        "picture_of_scene",
    ),
    "pictures.view": ("PictureView",),
    "pictures.window": ("CANNOT_DRAW",),
    "pictures.drawing": ("PictureOptions", "PictureReport", "check_picture_target", "picture"),
    "source": (
        "FrameSource",
        "MeshSource",
        "ModelSource",
        "RunSource",
        "SplatFileSource",
        "TrainingSource",
        "open_source",
    ),
    "timing": ("measure_rate",),
    "viewer": ("Pick", "Viewer", "serve", "serve_training"),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "BoundsItem",
    "CANNOT_DRAW",
    "CamerasItem",
    "ErrorItem",
    "FrameSource",
    "GaussiansItem",
    "MeshItem",
    "MeshSource",
    "ModelSource",
    "Pick",
    "PictureOptions",
    "PictureReport",
    "PictureView",
    "PointErrorItem",
    "PointsItem",
    "RunSource",
    "SplatFileSource",
    "SubjectOptions",
    "SubjectReport",
    "TrainingSource",
    "Viewer",
    "check_picture_target",
    "measure_rate",
    "open_source",
    "picture",
    "picture_of_errors",
    "picture_of_file",
    "picture_of_run",
    "picture_of_scene",
    "serve",
    "serve_training",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
