"""The interactive viewer in the browser. Names load on first use; the room needs the extra
`viewer`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    "FrameSource",
    "MeshSource",
    "ModelSource",
    "Pick",
    "RunSource",
    "SplatFileSource",
    "TrainingSource",
    "Viewer",
    "measure_rate",
    "open_source",
    "serve",
    "serve_training",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
