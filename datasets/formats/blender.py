"""NeRF-synthetic folders: transforms_train.json, transforms_val.json and transforms_test.json.

Images are PNG files with straight alpha, listed without their suffix. Poses are camera-to-world in
OpenGL axes. The family of D-NeRF adds `time` and, in some sets, intrinsics for each frame. The
frame of the files is kept. The cube of interest is [-1.5, 1.5]^3 where cameras stand about 4 from
the origin (NeRF synthetic); elsewhere it surrounds what the cameras see around their common focus.
"""

from pathlib import Path

import numpy as np

from lumigraph.core.errors import DataError
from lumigraph.datasets.formats.json_cameras import FrameReader, frames_of, number, read_json
from lumigraph.datasets.options import LoadOptions
from lumigraph.datasets.scene_bounds import Placement, cube_placement, focus_point
from lumigraph.datasets.views import SceneParts, View, keep_existing, stack_poses

SPLITS = ("train", "val", "test")

NEAR_FRACTION = 0.05
"""Marching starts at this fraction of the cube's side; only cameras inside the cube notice."""


def recognises(path: Path) -> bool:
    """True for a folder with transforms_train.json, or for one of the split files itself."""
    return (path / "transforms_train.json").is_file() or (
        path.is_file() and path.name in {f"transforms_{split}.json" for split in SPLITS}
    )


def read(path: Path, _options: LoadOptions) -> SceneParts:
    """Load all splits of a NeRF-synthetic folder; cameras are ordered train, val, test."""
    folder = path.parent if path.is_file() else path
    notes: list[str] = []
    views: list[View] = []
    aabb_scale = 1
    for split in SPLITS:
        file = folder / f"transforms_{split}.json"
        if split != "train" and not file.is_file():
            continue
        table = read_json(file)
        aabb_scale = checked_aabb_scale(table.get("aabb_scale", aabb_scale), file)
        reader = FrameReader(file, table)
        frames = frames_of(table, file)
        found = [
            (str(frame.get("file_path")), reader.read(frame, index, split=split))
            for index, frame in enumerate(frames)
        ]
        views += keep_existing(found, source=file, notes=notes)
    if not views:
        raise DataError(f"{folder}: its transforms files list no images; add frames to them")
    return SceneParts(
        name=folder.resolve().name,
        source=folder,
        views=views,
        placement=synthetic_placement(views, aabb_scale),
        notes=notes,
    )


def checked_aabb_scale(value: object, where: object) -> int:
    """`aabb_scale` of a file: a power of two from 1 to 128."""
    scale = number(value, "aabb_scale", where)
    if scale not in {float(2**power) for power in range(8)}:
        raise DataError(f"{where}: aabb_scale is {value}; use 1, 2, 4, 8, 16, 32, 64 or 128")
    return int(scale)


def synthetic_placement(views: list[View], aabb_scale: int) -> Placement:
    """The cube of a synthetic scene, in the frame of its files."""
    poses = stack_poses(views)
    centers = poses[:, :3, 3]
    focus, spread = focus_point(centers, poses[:, :3, 2])
    if spread < 0.02:
        # One camera, or all in parallel: nothing says where the object is, so the origin it is.
        focus = np.zeros(3)
    radii = np.linalg.norm(centers - focus, axis=1)
    if np.linalg.norm(focus) < 0.3 and 3.5 <= float(np.median(radii)) <= 4.5:
        return cube_placement(np.zeros(3), 1.5, aabb_scale=aabb_scale, near=NEAR_FRACTION * 3.0)
    seen = [
        0.5 * radius * max(view.size[0] / view.focal[0], view.size[1] / view.focal[1])
        for radius, view in zip(radii, views, strict=True)
    ]
    half_side = max(float(np.median(seen)), 1e-3)
    return cube_placement(
        focus, half_side, aabb_scale=aabb_scale, near=NEAR_FRACTION * 2.0 * half_side
    )
