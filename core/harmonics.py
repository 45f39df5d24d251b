"""Real spherical harmonics up to degree 4, in the order and signs of hash-grid radiance fields.

Value l^2 + l + m belongs to degree l and order m = -l..l. The set is orthonormal over the sphere
and carries the factor (-1)^m, so that values of odd order are negated polynomials:

    0: c   1: -c y   2: c z   3: -c x   4: c xy   5: -c yz   6: c (3 z^2 - 1)   7: -c xz ...
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.core.shapes import check_shapes

MAXIMUM_DEGREE_COUNT = 5
"""Degrees 0 to 4, 25 values."""
Y_0 = 0.5 / math.sqrt(math.pi)
"""The harmonic of degree 0, the same in every direction."""


def _root(numerator: float, denominator: float = 1.0) -> float:
    return math.sqrt(numerator / (denominator * math.pi))


def spherical_harmonics(directions: Tensor, degree_count: int = 4) -> Tensor:
    """Values of the real spherical harmonics of degrees below `degree_count`.

    Args:
        directions: (..., 3) unit vectors x, y, z.
        degree_count: number of degrees, 1 to 5; 4 gives 16 values.

    Returns:
        (..., degree_count^2). Differentiable in the directions, as polynomials of x, y, z.

    Raises:
        InputError: `directions` has no last size 3, or `degree_count` is out of range.

    >>> values = spherical_harmonics(torch.tensor([[0.0, 0.0, 1.0]]), 2)
    >>> [round(value, 4) for value in values[0].tolist()]
    [0.2821, -0.0, 0.4886, -0.0]
    """
    check_shapes(("directions", directions, "... 3"))
    if not 1 <= degree_count <= MAXIMUM_DEGREE_COUNT:
        raise InputError(f"degree_count must be 1 to {MAXIMUM_DEGREE_COUNT}; got {degree_count}")
    x, y, z = directions.unbind(-1)
    values = [torch.full_like(x, 0.5 * _root(1))]
    for degree in (_degree_1, _degree_2, _degree_3, _degree_4)[: degree_count - 1]:
        values += degree(x, y, z)
    return torch.stack(values, dim=-1)


def _degree_1(x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
    scale = _root(3, 4)
    return [-scale * y, scale * z, -scale * x]


def _degree_2(x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
    scale = 0.5 * _root(15)
    return [
        scale * (x * y),
        -scale * (y * z),
        0.25 * _root(5) * (3 * z * z - 1),
        -scale * (x * z),
        0.5 * scale * (x * x - y * y),
    ]


def _degree_3(x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
    xx, yy, zz = x * x, y * y, z * z
    outer, middle, inner = 0.25 * _root(35, 2), 0.25 * _root(105), 0.25 * _root(21, 2)
    return [
        outer * y * (yy - 3 * xx),
        2 * middle * x * y * z,
        inner * y * (1 - 5 * zz),
        0.25 * _root(7) * z * (5 * zz - 3),
        inner * x * (1 - 5 * zz),
        middle * z * (xx - yy),
        outer * x * (3 * yy - xx),
    ]


def _degree_4(x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
    xx, yy, zz = x * x, y * y, z * z
    outer, third = 0.75 * _root(35), 0.75 * _root(35, 2)
    second, first = 0.75 * _root(5), 0.75 * _root(5, 2)
    return [
        outer * x * y * (xx - yy),
        third * y * z * (yy - 3 * xx),
        second * x * y * (7 * zz - 1),
        first * y * z * (3 - 7 * zz),
        0.1875 * _root(1) * (zz * (35 * zz - 30) + 3),
        first * x * z * (3 - 7 * zz),
        0.5 * second * (xx - yy) * (7 * zz - 1),
        third * x * z * (3 * yy - xx),
        0.25 * outer * (xx * (xx - 3 * yy) - yy * (3 * xx - yy)),
    ]
