"""NeuS and IDR folders: cameras_sphere.npz with an image and, mostly, a mask folder.

`world_mat_i` (4x4) is K [R | t]: world to pixel of image i in OpenCV axes, pixel centres at whole
numbers. `scale_mat_i` maps the unit sphere that holds the object to the world; its inverse is the
scene's normalization, so the cube of interest is [-1, 1]^3 around that sphere. Images and masks are
paired with the matrices by natural order of their names. Masks are white on the object.
"""

import re
import zipfile
from pathlib import Path

import numpy as np

from lumigraph.core.errors import DataError
from lumigraph.core.transforms import Similarity
from lumigraph.datasets.formats.image_folders import choose_image_folder, listed_images
from lumigraph.datasets.formats.ply import read_points
from lumigraph.datasets.images import image_header
from lumigraph.datasets.options import LoadOptions
from lumigraph.datasets.poses import (
    Matrix,
    checked_matrix,
    move_points,
    pose_from_world_to_camera,
    similarity_of,
)
from lumigraph.datasets.scene_bounds import HELD_FRACTION, UNIT_CUBE, Placement, reach_of
from lumigraph.datasets.views import SceneParts, View, stack_poses

FILE_NAMES = ("cameras_sphere.npz", "cameras.npz")
MASK_FOLDERS = ("mask", "masks")
POINT_FILES = ("points_sfm.ply", "points3d.ply", "sparse_pc.ply")
PIXEL_SHIFT = 0.5
"""From pixel centres at whole numbers to centres at +0.5."""


def recognises(path: Path) -> bool:
    """True for a folder with cameras_sphere.npz or for such a file."""
    if path.is_file():
        return path.name in FILE_NAMES
    return any((path / name).is_file() for name in FILE_NAMES)


def read(path: Path, options: LoadOptions) -> SceneParts:
    """Load a NeuS folder."""
    folder = path.parent if path.is_file() else path
    file = path if path.is_file() else _camera_file(folder)
    matrices = _read_matrices(file)
    image_folder = choose_image_folder(folder, options.image_folder)
    images = listed_images(image_folder, natural=True)
    count = sum(1 for key in matrices if re.fullmatch(r"world_mat_\d+", key))
    if len(images) != count:
        raise DataError(
            f"{file}: it has {count} cameras (world_mat_i), {image_folder} has {len(images)}"
            " images; they are paired by order, so the numbers must agree"
        )
    masks = _masks(folder, count)
    views = []
    for index, image in enumerate(images):
        where = f"{file}: world_mat_{index}"
        world = checked_matrix(_entry(matrices, f"world_mat_{index}", file), _SHAPES, where)
        views.append(_view(world, image, where, masks[index] if masks else None))
    found = next((folder / name for name in POINT_FILES if (folder / name).is_file()), None)
    points = None if found is None else read_points(found)
    return SceneParts(
        name=folder.resolve().name,
        source=folder if path.is_dir() else file,
        views=views,
        placement=_placement(_sphere(matrices, file), views, points),
        points=points,
    )


def decompose_projection(projection: Matrix) -> tuple[Matrix, Matrix]:
    """Split P (3, 4) = K [R | t] into intrinsics K (3, 3) and the camera-to-world pose (4, 4).

    K has a positive diagonal and 1 at its lower right; R is a rotation. P is known up to a factor
    of either sign.
    """
    square = projection[:, :3]
    if np.linalg.det(square) < 0.0:
        projection, square = -projection, -square
    # RQ factors from NumPy's QR: reverse the rows, transpose, and undo both.
    q, r = np.linalg.qr(square[::-1].T)
    intrinsics, rotation = r.T[::-1, ::-1], q.T[::-1]
    signs = np.sign(np.diag(intrinsics))
    intrinsics, rotation = intrinsics * signs, rotation * signs[:, None]
    translation = np.linalg.solve(intrinsics, projection[:, 3])
    return intrinsics / intrinsics[2, 2], pose_from_world_to_camera(rotation, translation)


_SHAPES = ((4, 4), (3, 4))


def _camera_file(folder: Path) -> Path:
    return next(folder / name for name in FILE_NAMES if (folder / name).is_file())


def _read_matrices(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{file}: not a readable npz file ({reason}); write it again") from None


def _entry(matrices: dict[str, np.ndarray], key: str, file: Path) -> np.ndarray:
    if key not in matrices:
        raise DataError(f"{file}: '{key}' is missing; number the cameras 0, 1, 2, ...")
    return matrices[key]


def _view(world: Matrix, image: Path, where: str, mask: Path | None) -> View:
    if abs(np.linalg.det(world[:3, :3])) < 1e-9:
        raise DataError(f"{where}: the matrix is singular; expected K [R|t] (world to pixel)")
    intrinsics, pose = decompose_projection(world[:3])
    return View(
        name=image.name,
        image=image,
        camera_to_world=pose,
        size=image_header(image)[:2],
        focal=(float(intrinsics[0, 0]), float(intrinsics[1, 1])),
        center=(float(intrinsics[0, 2]) + PIXEL_SHIFT, float(intrinsics[1, 2]) + PIXEL_SHIFT),
        mask=mask,
    )


def _masks(folder: Path, count: int) -> list[Path]:
    for name in MASK_FOLDERS:
        masks = listed_images(folder / name, natural=True)
        if masks and len(masks) != count:
            raise DataError(
                f"{folder / name}: {len(masks)} masks for {count} images; they are paired by"
                " order, so the numbers must agree"
            )
        if masks:
            return masks
    return []


def _sphere(matrices: dict[str, np.ndarray], file: Path) -> Similarity:
    """Unit sphere to world; the first camera's, as all cameras share it."""
    where = f"{file}: scale_mat_0"
    sphere = checked_matrix(_entry(matrices, "scale_mat_0", file), ((4, 4),), where)
    return similarity_of(sphere, where)


def _placement(
    sphere: Similarity, views: list[View], points: tuple[Matrix, np.ndarray | None] | None
) -> Placement:
    to_scene = sphere.inverse()
    centers = move_points(to_scene, stack_poses(views)[:, :3, 3])
    reach = 1.0
    if not all(image_header(view.image)[2] for view in views):
        # What lies around the object is in the pictures too, up to the cameras and beyond.
        reach = float(np.abs(centers).max())
        if points is not None:
            offsets = np.abs(move_points(to_scene, points[0])).max(axis=1)
            reach = max(reach, float(np.quantile(offsets, HELD_FRACTION)))
    aabb_scale, notes = reach_of(reach)
    nearest = float(np.linalg.norm(centers, axis=1).min())
    near = max(0.05, 0.25 * (nearest - 1.0))
    return Placement(to_scene, UNIT_CUBE, aabb_scale, near, notes=notes)
