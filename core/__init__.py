"""The vocabulary that all rooms share: cameras, rays, frames, scenes, transforms, errors."""

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
from lumigraph.core.harmonics import spherical_harmonics
from lumigraph.core.rays import Rays, Samples
from lumigraph.core.scene import ImageSource, MapSource, MemoryImages, PointCloud, Scene, cube
from lumigraph.core.shapes import check_shapes
from lumigraph.core.transforms import Similarity

__all__ = [
    "BackendError",
    "CameraModel",
    "CameraPath",
    "Cameras",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Frame",
    "ImageSource",
    "InputError",
    "Keyframe",
    "LumigraphError",
    "MapSource",
    "MemoryImages",
    "MissingExtraError",
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
