"""The vocabulary that all rooms share: cameras, rays, frames, scenes, transforms, errors.

Names load on first use: errors alone need no torch, and commands show their help without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lumigraph.core.camera_path import CameraPath, Keyframe
    from lumigraph.core.cameras import CameraModel, Cameras
    from lumigraph.core.devices import choose_device
    from lumigraph.core.errors import (
        BackendError,
        CheckpointError,
        ConfigError,
        DataError,
        InputError,
        LumigraphError,
        MissingExtraError,
        require,
    )
    from lumigraph.core.frame import Frame
    from lumigraph.core.gaussian_cloud import GaussianCloud
    from lumigraph.core.gaussian_cloud4d import GaussianCloud4D
    from lumigraph.core.harmonics import spherical_harmonics
    from lumigraph.core.path_editing import PathEditor
    from lumigraph.core.rays import Rays, Samples
    from lumigraph.core.scene import ImageSource, MapSource, MemoryImages, PointCloud, Scene, cube
    from lumigraph.core.shapes import check_shapes
    from lumigraph.core.transforms import Similarity

_PLACES = {
    "camera_path": ("CameraPath", "Keyframe"),
    "cameras": ("CameraModel", "Cameras"),
    "devices": ("choose_device",),
    "errors": (
        "BackendError",
        "CheckpointError",
        "ConfigError",
        "DataError",
        "InputError",
        "LumigraphError",
        "MissingExtraError",
        "require",
    ),
    "frame": ("Frame",),
    "gaussian_cloud": ("GaussianCloud",),
    "gaussian_cloud4d": ("GaussianCloud4D",),
    "harmonics": ("spherical_harmonics",),
    "path_editing": ("PathEditor",),
    "rays": ("Rays", "Samples"),
    "scene": ("ImageSource", "MapSource", "MemoryImages", "PointCloud", "Scene", "cube"),
    "shapes": ("check_shapes",),
    "transforms": ("Similarity",),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "BackendError",
    "CameraModel",
    "CameraPath",
    "Cameras",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Frame",
    "GaussianCloud",
    "GaussianCloud4D",
    "ImageSource",
    "InputError",
    "Keyframe",
    "LumigraphError",
    "MapSource",
    "MemoryImages",
    "MissingExtraError",
    "PathEditor",
    "PointCloud",
    "Rays",
    "Samples",
    "Scene",
    "Similarity",
    "check_shapes",
    "choose_device",
    "cube",
    "require",
    "spherical_harmonics",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
