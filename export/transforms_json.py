"""transforms.json: cameras with OpenGL axes (x right, y up, z backward) and distortion, as
nerfstudio and instant-ngp read it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lumigraph.core import CameraModel, Cameras, PointCloud, Similarity
from lumigraph.training.files import write_text

from .point_files import write_points

MODEL_NAMES = {
    CameraModel.PINHOLE: "PINHOLE",
    CameraModel.OPENCV: "OPENCV",
    CameraModel.FISHEYE: "OPENCV_FISHEYE",
    CameraModel.EQUIRECTANGULAR: "EQUIRECTANGULAR",
    CameraModel.ORTHOGRAPHIC: "ORTHOGRAPHIC",
}
"""As the file names a model; the last one is ours alone."""
_KEYS = {
    CameraModel.OPENCV: ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    CameraModel.FISHEYE: ("k1", "k2", "k3", "k4"),
}
_ALWAYS = 4  # coefficients that are written even if they are 0
_SPLIT_NAMES = ("train", "val", "test")


def transforms_table(
    cameras: Cameras,
    names: Sequence[str],
    *,
    splits: Mapping[str, Sequence[int]],
    applied: Similarity | None,
) -> dict[str, Any]:
    """The content of the file. What all cameras share stands once, at the top.

    Args:
        cameras: C of them, in the frame of the file.
        names: C picture files, relative to the file.
        splits: indices by name.
        applied: from the capture's frame to that of the file; None where they are the same.
    """
    lenses = [_lens(cameras, index) for index in range(len(cameras))]
    shared = lenses[0] if all(lens == lenses[0] for lens in lenses) else {}
    poses = cameras.camera_to_world.numpy() * np.array([1.0, -1.0, -1.0, 1.0])
    frames = []
    for index, name in enumerate(names):
        frame: dict[str, Any] = {"file_path": name, "transform_matrix": poses[index].tolist()}
        if cameras.times is not None:
            frame["time"] = float(cameras.times[index])
        frames.append({**frame, **({} if shared else lenses[index])})
    table: dict[str, Any] = {**shared, "frames": frames}
    for split in _SPLIT_NAMES:
        if splits.get(split):
            table[f"{split}_filenames"] = [names[index] for index in splits[split]]
    if applied is not None:
        matrix = applied.to_matrix()[:3]
        table["applied_scale"] = applied.scale
        table["applied_transform"] = (matrix / applied.scale).tolist()
    return table


def write_transforms(table: dict[str, Any], path: Path, *, points: PointCloud | None) -> None:
    """Write the file, after the points that it names in a PLY file beside it.

    Raises:
        DataError: a file cannot be written.
    """
    if points is not None:
        cloud = path.with_name(f"{path.stem}_points.ply")
        colors = None if points.colors is None else points.colors.numpy()
        write_points(cloud, points.positions.numpy(), colors, double=True)
        table = {**table, "ply_file_path": cloud.name}
    write_text(path, json.dumps(table, indent=1) + "\n")


def _lens(cameras: Cameras, index: int) -> dict[str, Any]:
    model = CameraModel(int(cameras.models[index]))
    width, height = cameras.size(index)
    numbers = zip(("fl_x", "fl_y", "cx", "cy"), cameras.intrinsics[index].tolist(), strict=True)
    lens: dict[str, Any] = {
        "camera_model": MODEL_NAMES[model], "w": width, "h": height, **dict(numbers)
    }  # fmt: skip
    values = cameras.distortion[index].tolist()
    for place, key in enumerate(_KEYS.get(model, ())):
        if place < _ALWAYS or values[place] != 0:
            lens[key] = values[place]
    return lens
