"""Rotations of space and time by rotors: eight numbers for one 4x4 rotation, w being time.

A rotor is (s, b_xy, b_xz, b_yz, b_xw, b_yw, b_zw, p). It splits into two quaternions

    a = (s + p, b_xy - b_zw, b_xz + b_yw, b_yz - b_xw)
    b = (s - p, b_xy + b_zw, b_xz - b_yw, b_yz + b_xw)

which are normalised each by itself; the rotation is the product of two matrices that commute,
R = L(a) K(b). Any eight numbers whose a and b are not 0 give an exact rotation. With the last four
at 0 time stays what it is and the first four turn space (Duan et al. 2024, 4D-Rotor Gaussian
Splatting, with the normalisation of its appendix in closed form).
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from lumigraph.core.shapes import check_shapes

# a = rotor @ _SPLIT[0].T, b = rotor @ _SPLIT[1].T; rows over (s, xy, xz, yz, xw, yw, zw, p)
_SPLIT = (
    (
        (1, 0, 0, 0, 0, 0, 0, 1),
        (0, 1, 0, 0, 0, 0, -1, 0),
        (0, 0, 1, 0, 0, 1, 0, 0),
        (0, 0, 0, 1, -1, 0, 0, 0),
    ),
    (
        (1, 0, 0, 0, 0, 0, 0, -1),
        (0, 1, 0, 0, 0, 0, 1, 0),
        (0, 0, 1, 0, 0, -1, 0, 0),
        (0, 0, 0, 1, 1, 0, 0, 0),
    ),
)
# entry (i, j) of L(a) is sign * a[index]; the same for K(b)
_LEFT_INDEX = ((0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0))
_LEFT_SIGN = ((1, 1, 1, -1), (-1, 1, 1, 1), (-1, -1, 1, -1), (1, -1, 1, 1))
_RIGHT_INDEX = ((0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0))
_RIGHT_SIGN = ((1, 1, 1, 1), (-1, 1, 1, -1), (-1, -1, 1, 1), (-1, 1, -1, 1))


def rotor_quaternions(rotors: Tensor) -> tuple[Tensor, Tensor]:
    """The two quaternions (..., 4) of rotors (..., 8), not normalised."""
    first, second = (rotors.new_tensor(rows) for rows in _SPLIT)
    return rotors @ first.T, rotors @ second.T


def rotor_from_quaternions(a: Tensor, b: Tensor) -> Tensor:
    """(..., 8) the rotor that splits into these."""
    first, second = (a.new_tensor(rows) for rows in _SPLIT)
    return (a @ first + b @ second) / 2


def rotation_from_rotor(rotors: Tensor) -> Tensor:
    """Rotation matrices of space and time, differentiable.

    Args:
        rotors: (..., 8) of any length; neither of their two quaternions may be 0.

    Returns:
        (..., 4, 4), rows and columns x y z t.

    >>> rotation_from_rotor(torch.tensor([2.0, 0, 0, 0, 0, 0, 0, 0])).diagonal().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    check_shapes(("rotors", rotors, "... 8"))
    a, b = rotor_quaternions(rotors)
    return _left(_unit(a)) @ _right(_unit(b))


def rotor_from_quaternion(quaternions: Tensor) -> Tensor:
    """Rotors (..., 8) that turn space alone, from quaternions (..., 4) w x y z; lengths are kept.

    >>> rotor_from_quaternion(torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist()
    [1.0, -4.0, 3.0, -2.0, 0.0, 0.0, 0.0, 0.0]
    """
    w, x, y, z = quaternions.unbind(-1)
    return torch.stack([w, -z, y, -x, *[torch.zeros_like(w)] * 4], dim=-1)


def rotor_from_rotation(rotations: Tensor) -> Tensor:
    """Rotors (..., 8) of length 1 from rotations (..., 4, 4) with determinant 1.

    The sixteen products of the basis matrices of L and K are orthogonal to each other, so that
    their products with R are the numbers a_i b_j, of which a and b are read.
    """
    left, right = _bases(rotations)
    products = torch.einsum("...mn,imk,jkn->...ij", rotations, left, right) / 4
    column = products.square().sum(-2).argmax(-1)[..., None, None]
    a = _unit(products.gather(-1, column.expand(*products.shape[:-1], 1))[..., 0])
    b = _unit((products * a[..., :, None]).sum(-2))
    return rotor_from_quaternions(a, b)


def _unit(quaternions: Tensor) -> Tensor:
    # squares of very large or small ones may not fit
    largest = quaternions.detach().abs().amax(-1, keepdim=True)
    scaled = quaternions / largest
    return scaled / scaled.norm(dim=-1, keepdim=True)


def _left(a: Tensor) -> Tensor:
    return _filled(a, _LEFT_INDEX, _LEFT_SIGN)


def _right(b: Tensor) -> Tensor:
    return _filled(b, _RIGHT_INDEX, _RIGHT_SIGN)


def _filled(
    values: Tensor, index: tuple[tuple[int, ...], ...], sign: tuple[tuple[int, ...], ...]
) -> Tensor:
    places = torch.tensor(index, device=values.device)
    return values[..., places] * values.new_tensor(sign)


@functools.cache
def _basis_rows() -> tuple[Tensor, Tensor]:
    unit = torch.eye(4, dtype=torch.float64)
    return _left(unit), _right(unit)


def _bases(like: Tensor) -> tuple[Tensor, Tensor]:
    left, right = _basis_rows()
    return left.to(like), right.to(like)
