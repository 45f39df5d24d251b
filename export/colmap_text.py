"""A COLMAP model as text: cameras.txt, images.txt and points3D.txt, world to camera, OpenCV axes.

Points have no tracks: which picture saw which point is not known any more.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from lumigraph.core import CameraModel, Cameras, PointCloud
from lumigraph.core.errors import DataError, InputError
from lumigraph.core.transforms import quaternion_from_rotation

_KNOWN = (CameraModel.PINHOLE, CameraModel.OPENCV, CameraModel.FISHEYE)
_GRAY = (128, 128, 128)


def check_lenses(cameras: Cameras) -> None:
    """Refuse camera models that COLMAP does not have.

    Raises:
        InputError: an equirectangular or orthographic camera.
    """
    for kind in cameras.kinds:
        if kind not in _KNOWN:
            raise InputError(
                f"COLMAP has no {kind.name.lower()} cameras; write them to a .json file"
            )


def write_model(
    cameras: Cameras, names: Sequence[str], points: PointCloud | None, folder: Path
) -> None:
    """Write the three files; the folder appears whole.

    Args:
        cameras: C of them in float64.
        names: C names of pictures, relative to the folder of the pictures.
        points: with colors, or gray.
        folder: replaced where it exists.

    Raises:
        DataError: a full disk, say.
    """
    staging: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        lenses, of_camera = _lenses(cameras)
        (staging / "cameras.txt").write_text("\n".join(lenses) + "\n")
        (staging / "images.txt").write_text("".join(_image_lines(cameras, names, of_camera)))
        (staging / "points3D.txt").write_text("".join(_point_lines(points)))
        staging.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        staging.rename(folder)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({error.strerror or error}); "
            "free some space or choose another --out"
        ) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def _lenses(cameras: Cameras) -> tuple[list[str], list[int]]:
    """A line for each different lens, and the number of each camera's, from 1."""
    numbers: dict[str, int] = {}
    of_camera = []
    for index in range(len(cameras)):
        lens = _lens(cameras, index)
        of_camera.append(numbers.setdefault(lens, len(numbers) + 1))
    return [f"{number} {lens}" for lens, number in numbers.items()], of_camera


def _lens(cameras: Cameras, index: int) -> str:
    model = CameraModel(int(cameras.models[index]))
    width, height = cameras.size(index)
    values = cameras.distortion[index].tolist()
    name, more = "PINHOLE", []
    if model == CameraModel.FISHEYE:
        name, more = "OPENCV_FISHEYE", values[:4]
    elif model == CameraModel.OPENCV:
        full = any(values[4:])
        name, more = ("FULL_OPENCV", values) if full else ("OPENCV", values[:4])
    numbers = [*cameras.intrinsics[index].tolist(), *more]
    return f"{name} {width} {height} " + " ".join(f"{number!r}" for number in numbers)


def _image_lines(cameras: Cameras, names: Sequence[str], of_camera: Sequence[int]) -> list[str]:
    """Two lines for each picture; the second, of its observations, is empty."""
    rotations = cameras.camera_to_world[:, :3, :3].transpose(1, 2)
    shifts = -(rotations @ cameras.positions[:, :, None])[:, :, 0]
    turns = quaternion_from_rotation(rotations)
    poses = torch.cat([turns, shifts], dim=1).tolist()
    return [
        f"{index + 1} {' '.join(map(repr, pose))} {of_camera[index]} {names[index]}\n\n"
        for index, pose in enumerate(poses)
    ]


def _point_lines(points: PointCloud | None) -> list[str]:
    if points is None:
        return []
    places = points.positions.tolist()
    colors = [_GRAY] * len(places) if points.colors is None else points.colors.tolist()
    return [
        f"{number} {x!r} {y!r} {z!r} {red} {green} {blue} 0\n"
        for number, ((x, y, z), (red, green, blue)) in enumerate(
            zip(places, colors, strict=True), start=1
        )
    ]
