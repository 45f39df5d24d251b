"""Cameras of a run or of data for other programs, in the capture's own frame: transforms.json as
nerfstudio and instant-ngp read it, or a COLMAP model as text.

Pictures that lie in files are named where they are, or copied; those that are only in memory are
written. Letters: C cameras, P points.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lumigraph.core import Cameras, PointCloud, Scene, Similarity
from lumigraph.core.errors import DataError, InputError
from lumigraph.datasets.images import image_header
from lumigraph.training.files import write_atomic

from .colmap_text import check_lenses, write_model
from .transforms_json import transforms_table, write_transforms

if TYPE_CHECKING:
    from lumigraph.training import Run

Frame = Literal["capture", "scene"]
Progress = Callable[[int, int], None]
IMAGES_FOLDER = "images"
MODEL_FOLDER = Path("sparse", "0")


@dataclass(frozen=True)
class CamerasReport:
    """Cameras that were written."""

    path: Path
    format: str
    count: int
    points: int
    images: Path
    """Folder that the names of the pictures are relative to."""
    written_images: int
    """Pictures that were copied or written."""

    def line(self) -> str:
        """For people."""
        copied = f", {self.written_images:,} pictures written" if self.written_images else ""
        return (
            f"{self.path}: {self.format}, {self.count:,} cameras, {self.points:,} points; "
            f"pictures in {self.images}{copied}"
        )

    def to_dict(self) -> dict[str, Any]:
        """For machines; `out` is the file or folder."""
        return {
            "out": str(self.path),
            "format": self.format,
            "cameras": self.count,
            "points": self.points,
            "images": str(self.images),
            "written_images": self.written_images,
        }


@dataclass(frozen=True)
class PosedPictures:
    """What a format's writer gets."""

    scene: Scene
    cameras: Cameras
    """C cameras in float64, in the frame that is written, at the size of the picture files."""
    files: list[Path]
    """C picture files."""
    points: PointCloud | None
    """Points in the frame that is written, float64."""
    applied: Similarity | None
    """From the capture's frame to the one that is written; None where they are the same."""


def cameras(
    source: Run | Scene | str | Path,
    *,
    out: str | Path,
    frame: Frame = "capture",
    copy_images: bool = False,
    overwrite: bool = False,
    on_image: Progress | None = None,
) -> CamerasReport:
    """Write cameras: `lg.export.cameras(run, out="transforms.json")`.

    Args:
        source: a `training.Run` or its folder, a scene, or what `datasets.load` reads.
        out: a .json file, or a folder for a COLMAP model in `sparse/0`.
        frame: "capture" is the frame and unit of the data; "scene" that of training.
        copy_images: put the pictures into `images` beside the file, or into the folder.
        overwrite: replace what was written there before.
        on_image: told after each picture that is copied or written how many are, and of how many.

    Raises:
        InputError: an unusable target, or cameras that the format does not know.
        DataError: no such run or data, no pictures, or a full disk.
    """
    target = Path(out)
    images_folder = (target.parent if _is_json(target) else target) / IMAGES_FOLDER
    _check_target(target, overwrite=overwrite)
    scene = _scene(source)
    if scene.images is None:
        raise DataError(f"{scene.source}: has no pictures, and cameras are written with theirs")
    if not _is_json(target):
        check_lenses(scene.cameras)
        if frame == "scene":
            raise InputError("--frame scene: a COLMAP model has one frame alone; write a .json")
    given = _files(scene)
    writes = copy_images or given is None
    if writes:
        _check_images_folder(images_folder, given, overwrite=overwrite)
        files = _written_images(scene, given, images_folder, on_image)
    else:
        assert given is not None
        files = given
    posed = _posed(scene, files, frame)
    write = _write_json if _is_json(target) else _write_colmap
    shared = write(posed, target)
    points = 0 if posed.points is None else len(posed.points)
    kind = "transforms.json" if _is_json(target) else "COLMAP model"
    return CamerasReport(target, kind, len(files), points, shared, len(files) if writes else 0)


def _is_json(target: Path) -> bool:
    return target.suffix.lower() == ".json"


def _check_target(target: Path, *, overwrite: bool) -> None:
    if target.suffix and not _is_json(target):
        raise InputError(
            f"{target}: cameras are written to a .json file, or to a folder as a COLMAP model"
        )
    if _is_json(target) and target.is_dir():
        raise InputError(f"{target}: is a folder; name a file in it")
    if not _is_json(target) and target.is_file():
        raise InputError(f"{target}: is a file; name a folder, or a file that ends in .json")
    there = target if _is_json(target) else target / MODEL_FOLDER
    if there.exists() and not overwrite:
        raise InputError(f"{there}: exists already; replace it with --overwrite, or name another")


def _check_images_folder(folder: Path, given: list[Path] | None, *, overwrite: bool) -> None:
    """Never write over the pictures of the data."""
    sources = {path.resolve().parent for path in given or ()}
    inside = any(source.is_relative_to(folder.resolve()) for source in sources)
    if inside:
        raise InputError(f"{folder}: is where the pictures come from; choose another --out")
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise InputError(f"{folder}: exists already; add --overwrite, or choose another --out")


def _scene(source: Run | Scene | str | Path) -> Scene:
    if isinstance(source, Scene):
        return source
    if not isinstance(source, (str, Path)):
        return source.scene()
    if (Path(source) / "config.yaml").is_file():
        from lumigraph.training import Run

        return Run.open(source).scene()
    from lumigraph import datasets

    return datasets.load(source)


def _files(scene: Scene) -> list[Path] | None:
    """The files of the pictures, None where they are in memory."""
    path = getattr(scene.images, "path", None)
    if path is None:
        return None
    return [Path(path(index)) for index in range(len(scene.cameras))]


def _written_images(
    scene: Scene, given: list[Path] | None, folder: Path, on_image: Progress | None
) -> list[Path]:
    """Copies of picture files, or pictures from memory as PNG; each whole or not at all."""
    assert scene.images is not None
    names = [Path(f"{scene.images.name(i)}.png") for i in range(len(scene.cameras))]
    if given is not None:
        shared = common_folder(given)
        names = [path.resolve().relative_to(shared) for path in given]
    written = []
    for index, name in enumerate(names):
        file = folder / name
        if given is not None:
            write_atomic(file, partial(shutil.copyfile, given[index]))
        else:
            pixels = scene.images.load(index).numpy()
            write_atomic(file, partial(_save_image, pixels))
        written.append(file)
        if on_image is not None:
            on_image(index + 1, len(names))
    return written


def _save_image(pixels: NDArray[np.uint8], path: Path) -> None:
    import imageio.v3 as imageio

    imageio.imwrite(path, pixels, extension=".png")


def common_folder(files: list[Path]) -> Path:
    """The deepest folder that holds all files."""
    return Path(os.path.commonpath([str(path.resolve().parent) for path in files]))


def _posed(scene: Scene, files: list[Path], frame: Frame) -> PosedPictures:
    """Everything in the frame that is written, with intrinsics for the files as they are."""
    to_frame = scene.normalization.inverse() if frame == "capture" else Similarity.identity()
    cameras = scene.cameras.to("cpu", dtype=torch.float64)
    rotation = to_frame.rotation @ cameras.camera_to_world[:, :3, :3]
    poses = cameras.camera_to_world.clone()
    poses[:, :3, :3] = rotation
    poses[:, :3, 3] = to_frame.apply(cameras.positions)
    cameras = cameras.with_poses(poses)
    sizes = torch.tensor([image_header(path)[:2] for path in files])
    ratio = sizes.double() / cameras.sizes
    cameras = replace(
        cameras, sizes=sizes, intrinsics=cameras.intrinsics * torch.cat([ratio, ratio], dim=1)
    )
    points = None
    if scene.points is not None and len(scene.points):
        moved = to_frame.apply(scene.points.positions.double().cpu())
        points = PointCloud(moved, scene.points.colors)
    applied = None if frame == "capture" else scene.normalization
    return PosedPictures(scene, cameras, files, points, applied)


def _write_json(posed: PosedPictures, target: Path) -> Path:
    """Returns the folder that names are relative to."""
    folder = target.parent
    names = [_relative(path, folder) for path in posed.files]
    table = transforms_table(
        posed.cameras, names, splits=_splits(posed.scene), applied=posed.applied
    )
    write_transforms(table, target, points=posed.points)
    return folder


def _write_colmap(posed: PosedPictures, target: Path) -> Path:
    """Returns the folder that names are relative to."""
    shared = common_folder(posed.files)
    names = [str(path.resolve().relative_to(shared).as_posix()) for path in posed.files]
    write_model(posed.cameras, names, posed.points, target / MODEL_FOLDER)
    return shared


def _splits(scene: Scene) -> dict[str, list[int]]:
    return {name: [int(i) for i in indices] for name, indices in scene.splits.items()}


def _relative(path: Path, folder: Path) -> str:
    """As a file in `folder` names a picture."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
