"""Checks of camera data, each ending in one line that names the camera and what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lumigraph.core.camera_models import CameraModel
from lumigraph.core.errors import InputError
from lumigraph.core.shapes import check_shapes

if TYPE_CHECKING:
    from lumigraph.core.cameras import Cameras

_FLOATS = (torch.float32, torch.float64)
_ROTATION_TOLERANCE = 1e-3  # poses printed with four digits pass, scaled or sheared ones do not


def check_cameras(cameras: Cameras) -> None:
    """Raise an InputError that names what is wrong with a batch of cameras."""
    check_shapes(
        ("camera_to_world", cameras.camera_to_world, "C 4 4"),
        ("intrinsics", cameras.intrinsics, "C 4"),
        ("distortion", cameras.distortion, "C 8"),
        ("times", cameras.times, "C"),
        dtype=_FLOATS,
    )
    check_shapes(
        ("camera_to_world", cameras.camera_to_world, "C 4 4"),
        ("sizes", cameras.sizes, "C 2"),
        ("models", cameras.models, "C"),
    )
    check_shapes(
        ("sizes", cameras.sizes, "C 2"), ("models", cameras.models, "C"), dtype=torch.int64
    )
    check_poses(cameras.camera_to_world.detach())
    checks = {
        "intrinsics must be finite": ~torch.isfinite(cameras.intrinsics).all(dim=-1),
        "focal lengths fx, fy must be positive": (cameras.intrinsics[:, :2] <= 0).any(dim=-1),
        "width and height must be at least 1 pixel": (cameras.sizes < 1).any(dim=-1),
        "distortion must be finite": ~torch.isfinite(cameras.distortion).all(dim=-1),
        f"model must be 0 to {len(CameraModel) - 1}, a CameraModel": (cameras.models < 0)
        | (cameras.models >= len(CameraModel)),
    }
    if cameras.times is not None:
        checks["time must lie in [0, 1]"] = ~((cameras.times >= 0) & (cameras.times <= 1))
    values = {
        "width": cameras.sizes,
        "model": cameras.models,
        "time": cameras.times,
        "distortion": cameras.distortion,
    }
    for rule, wrong in checks.items():
        if bool(wrong.any()):
            first = int(wrong.nonzero()[0, 0])
            value = values.get(rule.split()[0], cameras.intrinsics)
            assert value is not None
            raise InputError(f"camera {first}: {rule}; got {value[first].tolist()}")


def check_poses(poses: Tensor, *, name: str = "camera_to_world") -> None:
    """Raise unless every (C, 4, 4) matrix is a finite rotation with a position."""
    finite = torch.isfinite(poses).all(dim=-1).all(dim=-1)
    if not bool(finite.all()):
        first = int((~finite).nonzero()[0, 0])
        raise InputError(f"camera {first}: {name} holds NaN or infinite numbers; leave it out")
    rotations = poses[:, :3, :3].double()
    identity = torch.eye(3, dtype=torch.float64, device=poses.device)
    error = (rotations.transpose(1, 2) @ rotations - identity).abs().amax(dim=(1, 2))
    if bool((error > _ROTATION_TOLERANCE).any()):
        first = int((error > _ROTATION_TOLERANCE).nonzero()[0, 0])
        lengths = [round(length, 4) for length in rotations[first].norm(dim=0).tolist()]
        raise InputError(
            f"camera {first}: the 3x3 part of {name} is not a rotation (its axes have lengths "
            f"{lengths} and must be of length 1 and perpendicular)"
        )
    mirrored = torch.linalg.det(rotations) < 0
    if bool(mirrored.any()):
        first = int(mirrored.nonzero()[0, 0])
        raise InputError(
            f"camera {first}: the 3x3 part of {name} mirrors (determinant -1); flip one axis"
        )
    bottom = poses[:, 3] - poses.new_tensor([0.0, 0.0, 0.0, 1.0])
    if bool((bottom.abs() > 1e-6).any()):
        first = int((bottom.abs() > 1e-6).any(dim=-1).nonzero()[0, 0])
        raise InputError(
            f"camera {first}: the last row of {name} must be 0 0 0 1; "
            f"got {poses[first, 3].tolist()}"
        )


def pose_matrices(camera_to_world: Tensor | Sequence) -> Tensor:
    """Checked poses (C, 4, 4) from one or many 3x4 or 4x4 matrices, of their floating dtype."""
    poses = torch.as_tensor(camera_to_world)
    if not poses.is_floating_point():
        poses = poses.float()
    if poses.dim() == 2:
        poses = poses[None]
    if poses.dim() != 3 or tuple(poses.shape[1:]) not in {(3, 4), (4, 4)}:
        raise InputError(
            "camera_to_world must be 4x4 or 3x4 matrices, one or a batch of C; "
            f"got shape {tuple(torch.as_tensor(camera_to_world).shape)}"
        )
    if poses.shape[1] == 3:
        bottom = poses.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(poses.shape[0], 1, 4)
        poses = torch.cat([poses, bottom], dim=1)
    check_poses(poses.detach())
    return _orthonormal(poses)


def _orthonormal(poses: Tensor) -> Tensor:
    """The same poses with the nearest exact rotations: digits lost in files shift pixels."""
    rotations = poses[:, :3, :3].double()
    identity = torch.eye(3, dtype=torch.float64, device=poses.device)
    for _ in range(2):  # Newton steps of the polar decomposition: 1e-3, 1e-6, 1e-12
        rotations = rotations @ (1.5 * identity - 0.5 * rotations.transpose(1, 2) @ rotations)
    top = torch.cat([rotations.to(poses.dtype), poses[:, :3, 3:]], dim=2)
    return torch.cat([top, poses[:, 3:]], dim=1)


def per_camera(
    name: str, value: float | Sequence[float] | Tensor, count: int, device: torch.device
) -> Tensor:
    """One number or one for each camera as a (count,) float64 tensor."""
    column = torch.as_tensor(value, dtype=torch.float64, device=device)
    if column.dim() == 0:
        return column.expand(count)
    if tuple(column.shape) != (count,):
        raise InputError(
            f"{name} must be one number or {count}, one for each camera; "
            f"got shape {tuple(column.shape)}"
        )
    return column


def coefficients(distortion: Tensor | Sequence | None, poses: Tensor) -> Tensor:
    """Distortion of all cameras as (C, 8), missing coefficients filled with 0."""
    filled = poses.new_zeros(poses.shape[0], 8)
    if distortion is None:
        return filled
    given = torch.as_tensor(distortion, dtype=poses.dtype, device=poses.device)
    rows_fit = given.dim() == 1 or (given.dim() == 2 and given.shape[0] in {1, poses.shape[0]})
    if not rows_fit or given.shape[-1] > 8:
        raise InputError(
            f"distortion must be up to 8 numbers, once or for each of {poses.shape[0]} cameras; "
            f"got shape {tuple(given.shape)}"
        )
    filled[:, : given.shape[-1]] = given
    return filled
