"""Compositing packed samples along rays in plain torch: what the compositing kernels must compute.

For the samples i of one ray, near to far, with density s_i, step d_i, distance t_i and color c_i:

    T_i = exp(-sum_{j < i} s_j d_j)                transmittance in front of sample i
    w_i = T_i (1 - exp(-s_i d_i))                  weight, 0 where T_i < early_stop
    color    = sum_i w_i c_i + T b                 background b, T behind the last sample,
                                                   left out where T < early_stop
    opacity  = sum_i w_i
    depth    = sum_i w_i t_i                       divide by opacity for the mean distance
    distortion = sum_ij w_i w_j |t_i - t_j| + 1/3 sum_i w_i^2 d_i

Gradients: with v_i the derivative of the loss by w_i where the weights are taken as independent
(for the distortion 2 sum_j w_j |t_i - t_j| + 2/3 w_i d_i), and v_b = dL/dcolor . b,

    dL/ds_i = d_i (T_{i+1} v_i - sum_{j > i} w_j v_j - T v_b)

and 0 for samples that were left out. The stop is a choice, not differentiated.

Sources: volume rendering, Max 1995; distortion, Mip-NeRF 360, Barron et al. 2022, eq. 15.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Dense(NamedTuple):
    """Packed samples laid out as one row a ray."""

    place: Tensor  # (N, S) sample of each slot; 0 for the unused
    used: Tensor  # (N, S) slots that hold a sample

    def spread(self, packed: Tensor) -> Tensor:
        """(M, ...) to (N, S, ...), zeros in unused slots."""
        if not len(packed):
            return packed.new_zeros(*self.place.shape, *packed.shape[1:])
        used = self.used.reshape(*self.used.shape, *[1] * (packed.dim() - 1))
        values = packed[self.place]
        return torch.where(used, values, torch.zeros_like(values))

    def pack(self, rows: Tensor, samples: int) -> Tensor:
        """(N, S) back to (M,), zeros for samples of no ray."""
        packed = rows.new_zeros(samples)
        return packed.index_put((self.place[self.used],), rows[self.used])


def dense_layout(ray_offsets: Tensor) -> Dense:
    start, count = ray_offsets.long().unbind(1)
    slots = int(count.max()) if len(count) else 0
    slot = torch.arange(slots, device=ray_offsets.device)
    used = slot < count[:, None]
    return Dense(
        (start[:, None] + slot).where(used, torch.zeros_like(used, dtype=torch.long)), used
    )


def weights_of(
    density: Tensor, steps: Tensor, early_stop: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of rows (N, S): weights, transmittance behind each sample, that behind the last sample that
    counts (N,), and which samples count."""
    thickness = density * steps
    behind = torch.exp(-thickness.cumsum(1))
    ones = behind.new_ones(len(behind), 1)
    before = torch.cat([ones, behind], 1)[:, :-1]
    counts = before.detach() >= early_stop
    weights = torch.where(counts, before * -torch.expm1(-thickness), torch.zeros_like(before))
    last = counts.sum(1, keepdim=True)
    final = torch.cat([ones, behind], 1).gather(1, last)[:, 0]
    return weights, behind, final, counts


def distortion_of(weights: Tensor, distances: Tensor, steps: Tensor) -> Tensor:
    """(N,) for rows (N, S) with distances that do not fall. O(S) with running sums."""
    weight_before = weights.cumsum(1) - weights
    moment = weights * distances
    moment_before = moment.cumsum(1) - moment
    pairs = 2 * (weights * (distances * weight_before - moment_before)).sum(1)
    return pairs + (weights.square() * steps).sum(1) / 3


Seven = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def composite(
    density: Tensor,
    color: Tensor,
    distances: Tensor,
    steps: Tensor,
    ray_offsets: Tensor,
    background: Tensor | None,
    early_stop: float,
    distortion: bool,
) -> Seven:
    """Color (N, 3), opacity, depth, distortion (N,), weights (M,), final transmittance (N,), and
    how many samples of each ray count (N,) int32. Differentiable by density, color, background."""
    layout = dense_layout(ray_offsets)
    length = layout.spread(steps)
    weights, _, final, counts = weights_of(layout.spread(density), length, early_stop)
    distance = layout.spread(distances)
    pixel = (weights[..., None] * layout.spread(color)).sum(1)
    if background is not None:
        rest = torch.where(final.detach() >= early_stop, final, torch.zeros_like(final))
        pixel = pixel + rest[:, None] * background
    spread = weights.new_zeros(len(ray_offsets))
    if distortion:
        spread = distortion_of(weights, distance, length)
    return (
        pixel,
        weights.sum(1),
        (weights * distance).sum(1),
        spread,
        layout.pack(weights, len(density)),
        final,
        (counts & layout.used).sum(1).int(),
    )


def composite_backward(
    gradients: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    density: Tensor,
    color: Tensor,
    distances: Tensor,
    steps: Tensor,
    ray_offsets: Tensor,
    background: Tensor | None,
    early_stop: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by density (M,), color (M, 3) and background (N, 3), from those by color, opacity,
    depth, distortion and weights."""
    d_color, d_opacity, d_depth, d_distortion, d_weights = gradients
    layout = dense_layout(ray_offsets)
    length, distance = layout.spread(steps), layout.spread(distances)
    weights, behind, final, counts = weights_of(layout.spread(density), length, early_stop)
    rest = torch.where(final >= early_stop, final, torch.zeros_like(final))
    rate = (layout.spread(color) * d_color[:, None]).sum(2) + d_opacity[:, None]
    rate = rate + d_depth[:, None] * distance + layout.spread(d_weights)
    apart = (distance[:, :, None] - distance[:, None, :]).abs()
    by_weight = 2 * (apart * weights[:, None]).sum(2) + weights * length * (2 / 3)
    rate = rate + d_distortion[:, None] * by_weight
    value = weights * rate
    later = value.flip(1).cumsum(1).flip(1) - value
    if background is not None:
        later = later + (rest * (d_color * background).sum(1))[:, None]
    d_density = length * (behind * rate - later)
    d_density = torch.where(counts, d_density, torch.zeros_like(d_density))
    packed = [layout.pack(weights * d_color[:, None, c], len(density)) for c in range(3)]
    return (
        layout.pack(d_density, len(density)),
        torch.stack(packed, 1),
        rest[:, None] * d_color,
    )
