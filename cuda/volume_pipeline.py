"""The fused volume passes of `volume_step` on a GPU: a fixed sequence of kernels over padded
buffers, without a host sync. Also runs on the emulator.

Encoding and networks work in fp16 with fp32 sums; gradients of the table and the weights are fp32.
Padding belongs to no ray, so compositing gives it no weight and no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .compositing import Composite, composite
from .grid import grid_forward
from .harmonics import harmonics_encode
from .marching import MarchedSamples, MarchGrid, march_rays, march_rays_padded
from .mlp import mlp_forward

GEOMETRY_WIDTH, HARMONICS_DEGREE = 16, 4
MAX_LOG_DENSITY = 15.0
AUTOMATIC_SCALE = 0.0  # of the networks' fp16 gradients: chosen from their largest entry

Four = tuple[Tensor, Tensor, Tensor, Tensor]


def _no_pixels(like: Tensor) -> Four:
    count = like.new_zeros(0, dtype=torch.int32)
    return like.new_zeros(0, 3), like.new_zeros(0), like.new_zeros(0), count


@dataclass(frozen=True)
class _Model:
    levels: Tensor
    grid: MarchGrid
    density_widths: list[int]
    color_widths: list[int]
    smooth: bool
    most: int
    capacity: int
    near: float
    far: float
    early_stop: float
    extent: float


def _model(
    levels: Tensor, bits: Tensor, coarse: Tensor, shape: list[int], lengths: list[float]
) -> _Model:
    features, width, density_layers, color_layers, smooth, most, resolution, cascades, room = shape
    minimum, maximum, cone, near, far, early_stop, extent = lengths
    return _Model(
        levels=levels,
        grid=MarchGrid(bits, coarse, resolution, cascades, minimum, maximum, cone),
        density_widths=[len(levels) * features, *[width] * density_layers, GEOMETRY_WIDTH],
        color_widths=[GEOMETRY_WIDTH + HARMONICS_DEGREE**2, *[width] * color_layers, 3],
        smooth=bool(smooth),
        most=most,
        capacity=room,
        near=near,
        far=far,
        early_stop=early_stop,
        extent=extent,
    )


def _shade(
    model: _Model,
    parameters: tuple[Tensor, Tensor, Tensor],
    samples: MarchedSamples,
    directions: Tensor,
    background: Tensor | None,
    distortion: bool,
) -> Composite:
    table, density_weights, color_weights = parameters
    unit = (samples.positions - 0.5) / model.extent + 0.5
    encoded = grid_forward(unit, table, model.levels, model.smooth, True)
    geometry = mlp_forward(
        encoded, density_weights, model.density_widths, "none", True, AUTOMATIC_SCALE
    )
    harmonics = harmonics_encode(directions, HARMONICS_DEGREE).half()
    toward = harmonics.index_select(0, samples.ray_indices.clamp_min(0))
    color = mlp_forward(
        torch.cat([geometry, toward], dim=1),
        color_weights,
        model.color_widths,
        "sigmoid",
        False,
        AUTOMATIC_SCALE,
    )
    density = torch.exp(geometry[:, 0].float().clamp(max=MAX_LOG_DENSITY))
    return composite(
        density,
        color,
        samples.distances,
        samples.steps,
        samples.ray_offsets,
        background=background,
        early_stop=model.early_stop,
        distortion=distortion,
    )


def _pixels(result: Composite) -> Four:
    return result.color.detach(), result.opacity.detach(), result.depth.detach(), result.counts


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
) -> Four:
    """Rays in as many passes as the room for samples asks for."""
    if not len(origins):
        return _no_pixels(origins)
    model = _model(levels, bits, coarse, shape, lengths)
    parameters = (table, density_weights, color_weights)
    parts: list[Four] = []
    begin = 0
    while begin < len(origins):
        rest = [None if t is None else t[begin:] for t in (origins, directions, jitter, background)]
        assert rest[0] is not None and rest[1] is not None
        samples = march_rays(
            rest[0],
            rest[1],
            model.grid,
            jitter=rest[2],
            near=model.near,
            far=model.far,
            max_samples=max(model.capacity, model.most),
            max_samples_per_ray=model.most,
        )
        fitted = int(samples.counter[2])  # the room holds at least one ray
        part = samples._replace(ray_offsets=samples.ray_offsets[:fitted])
        behind = None if rest[3] is None else rest[3][:fitted]
        result = _shade(model, parameters, part, rest[1][:fitted], behind, False)
        parts.append(_pixels(result))
        begin += max(fitted, 1)
    color, opacity, distance, counts = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return color, opacity, distance, counts


def _loss(
    color: Tensor, target: Tensor, weight: Tensor | None, loss: list[float], spread: Tensor | None
) -> Tensor:
    delta, distortion_weight = loss
    if delta > 0:
        value = torch.nn.functional.huber_loss(color, target, reduction="none", delta=delta) / delta
    else:
        value = (color - target).square()
    if weight is not None:
        value = value * weight[:, None]
    total = value.sum() / max(value.numel(), 1)
    if spread is not None:
        total = total + distortion_weight * spread.sum() / max(len(spread), 1)
    return total


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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One padded pass; rays without room have no samples, so they give no gradient."""
    if not len(origins):
        return origins.new_zeros(()), *_no_pixels(origins), origins.new_zeros(0, 3)
    model = _model(levels, bits, coarse, shape, lengths)
    samples = march_rays_padded(
        origins,
        directions,
        model.grid,
        jitter=jitter,
        near=model.near,
        far=model.far,
        max_samples=model.capacity,
        max_samples_per_ray=model.most,
    )
    with torch.enable_grad():
        leaves = [p.detach().requires_grad_() for p in (table, density_weights, color_weights)]
        factor = None if gain is None else gain.detach().requires_grad_()
        parameters = (leaves[0], leaves[1], leaves[2])
        result = _shade(model, parameters, samples, directions, background, loss[1] > 0)
        color = result.color if factor is None else factor * result.color
        total = _loss(color, target, weight, loss, result.distortion)
        wanted = leaves if factor is None else [*leaves, factor]
        gradients = torch.autograd.grad(total, wanted)
    for buffer, gradient in zip(
        (table_gradient, density_gradient, color_gradient), gradients, strict=False
    ):
        buffer.add_(gradient)
    by_gain = gradients[3] if factor is not None else target.new_empty(0, 3)
    return total.detach(), *_pixels(result), by_gain
