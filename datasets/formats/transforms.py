"""One transforms.json for all images, as instant-ngp and nerfstudio write it.

Intrinsics, distortion and `camera_model` at the top or in each frame; OpenGL axes; image files that
do not exist are skipped with one note. The frame of the file is kept where the file speaks of
instant-ngp's cube (`aabb_scale`, `scale` or `offset`): the cube of interest is then the unit cube
of x * scale + offset (by default 0.33 and 0.5). Other files get a placement chosen from the cameras
and the points of `ply_file_path`.

Splits: lists `train_filenames`, `val_filenames`, `test_filenames`, or `split` in each frame.
`applied_transform` (3x4) and `applied_scale` say how the file's frame came from the capture's own
frame; they become part of the scene's normalization, so exports return to the capture's frame.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lumigraph.core.errors import DataError
from lumigraph.core.transforms import Similarity
from lumigraph.datasets.formats.blender import checked_aabb_scale
from lumigraph.datasets.formats.json_cameras import (
    FrameReader,
    frames_of,
    number,
    read_json,
    required,
)
from lumigraph.datasets.formats.ply import read_points
from lumigraph.datasets.options import LoadOptions
from lumigraph.datasets.poses import Matrix, checked_matrix, similarity_of
from lumigraph.datasets.scene_bounds import Placement, choose_placement, cube_placement
from lumigraph.datasets.views import SceneParts, View, keep_existing, stack_poses

FILE_NAME = "transforms.json"

DEFAULT_SCALE = 0.33
DEFAULT_OFFSET = 0.5
"""instant-ngp's map of the file's frame into its unit cube: x * scale + offset."""

NEAR_FRACTION = 0.1
"""instant-ngp's near distance in units of its cube."""


def recognises(path: Path) -> bool:
    """True for a folder with transforms.json or for a JSON file that is no Blender split."""
    return (path / FILE_NAME).is_file() or (path.is_file() and path.suffix == ".json")


def read(path: Path, _options: LoadOptions) -> SceneParts:
    """Load the scene that a transforms.json (or the folder around it) describes."""
    file = path if path.is_file() else path / FILE_NAME
    folder = file.parent
    table = read_json(file)
    frames = frames_of(table, file)
    notes: list[str] = []
    label_of = _listed_splits(table, file)
    reader = FrameReader(file, table)
    found = []
    for index, frame in enumerate(frames):
        listed = str(required(frame, "file_path", f"{file}: frames[{index}]"))
        label = frame.get("split", label_of.get(_plain(listed)))
        found.append((listed, reader.read(frame, index, split=label)))
    views = keep_existing(found, source=file, notes=notes)
    if not views:
        raise DataError(f"{file}: 'frames' is empty; a scene needs at least one image")
    points = _points(table, folder, notes)
    return SceneParts(
        name=folder.resolve().name,
        source=file if file.name != FILE_NAME else folder,
        views=views,
        placement=_placement(table, views, points, file),
        points=points,
        source_to_files=_applied_transform(table, file),
        notes=notes,
    )


def _placement(
    table: Mapping[str, Any],
    views: list[View],
    points: tuple[Matrix, np.ndarray | None] | None,
    file: Path,
) -> Placement:
    if not {"aabb_scale", "scale", "offset"} & set(table):
        positions = None if points is None else points[0]
        return choose_placement(stack_poses(views), points=positions, align_up=False)
    scale = number(table.get("scale", DEFAULT_SCALE), "scale", file)
    if scale <= 0.0:
        raise DataError(f"{file}: 'scale' is {scale}; it must be above zero (instant-ngp: 0.33)")
    offset_value = table.get("offset", [DEFAULT_OFFSET] * 3)
    if isinstance(offset_value, int | float):
        offset_value = [offset_value] * 3
    offset = checked_matrix(offset_value, ((3,),), f"{file}: offset")
    return cube_placement(
        (0.5 - offset) / scale,
        0.5 / scale,
        aabb_scale=checked_aabb_scale(table.get("aabb_scale", 1), file),
        near=NEAR_FRACTION / scale,
    )


def _applied_transform(table: Mapping[str, Any], file: Path) -> Similarity | None:
    if "applied_transform" not in table and "applied_scale" not in table:
        return None
    factor = number(table.get("applied_scale", 1.0), "applied_scale", file)
    if factor <= 0.0:
        raise DataError(f"{file}: 'applied_scale' is {factor}; it must be above zero")
    where = f"{file}: applied_transform"
    matrix = table.get("applied_transform", np.eye(4)[:3])
    applied = similarity_of(checked_matrix(matrix, ((3, 4), (4, 4)), where), where)
    return Similarity(factor, torch.eye(3), torch.zeros(3)).compose(applied)


def _listed_splits(table: Mapping[str, Any], file: Path) -> dict[str, str]:
    labels: dict[str, str] = {}
    for split in ("train", "val", "test"):
        names = table.get(f"{split}_filenames", [])
        if not isinstance(names, list):
            raise DataError(f"{file}: '{split}_filenames' must be a list of file names")
        labels.update({_plain(str(name)): split for name in names})
    return labels


def _points(
    table: Mapping[str, Any], folder: Path, notes: list[str]
) -> tuple[Matrix, np.ndarray | None] | None:
    listed = table.get("ply_file_path")
    if not listed:
        return None
    path = folder / str(listed)
    if not path.is_file():
        notes.append(f"point cloud {listed} is listed but missing; the scene has no points")
        return None
    return read_points(path)


def _plain(listed: str) -> str:
    return listed.removeprefix("./")
