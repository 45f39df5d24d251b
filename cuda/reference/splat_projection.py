"""Plain torch twin of the projection of Gaussians; differentiable, any dtype and device.

Sources: EWA splatting (Zwicker et al. 2001) as in 3D Gaussian Splatting (Kerbl et al. 2023, section
4) for pinhole and orthographic cameras; the unscented transform of 3DGUT (Wu et al. 2025, section
4.1) for distorted and fisheye lenses. Letters: G Gaussians, K harmonics.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lumigraph.core import lenses
from lumigraph.core.camera_models import CameraModel
from lumigraph.core.harmonics import spherical_harmonics
from lumigraph.core.transforms import rotation_from_quaternion

GUARD = 1.3
SMALLEST_COMPENSATION = 0.005
SIGMA_POINT = 3.0**0.5
LARGEST_ANGLE = 3.0
HUGE = 1e18


class ProjectionOptions(NamedTuple):
    """What kind of Gaussians and camera; travels as numbers."""

    model: int
    raw: bool
    antialiased: bool
    bands: int

    def to_numbers(self) -> list[int]:
        return [self.model, int(self.raw), int(self.antialiased), self.bands]


class _Camera(NamedTuple):
    focal: tuple[float, float]
    center: tuple[float, float]
    size: tuple[float, float]
    near: float
    low_pass: float
    limit: float
    guard: float
    lens: list[float]


def _camera(n: list[float]) -> _Camera:
    return _Camera((n[0], n[1]), (n[2], n[3]), (n[4], n[5]), n[6], n[7], n[8], n[9], n[10:18])


def project(
    means: Tensor, rotations: Tensor, scales: Tensor, opacities: Tensor, harmonics: Tensor,
    world_to_camera: Tensor, camera: list[float], options: list[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Splats (G, 12) and depths (G,); see `splatting/projection.py` for the arguments."""
    chosen = ProjectionOptions(options[0], bool(options[1]), bool(options[2]), options[3])
    # what is culled takes harmless values, so that its gradient is 0 and not NaN
    sane = _sane(means, rotations, scales, opacities, harmonics[:, : chosen.bands**2], chosen.raw)
    means, scales, opacities, harmonics = (
        torch.where(sane.reshape(-1, *[1] * (t.dim() - 1)), t, torch.zeros_like(t))
        for t in (means, scales, opacities, harmonics)
    )
    rotations = torch.where(sane[:, None], rotations, rotations.new_tensor([1.0, 0, 0, 0]))
    if chosen.raw:
        scales, opacities = scales.exp(), opacities.sigmoid()
    largest = rotations.detach().abs().amax(1, keepdim=True)  # squares of others may not fit
    axes = rotation_from_quaternion(rotations / largest) * scales[:, None, :]
    return project_axes(means, axes, opacities, harmonics, sane, world_to_camera, camera, chosen)


def project_axes(
    means: Tensor, axes: Tensor, opacities: Tensor, harmonics: Tensor, sane: Tensor,
    world_to_camera: Tensor, camera: list[float], chosen: ProjectionOptions,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The same from axes (G, 3, 3), whose columns are standard deviations along three directions,
    and opacities in [0, 1]; what is not `sane` (G,) bool is culled and must be finite."""
    k = _camera(camera)
    turn, shift = world_to_camera[:, :3], world_to_camera[:, 3]
    points = means @ turn.T + shift
    distance = (points.square().sum(1) + 1e-30).sqrt()
    fisheye = chosen.model == CameraModel.FISHEYE
    depth = distance if fisheye else points[:, 2]
    ok = sane & (depth > k.near) & (distance < HUGE**0.5)
    points = torch.where(ok[:, None], points, points.new_tensor([0.0, 0.0, 1.0]))
    axes = turn @ axes
    usable = axes.isfinite().all(2).all(1)
    ok = ok & usable
    axes = torch.where(usable[:, None, None], axes, torch.zeros_like(axes))
    points, axes = _without_overflow(points), _without_overflow(axes)
    if chosen.model in (CameraModel.PINHOLE, CameraModel.ORTHOGRAPHIC):
        screen, covariance, determinant = _affine(points, axes, k, chosen.model)
    else:
        screen, covariance, determinant, valid = _unscented(points, axes, k, fisheye)
        ok = ok & valid
    splats, ok, colors = _rows(screen, covariance, determinant, opacities, k, chosen, ok)
    direction = _directions(means, turn, shift, chosen.model)
    basis = spherical_harmonics(direction, chosen.bands)
    color = 0.5 + (basis[:, :, None] * harmonics[:, : chosen.bands**2]).sum(1)
    total = color.sum(1)
    ok = ok & (total.abs() < HUGE)
    color = torch.where(ok[:, None], color, torch.zeros_like(color)).clamp_min(0)
    row = torch.cat([splats, color, depth[:, None], colors], dim=1)
    row = torch.where(ok[:, None], row, torch.zeros_like(row))
    return row, torch.where(ok, depth, torch.inf).detach()


def _sane(
    means: Tensor, rotations: Tensor, scales: Tensor, opacities: Tensor, harmonics: Tensor,
    raw: bool,
) -> Tensor:  # fmt: skip
    """(G,) Gaussians of finite numbers, with a rotation."""
    with torch.no_grad():
        if raw:
            scales, opacities = scales.exp(), opacities.sigmoid()
        rows = [means, rotations, scales, opacities[:, None], harmonics.flatten(1)]
        finite = torch.cat(rows, dim=1).isfinite().all(1)
        return finite & (rotations != 0).any(1)


def _without_overflow(tensor: Tensor) -> Tensor:
    """The same; entries of its gradient that are not finite count as 0."""
    if tensor.requires_grad:
        tensor.register_hook(
            lambda g: None if g is None else torch.where(g.isfinite(), g, torch.zeros_like(g))
        )
    return tensor


def _directions(means: Tensor, turn: Tensor, shift: Tensor, model: int) -> Tensor:
    if model == CameraModel.ORTHOGRAPHIC:
        offsets = turn[2].expand_as(means)
    else:
        offsets = means + turn.T @ shift
    length = offsets.norm(dim=1, keepdim=True)
    bad = ~((length > 0) & length.isfinite())
    offsets = torch.where(bad, offsets.new_tensor([0.0, 0.0, 1.0]), offsets)
    return offsets / offsets.norm(dim=1, keepdim=True)


def _affine(points: Tensor, axes: Tensor, k: _Camera, model: int) -> tuple[Tensor, Tensor, Tensor]:
    focal, center = points.new_tensor(k.focal), points.new_tensor(k.center)
    if model == CameraModel.ORTHOGRAPHIC:
        screen = points[:, :2] * focal + center
        map2 = axes[:, :2] * focal[:, None]
    else:
        depth = points[:, 2:]
        plane = points[:, :2] / depth
        screen = plane * focal + center
        size = points.new_tensor(k.size)
        middle, half = (size / 2 - center) / focal, GUARD / 2 * size / focal
        held = torch.minimum(torch.maximum(plane, middle - half), middle + half)
        map2 = (axes[:, :2] - held[:, :, None] * axes[:, 2:]) * (focal / depth)[:, :, None]
    covariance = map2 @ map2.transpose(1, 2)
    cross = torch.linalg.cross(map2[:, 0], map2[:, 1])
    return screen, covariance, cross.square().sum(1)


def _lens(points: Tensor, k: _Camera, fisheye: bool) -> tuple[Tensor, Tensor]:
    if fisheye:
        radius = (points[:, :2].square().sum(1) + 1e-30).sqrt()
        theta = torch.atan2(radius, points[:, 2])
        scale = lenses.distort_fisheye(theta, k.lens, k.limit) / radius
        return points[:, :2] * scale[:, None], theta < LARGEST_ANGLE
    plane = points[:, :2] / points[:, 2:].clamp_min(k.near)
    radius = (plane.square().sum(1, keepdim=True) + 1e-30).sqrt()
    plane = torch.where(radius > k.guard, plane * (k.guard / radius), plane)
    shown = lenses.distort_opencv(plane, k.lens, k.limit)
    return shown, torch.ones_like(points[:, 0], dtype=torch.bool)


def _unscented(
    points: Tensor, axes: Tensor, k: _Camera, fisheye: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    first, valid = _lens(points, k, fisheye)
    images = []
    for sign in (1, -1):
        for j in range(3):
            image, seen = _lens(points + sign * SIGMA_POINT * axes[:, :, j], k, fisheye)
            images.append(image)
            valid = valid & seen
    focal = points.new_tensor(k.focal)
    mean = torch.stack(images).mean(0)
    offsets = (torch.stack([first, *images], dim=1) - mean[:, None]) * focal
    weights = points.new_tensor([2.0, *[1 / 6] * 6])
    covariance = torch.einsum("n,gni,gnj->gij", weights, offsets, offsets)
    determinant = covariance[:, 0, 0] * covariance[:, 1, 1] - covariance[:, 0, 1] ** 2
    screen = mean * focal + points.new_tensor(k.center)
    return screen, covariance, determinant.clamp_min(0), valid


def _rows(
    screen: Tensor, covariance: Tensor, determinant: Tensor, opacities: Tensor, k: _Camera,
    options: ProjectionOptions, ok: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Columns 0-5 of the splats, which are seen, and columns 10-11."""
    xx, xy, yy = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
    wide, high = xx + k.low_pass, yy + k.low_pass
    blurred = determinant + k.low_pass * (xx + high)
    sane = (wide + high < HUGE) & (screen.abs() < HUGE).all(1) & (blurred > 0) & blurred.isfinite()
    ok = ok & sane
    one = torch.ones_like(blurred)
    safe = torch.where(sane, blurred, one)
    conic = torch.stack([high / safe, -xy / safe, wide / safe], dim=1)
    ends = conic[:, ::2]
    ok = ok & ((ends > 0) & (ends < HUGE)).all(1)
    if options.antialiased:
        ratio = determinant / safe
        clear = ratio > SMALLEST_COMPENSATION**2
        factor = torch.where(clear, torch.where(clear, ratio, one).sqrt(), SMALLEST_COMPENSATION)
        opacities = opacities * factor
    reach = (255 * opacities.detach()).log()
    ok = ok & (reach > 0) & (opacities <= 1)
    with torch.no_grad():
        room = 2 * reach.clamp_min(0)
        half = torch.stack([room * wide, room * high], dim=1).sqrt()
        size = half.new_tensor(k.size)
        ok = ok & ((screen + half > 0) & (screen - half < size)).all(1)
        flat = half[:, 0] >= half[:, 1]
        sides = torch.stack([half.amax(1), torch.where(flat, half[:, 1], -half[:, 0])], dim=1)
    return torch.cat([screen, conic, opacities[:, None]], dim=1), ok, sides


def project_backward(
    gradient: Tensor, tensors: list[Tensor], camera: list[float], options: list[int]
) -> tuple[Tensor, ...]:
    """Gradients by the six tensors of `project`, from that by its splats."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    with torch.enable_grad():
        m, r, s, o, h, pose = leaves
        splats, _ = project(m, r, s, o, h, pose, camera, options)
        found = torch.autograd.grad(splats, leaves, gradient, materialize_grads=True)
    return tuple(torch.where(g.isfinite(), g, torch.zeros_like(g)) for g in found)
