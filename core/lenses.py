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
from collections.abc import Sequence

import torch
from torch import Tensor

Coefficients = Sequence[Tensor | float]
"""Lens coefficients in the order of `Cameras.distortion`: numbers, or tensors (N,)."""

OPENCV_STEPS = 4
"""Newton steps of the OpenCV inverse, after a first guess by division."""
FISHEYE_STEPS = 6
"""Newton steps of the fisheye inverse."""

_LARGEST_ANGLE = math.radians(89.4)  # r2 stays below 1e4, so that its powers fit in float32
_LONGEST_STEP = 2.0  # on the plane z = 1; keeps Newton near next to a fold
_SMALLEST_DETERMINANT = 1e-3
_SMALLEST_FACTOR = 0.1
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
    coefficients = unique.unsqueeze(-1).unbind(1)
    square = radii.square()[None]
    factor, slope = _radial(square, coefficients)
    denominator, _ = _polynomial(square, tuple(coefficients[5:8]))
    # d(r radial) / dr = radial + 2 r2 d(radial)/d(r2); a pole of the fraction ends the range too.
    growth = factor + 2 * square * slope
    limits = _last_valid((growth > _SMALLEST_SLOPE) & (denominator > 0), square[0])
    return limits[inverse].to(distortion.dtype)


def fisheye_limits(distortion: Tensor) -> Tensor:
    """Largest angle to the axis, in radians, at which each fisheye lens is one-to-one: (C,)."""
    angles = torch.linspace(0, math.pi, 2048, dtype=torch.float64, device=distortion.device)
    unique, inverse = torch.unique(distortion.double(), dim=0, return_inverse=True)
    _, growth = _fisheye_polynomial(angles[None], unique.unsqueeze(-1).unbind(1))
    return _last_valid(growth > _SMALLEST_SLOPE, angles)[inverse].to(distortion.dtype)


def _last_valid(valid: Tensor, values: Tensor) -> Tensor:
    """The value before the first False of each row of `valid`."""
    counts = valid.to(torch.int64).cumprod(dim=1).sum(dim=1)
    return values[(counts - 1).clamp_min(0)]


def distort_opencv(plane: Tensor, coefficients: Coefficients, limits: Tensor | float) -> Tensor:
    """Where an OpenCV lens shows points of the undistorted plane z = 1.

    Args:
        plane: (N, 2) undistorted x, y.
        coefficients: k1 k2 p1 p2 k3 k4 k5 k6, each a number for all points or a tensor (N,).
        limits: squared radius of :func:`opencv_limits`, one for all points or (N,).

    Returns:
        (N, 2) distorted x, y. Differentiable in plane and coefficients.
    """
    x, y = plane.unbind(-1)
    p1, p2 = coefficients[2:4]
    square = x * x + y * y
    factor, _ = _radial(square.clamp(max=limits), coefficients)
    cross = 2 * x * y
    return torch.stack(
        [
            x * factor + p1 * cross + p2 * (square + 2 * x * x),
            y * factor + p2 * cross + p1 * (square + 2 * y * y),
        ],
        dim=-1,
    )


def undistort_opencv(plane: Tensor, coefficients: Coefficients, limits: Tensor | float) -> Tensor:
    """The inverse of :func:`distort_opencv` by Newton steps with the analytic 2x2 Jacobian.

    Args and returns as there, distorted to undistorted. Finite for any finite input.
    """
    p1, p2 = coefficients[2:4]
    target_x, target_y = plane.unbind(-1)
    x, y = _undistorted_guess(plane, coefficients, limits)
    for _ in range(OPENCV_STEPS):
        xx, yy, xy = x * x, y * y, x * y
        square = xx + yy
        factor, slope = _radial(square.clamp(max=limits), coefficients)
        slope = 2 * slope * (square < limits)
        tangent_x, tangent_y = p2 * x, p1 * y
        # x' = x (radial + 2 p1 y + 2 p2 x) + p2 r2, and y' alike with the same bracket.
        bracket = factor + 2 * (tangent_x + tangent_y)
        error_x = x * bracket + p2 * square - target_x
        error_y = y * bracket + p1 * square - target_y
        # The Jacobian is symmetric: d(x')/dy = d(y')/dx.
        jacobian_xx = bracket + slope * xx + 4 * tangent_x
        jacobian_yy = bracket + slope * yy + 4 * tangent_y
        jacobian_xy = slope * xy + 2 * (p1 * x + p2 * y)
        determinant = jacobian_xx * jacobian_yy - jacobian_xy * jacobian_xy
        scale = 1 / determinant.clamp_min(_SMALLEST_DETERMINANT)
        step_x = (jacobian_yy * error_x - jacobian_xy * error_y) * scale
        step_y = (jacobian_xx * error_y - jacobian_xy * error_x) * scale
        x = x - step_x.clamp(-_LONGEST_STEP, _LONGEST_STEP)
        y = y - step_y.clamp(-_LONGEST_STEP, _LONGEST_STEP)
    return torch.stack([x, y], dim=-1)


def _undistorted_guess(
    plane: Tensor, coefficients: Coefficients, limits: Tensor | float
) -> tuple[Tensor, Tensor]:
    # Dividing by the factor at the distorted radius never overshoots a barrel lens's fold.
    factor, _ = _radial(plane.square().sum(dim=-1).clamp(max=limits), coefficients)
    x, y = (plane / factor.clamp_min(_SMALLEST_FACTOR)[:, None]).unbind(-1)
    return x, y


def _radial(square: Tensor, coefficients: Coefficients) -> tuple[Tensor, Tensor]:
    """Radial factor and its derivative by the squared radius."""
    k1, k2, _, _, k3, k4, k5, k6 = coefficients
    above, above_slope = _polynomial(square, (k1, k2, k3))
    if all(isinstance(k, float) and k == 0 for k in (k4, k5, k6)):
        return above, above_slope
    below, below_slope = _polynomial(square, (k4, k5, k6))
    factor = above / below
    return factor, (above_slope - factor * below_slope) / below


def _polynomial(
    value: Tensor, terms: tuple[Tensor | float, Tensor | float, Tensor | float]
) -> tuple[Tensor, Tensor]:
    """1 + a v + b v^2 + c v^3 and its derivative; a cubic term that is the number 0 costs none."""
    a, b, c = terms
    if isinstance(c, float) and c == 0:
        bend = value * b
        return 1 + value * (bend + a), 2 * bend + a
    cubic = value * c
    return 1 + value * (a + value * (b + cubic)), a + value * (2 * b + 3 * cubic)


def distort_fisheye(theta: Tensor, coefficients: Coefficients, limits: Tensor | float) -> Tensor:
    """Image radius of rays at angle `theta` to the axis of a fisheye lens.

    Args:
        theta: (N,) radians in [0, pi].
        coefficients: k1 k2 k3 k4, each a number or a tensor (N,); more are ignored.
        limits: angle of :func:`fisheye_limits`, one for all or (N,).

    Returns:
        (N,) radius in units of the focal length. Differentiable in theta and coefficients.
    """
    value, _ = _fisheye_polynomial(theta.clamp(max=limits), coefficients)
    # Beyond its limit the lens goes on in proportion to the angle.
    return value * (theta / limits).clamp_min(1)


def undistort_fisheye(radius: Tensor, coefficients: Coefficients, limits: Tensor | float) -> Tensor:
    """The inverse of :func:`distort_fisheye`: image radius (N,) to angle (N,) in [0, pi]."""
    edge, _ = _fisheye_polynomial(torch.as_tensor(limits).to(radius), coefficients)
    theta = radius.clamp(max=limits)
    for _ in range(FISHEYE_STEPS):
        value, slope = _fisheye_polynomial(theta, coefficients)
        step = (value - radius) / slope.clamp_min(_SMALLEST_SLOPE)
        theta = (theta - step).clamp_min(0).clamp(max=limits)
    beyond = radius * limits / edge.clamp_min(1e-6)
    return torch.where(radius > edge, beyond, theta).clamp(0, math.pi)


def _fisheye_polynomial(theta: Tensor, coefficients: Coefficients) -> tuple[Tensor, Tensor]:
    """theta' and its derivative by theta."""
    k1, k2, k3, k4 = coefficients[:4]
    square = theta * theta
    factor = 1 + square * (k1 + square * (k2 + square * (k3 + square * k4)))
    slope = 1 + square * (3 * k1 + square * (5 * k2 + square * (7 * k3 + square * (9 * k4))))
    return theta * factor, slope
