"""Real spherical harmonics in plain torch: what the harmonics kernels must compute.

Band l holds 2 l + 1 functions, m = -l .. l, orthonormal over the sphere, with the Condon-Shortley
sign. They are polynomials of the unit direction (x, y, z), reduced by x^2 + y^2 + z^2 = 1 as in
Instant Neural Graphics Primitives; gradients are those of the polynomials.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _bands(x: Tensor, y: Tensor, z: Tensor) -> list[list[Tensor]]:
    xx, yy, zz = x * x, y * y, z * z
    return [
        [torch.full_like(x, 0.28209479177387814)],
        [-0.48860251190291987 * y, 0.48860251190291987 * z, -0.48860251190291987 * x],
        [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.9461746957575601 * zz - 0.31539156525251999,
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
        ],
        [
            0.5900435899266435 * y * (yy - 3 * xx),
            2.890611442640554 * x * y * z,
            0.4570457994644658 * y * (1 - 5 * zz),
            0.3731763325901154 * z * (5 * zz - 3),
            0.4570457994644658 * x * (1 - 5 * zz),
            1.445305721320277 * z * (xx - yy),
            0.5900435899266435 * x * (3 * yy - xx),
        ],
        [
            2.5033429417967046 * x * y * (xx - yy),
            1.7701307697799304 * y * z * (yy - 3 * xx),
            0.9461746957575601 * x * y * (7 * zz - 1),
            0.6690465435572892 * y * z * (3 - 7 * zz),
            3.7024941420321507 * zz * zz - 3.1735664074561294 * zz + 0.31735664074561293,
            0.6690465435572892 * x * z * (3 - 7 * zz),
            0.47308734787878004 * (xx - yy) * (7 * zz - 1),
            1.7701307697799304 * x * z * (3 * yy - xx),
            0.6258357354491761 * (xx * (xx - 3 * yy) - yy * (3 * xx - yy)),
        ],
    ]


def harmonics_forward(directions: Tensor, degree_count: int) -> Tensor:
    """Values (M, degree_count^2) for unit directions (M, 3). Differentiable any number of times."""
    bands = _bands(*directions.unbind(-1))[:degree_count]
    return torch.stack([value for band in bands for value in band], -1)


def harmonics_backward(directions: Tensor, gradient: Tensor, degree_count: int) -> Tensor:
    """Gradient (M, 3) that `gradient` (M, degree_count^2) sends to the directions."""

    def total(at: Tensor) -> Tensor:
        return (harmonics_forward(at, degree_count) * gradient).sum()

    result: Tensor = torch.func.grad(total)(directions)
    return result
