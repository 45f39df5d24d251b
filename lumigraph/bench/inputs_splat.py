"""Seeded Gaussians and cameras of the splatting benchmarks.

`gaussian_scene` and `orbit_cameras` follow the project's benchmark protocol, by which the peers
were recorded (`peers.json`): all numbers are drawn on the CPU, so a seed gives the same bytes on
machines of one register width (AVX2 and AVX-512 differ in the last bits of sines and sums). The
order of draws and of roundings is part of the protocol; a test holds the checksums.

Letters: G Gaussians, K harmonics, C cameras.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .inputs import generator_of

GROUND_SHARE, SHELL_SHARE, FLOATER_SHARE = 0.25, 0.12, 0.01  # of the Gaussians; the rest: bodies
GROUND_RADIUS, GROUND_HEIGHT = 9.0, 1.0  # y points down
BODIES = 24
GROUND_COLOR, SHELL_COLOR = (0.35, 0.45, 0.25), (0.5, 0.6, 0.8)
ZEROTH_HARMONIC = 0.28209479177387814
ORBIT_RADIUS, ORBIT_HEIGHT, ORBIT_TARGET = 4.5, -0.3, (0.0, 0.35, 0.0)
FIELD_OF_VIEW = 70.0  # degrees, horizontal
BLOB_SCALES = (0.004, 0.03)  # scene units, of the blob's Gaussians


class GaussianInputs(NamedTuple):
    """Activated Gaussians, all float32, in the order of `render_gaussians`."""

    means: Tensor
    """(G, 3)."""
    rotations: Tensor
    """(G, 4) wxyz, unit."""
    scales: Tensor
    """(G, 3) standard deviations, scene units."""
    opacities: Tensor
    """(G,) in (0, 1)."""
    harmonics: Tensor
    """(G, K, 3)."""

    def to(self, device: torch.device) -> GaussianInputs:
        """A copy on a device."""
        return GaussianInputs(*(tensor.to(device, copy=True) for tensor in self))

    def raw(self) -> GaussianInputs:
        """What training stores: natural logarithms of scales, logits of opacities."""
        changed = {"scales": self.scales.log(), "opacities": self.opacities.logit()}
        return self._replace(**changed)


class _Part(NamedTuple):
    """A surface: where Gaussians lie, what they face, how far apart they are, and their colors."""

    means: Tensor
    normals: Tensor
    spacing: Tensor
    colors: Tensor


def gaussian_scene(count: int, *, seed: int = 0, degree: int = 3) -> GaussianInputs:
    """Gaussians with the statistics of a trained outdoor capture.

    A rough ground disc, 24 ellipsoids on it within 3 units of the origin, a far shell at 14 to 26
    units, and one in a hundred floating about faintly. Gaussians are flat, as wide as their
    distance from each other, with many faint and many opaque ones, in random order. y points down.
    """
    generator = generator_of(seed)
    ground, shell, floating = (
        int(share * count) for share in (GROUND_SHARE, SHELL_SHARE, FLOATER_SHARE)
    )
    parts = (
        _ground(ground, generator),
        _bodies(count - ground - shell - floating, generator),
        _shell(shell, generator),
        _floaters(floating, generator),
    )
    whole = _Part(*map(torch.cat, zip(*parts, strict=True)))
    rotations = _facing(whole.normals, generator)
    scales = _scales(whole.spacing, generator)
    drawn = torch.rand(count, generator=generator).clamp(1e-6, 1 - 1e-6)
    opacities = (1 - (1 - drawn).pow(1 / 0.8)).pow(1 / 0.7)  # Kumaraswamy's distribution
    opacities[count - floating :] *= 0.15
    harmonics = torch.randn(count, (degree + 1) ** 2, 3, generator=generator) * 0.08
    harmonics[:, 0] = (whole.colors.clamp(0.02, 0.98) - 0.5) / ZEROTH_HARMONIC
    order = torch.randperm(count, generator=generator)
    tensors = (whole.means, rotations, scales, opacities.clamp(0.005, 0.995), harmonics)
    return GaussianInputs(*(tensor[order].contiguous().float() for tensor in tensors))


def _ground(count: int, generator: torch.Generator) -> _Part:
    """A disc, denser towards its middle."""
    radius = GROUND_RADIUS * torch.rand(count, generator=generator).pow(0.8)
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    x, z = radius * angle.cos(), radius * angle.sin()
    rough = 0.01 * torch.randn(count, generator=generator)
    y = GROUND_HEIGHT + 0.05 * (torch.sin(2.1 * x) * torch.cos(1.7 * z)) + rough
    normals = torch.randn(count, 3, generator=generator) * 0.15
    normals[:, 1] -= 1.0
    share = (radius / GROUND_RADIUS).clamp_min(1e-4).pow(0.25)
    ring = 2 * math.pi * radius.clamp_min(1e-2)
    density = count * (1.25 / GROUND_RADIUS) * share / ring
    colors = torch.tensor(GROUND_COLOR).expand(count, 3)
    colors = colors + 0.08 * torch.randn(count, 3, generator=generator)
    return _Part(torch.stack([x, y, z], -1), normals, density.rsqrt(), colors)


def _bodies(count: int, generator: torch.Generator) -> _Part:
    """Bumpy ellipsoids that stand on the ground, with Gaussians by their area."""
    radii = 0.15 + 0.55 * torch.rand(BODIES, 3, generator=generator)
    away = 2.6 * torch.rand(BODIES, generator=generator).sqrt()
    angle = 2 * math.pi * torch.rand(BODIES, generator=generator)
    sunk = 0.7 + 0.6 * torch.rand(BODIES, generator=generator)
    height = GROUND_HEIGHT - radii[:, 1] * sunk
    centers = torch.stack([away * angle.cos(), height, away * angle.sin()], -1)
    own_colors = torch.rand(BODIES, 3, generator=generator)
    areas = 4 * math.pi * (radii[:, 0] * radii[:, 1] * radii[:, 2]).pow(2 / 3)
    owner = torch.multinomial(areas / areas.sum(), count, replacement=True, generator=generator)
    outward = torch.randn(count, 3, generator=generator)
    outward = outward / outward.norm(dim=-1, keepdim=True)
    waves = 1.0 + 0.06 * torch.sin(9 * outward[:, :1] + 3) * torch.cos(7 * outward[:, 1:2])
    bumps = waves + 0.01 * torch.randn(count, 1, generator=generator)
    means = centers[owner] + radii[owner] * outward * bumps
    tilt = 0.2 * torch.randn(count, 3, generator=generator)
    normals = outward / radii[owner] + tilt / radii[owner].mean(-1, keepdim=True)
    spacing = (areas.sum() / count).sqrt().expand(count)
    colors = own_colors[owner] + 0.1 * torch.randn(count, 3, generator=generator)
    return _Part(means, normals, spacing, colors)


def _shell(count: int, generator: torch.Generator) -> _Part:
    """The far background, mostly above the horizon."""
    outward = torch.randn(count, 3, generator=generator)
    outward[:, 1] = -outward[:, 1].abs() + 0.15
    outward = outward / outward.norm(dim=-1, keepdim=True)
    radius = 14.0 + 12.0 * torch.rand(count, 1, generator=generator).pow(2)
    normals = outward + 0.1 * torch.randn(count, 3, generator=generator)
    spacing = (radius[:, 0] ** 2 * 2 * math.pi / max(count, 1)).sqrt()
    colors = torch.tensor(SHELL_COLOR).expand(count, 3)
    colors = colors + 0.1 * torch.randn(count, 3, generator=generator)
    return _Part(outward * radius, normals, spacing, colors)


def _floaters(count: int, generator: torch.Generator) -> _Part:
    """Round ones about the bodies."""
    means = torch.randn(count, 3, generator=generator) * torch.tensor([3.0, 1.2, 3.0])
    means[:, 1] = -means[:, 1].abs() + 0.9
    normals = torch.randn(count, 3, generator=generator)
    spacing = torch.full((count,), 0.25 * (60.0 / max(count, 1)) ** (1 / 3))
    colors = 0.5 + 0.1 * torch.randn(count, 3, generator=generator)
    return _Part(means, normals, spacing, colors)


def _facing(normals: Tensor, generator: torch.Generator) -> Tensor:
    """(G, 4) rotations that turn +z to the normals, with a random spin about them."""
    count = len(normals)
    unit = normals / normals.norm(dim=-1, keepdim=True)
    real = 1.0 + unit[:, 2]
    turn = torch.stack([real, -unit[:, 1], unit[:, 0], torch.zeros(count)], -1)
    turn[real < 1e-6] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    turn = turn / turn.norm(dim=-1, keepdim=True)
    half = torch.rand(count, generator=generator) * math.pi
    cos, sin = half.cos(), half.sin()
    w, x, y, z = turn.unbind(-1)
    spun = [w * cos - z * sin, x * cos + y * sin, y * cos - x * sin, z * cos + w * sin]
    return torch.stack(spun, -1)


def _scales(spacing: Tensor, generator: torch.Generator) -> Tensor:
    """(G, 3): log-normal about the spacing, a fifth of that along the normal."""
    each = torch.randn(len(spacing), 3, generator=generator)
    common = torch.randn(len(spacing), 1, generator=generator)
    scales = spacing[:, None] * 0.85 * torch.exp(0.45 * common + 0.35 * each)
    scales[:, 2] *= 0.2
    return scales.clamp(1e-5, 2.0)


def gaussian_blob(count: int, *, seed: int = 0) -> GaussianInputs:
    """A round cloud about the origin, Gaussians of 0.004 to 0.03 units: what CPUs are given.

    Seen from 3 units away with a focal length of 480 at 400x400, the boxes of 50 k of them touch
    about 256 k tiles.
    """
    generator = generator_of(seed)
    low, high = map(math.log, BLOB_SCALES)
    means = torch.randn(count, 3, generator=generator) * 0.5
    scales = torch.exp(low + (high - low) * torch.rand(count, 3, generator=generator))
    rotations = torch.randn(count, 4, generator=generator)
    return GaussianInputs(
        means,
        rotations / rotations.norm(dim=-1, keepdim=True),
        scales,
        torch.rand(count, generator=generator) * 0.9 + 0.05,
        torch.randn(count, 16, 3, generator=generator) * 0.1,
    )


def orbit_cameras(count: int = 4, *, width: int = 1920) -> tuple[Tensor, float]:
    """World-to-camera matrices (C, 4, 4) of cameras on a circle about the bodies of
    `gaussian_scene`, and their focal length in pixels. The principal point is the middle."""
    poses = []
    for place in range(count):
        angle = 2 * math.pi * place / count + 0.3
        eye = (ORBIT_RADIUS * math.cos(angle), ORBIT_HEIGHT, ORBIT_RADIUS * math.sin(angle))
        poses.append(_look_at(eye, ORBIT_TARGET))
    return torch.stack(poses), 0.5 * width / math.tan(math.radians(FIELD_OF_VIEW) / 2)


def _look_at(eye: tuple[float, ...], target: tuple[float, ...]) -> Tensor:
    """(4, 4) float32; up is -y."""
    place = torch.tensor(eye, dtype=torch.float64)
    forward = torch.tensor(target, dtype=torch.float64) - place
    forward = forward / forward.norm()
    right = torch.linalg.cross(forward, torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64))
    right = right / right.norm()
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = rotation
    pose[:3, 3] = -rotation @ place
    return pose.float()
