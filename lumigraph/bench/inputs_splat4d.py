"""Seeded Gaussians in space and time of `lumigraph bench splat4d`.

What stands where, and its colors, is that of `inputs_splat`. Lives are made up after what training
on multi-camera video (N3V: 300 frames in 10 s, here the times 0 to 1) leaves:

| share | lives | standard deviation in time | speed, scene units a clip |
| --- | --- | --- | --- |
| 50 % | still | 1000 clips: never fade | 0 |
| 15 % | long | 0.1 to 1 clip, evenly in its logarithm | 0.2, normal in each direction |
| 35 % | short | 2 to 20 frames, evenly in its logarithm | 1, normal in each direction |

Centres in time are even over the clip and a twentieth on both sides. A picture then has two thirds
of all Gaussians in it. All numbers are drawn on the CPU from a seed.

Letters: G Gaussians.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lumigraph.core.gaussian_cloud import GaussianCloud
from lumigraph.core.gaussian_cloud4d import STILL_DURATION, GaussianCloud4D
from lumigraph.core.rotors import rotor_from_quaternion, rotor_from_rotation
from lumigraph.core.transforms import rotation_from_quaternion

from .inputs import generator_of
from .inputs_splat import GaussianInputs, gaussian_blob, gaussian_scene

FRAMES = 300
STILL_SHARE, LONG_SHARE = 0.5, 0.15  # the rest lives short
LONG_LIVES = (0.1, 1.0)  # clips
SHORT_LIVES = (2 / FRAMES, 20 / FRAMES)
LONG_SPEED, SHORT_SPEED = 0.2, 1.0
OUTSIDE = 0.05  # of the clip, on both sides


def moving_scene(count: int, *, seed: int = 1) -> GaussianCloud4D:
    """`gaussian_scene(count, seed)` with the lives above."""
    return _living(gaussian_scene(count, seed=seed), generator_of(100 + seed))


def moving_blob(count: int, *, seed: int = 0, endless: bool = False) -> GaussianCloud4D:
    """`gaussian_blob(count, seed)` with the lives above; `endless`: all of it moves and none fades,
    so that pictures hold as much as those of the blob."""
    return _living(gaussian_blob(count, seed=seed), generator_of(200 + seed), endless=endless)


def _living(
    inputs: GaussianInputs, generator: torch.Generator, *, endless: bool = False
) -> GaussianCloud4D:
    count, raw = len(inputs.means), inputs.raw()
    kind = torch.rand(count, generator=generator)
    still, long = kind < STILL_SHARE, (kind - STILL_SHARE < LONG_SHARE) & (kind >= STILL_SHARE)
    even = torch.rand(count, generator=generator)
    durations = torch.where(long, _between(LONG_LIVES, even), _between(SHORT_LIVES, even))
    speeds = torch.where(long, LONG_SPEED, SHORT_SPEED)[:, None]
    velocities = speeds * torch.randn(count, 3, generator=generator)
    times = (1 + 2 * OUTSIDE) * torch.rand(count, generator=generator) - OUTSIDE
    if endless:
        still, durations = torch.zeros_like(still), torch.full_like(durations, 10.0)
        velocities = 0.02 * velocities
    rotors = rotor_from_quaternion(raw.rotations)
    log_scales = torch.cat([raw.scales, torch.full((count, 1), math.log(STILL_DURATION))], dim=1)
    turned = _sheared(inputs, durations, velocities, ~still)
    rotors[~still], log_scales[~still] = turned
    return GaussianCloud4D(
        raw.means, times, rotors, log_scales, raw.opacities, raw.harmonics.contiguous()
    )


def _between(ends: tuple[float, float], even: Tensor) -> Tensor:
    low, high = map(math.log, ends)
    return (low + (high - low) * even).exp()


def _sheared(
    inputs: GaussianInputs, durations: Tensor, velocities: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Rotors and log scales of Gaussians of given shape, duration and velocity: the covariance is
    [[shape + v v^T W, v W], [v^T W, W]], of which rotation and lengths are read."""
    axes = rotation_from_quaternion(inputs.rotations[rows]).double() * inputs.scales[rows, None]
    root = torch.zeros(len(axes), 4, 4, dtype=torch.float64)
    root[:, :3, :3] = axes
    root[:, :3, 3] = velocities[rows] * durations[rows, None]
    root[:, 3, 3] = durations[rows]
    turn, lengths, _ = torch.linalg.svd(root)
    turn[:, :, 0] *= torch.linalg.det(turn).sign()[:, None]
    return rotor_from_rotation(turn).float(), lengths.log().float()


def static_equivalent(cloud: GaussianCloud4D, time: float) -> GaussianCloud:
    """The Gaussians in space that look the same at a time."""
    from lumigraph.fields import Gaussians4D

    return GaussianCloud(*Gaussians4D(cloud).gaussians_at(time))
