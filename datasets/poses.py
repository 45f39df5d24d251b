"""Camera poses as files give them: checked, and turned to the axes of `Cameras`.

`Cameras` look along +z with x to the right and y down (OpenCV). NeRF files look along -z with y up
(OpenGL): the same camera with its second and third axis turned around.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lumigraph.core.errors import DataError, InputError
from lumigraph.core.transforms import Similarity

Matrix = NDArray[np.float64]

ROTATION_TOLERANCE = 1e-2
"""Largest departure from orthonormal axes; files with few digits stay below 1e-3."""


def checked_pose(values: object, where: str) -> Matrix:
    """A 4x4 camera-to-world matrix from 3x4 or 4x4 numbers, its rotation made orthonormal.

    Args:
        values: Nested lists or an array.
        where: File and entry for the message, as in "transforms.json: frames[3]".
    """
    matrix = checked_matrix(values, ((4, 4), (3, 4)), where)
    pose = np.eye(4)
    pose[:3] = matrix[:3]
    lengths = np.linalg.norm(pose[:3, :3], axis=0)
    if not np.all(lengths > 1e-9):
        raise DataError(f"{where}: the pose has an axis of length zero; fix or remove this view")
    axes = pose[:3, :3] / lengths
    left, _, right = np.linalg.svd(axes)
    rotation = left @ right
    if np.linalg.det(rotation) < 0 or np.abs(axes - rotation).max() > ROTATION_TOLERANCE:
        raise DataError(
            f"{where}: the pose is not a rotation (axes skewed or mirrored, determinant"
            f" {np.linalg.det(axes):.3f}); expected camera-to-world [R|t]; fix or remove this view"
        )
    pose[:3, :3] = rotation
    return pose


def checked_matrix(values: object, shapes: tuple[tuple[int, ...], ...], where: str) -> Matrix:
    """Finite float64 numbers of one of the given shapes, or a `DataError` that says what came."""
    expected = " or ".join("x".join(map(str, shape)) for shape in shapes)
    try:
        matrix = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"{where}: expected a {expected} matrix of numbers, got ragged rows or text; fix it"
        ) from None
    if matrix.shape not in shapes:
        got = "x".join(map(str, matrix.shape)) or "a single value"
        raise DataError(f"{where}: matrix shape is {got}, expected {expected}; fix it")
    if not np.isfinite(matrix).all():
        raise DataError(
            f"{where}: the matrix holds NaN or infinite numbers; remove this view or estimate"
            " its pose again"
        )
    return matrix


def opengl_to_opencv(camera_to_world: Matrix) -> Matrix:
    """Turn poses (..., 4, 4) from x right, y up, z backward to x right, y down, z forward."""
    return camera_to_world * np.array([1.0, -1.0, -1.0, 1.0])


def pose_from_world_to_camera(rotation: ArrayLike, translation: ArrayLike) -> Matrix:
    """Camera-to-world 4x4 of a world-to-camera rotation (3, 3) and translation (3,)."""
    rotation = np.asarray(rotation, dtype=np.float64)
    pose = np.eye(4)
    pose[:3, :3] = rotation.T
    pose[:3, 3] = -rotation.T @ np.asarray(translation, dtype=np.float64)
    return pose


def similarity_of(matrix: Matrix, where: str) -> Similarity:
    """A checked 4x4 or 3x4 similarity of a file."""
    try:
        return Similarity.from_matrix(torch.from_numpy(np.ascontiguousarray(matrix)))
    except InputError as error:
        raise DataError(f"{where}: {error}; correct it") from None


def move_points(similarity: Similarity, points: Matrix) -> Matrix:
    """Apply a similarity to points (P, 3) in float64."""
    return similarity.apply(torch.from_numpy(np.ascontiguousarray(points))).numpy()


def camera_numbers(camera_to_world: Matrix) -> list[int]:
    """Which pictures (C,) of a moving scene are from one camera: those that share a pose.

    Args:
        camera_to_world: (C, 4, 4) or (C, 3, 4) poses; equal up to 1e-5 of their extent is equal.

    Returns:
        A number for each picture, counted in order of appearance.

    Example:
        >>> camera_numbers(np.stack([np.eye(4), 2 * np.eye(4), np.eye(4)]))
        [0, 1, 0]
    """
    poses = np.asarray(camera_to_world, np.float64)[:, :3].copy()
    poses[..., 3] /= max(float(np.abs(poses[..., 3]).max(initial=0.0)), 1e-12)
    # Adding zero turns -0 into 0, which has other bytes.
    keys = [row.tobytes() for row in np.round(poses, 5) + 0.0]
    numbers: dict[bytes, int] = {}
    return [numbers.setdefault(key, len(numbers)) for key in keys]
