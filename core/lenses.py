"""Lens models on the normalised image plane: distortion, its inverse and its valid range.

OpenCV lens (radial-tangential, rational), coefficients k1 k2 p1 p2 k3 k4 k5 k6, r2 = x^2 + y^2:

    radial = (1 + k1 r2 + k2 r2^2 + k3 r2^3) / (1 + k4 r2 + k5 r2^2 + k6 r2^3)
    x' = x radial + 2 p1 x y + p2 (r2 + 2 x^2),   y' = y radial + p1 (r2 + 2 y^2) + 2 p2 x y

OpenCV fisheye lens, coefficients k1 k2 k3 k4, theta the angle to the optical axis:

    theta' = theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8)

Such polynomials were fitted inside the image and may fold back outside it, which would show points
far off the axis in the middle of the picture. So each lens has a limit, the radius (or angle)
where it stops to grow; beyond the limit its scale factor is held constant, which keeps the map
one-to-one and the inverse finite everywhere.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

OPENCV_STEPS = 5
"""Newton steps of the OpenCV inverse; quadratic convergence reaches float32 in 3 to 4."""
FISHEYE_STEPS = 6
"""Newton steps of the fisheye inverse."""

_LARGEST_ANGLE = math.radians(89.4)  # r2 stays below 1e4, so that its powers fit in float32
_LONGEST_STEP = 0.5  # of the radius (at least of 1); keeps Newton finite next to a fold
_SMALLEST_SLOPE = 0.05  # of the map at its limit; smaller slopes lose the inverse's precision


def opencv_limits(distortion: Tensor) -> Tensor:
    """Largest squared radius at which each OpenCV lens is one-to-one.

    Args:
        distortion: (C, 8) coefficients k1 k2 p1 p2 k3 k4 k5 k6.

    Returns:
        (C,) squared radii on the undistorted plane, at most about 1e4.
    """
    angles = torch.linspace(0, _LARGEST_ANGLE, 1024, dtype=torch.float64, device=distortion.device)
    radii = torch.tan(angles)
    unique, inverse = torch.unique(distortion.double(), dim=0, return_inverse=True)
    factor, slope, denominator = _radial(radii.square()[None], [*unique.unsqueeze(-1).unbind(1)])
    # d(r radial) / dr = radial + 2 r2 d(radial)/d(r2); a pole of the fraction ends the range too.
    growth = factor + 2 * radii.square() * slope
    return _last_valid((growth > _SMALLEST_SLOPE) & (denominator > 0), radii.square())[inverse].to(
        distortion.dtype
    )


def fisheye_limits(distortion: Tensor) -> Tensor:
    """Largest angle to the axis, in radians, at which each fisheye lens is one-to-one: (C,)."""
    angles = torch.linspace(0, math.pi, 2048, dtype=torch.float64, device=distortion.device)
    unique, inverse = torch.unique(distortion[:, :4].double(), dim=0, return_inverse=True)
    _, growth = _fisheye_polynomial(angles[None], [*unique.unsqueeze(-1).unbind(1)])
    return _last_valid(growth > _SMALLEST_SLOPE, angles)[inverse].to(distortion.dtype)


def _last_valid(valid: Tensor, values: Tensor) -> Tensor:
    """The value before the first False of each row of `valid`."""
    counts = valid.to(torch.int64).cumprod(dim=1).sum(dim=1)
    return values[(counts - 1).clamp_min(0)]


def distort_opencv(plane: Tensor, distortion: Tensor, limits: Tensor) -> Tensor:
    """Where an OpenCV lens shows points of the undistorted plane z = 1.

    Args:
        plane: (N, 2) undistorted x, y.
        distortion: (N, 8) or (1, 8) coefficients.
        limits: (N,) or (1,) squared radii of :func:`opencv_limits`.

    Returns:
        (N, 2) distorted x, y. Differentiable in all arguments.
    """
    coefficients = [*distortion.unbind(-1)]
    x, y = plane.unbind(-1)
    p1, p2 = coefficients[2:4]
    square = x * x + y * y
    factor, _, _ = _radial(torch.minimum(square, limits), coefficients)
    cross = 2 * x * y
    return torch.stack(
        [
            x * factor + p1 * cross + p2 * (square + 2 * x * x),
            y * factor + p2 * cross + p1 * (square + 2 * y * y),
        ],
        dim=-1,
    )


def undistort_opencv(plane: Tensor, distortion: Tensor, limits: Tensor) -> Tensor:
    """The inverse of :func:`distort_opencv` by Newton steps with the analytic 2x2 Jacobian.

    Args and returns as there, distorted to undistorted. Finite for any finite input.
    """
    coefficients = [*distortion.unbind(-1)]
    p1, p2 = coefficients[2:4]
    target_x, target_y = plane.unbind(-1)
    x, y = target_x, target_y
    for _ in range(OPENCV_STEPS):
        xx, yy, xy = x * x, y * y, 2 * x * y
        square = xx + yy
        factor, slope, _ = _radial(torch.minimum(square, limits), coefficients)
        slope = slope * (square < limits)
        error_x = x * factor + p1 * xy + p2 * (square + 2 * xx) - target_x
        error_y = y * factor + p2 * xy + p1 * (square + 2 * yy) - target_y
        tangent_x, tangent_y = p2 * x, p1 * y
        # The Jacobian is symmetric: d(x')/dy = d(y')/dx.
        jacobian_xx = factor + 2 * (slope * xx + tangent_y + 3 * tangent_x)
        jacobian_yy = factor + 2 * (slope * yy + tangent_x + 3 * tangent_y)
        jacobian_xy = slope * xy + 2 * (p1 * x + p2 * y)
        determinant = jacobian_xx * jacobian_yy - jacobian_xy * jacobian_xy
        scale = 1 / determinant.clamp_min(1e-3)
        longest = _LONGEST_STEP * (1 + square.sqrt())
        step_x = (jacobian_yy * error_x - jacobian_xy * error_y) * scale
        step_y = (jacobian_xx * error_y - jacobian_xy * error_x) * scale
        x = x - torch.maximum(torch.minimum(step_x, longest), -longest)
        y = y - torch.maximum(torch.minimum(step_y, longest), -longest)
    return torch.stack([x, y], dim=-1)


def _radial(square: Tensor, coefficients: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Radial factor, its derivative by the squared radius, and the fraction's denominator."""
    k1, k2, _, _, k3, k4, k5, k6 = coefficients
    above = 1 + square * (k1 + square * (k2 + square * k3))
    above_slope = k1 + square * (2 * k2 + square * (3 * k3))
    below = 1 + square * (k4 + square * (k5 + square * k6))
    below_slope = k4 + square * (2 * k5 + square * (3 * k6))
    factor = above / below
    return factor, (above_slope - factor * below_slope) / below, below


def distort_fisheye(theta: Tensor, distortion: Tensor, limits: Tensor) -> Tensor:
    """Image radius of rays at angle `theta` (N,) to the axis of a fisheye lens.

    Args:
        theta: (N,) radians in [0, pi].
        distortion: (N, 8) or (1, 8); k1 k2 k3 k4 are used.
        limits: (N,) or (1,) angles of :func:`fisheye_limits`.

    Returns:
        (N,) radius in units of the focal length. Differentiable in all arguments.
    """
    coefficients = [*distortion.unbind(-1)][:4]
    held = torch.minimum(theta, limits)
    value, _ = _fisheye_polynomial(held, coefficients)
    # Beyond its limit the lens goes on with the slope it has on average up to there.
    return value * torch.where(theta > limits, theta / limits.clamp_min(1e-6), 1.0)


def undistort_fisheye(radius: Tensor, distortion: Tensor, limits: Tensor) -> Tensor:
    """The inverse of :func:`distort_fisheye`: image radius (N,) to angle (N,) in [0, pi]."""
    coefficients = [*distortion.unbind(-1)][:4]
    edge, _ = _fisheye_polynomial(limits, coefficients)
    theta = torch.minimum(radius, limits)
    for _ in range(FISHEYE_STEPS):
        value, slope = _fisheye_polynomial(theta, coefficients)
        step = (value - radius) / slope.clamp_min(_SMALLEST_SLOPE)
        theta = torch.minimum((theta - step).clamp_min(0), limits)
    beyond = radius * limits / edge.clamp_min(1e-6)
    return torch.where(radius > edge, beyond, theta).clamp(0, math.pi)


def _fisheye_polynomial(theta: Tensor, coefficients: list[Tensor]) -> tuple[Tensor, Tensor]:
    """theta' and its derivative by theta."""
    k1, k2, k3, k4 = coefficients
    square = theta * theta
    factor = 1 + square * (k1 + square * (k2 + square * (k3 + square * k4)))
    slope = 1 + square * (3 * k1 + square * (5 * k2 + square * (7 * k3 + square * (9 * k4))))
    return theta * factor, slope
