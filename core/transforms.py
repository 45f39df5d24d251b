"""Rotations, rigid motions and similarities of 3-D space.

Quaternions are scalar first (w x y z). Rotation matrices act on column vectors from the left.
Angles are radians. Rodrigues: exp(w) = I + sin(t)/t [w] + (1 - cos(t))/t^2 [w]^2 with t = |w|.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.core.axes import AXIS_NAMES
from lumigraph.core.errors import InputError
from lumigraph.core.shapes import check_shapes

_SMALL_SQUARED_ANGLE = 1e-4  # below it the first Taylor terms are exact to 1e-12


def axis_of(name: str) -> Tensor:
    """(3,) float64 unit vector of a direction by name, such as "-y".

    Raises:
        InputError: not one of `AXIS_NAMES`.

    >>> axis_of("-y").tolist()
    [0.0, -1.0, 0.0]
    """
    if name not in AXIS_NAMES:
        raise InputError(f"axis {name!r}: expected one of {', '.join(AXIS_NAMES)}")
    axis, sign = divmod(AXIS_NAMES.index(name), 2)
    unit = torch.zeros(3, dtype=torch.float64)
    unit[axis] = 1 - 2 * sign
    return unit


@dataclass(frozen=True, eq=False)
class Similarity:
    """A rotation, uniform scale and shift: ``y = scale * rotation @ x + translation``.

    >>> move = Similarity(2.0, torch.eye(3), torch.tensor([1.0, 0.0, 0.0]))
    >>> move.apply(torch.tensor([[1.0, 1.0, 0.0]])).tolist()
    [[3.0, 2.0, 0.0]]
    >>> move.inverse().apply(torch.tensor([[3.0, 2.0, 0.0]])).tolist()
    [[1.0, 1.0, 0.0]]
    """

    scale: float
    """Positive factor."""
    rotation: Tensor
    """(3, 3), kept as float64 on the CPU."""
    translation: Tensor
    """(3,), kept as float64 on the CPU: map coordinates need its digits."""

    def __post_init__(self) -> None:
        rotation = torch.as_tensor(self.rotation, dtype=torch.float64, device="cpu").detach()
        translation = torch.as_tensor(self.translation, dtype=torch.float64, device="cpu").detach()
        check_shapes(("rotation", rotation, "3 3"), ("translation", translation, "3"))
        scale = float(self.scale)
        if not (math.isfinite(scale) and scale > 0):
            raise InputError(f"scale of a similarity must be a positive number; got {scale}")
        if not bool(torch.isfinite(rotation).all() and torch.isfinite(translation).all()):
            raise InputError("rotation and translation of a similarity must be finite; got NaN")
        error = (rotation @ rotation.T - torch.eye(3, dtype=torch.float64)).abs().max()
        if float(error) > 1e-3 or float(torch.linalg.det(rotation)) < 0:
            raise InputError("rotation of a similarity must be orthonormal with determinant +1")
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "rotation", rotation)
        object.__setattr__(self, "translation", translation)

    @classmethod
    def identity(cls) -> Similarity:
        """The transform that moves nothing."""
        return cls(1.0, torch.eye(3), torch.zeros(3))

    @classmethod
    def from_matrix(cls, matrix: Tensor | Sequence) -> Similarity:
        """The similarity with the given 4x4 or 3x4 matrix, or an error when there is none."""
        full = torch.as_tensor(matrix, dtype=torch.float64, device="cpu").detach()
        if tuple(full.shape) not in {(3, 4), (4, 4)}:
            raise InputError(f"a similarity needs a 4x4 or 3x4 matrix; got {tuple(full.shape)}")
        if not bool(torch.isfinite(full).all()):
            raise InputError("the matrix of a similarity must be finite; got NaN or infinity")
        if full.shape[0] == 4 and full[3].tolist() != [0.0, 0.0, 0.0, 1.0]:
            raise InputError(
                f"the last row of a similarity must be 0 0 0 1; got {full[3].tolist()}"
            )
        determinant = float(torch.linalg.det(full[:3, :3]))
        if determinant <= 0:
            raise InputError(
                f"matrix is not a similarity: its determinant is {determinant:.4g}, not positive"
            )
        scale = determinant ** (1 / 3)
        rotation = full[:3, :3] / scale
        error = (rotation @ rotation.T - torch.eye(3, dtype=torch.float64)).abs().max()
        if float(error) > 1e-3:
            raise InputError("matrix is not a similarity: it shears or scales its axes differently")
        return cls(scale, rotation, full[:3, 3])

    def to_matrix(self) -> Tensor:
        """(4, 4) float64 matrix."""
        matrix = torch.eye(4, dtype=torch.float64)
        matrix[:3, :3] = self.rotation * self.scale
        matrix[:3, 3] = self.translation
        return matrix

    def apply(self, points: Tensor) -> Tensor:
        """Move points (..., 3); computed in float64, returned in the dtype that came."""
        check_shapes(("points", points, "... 3"))
        rotation = self.rotation.to(points.device)
        moved = points.double() @ rotation.T * self.scale + self.translation.to(points.device)
        return moved.to(points.dtype)

    def apply_directions(self, directions: Tensor) -> Tensor:
        """Turn directions (..., 3) without scaling them."""
        check_shapes(("directions", directions, "... 3"))
        return (directions.double() @ self.rotation.to(directions.device).T).to(directions.dtype)

    def apply_poses(self, camera_to_world: Tensor) -> Tensor:
        """Move cameras (..., 4, 4): positions as points, axes turned and not scaled."""
        check_shapes(("camera_to_world", camera_to_world, "... 4 4"))
        moved = camera_to_world.clone()
        rotation = self.rotation.to(camera_to_world.device)
        moved[..., :3, :3] = (rotation @ camera_to_world[..., :3, :3].double()).to(moved.dtype)
        moved[..., :3, 3] = self.apply(camera_to_world[..., :3, 3])
        return moved

    def inverse(self) -> Similarity:
        """The similarity that undoes this one."""
        rotation = self.rotation.T
        return Similarity(1 / self.scale, rotation, -(rotation @ self.translation) / self.scale)

    def compose(self, first: Similarity) -> Similarity:
        """The similarity that applies `first` and then this one."""
        return Similarity(
            self.scale * first.scale, self.rotation @ first.rotation, self.apply(first.translation)
        )


def look_at(position: Tensor, target: Tensor, *, up: Tensor | Sequence[float]) -> Tensor:
    """Poses of cameras at `position` that look at `target`.

    Args:
        position: (..., 3).
        target: (..., 3), not the position itself.
        up: (3,) or (..., 3), the direction that shall point up in the image. Where it is along
            the view, another direction is taken.

    Returns:
        (..., 4, 4) camera_to_world, x right, y down, z forward.

    >>> look_at(torch.zeros(3), torch.tensor([0.0, 0, 2]), up=[0.0, -1, 0])[:3, 2].tolist()
    [0.0, 0.0, 1.0]
    """
    position, target = torch.broadcast_tensors(position, target)
    forward = target - position
    length = forward.norm(dim=-1, keepdim=True)
    if bool((length < 1e-12).any()):
        raise InputError("target must not be the position itself; no direction to look in")
    forward = forward / length
    upward = torch.as_tensor(up, dtype=forward.dtype, device=forward.device).expand_as(forward)
    right = torch.linalg.cross(forward, upward)
    # Where up is along the view take the coordinate axis that is most across it.
    across = torch.eye(3, dtype=forward.dtype, device=forward.device)[forward.abs().argmin(dim=-1)]
    aligned = right.norm(dim=-1, keepdim=True) < 1e-5 * upward.norm(dim=-1, keepdim=True)
    right = torch.where(aligned, torch.linalg.cross(forward, across), right)
    right = right / right.norm(dim=-1, keepdim=True)
    down = torch.linalg.cross(forward, right)
    return pose_matrix(torch.stack([right, down, forward], dim=-1), position)


def pose_matrix(rotation: Tensor, position: Tensor) -> Tensor:
    """(..., 4, 4) from a rotation (..., 3, 3) and a position (..., 3)."""
    top = torch.cat([rotation, position[..., None]], dim=-1)
    bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*top.shape[:-2], 1, 4)
    return torch.cat([top, bottom], dim=-2)


def rotation_from_quaternion(quaternion: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of quaternions w x y z (..., 4) of any length above 0.

    >>> rotation_from_quaternion(torch.tensor([1.0, 0, 0, 0])).diagonal().tolist()
    [1.0, 1.0, 1.0]
    """
    check_shapes(("quaternion", quaternion, "... 4"))
    w, x, y, z = torch.nn.functional.normalize(quaternion, dim=-1).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def quaternion_from_rotation(rotation: Tensor) -> Tensor:
    """Unit quaternions w x y z (..., 4), w >= 0, of rotation matrices (..., 3, 3)."""
    check_shapes(("rotation", rotation, "... 3 3"))
    m = rotation
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    yz, zx, xy = (
        m[..., 2, 1] - m[..., 1, 2],
        m[..., 0, 2] - m[..., 2, 0],
        m[..., 1, 0] - m[..., 0, 1],
    )
    sum_xy, sum_xz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0]
    sum_yz = m[..., 1, 2] + m[..., 2, 1]
    # Four multiples of the quaternion, each by 4 times one of its parts; the largest is safe.
    candidates = torch.stack(
        [
            torch.stack([1 + xx + yy + zz, yz, zx, xy], dim=-1),
            torch.stack([yz, 1 + xx - yy - zz, sum_xy, sum_xz], dim=-1),
            torch.stack([zx, sum_xy, 1 - xx + yy - zz, sum_yz], dim=-1),
            torch.stack([xy, sum_xz, sum_yz, 1 - xx - yy + zz], dim=-1),
        ],
        dim=-2,
    )
    best = candidates.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)
    index = best[..., None, None].expand(*best.shape, 1, 4)
    quaternion = candidates.gather(-2, index)[..., 0, :]
    quaternion = torch.nn.functional.normalize(quaternion, dim=-1)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def slerp(first: Tensor, second: Tensor, fraction: Tensor | float) -> Tensor:
    """Unit quaternions between two, along the shorter arc at constant speed.

    Args:
        first, second: (..., 4) unit quaternions w x y z.
        fraction: (...) or one number, 0 at `first` and 1 at `second`.
    """
    fraction = torch.as_tensor(fraction, dtype=first.dtype, device=first.device)[..., None]
    dot = (first * second).sum(dim=-1, keepdim=True)
    second = torch.where(dot < 0, -second, second)
    angle = torch.acos(dot.abs().clamp(max=1))
    sine = torch.sin(angle)
    near = sine < 1e-5
    safe = torch.where(near, torch.ones_like(sine), sine)
    weight_first = torch.where(near, 1 - fraction, torch.sin((1 - fraction) * angle) / safe)
    weight_second = torch.where(near, fraction, torch.sin(fraction * angle) / safe)
    return torch.nn.functional.normalize(weight_first * first + weight_second * second, dim=-1)


def interpolate_poses(first: Tensor, second: Tensor, fraction: Tensor | float) -> Tensor:
    """Poses (..., 4, 4) between two: positions on a line, rotations on the shorter arc."""
    share = torch.as_tensor(fraction, dtype=first.dtype, device=first.device)
    quaternion = slerp(
        quaternion_from_rotation(first[..., :3, :3]),
        quaternion_from_rotation(second[..., :3, :3]),
        share,
    )
    position = torch.lerp(
        *torch.broadcast_tensors(first[..., :3, 3], second[..., :3, 3], share[..., None])
    )
    return pose_matrix(rotation_from_quaternion(quaternion), position)


def cross_matrix(vector: Tensor) -> Tensor:
    """The matrices (..., 3, 3) that map y to the cross product of `vector` (..., 3) and y."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def rotation_exp(axis_angle: Tensor) -> Tensor:
    """Rotations (..., 3, 3) by |axis_angle| radians about axis_angle (..., 3).

    Differentiable everywhere, at 0 too.

    >>> rotation_exp(torch.zeros(3)).diagonal().tolist()
    [1.0, 1.0, 1.0]
    """
    check_shapes(("axis_angle", axis_angle, "... 3"))
    first, second, _ = _exp_factors(axis_angle)
    cross = cross_matrix(axis_angle)
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return identity + first * cross + second * (cross @ cross)


def rotation_log(rotation: Tensor) -> Tensor:
    """The axis-angle vectors (..., 3), at most pi long, of rotations (..., 3, 3)."""
    quaternion = quaternion_from_rotation(rotation)
    w, vector = quaternion[..., :1], quaternion[..., 1:]
    sine = vector.norm(dim=-1, keepdim=True)
    small = sine < 1e-6
    safe = torch.where(small, torch.ones_like(sine), sine)
    return vector * torch.where(small, 2 / w.clamp_min(0.5), 2 * torch.atan2(safe, w) / safe)


def se3_exp(twist: Tensor) -> Tensor:
    """Rigid motions (..., 4, 4) of twists (..., 6): axis-angle first, then the translation part.

    Differentiable everywhere, at 0 too; made for small corrections of camera poses.

    >>> se3_exp(torch.tensor([0.0, 0, 0, 1, 2, 3]))[:3, 3].tolist()
    [1.0, 2.0, 3.0]
    """
    check_shapes(("twist", twist, "... 6"))
    axis_angle, shift = twist.split(3, dim=-1)
    _, second, third = _exp_factors(axis_angle)
    cross = cross_matrix(axis_angle)
    identity = torch.eye(3, dtype=twist.dtype, device=twist.device)
    left_jacobian = identity + second * cross + third * (cross @ cross)
    position = (left_jacobian @ shift[..., None])[..., 0]
    return pose_matrix(rotation_exp(axis_angle), position)


def se3_log(motion: Tensor) -> Tensor:
    """The twists (..., 6) of rigid motions (..., 4, 4), the inverse of :func:`se3_exp`."""
    check_shapes(("motion", motion, "... 4 4"))
    axis_angle = rotation_log(motion[..., :3, :3])
    _, second, third = _exp_factors(axis_angle)
    cross = cross_matrix(axis_angle)
    identity = torch.eye(3, dtype=motion.dtype, device=motion.device)
    left_jacobian = identity + second * cross + third * (cross @ cross)
    shift = torch.linalg.solve(left_jacobian, motion[..., :3, 3:])[..., 0]
    return torch.cat([axis_angle, shift], dim=-1)


def _exp_factors(axis_angle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """sin(t)/t, (1 - cos t)/t^2 and (t - sin t)/t^3, each (..., 1, 1)."""
    square = axis_angle.square().sum(dim=-1)[..., None, None]
    small = square < _SMALL_SQUARED_ANGLE
    # Both branches of where() are differentiated, so the exact one must stay away from 0.
    safe = torch.where(small, torch.ones_like(square), square)
    angle = safe.sqrt()
    first = torch.where(small, 1 - square / 6 + square.square() / 120, torch.sin(angle) / angle)
    second = torch.where(
        small, 0.5 - square / 24 + square.square() / 720, (1 - torch.cos(angle)) / safe
    )
    third = torch.where(
        small,
        1 / 6 - square / 120 + square.square() / 5040,
        (angle - torch.sin(angle)) / (safe * angle),
    )
    return first, second, third
