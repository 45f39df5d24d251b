"""Cameras in NeRF-style JSON files, shared by the Blender and the transforms.json reader.

A file holds `frames`, each with `file_path` and `transform_matrix` (camera-to-world, OpenGL axes).
Intrinsics stand in the frame or, for all frames, at the top: `fl_x fl_y cx cy w h`, or a field of
view `camera_angle_x` (`camera_angle_y`) in radians. Distortion: `k1..k6 p1 p2`. NeuS2 writes
`from_na` at the top: axes are OpenCV's, and each frame has its intrinsics as an `intrinsic_matrix`.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lumigraph.core.cameras import CameraModel
from lumigraph.core.errors import DataError
from lumigraph.datasets.images import image_header
from lumigraph.datasets.poses import checked_matrix, checked_pose, opengl_to_opencv
from lumigraph.datasets.views import NO_DISTORTION, View, find_image

CAMERA_MODELS = {
    "SIMPLE_PINHOLE": CameraModel.PINHOLE,
    "PINHOLE": CameraModel.PINHOLE,
    "PERSPECTIVE": CameraModel.PINHOLE,
    "SIMPLE_RADIAL": CameraModel.OPENCV,
    "RADIAL": CameraModel.OPENCV,
    "OPENCV": CameraModel.OPENCV,
    "FULL_OPENCV": CameraModel.OPENCV,
    "SIMPLE_RADIAL_FISHEYE": CameraModel.FISHEYE,
    "RADIAL_FISHEYE": CameraModel.FISHEYE,
    "OPENCV_FISHEYE": CameraModel.FISHEYE,
    "FISHEYE": CameraModel.FISHEYE,
    "EQUIRECTANGULAR": CameraModel.EQUIRECTANGULAR,
    "ORTHOGRAPHIC": CameraModel.ORTHOGRAPHIC,
}

_OPENCV_KEYS = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
_FISHEYE_KEYS = ("k1", "k2", "k3", "k4")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, or a `DataError` that says what is wrong with it."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: file not found; check the path") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: not valid JSON at line {error.lineno} ({error.msg}); write it again"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); check the file") from None
    if not isinstance(table, dict):
        raise DataError(f"{path}: expected an object with 'frames' at the top; write it again")
    return table


def frames_of(table: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    """The list of frames of a file, each of them an object."""
    frames = required(table, "frames", path)
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise DataError(f"{path}: 'frames' must be a list of objects, one for each image")
    return frames


def required(table: Mapping[str, Any], key: str, where: object) -> Any:
    """Value of a key that must be there."""
    if key not in table:
        present = ", ".join(sorted(table)[:8]) or "nothing"
        raise DataError(f"{where}: key '{key}' is missing (found: {present}); add it")
    return table[key]


def number(value: object, key: str, where: object) -> float:
    """A finite number, or a `DataError` that names the key."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{where}: '{key}' is {value!r}, expected a finite number; correct it")
    return float(value)


class FrameReader:
    """Turns the frames of one JSON file into views.

    Args:
        path: The file, named in messages.
        table: Its content; keys of a frame go before keys at the top.
    """

    def __init__(self, path: Path, table: Mapping[str, Any]) -> None:
        self._path = path
        self._top = {key: value for key, value in table.items() if key != "frames"}

    def read(
        self,
        frame: Mapping[str, Any],
        index: int,
        *,
        split: str | None,
        given: tuple[Path, tuple[int, int]] | None = None,
    ) -> View | None:
        """The view of a frame, or None when its image file does not exist.

        Args:
            frame: an entry of `frames`.
            index: its place, for messages.
            split: what the view is for, where the files say.
            given: file, width and height to take instead of the image that the frame lists.
        """
        where = f"{self._path}: frames[{index}]"
        listed = str(required(frame, "file_path", where))
        where = f"{where} ({listed})"
        pose = checked_pose(
            required(frame, "transform_matrix", where), f"{where}: transform_matrix"
        )
        image = find_image(self._path.parent, listed) if given is None else given[0]
        if image is None:
            return None
        frame = {**frame, **self._intrinsic_matrix(frame, where)}
        merged = {**self._top, **frame}
        size = self._size(merged, None if given is None else given[1], image, where)
        model = self._model(merged, where)
        mask = merged.get("mask_path")
        return View(
            name=listed.removeprefix("./"),
            image=image,
            camera_to_world=pose if self._top.get("from_na") else opengl_to_opencv(pose),
            size=size,
            focal=self._focal(frame, size, model, where),
            center=(
                self._optional(merged, "cx", 0.5 * size[0], where),
                self._optional(merged, "cy", 0.5 * size[1], where),
            ),
            model=model,
            distortion=self._distortion(merged, model, where),
            time=self._time(frame, where),
            mask=self._mask(str(mask), where) if mask else None,
            split=split,
        )

    def _intrinsic_matrix(self, frame: Mapping[str, Any], where: str) -> dict[str, float]:
        """Focal lengths and principal point of a frame that gives them as a matrix."""
        if "intrinsic_matrix" not in frame:
            return {}
        shapes = ((3, 3), (3, 4), (4, 4))
        matrix = checked_matrix(frame["intrinsic_matrix"], shapes, f"{where}: intrinsic_matrix")
        numbers = (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
        return dict(zip(("fl_x", "fl_y", "cx", "cy"), map(float, numbers), strict=True))

    def _size(
        self, merged: Mapping[str, Any], found: tuple[int, int] | None, image: Path, where: str
    ) -> tuple[int, int]:
        if "w" not in merged or "h" not in merged:
            return found or image_header(image)[:2]
        width, height = (int(number(merged[key], key, where)) for key in ("w", "h"))
        if width < 1 or height < 1:
            raise DataError(
                f"{where}: 'w' and 'h' give {width}x{height} pixels; both must be at least 1"
            )
        return width, height

    def _focal(
        self, frame: Mapping[str, Any], size: tuple[int, int], model: CameraModel, where: str
    ) -> tuple[float, float]:
        if model == CameraModel.EQUIRECTANGULAR:
            return size[0] / (2.0 * math.pi), size[1] / math.pi
        x = self._focal_length(frame, "fl_x", "camera_angle_x", size[0], where)
        y = self._focal_length(frame, "fl_y", "camera_angle_y", size[1], where)
        known = x if x is not None else y
        if known is None:
            raise DataError(
                f"{where}: no focal length; add 'fl_x' (pixels) or 'camera_angle_x' (radians)"
            )
        # Pixels are square where only one of the two is given.
        return (known if x is None else x), (known if y is None else y)

    def _focal_length(
        self, frame: Mapping[str, Any], key: str, angle_key: str, side: int, where: str
    ) -> float | None:
        for table in (frame, self._top):
            if table.get(key) is not None:
                length = number(table[key], key, where)
            elif table.get(angle_key) is not None:
                angle = number(table[angle_key], angle_key, where)
                length = 0.5 * side / math.tan(0.5 * angle) if 0.0 < angle < math.pi else -1.0
            else:
                continue
            if length <= 0.0:
                raise DataError(
                    f"{where}: '{key}' or '{angle_key}' gives no positive focal length; correct it"
                )
            return length
        return None

    def _model(self, merged: Mapping[str, Any], where: str) -> CameraModel:
        if merged.get("is_fisheye"):
            return CameraModel.FISHEYE
        name = merged.get("camera_model")
        if name is None:
            distorted = any(merged.get(key) for key in _OPENCV_KEYS)
            return CameraModel.OPENCV if distorted else CameraModel.PINHOLE
        if str(name).upper() not in CAMERA_MODELS:
            known = ", ".join(CAMERA_MODELS)
            raise DataError(f"{where}: camera_model '{name}' is not known; use one of {known}")
        return CAMERA_MODELS[str(name).upper()]

    def _distortion(
        self, merged: Mapping[str, Any], model: CameraModel, where: str
    ) -> tuple[float, ...]:
        keys: tuple[str, ...] = ()
        if model == CameraModel.OPENCV:
            keys = _OPENCV_KEYS
        elif model == CameraModel.FISHEYE:
            keys = _FISHEYE_KEYS
        values = tuple(self._optional(merged, key, 0.0, where) for key in keys)
        return (values + NO_DISTORTION)[:8]

    def _time(self, frame: Mapping[str, Any], where: str) -> float | None:
        return number(frame["time"], "time", where) if "time" in frame else None

    def _mask(self, listed: str, where: str) -> Path:
        mask = find_image(self._path.parent, listed)
        if mask is None:
            raise DataError(f"{where}: mask '{listed}' not found; restore it or drop 'mask_path'")
        return mask

    def _optional(self, merged: Mapping[str, Any], key: str, default: float, where: str) -> float:
        return number(merged[key], key, where) if merged.get(key) is not None else default
