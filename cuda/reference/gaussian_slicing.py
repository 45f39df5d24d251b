"""Plain torch twin of Gaussians in space and time: what they are at a time, and their splats.

With R the rotation of the rotor (core/rotors.py), S the four standard deviations and M = R S, the
covariance is M M^T = [[U, V], [V^T, W]] over space and time. At a time t, dt = t - mu_t (Duan et
al. 2024, 4D-Rotor Gaussian Splatting; Yang et al. 2024, Real-time 4DGS):

    velocity = V / W,   mean = mu + velocity dt,   covariance = U - V V^T / W,
    opacity = o exp(-fade^2 / (2 W)),   fade = max(|dt| - plateau, 0)

Let N be the first three rows of M, w its last one, and u = w / |w|. Then U - V V^T / W is
N (I - u u^T) N^T, and the mirror that takes u to +-e_4 leaves three columns Q that span what is
orthogonal to u: N Q (3, 3) is a root of the covariance without a difference of large numbers, and
of Gaussians that do not move just their axes. Letters: G Gaussians, K harmonics.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lumigraph.core.rotors import rotation_from_rotor, rotor_quaternions
from lumigraph.core.transforms import rotation_from_quaternion

from .splat_projection import ProjectionOptions, project_axes

SHORTEST = 1e-6
"""Standard deviation in time below which none counts; W is held at its square."""

Seven = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]


class SlicedGaussians(NamedTuple):
    """Gaussians in space."""

    means: Tensor
    """(G, 3) where they are at the time."""
    axes: Tensor
    """(G, 3, 3), the same at every time: a root of the covariance, axes @ axes^T."""
    opacities: Tensor
    """(G,) in [0, 1] at the time."""
    velocities: Tensor
    """(G, 3) scene units per unit of time."""

    @property
    def covariances(self) -> Tensor:
        """(G, 3, 3)."""
        return self.axes @ self.axes.transpose(1, 2)


class SliceConstants(NamedTuple):
    """What does not depend on the time."""

    axes: Tensor
    """(G, 3, 3)."""
    velocities: Tensor
    """(G, 3)."""
    durations: Tensor
    """(G,) square root of W, held from below."""


def slice_constants(rotors: Tensor, log_scales: Tensor, shortest: float) -> SliceConstants:
    """Axes, velocities and durations of rotors (G, 8) and log scales (G, 4)."""
    root = rotation_from_rotor(rotors) * log_scales.exp()[:, None, :]
    space, time = root[:, :3], root[:, 3]
    largest = time.detach().abs().amax(1, keepdim=True)
    length = (time / largest).norm(dim=1) * largest[:, 0]
    unit = time / length[:, None]
    sign = torch.where(unit[:, 3] >= 0, 1.0, -1.0).to(unit)
    along = (space * unit[:, None, :]).sum(2)
    mirrored = (along + sign[:, None] * space[:, :, 3]) / (1 + unit[:, 3].abs())[:, None]
    axes = space[:, :, :3] - mirrored[:, :, None] * unit[:, None, :3]
    duration = length.clamp_min(shortest)
    speed = length / duration / duration
    return SliceConstants(axes, along * speed[:, None], duration)


def slice_gaussians(
    means: Tensor,
    times: Tensor,
    rotors: Tensor,
    log_scales: Tensor,
    opacity_logits: Tensor,
    time: float,
    *,
    log_plateaus: Tensor | None = None,
    shortest: float = SHORTEST,
) -> SlicedGaussians:
    """Gaussians in space and time as they are at one time; differentiable, any dtype.

    Args:
        means: (G, 3), times: (G,), rotors: (G, 8), log_scales: (G, 4), opacity_logits: (G,) and
            log_plateaus: (G,) as in `core.GaussianCloud4D`.
        time: any number.
        shortest: standard deviation in time at which W is held from below.
    """
    constants = slice_constants(rotors, log_scales, shortest)
    later = time - times
    fade = later.abs()
    if log_plateaus is not None:
        fade = (fade - log_plateaus.exp()).clamp_min(0)
    steps = fade / constants.durations
    opacities = opacity_logits.sigmoid() * (-0.5 * steps.square()).exp()
    moved = means + constants.velocities * later[:, None]
    return SlicedGaussians(moved, constants.axes, opacities, constants.velocities)


def project(
    means: Tensor, times: Tensor, rotors: Tensor, log_scales: Tensor, opacity_logits: Tensor,
    harmonics: Tensor, log_plateaus: Tensor | None, world_to_camera: Tensor, camera: list[float],
    moment: list[float], options: list[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Splats (G, 12) and depths (G,); see `splatting/projection4d.py` for the arguments."""
    chosen = ProjectionOptions(options[0], bool(options[1]), bool(options[2]), options[3])
    time, shortest = moment
    harmonics = harmonics[:, : chosen.bands**2]
    tensors = (means, times, rotors, log_scales, opacity_logits, harmonics, log_plateaus)
    sane = _sane(tensors, time, shortest)
    # what is culled takes harmless values, so that its gradient is 0 and not NaN
    rest = rotors.new_tensor([1.0, 0, 0, 0, 0, 0, 0, 0])
    rotors = torch.where(sane[:, None], rotors, rest)
    means, times, log_scales, opacity_logits, harmonics = (
        torch.where(sane.reshape(-1, *[1] * (t.dim() - 1)), t, torch.zeros_like(t))
        for t in (means, times, log_scales, opacity_logits, harmonics)
    )
    if log_plateaus is not None:
        log_plateaus = torch.where(sane, log_plateaus, torch.zeros_like(log_plateaus))
    found = slice_gaussians(
        means, times, rotors, log_scales, opacity_logits, time,
        log_plateaus=log_plateaus, shortest=shortest,
    )  # fmt: skip
    return project_axes(
        found.means, found.axes, found.opacities, harmonics, sane, world_to_camera, camera, chosen
    )


@torch.no_grad()
def _sane(tensors: Seven, time: float, shortest: float) -> Tensor:
    """(G,) Gaussians of finite numbers, with a rotation."""
    means, times, rotors, log_scales, opacity_logits, harmonics, log_plateaus = tensors
    a, b = rotor_quaternions(rotors)
    found = slice_gaussians(
        means, times, rotors, log_scales, opacity_logits, time,
        log_plateaus=log_plateaus, shortest=shortest,
    )  # fmt: skip
    rows = [found.means, found.axes.flatten(1), found.opacities[:, None], harmonics.flatten(1)]
    finite = torch.cat(rows, dim=1).isfinite().all(1)
    return finite & (a != 0).any(1) & (b != 0).any(1)


def project_backward(
    gradient: Tensor, tensors: list[Tensor | None], camera: list[float], moment: list[float],
    options: list[int],
) -> list[Tensor | None]:  # fmt: skip
    """Gradients by the eight tensors of `project`, from that by its splats."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in tensors]
    given = [leaf for leaf in leaves if leaf is not None]
    with torch.enable_grad():
        m, t, r, s, o, h, p, pose = leaves
        assert m is not None and t is not None and r is not None and s is not None
        assert o is not None and h is not None and pose is not None
        splats, _ = project(m, t, r, s, o, h, p, pose, camera, moment, options)
        found = iter(torch.autograd.grad(splats, given, gradient, materialize_grads=True))
    gradients = [None if leaf is None else next(found) for leaf in leaves]
    return [
        None if g is None else torch.where(g.isfinite(), g, torch.zeros_like(g)) for g in gradients
    ]


# ---- prepared: what does not depend on the time, in five planes of four numbers a Gaussian:
#
#     time, plateau, duration, peak | mean, axes 0 | velocity, axes 1 | axes 2-5 | axes 6-8, 0
#
# with the opacity's peak; durations of what stands still are infinite


def prepared_planes(
    means: Tensor, times: Tensor, rotors: Tensor, log_scales: Tensor, opacity_logits: Tensor,
    log_plateaus: Tensor | None, shortest: float,
) -> Tensor:  # fmt: skip
    """(5, G, 4) of Gaussians in space and time."""
    found = slice_constants(rotors, log_scales, shortest)
    plateaus = torch.zeros_like(times) if log_plateaus is None else log_plateaus.exp()
    life = [times, plateaus, found.durations, opacity_logits.sigmoid()]
    return _planes(torch.stack(life, dim=1), means, found.velocities, found.axes)


def still_planes(
    means: Tensor, rotations: Tensor, log_scales: Tensor, opacity_logits: Tensor
) -> Tensor:
    """(5, G, 4) of Gaussians in space, which are there at all times."""
    largest = rotations.abs().amax(1, keepdim=True)
    axes = rotation_from_quaternion(rotations / largest) * log_scales.exp()[:, None, :]
    peak = opacity_logits.sigmoid()
    none = torch.zeros_like(peak)
    life = torch.stack([none, none, none + torch.inf, peak], dim=1)
    return _planes(life, means, torch.zeros_like(means), axes)


def _planes(life: Tensor, means: Tensor, velocities: Tensor, axes: Tensor) -> Tensor:
    flat = torch.nn.functional.pad(axes.flatten(1), (0, 1))
    return torch.stack(
        [
            life,
            torch.cat([means, flat[:, :1]], dim=1),
            torch.cat([velocities, flat[:, 1:2]], dim=1),
            flat[:, 2:6],
            flat[:, 6:],
        ]
    )


def prepared_slice(planes: Tensor, time: float) -> SlicedGaussians:
    """Rows of planes (5, G, 4) as they are at a time."""
    life, mean, velocity, middle, last = planes
    axes = torch.cat([mean[:, 3:], velocity[:, 3:], middle, last[:, :3]], dim=1)
    later = time - life[:, 0]
    steps = (later.abs() - life[:, 1]).clamp_min(0) / life[:, 2]
    opacities = life[:, 3] * (-0.5 * steps.square()).exp()
    moved = mean[:, :3] + velocity[:, :3] * later[:, None]
    return SlicedGaussians(moved, axes.reshape(-1, 3, 3), opacities, velocity[:, :3])


def project_prepared(
    planes: Tensor, harmonics: Tensor, listed: Tensor, always: int, world_to_camera: Tensor,
    camera: list[float], time: float, options: list[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Splats (A, 12) and depths (A,) of the first `always` rows and of those `listed`."""
    model, antialiased, bands = options
    first = torch.arange(always, device=planes.device)
    rows = torch.cat([first, listed.long()])
    found = prepared_slice(planes[:, rows], time)
    colors = harmonics[rows, : 3 * bands**2].to(planes.dtype).reshape(-1, bands**2, 3)
    parts = [found.means, found.axes.flatten(1), found.opacities[:, None]]
    sane = torch.cat(parts, dim=1).isfinite().all(1)
    chosen = ProjectionOptions(model, False, bool(antialiased), bands)
    return project_axes(
        found.means, found.axes, found.opacities, colors, sane, world_to_camera, camera, chosen
    )
