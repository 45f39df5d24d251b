"""LLFF folders: poses_bounds.npy beside an image folder, mostly forward-facing captures.

Each of the N rows has 17 numbers: a 3x5 matrix row by row, then the nearest and farthest depth of
what the camera sees. The columns of the matrix are the camera's down, right and backward axis, its
position, and (height, width, focal length) of the original photographs. Images are paired with the
rows by sorted name; smaller copies (images_4, images_8) scale the intrinsics. Points may stand in
points3d.ply, in the same frame.
"""

from pathlib import Path

import numpy as np

from lumigraph.core.errors import DataError
from lumigraph.datasets.formats.image_folders import choose_image_folder, listed_images
from lumigraph.datasets.formats.ply import read_points
from lumigraph.datasets.images import image_header
from lumigraph.datasets.options import LoadOptions
from lumigraph.datasets.poses import Matrix, checked_pose
from lumigraph.datasets.recordings import has_recordings
from lumigraph.datasets.scene_bounds import choose_placement
from lumigraph.datasets.views import SceneParts, View, stack_poses

FILE_NAME = "poses_bounds.npy"
POINT_FILES = ("points3d.ply", "points3D.ply", "sparse_pc.ply")


def recognises(path: Path) -> bool:
    """True for a folder with poses_bounds.npy or for that file; not beside videos."""
    if path.is_dir():
        return (path / FILE_NAME).is_file() and not has_recordings(path)
    return path.is_file() and path.name == FILE_NAME


def read(path: Path, options: LoadOptions) -> SceneParts:
    """Load a folder with poses_bounds.npy."""
    folder = path.parent if path.is_file() else path
    file = folder / FILE_NAME
    rows = read_rows(file)
    image_folder = choose_image_folder(folder, options.image_folder)
    images = listed_images(image_folder)
    if len(images) != len(rows):
        raise DataError(
            f"{file}: it has {len(rows)} poses, {image_folder} has {len(images)} images; they are"
            " paired by order, so the numbers must agree"
        )
    views = [
        view_of(row, image, image_header(image)[:2], f"row {index} of {file}")
        for index, (row, image) in enumerate(zip(rows, images, strict=True))
    ]
    found = next((folder / name for name in POINT_FILES if (folder / name).is_file()), None)
    points = None if found is None else read_points(found)
    depths = rows[:, 15:]
    placement = choose_placement(
        stack_poses(views),
        points=None if points is None else points[0],
        depth_range=(float(depths[:, 0].min()), float(depths[:, 1].max())),
    )
    return SceneParts(
        name=folder.resolve().name,
        source=folder,
        views=views,
        placement=placement,
        points=points,
    )


def read_rows(file: Path) -> Matrix:
    """The rows (N, 17) of a poses_bounds.npy, checked."""
    try:
        rows = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{file}: not a readable NumPy file ({reason}); write it again") from None
    if rows.ndim != 2 or rows.shape[1] != 17 or len(rows) == 0:
        got = "x".join(map(str, rows.shape))
        raise DataError(f"{file}: matrix shape is {got}, expected Nx17 (3x5 pose, near, far)")
    rows = rows.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise DataError(
            f"{file}: row {bad[0]} holds NaN or infinite numbers; remove that row and its image"
        )
    depths = rows[:, 15:]
    wrong = np.flatnonzero((depths[:, 0] <= 0.0) | (depths[:, 1] <= depths[:, 0]))
    if len(wrong):
        near, far = depths[wrong[0]]
        raise DataError(
            f"{file}: row {wrong[0]} has near {near:g} and far {far:g}; expected 0 < near < far"
        )
    return rows


def view_of(row: Matrix, image: Path, found: tuple[int, int], where: str) -> View:
    """The view of a row.

    Args:
        row: 17 numbers of poses_bounds.npy.
        image: its image, named in messages, or a video.
        found: width and height of the image, which may be smaller than the row says.
        where: row and file for messages, as in "row 3 of scene/poses_bounds.npy".
    """
    matrix = row[:15].reshape(3, 5)
    down, right, backward, position = matrix[:, :4].T
    axes = np.stack([right, down, -backward, position], axis=1)
    height, width, focal = matrix[:, 4]
    if min(height, width, focal) <= 0.0:
        raise DataError(
            f"{where}: height {height:g}, width {width:g}, focal length {focal:g}; all must be"
            " above zero"
        )
    if abs((found[0] / width) / (found[1] / height) - 1.0) > 0.02:
        raise DataError(
            f"{image}: the image is {found[0]}x{found[1]} pixels, {where} is for"
            f" {width:g}x{height:g}; use the images the poses were made for"
        )
    # The files are already scaled here: heights such as 378 of 3024 need not divide evenly.
    factor_x, factor_y = found[0] / width, found[1] / height
    return View(
        name=image.name,
        image=image,
        camera_to_world=checked_pose(axes, where),
        size=found,
        focal=(focal * factor_x, focal * factor_y),
        center=(0.5 * found[0], 0.5 * found[1]),
    )
