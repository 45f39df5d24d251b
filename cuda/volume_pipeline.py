"""The fused volume passes of `volume_step` on a GPU: a fixed sequence of kernels over padded
buffers, without a host sync. Also runs on the emulator.

The kernels are called directly, not through autograd: a step of this size is bound by what each
launch costs the host. Encoding and networks work in fp16 with fp32 sums; gradients of the table
and the weights are fp32. Padding belongs to no ray, so compositing gives it no weight and no
gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from . import compositing, grid
from .marching import MarchedSamples, MarchGrid, march_rays, march_rays_padded
from .mlp_launch import Network, launch_backward, launch_forward
from .runtime import kernel

GEOMETRY_WIDTH, HARMONICS_WIDTH = 16, 16
BLOCK = 256  # threads, as in kernels/volume.cu
HAS_WEIGHT, HAS_GAIN = 1, 2  # the same
SCALED_BY_CALLER = 1.0  # the networks' gradients carry the caller's scale

Four = tuple[Tensor, Tensor, Tensor, Tensor]
Seven = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
Eight = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _no_pixels(like: Tensor) -> Four:
    count = like.new_zeros(0, dtype=torch.int32)
    return like.new_zeros(0, 3), like.new_zeros(0), like.new_zeros(0), count


def _launch(name: str, elements: int, *arguments: Tensor | int | float) -> None:
    kernel("volume.cu", name)((-(-elements // BLOCK),), (BLOCK,), *arguments)


@dataclass(frozen=True)
class _Model:
    levels: Tensor
    grid: MarchGrid
    density: Network
    color: Network
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
        density=Network(
            (len(levels) * features, *[width] * density_layers, GEOMETRY_WIDTH), "none"
        ),
        color=Network((GEOMETRY_WIDTH + HARMONICS_WIDTH, *[width] * color_layers, 3), "sigmoid"),
        smooth=bool(smooth),
        most=most,
        capacity=room,
        near=near,
        far=far,
        early_stop=early_stop,
        extent=extent,
    )


class _Samples(NamedTuple):
    """Samples with all that the backward reads again."""

    marched: MarchedSamples
    unit: Tensor
    encoded: Tensor
    geometry: Tensor
    inputs: Tensor
    density: Tensor
    color: Tensor


def _evaluate(
    model: _Model,
    parameters: tuple[Tensor, Tensor, Tensor],
    marched: MarchedSamples,
    directions: Tensor,
) -> _Samples:
    table, density_weights, color_weights = parameters
    unit = marched.positions
    if model.extent != 1:
        unit = (unit - 0.5) / model.extent + 0.5
    encoded = grid.encode_cuda(unit, table, model.levels, smooth=model.smooth, half=True)
    geometry = launch_forward(model.density, encoded, density_weights, half=True)
    count = len(geometry)
    inputs = geometry.new_empty(count, GEOMETRY_WIDTH + HARMONICS_WIDTH)
    density = geometry.new_empty(count, dtype=torch.float32)
    _launch(
        *("volume_inputs", count, geometry, marched.ray_indices, directions),
        *(inputs, density, count),
    )
    color = launch_forward(model.color, inputs, color_weights, half=False)
    return _Samples(marched, unit, encoded, geometry, inputs, density, color)


def _composite(
    model: _Model, samples: _Samples, background: Tensor | None, distortion: bool
) -> Seven:
    marched = samples.marched
    return compositing.composite_cuda(
        *(samples.density, samples.color, marched.distances, marched.steps),
        *(marched.ray_offsets, background, model.early_stop, distortion),
    )


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
        evaluated = _evaluate(model, parameters, part, rest[1])
        result = _composite(model, evaluated, behind, False)
        parts.append((result[0], result[1], result[2], result[6]))
        begin += max(fitted, 1)
    color, opacity, distance, counts = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return color, opacity, distance, counts


def _loss_gradient(
    color: Tensor,
    target: Tensor,
    weight: Tensor | None,
    gain: Tensor | None,
    counter: Tensor,
    loss: list[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss without distortion and mean squared error (2,), and the scaled gradients of the loss by
    the pixels and by the gain."""
    rays, (delta, _, scale) = len(color), loss
    totals, color_gradient = color.new_zeros(2), torch.empty_like(color)
    gain_gradient = color.new_empty(rays if gain is not None else 0, 3)
    options = HAS_WEIGHT * (weight is not None) | HAS_GAIN * (gain is not None)
    filler = color  # stands for what is not there; never read
    _launch(
        *("volume_loss", rays, color, target),
        *(filler if weight is None else weight, filler if gain is None else gain),
        *(color_gradient, gain_gradient if gain is not None else filler, totals),
        *(counter, rays, options, float(delta), float(scale)),
    )
    return totals, color_gradient, gain_gradient


def _networks_backward(
    model: _Model,
    parameters: tuple[Tensor, Tensor, Tensor],
    samples: _Samples,
    by_color: Tensor,
    by_density: Tensor,
    gradients: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Adds to `gradients` of table, density weights and color weights."""
    _, density_weights, color_weights = parameters
    by_inputs, by_color_weights = launch_backward(
        model.color,
        (by_color, samples.inputs, color_weights, samples.color),
        need_x=True,
        need_weights=True,
        gradient_scale=SCALED_BY_CALLER,
    )
    by_geometry = torch.empty_like(samples.geometry)
    count = len(by_geometry)
    _launch(
        *("volume_geometry", count, by_inputs, samples.geometry, samples.density, by_density),
        *(by_geometry, count),
    )
    by_encoded, by_density_weights = launch_backward(
        model.density,
        (by_geometry, samples.encoded, density_weights, samples.geometry),
        need_x=True,
        need_weights=True,
        gradient_scale=SCALED_BY_CALLER,
    )
    grid.add_table_gradient_cuda(
        samples.unit, by_encoded, model.levels, gradients[0], smooth=model.smooth
    )
    gradients[1].add_(by_density_weights)
    gradients[2].add_(by_color_weights)


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
) -> Eight:
    """One padded pass; rays without room have no samples, so they give no gradient."""
    if not len(origins):
        nothing = torch.zeros((), dtype=torch.int32, device=origins.device)
        zero = origins.new_zeros(())
        return zero, zero.clone(), *_no_pixels(origins), origins.new_zeros(0, 3), nothing
    model = _model(levels, bits, coarse, shape, lengths)
    marched = march_rays_padded(
        origins,
        directions,
        model.grid,
        jitter=jitter,
        near=model.near,
        far=model.far,
        max_samples=model.capacity,
        max_samples_per_ray=model.most,
    )
    parameters = (table, density_weights, color_weights)
    samples = _evaluate(model, parameters, marched, directions)
    distortion = loss[1] > 0
    result = _composite(model, samples, background, distortion)
    color, opacity, distance, spread, weights, final, counts = result
    totals, by_pixel, by_gain = _loss_gradient(color, target, weight, gain, marched.counter, loss)
    total, error = totals.unbind()
    by_spread = None
    if distortion:
        total = total + loss[1] * spread.mean()
        by_spread = torch.full_like(opacity, loss[1] * loss[2] / len(opacity))
    by_density, by_color, _ = compositing.composite_backward_cuda(
        [by_pixel, None, None, by_spread, None],
        [opacity, weights, final, counts],
        *(samples.density, samples.color, marched.distances, marched.steps),
        *(marched.ray_offsets, background, model.early_stop, False),
    )
    gradients = (table_gradient, density_gradient, color_gradient)
    _networks_backward(model, parameters, samples, by_color, by_density, gradients)
    return total, error, color, opacity, distance, counts, by_gain, marched.counter[1]
