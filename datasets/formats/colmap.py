"""COLMAP folders: a model in sparse/0 beside the image folder.

Poses are world to camera in OpenCV axes, pixel centres at +0.5, as in `Cameras`. Images are found
by the names in the model, below `images`, else a smaller copy (`images_2`, `images_4`, `images_8`),
whose size scales the intrinsics. The placement is chosen from cameras and points (`scene_bounds`).
"""

from pathlib import Path

import numpy as np
import torch

from lumigraph.core.cameras import CameraModel
from lumigraph.core.errors import DataError
from lumigraph.core.transforms import rotation_from_quaternion
from lumigraph.datasets.formats.colmap_model import (
    ColmapCamera,
    ColmapImage,
    ColmapModel,
    has_model,
    read_model,
)
from lumigraph.datasets.formats.image_folders import choose_image_folder
from lumigraph.datasets.images import IMAGE_SUFFIXES
from lumigraph.datasets.options import LoadOptions
from lumigraph.datasets.poses import Matrix, checked_pose, pose_from_world_to_camera
from lumigraph.datasets.scene_bounds import choose_placement
from lumigraph.datasets.views import (
    NO_DISTORTION,
    SceneParts,
    View,
    keep_existing,
    stack_poses,
)

MODEL_FOLDERS = ("sparse/0", "sparse", "colmap/sparse/0", "distorted/sparse/0", ".")

# For each model: places of fx and fy in the parameters, CameraModel, and the place of every
# remaining parameter (after fx, [fy], cx, cy) in `Cameras.distortion`.
_LENSES: dict[str, tuple[int, CameraModel, tuple[int, ...]]] = {
    "SIMPLE_PINHOLE": (1, CameraModel.PINHOLE, ()),
    "PINHOLE": (2, CameraModel.PINHOLE, ()),
    "SIMPLE_RADIAL": (1, CameraModel.OPENCV, (0,)),
    "RADIAL": (1, CameraModel.OPENCV, (0, 1)),
    "OPENCV": (2, CameraModel.OPENCV, (0, 1, 2, 3)),
    "FULL_OPENCV": (2, CameraModel.OPENCV, (0, 1, 2, 3, 4, 5, 6, 7)),
    "OPENCV_FISHEYE": (2, CameraModel.FISHEYE, (0, 1, 2, 3)),
    "SIMPLE_RADIAL_FISHEYE": (1, CameraModel.FISHEYE, (0,)),
    "RADIAL_FISHEYE": (1, CameraModel.FISHEYE, (0, 1)),
}


def recognises(path: Path) -> bool:
    """True for a folder with a COLMAP model, or for the model folder itself."""
    return path.is_dir() and any(has_model(path / name) for name in MODEL_FOLDERS)


def read(path: Path, options: LoadOptions) -> SceneParts:
    """Load a COLMAP model and its images."""
    name = next(name for name in MODEL_FOLDERS if has_model(path / name))
    model = read_model(path / name)
    folder = _scene_folder(path, name)
    image_folder = choose_image_folder(folder, options.image_folder, nested=True)
    notes = _other_models(path, name)
    images = sorted(model.images, key=lambda image: image.name)
    source = model.folder / "images"
    found = [(image.name, _view(image, model, image_folder)) for image in images]
    views = keep_existing(found, source=source, notes=notes)
    if not views:
        raise DataError(f"{model.folder}: the model registers no images; run the mapping again")
    points = _points(model)
    placement = choose_placement(
        stack_poses(views),
        points=None if points is None else points[0],
        depth_range=_observed_depths(model),
    )
    return SceneParts(
        name=folder.resolve().name,
        source=path,
        views=views,
        placement=placement,
        points=points,
        notes=notes,
    )


def lens_of(camera: ColmapCamera, where: str) -> tuple[CameraModel, tuple[float, ...], Matrix]:
    """Camera model, the eight distortion coefficients, and fx fy cx cy of a COLMAP camera."""
    if camera.model not in _LENSES:
        raise DataError(
            f"{where}: camera model {camera.model} is not supported; run COLMAP's"
            " image_undistorter, or map again with OPENCV"
        )
    focal_count, model, places = _LENSES[camera.model]
    values = camera.parameters
    intrinsics = np.array([values[0], values[focal_count - 1], *values[focal_count:][:2]])
    if not np.isfinite(values).all() or intrinsics[:2].min() <= 0.0:
        raise DataError(f"{where}: parameters {values} are not those of a camera; map again")
    distortion = list(NO_DISTORTION)
    for place, value in zip(places, values[focal_count + 2 :], strict=True):
        distortion[place] = value
    return model, tuple(distortion), intrinsics


def _scene_folder(path: Path, model_name: str) -> Path:
    """The folder that holds the images: `path`, or above it when `path` is sparse/0 itself."""
    if model_name != ".":
        return path
    for folder in (path, *list(path.resolve().parents)[:2]):
        if any((folder / name).is_dir() for name in ("images", "images_2", "images_4", "images_8")):
            return folder
    return path


def _other_models(path: Path, chosen: str) -> list[str]:
    if chosen != "sparse/0":
        return []
    others = [item.name for item in (path / "sparse").iterdir() if has_model(item)]
    if len(others) < 2:
        return []
    return [f"the folder holds {len(others)} COLMAP models; sparse/0 is used, the others are not"]


def _view(image: ColmapImage, model: ColmapModel, image_folder: Path) -> View | None:
    where = f"{model.folder}: image {image.name}"
    if image.camera_id not in model.cameras:
        raise DataError(
            f"{where}: its camera {image.camera_id} is not in the model; export the model again"
        )
    numbers = np.concatenate([image.quaternion, image.translation])
    if not np.isfinite(numbers).all() or np.linalg.norm(image.quaternion) < 1e-6:
        raise DataError(
            f"{where}: the pose holds NaN or a zero quaternion; remove the image from the model"
        )
    file = _image_file(image_folder, image.name)
    if file is None:
        return None
    camera = model.cameras[image.camera_id]
    lens, distortion, intrinsics = lens_of(camera, f"{model.folder}: camera {image.camera_id}")
    pose = pose_from_world_to_camera(_rotation(image), image.translation)
    return View(
        name=image.name,
        image=file,
        camera_to_world=checked_pose(pose, where),
        size=(camera.width, camera.height),
        focal=(float(intrinsics[0]), float(intrinsics[1])),
        center=(float(intrinsics[2]), float(intrinsics[3])),
        model=lens,
        distortion=distortion,
    )


def _rotation(image: ColmapImage) -> Matrix:
    """World-to-camera rotation (3, 3)."""
    return rotation_from_quaternion(torch.from_numpy(image.quaternion)).numpy()


def _image_file(folder: Path, name: str) -> Path | None:
    """The image of that name; smaller copies may have another suffix."""
    file = folder / name
    if file.is_file():
        return file
    for suffix in (*IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES)):
        if file.with_suffix(suffix).is_file():
            return file.with_suffix(suffix)
    return None


def _points(model: ColmapModel) -> tuple[Matrix, np.ndarray] | None:
    finite = np.isfinite(model.positions).all(axis=1)
    return (model.positions[finite], model.colors[finite]) if finite.any() else None


def _observed_depths(model: ColmapModel) -> tuple[float, float] | None:
    """Depths of the observed points in their own images: near (halved for safety) and far."""
    order = np.argsort(model.point_ids)
    ids = model.point_ids[order]
    if len(ids) == 0:
        return None
    depths = []
    for image in model.images:
        seen = image.point_ids[np.isin(image.point_ids, ids)]
        points = model.positions[order[np.searchsorted(ids, seen)]]
        forward = _rotation(image)[2]
        depths.append(points @ forward + image.translation[2])
    depth = np.concatenate(depths)
    depth = depth[depth > 0.0]
    if len(depth) < 8:
        return None
    near, far = np.quantile(depth, [0.001, 0.99])
    return 0.5 * float(near), float(far)
