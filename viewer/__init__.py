"""Looking at scenes: pictures of geometry with PyVista. Names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lumigraph.viewer.picture_items import (
        BoundsItem,
        CamerasItem,
        ErrorItem,
        GaussiansItem,
        MeshItem,
        PointsItem,
    )
    from lumigraph.viewer.picture_sources import (
        SubjectOptions,
        SubjectReport,
        picture_of_file,
        picture_of_run,
        picture_of_scene,
    )
    from lumigraph.viewer.picture_view import PictureView
    from lumigraph.viewer.picture_window import CANNOT_DRAW
    from lumigraph.viewer.pictures import (
        PictureOptions,
        PictureReport,
        check_picture_target,
        picture,
    )

_MODULE_OF = {
    "BoundsItem": "picture_items",
    "CANNOT_DRAW": "picture_window",
    "CamerasItem": "picture_items",
    "ErrorItem": "picture_items",
    "GaussiansItem": "picture_items",
    "MeshItem": "picture_items",
    "PictureOptions": "pictures",
    "PictureReport": "pictures",
    "PictureView": "picture_view",
    "PointsItem": "picture_items",
    "SubjectOptions": "picture_sources",
    "SubjectReport": "picture_sources",
    "check_picture_target": "pictures",
    "picture": "pictures",
    "picture_of_file": "picture_sources",
    "picture_of_run": "picture_sources",
    "picture_of_scene": "picture_sources",
}

__all__ = [
    "BoundsItem",
    "CANNOT_DRAW",
    "CamerasItem",
    "ErrorItem",
    "GaussiansItem",
    "MeshItem",
    "PictureOptions",
    "PictureReport",
    "PictureView",
    "PointsItem",
    "SubjectOptions",
    "SubjectReport",
    "check_picture_target",
    "picture",
    "picture_of_file",
    "picture_of_run",
    "picture_of_scene",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
