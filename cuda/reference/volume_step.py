"""Volume rendering of a grid field with its networks in plain torch: what the fused passes must
compute, with gradients by autograd.

    samples of a ray (reference/marching.py): positions p_i, distances t_i, steps dt_i
    e_i = grid(p_i)    o_i = density network(e_i)    sigma_i = exp(min(o_i0, 15))
    c_i = sigmoid(color network([o_i, harmonics(d)]))
    T_i = exp(-sum_{k<i} sigma_k dt_k), cut to 0 from the first i on where T_i <= early_stop
    w_i = T_i (1 - exp(-sigma_i dt_i))
    C = sum_i w_i c_i + T background (left out where T <= early_stop)
    loss = mean over rays and channels of weight * value(gain C - target), value e^2 or Huber
         + distortion_weight * mean over rays of weight-free distortion
           sum_ij w_i w_j |t_i - t_j| + sum_i w_i^2 dt_i / 3

Layout of `shape` and `lengths`: see `Model`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .grid import grid_forward
from .harmonics import harmonics_forward
from .marching import Lattice, march_rays
from .mlp import mlp

ALL_SAMPLES = 2**31 - 1
GEOMETRY_WIDTH, HARMONICS_DEGREE = 16, 4
HARMONICS_WIDTH = HARMONICS_DEGREE**2


@dataclass(frozen=True)
class Model:
    """The arguments of the operations by name."""

    levels: Tensor
    bits: Tensor
    shape: list[int]
    """features, width, density layers, color layers, smooth, most samples of a ray, G, K,
    capacity (ignored here)."""
    lengths: list[float]
    """minimum step, maximum step, cone, near, far, early stop, extent of the encoding."""

    @property
    def density_widths(self) -> list[int]:
        features, width, layers = self.shape[0], self.shape[1], self.shape[2]
        return [len(self.levels) * features, *[width] * layers, GEOMETRY_WIDTH]

    @property
    def color_widths(self) -> list[int]:
        return [GEOMETRY_WIDTH + HARMONICS_WIDTH, *[self.shape[1]] * self.shape[3], 3]


@dataclass(frozen=True)
class Shaded:
    """Results of rays (N,), and of their samples padded to (N, S)."""

    color: Tensor
    opacity: Tensor
    distance: Tensor
    counts: Tensor
    weights: Tensor
    distances: Tensor
    steps: Tensor


def _march(
    model: Model, origins: Tensor, directions: Tensor, jitter: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Positions (M, 3), distances, steps, and each sample's ray and place on it."""
    each = origins.new_full
    rays = (len(origins),)
    minimum, maximum, cone, near, far = model.lengths[:5]
    most, resolution, cascades = model.shape[5:8]
    positions, distances, steps, ray, offsets, _ = march_rays(
        origins,
        directions,
        model.bits,
        jitter=each(rays, 0.5) if jitter is None else jitter,
        near=each(rays, near),
        far=each(rays, far),
        sizes=(resolution, cascades, ALL_SAMPLES, most),
        lattice=Lattice(minimum, maximum, cone),
    )
    ray = ray.long()
    place = torch.arange(len(ray), device=ray.device) - offsets[ray, 0].long()
    return positions, distances, steps, ray, place


def shade(
    model: Model,
    parameters: tuple[Tensor, Tensor, Tensor],
    origins: Tensor,
    directions: Tensor,
    jitter: Tensor | None,
    background: Tensor | None,
) -> Shaded:
    """Rays to pixels, differentiable by the parameters."""
    table, density_weights, color_weights = parameters
    positions, distances, steps, ray, place = _march(model, origins, directions, jitter)
    early_stop, extent = model.lengths[5:7]
    unit = ((positions - 0.5) / extent + 0.5).clamp(0, 1)
    encoded = grid_forward(unit, table, model.levels, bool(model.shape[4]), False)
    geometry = mlp(encoded, density_weights, model.density_widths)
    harmonics = harmonics_forward(directions, HARMONICS_DEGREE)[ray].to(geometry)
    inputs = torch.cat([geometry, harmonics], dim=1)
    color = mlp(inputs, color_weights, model.color_widths, output_activation="sigmoid")
    depth = torch.exp(geometry[:, 0].clamp(max=15.0)) * steps

    longest = int(place.max()) + 1 if len(place) else 0
    padded = geometry.new_zeros(len(origins), longest)
    depth, distances, steps = (
        padded.index_put((ray, place), value.to(padded)) for value in (depth, distances, steps)
    )
    color = padded.new_zeros(*padded.shape, 3).index_put((ray, place), color)
    exists = padded.index_put((ray, place), torch.ones_like(place, dtype=padded.dtype)) > 0
    before = torch.exp(-(depth.cumsum(1) - depth))
    shaded = exists & (before > early_stop)
    weights = torch.where(shaded, before * (1 - torch.exp(-depth)), 0)
    remaining = torch.exp(-(depth * shaded).sum(1))
    pixel = (weights[..., None] * color).sum(1)
    if background is not None:
        behind = remaining * (remaining > early_stop)
        pixel = pixel + behind[:, None] * background
    return Shaded(
        pixel,
        1 - remaining,
        (weights * distances).sum(1),
        shaded.sum(1).int(),
        weights,
        distances,
        steps,
    )


def distortion(weights: Tensor, distances: Tensor, steps: Tensor) -> Tensor:
    """(N,) from padded samples (N, S); quadratic in S, as the definition reads."""
    apart = (distances[:, :, None] - distances[:, None, :]).abs()
    pairs = (weights[:, :, None] * weights[:, None, :] * apart).sum((1, 2))
    return pairs + (weights**2 * steps).sum(1) / 3


def volume_render(
    table: Tensor,
    density_weights: Tensor,
    color_weights: Tensor,
    levels: Tensor,
    bits: Tensor,
    coarse: Tensor,
    origins: Tensor,
    directions: Tensor,
    jitter: Tensor | None,
    background: Tensor | None,
    shape: list[int],
    lengths: list[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """color (N, 3), opacity, distance, counts (N,)."""
    model = Model(levels, bits, shape, lengths)
    parameters = (table, density_weights, color_weights)
    result = shade(model, parameters, origins, directions, jitter, background)
    return result.color, result.opacity, result.distance, result.counts


def volume_train(
    table: Tensor,
    density_weights: Tensor,
    color_weights: Tensor,
    levels: Tensor,
    bits: Tensor,
    coarse: Tensor,
    origins: Tensor,
    directions: Tensor,
    jitter: Tensor | None,
    background: Tensor | None,
    shape: list[int],
    lengths: list[float],
    target: Tensor,
    weight: Tensor | None,
    gain: Tensor | None,
    table_gradient: Tensor,
    density_gradient: Tensor,
    color_gradient: Tensor,
    loss: list[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The loss, the mean squared error, what `volume_render` returns, the gradient of `gain`, and
    the number of samples; gradients of the parameters are added to the three buffers. `loss`:
    Huber delta, distortion weight, factor on all gradients."""
    model = Model(levels, bits, shape, lengths)
    with torch.enable_grad():
        leaves = [p.detach().requires_grad_() for p in (table, density_weights, color_weights)]
        factor = torch.ones_like(target) if gain is None else gain.detach().clone()
        factor.requires_grad_()
        result = shade(
            model, (leaves[0], leaves[1], leaves[2]), origins, directions, jitter, background
        )
        error = factor * result.color - target
        delta, distortion_weight, scale = loss
        if delta > 0:
            zero = torch.zeros_like(error)
            value = torch.nn.functional.huber_loss(error, zero, reduction="none", delta=delta)
            value = value / delta
        else:
            value = error**2
        if weight is not None:
            value = value * weight[:, None]
        total = value.sum() / max(value.numel(), 1)
        if distortion_weight > 0:
            each = distortion(result.weights, result.distances, result.steps)
            total = total + distortion_weight * each.sum() / max(len(each), 1)
        gradients = torch.autograd.grad(scale * total, [*leaves, factor], allow_unused=True)
    for buffer, gradient in zip(
        (table_gradient, density_gradient, color_gradient), gradients, strict=False
    ):
        if gradient is not None:
            buffer += gradient
    by_gain = gradients[3] if gain is not None else target.new_empty(0, 3)
    assert by_gain is not None
    color, opacity, distance = (p.detach() for p in (result.color, result.opacity, result.distance))
    wanted = result.counts.sum(dtype=torch.int32)
    value = total.detach().to(table.dtype)
    squared = error.detach().square().sum() / max(error.numel(), 1)
    return value, squared, color, opacity, distance, result.counts, by_gain, wanted
