"""Whole volume rendering of a grid field with its networks, as one operation: rays to pixels, and
for training rays and targets to the loss and every gradient.

On the CPU one C++ pass keeps a chunk of rays in cache from marching to compositing; on a GPU it is
a fixed sequence of kernels without a host sync. The definition is `reference/volume_step.py`.

Letters: N rays, C = 3 colors. Everything is in grid space (see fields/protocols.py).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.core.shapes import check_shapes

from . import volume_pipeline
from .build import cpu_library
from .dispatch import operation, pointer
from .grid import GridLayout
from .marching import MarchGrid
from .reference import volume_step as reference

GEOMETRY_WIDTH = 16
HARMONICS_WIDTH = 16


@dataclass(frozen=True)
class GridNetworks:
    """A grid encoding with a density and a color network: what the fused passes need of a field.

    Encoding -> density network -> 16 values, of which the first is the log of the density; those
    and 16 harmonics of the direction -> color network -> sigmoid.
    """

    layout: GridLayout
    table: Tensor
    """(entries, features) float32."""
    density_weights: Tensor
    """(P,) float32: layers in turn, each (output, input) row-major."""
    color_weights: Tensor
    """(Q,) float32, the same."""
    density_widths: tuple[int, ...]
    color_widths: tuple[int, ...]
    cascades: int
    """The encoding covers the cube of side 2^(cascades - 1) of grid space."""

    @property
    def parameters(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.table, self.density_weights, self.color_weights


@dataclass(frozen=True)
class VolumeSettings:
    """How rays are followed.

    Attributes:
        near, far: part of the ray that counts, in grid units.
        early_stop: a ray ends when its transmittance falls to this.
        max_samples_per_ray: no more are shaded on one ray.
        capacity: samples that a GPU pass has room for (rays beyond are left out); the CPU needs
            no limit.
    """

    near: float = 0.0
    far: float = 1e6
    early_stop: float = 1e-4
    max_samples_per_ray: int = 1024
    capacity: int = 2**18


@dataclass(frozen=True)
class LossSettings:
    """Mean over rays and channels of the squared error, or with `huber_delta` > 0 of the Huber
    loss (0.5 e^2 / delta inside, |e| - delta / 2 outside); plus `distortion_weight` times the
    mean distortion of the rays (Mip-NeRF 360, eq. 15).

    All gradients, not the loss, are multiplied by `gradient_scale`: a power of two about as large
    as the batch keeps those of single samples in the range of fp16. The optimizer divides by it.
    """

    huber_delta: float = 0.0
    distortion_weight: float = 0.0
    gradient_scale: float = 1.0


@dataclass(frozen=True)
class VolumePixels:
    """What rays see."""

    color: Tensor
    """(N, 3) sRGB, background included."""
    opacity: Tensor
    """(N,) 1 - transmittance."""
    distance: Tensor
    """(N,) sum of weights times distance, in grid units; divide by opacity for a mean."""
    counts: Tensor
    """(N,) int32, shaded samples."""


@dataclass(frozen=True)
class VolumeGradients:
    """Loss of a batch of rays and its gradients."""

    loss: Tensor
    """() float32, without the gradient scale."""
    squared_error: Tensor
    """() float32, mean over the rays that had room and over channels, without weights."""
    pixels: VolumePixels
    gain: Tensor
    """(N, 3) gradient by the gain of each ray, or empty where no gain was given."""
    wanted: Tensor
    """() int32: samples that all rays together ask room for."""


def _shape(networks: GridNetworks, grid: MarchGrid, settings: VolumeSettings) -> list[int]:
    layout = networks.layout
    return [
        layout.features,
        networks.density_widths[1],
        len(networks.density_widths) - 2,
        len(networks.color_widths) - 2,
        int(layout.smooth),
        settings.max_samples_per_ray,
        grid.resolution,
        grid.cascades,
        settings.capacity,
    ]


def _lengths(networks: GridNetworks, grid: MarchGrid, settings: VolumeSettings) -> list[float]:
    extent = float(2 ** (networks.cascades - 1))
    steps = [grid.minimum_step, grid.maximum_step, grid.cone]
    return [*steps, settings.near, settings.far, settings.early_stop, extent]


def volume_render(
    networks: GridNetworks,
    grid: MarchGrid,
    origins: Tensor,
    directions: Tensor,
    *,
    jitter: Tensor | None = None,
    background: Tensor | None = None,
    settings: VolumeSettings | None = None,
) -> VolumePixels:
    """Render rays; not differentiable.

    Args:
        origins, directions: (N, 3) float32 in grid space, directions of unit length.
        jitter: (N,) in [0, 1), where in its first step a ray starts; 0.5 when None.
        background: (N, 3) added behind rays that are not opaque, or None for black.
    """
    settings = settings or VolumeSettings()
    _check(origins, directions, jitter, background)
    out = _volume_render(
        *(p.detach() for p in networks.parameters),
        networks.layout.levels_tensor,
        grid.bits,
        grid.coarse,
        origins,
        directions,
        jitter,
        background,
        _shape(networks, grid, settings),
        _lengths(networks, grid, settings),
    )
    return VolumePixels(*out)


def volume_train(
    networks: GridNetworks,
    grid: MarchGrid,
    origins: Tensor,
    directions: Tensor,
    target: Tensor,
    gradients: tuple[Tensor, Tensor, Tensor],
    *,
    jitter: Tensor | None = None,
    background: Tensor | None = None,
    weight: Tensor | None = None,
    gain: Tensor | None = None,
    loss: LossSettings | None = None,
    settings: VolumeSettings | None = None,
) -> VolumeGradients:
    """Loss of rays against target colors; adds its gradients to `gradients`.

    Args:
        target: (N, 3) sRGB.
        gradients: buffers of the shapes of `networks.parameters`, float32; added to.
        weight: (N,) factor on each ray's loss, or None.
        gain: (N, 3) multiplies the rendered color before it is compared (exposure), or None.
        Others as `volume_render`.
    """
    settings, loss = settings or VolumeSettings(), loss or LossSettings()
    _check(origins, directions, jitter, background)
    check_shapes(("target", target, "N 3"), ("weight", weight, "N"), ("gain", gain, "N 3"))
    value, error, color, opacity, distance, counts, gain_gradient, wanted = _volume_train(
        *(p.detach() for p in networks.parameters),
        networks.layout.levels_tensor,
        grid.bits,
        grid.coarse,
        origins,
        directions,
        jitter,
        background,
        _shape(networks, grid, settings),
        _lengths(networks, grid, settings),
        target,
        weight,
        gain,
        *gradients,
        [loss.huber_delta, loss.distortion_weight, loss.gradient_scale],
    )
    pixels = VolumePixels(color, opacity, distance, counts)
    return VolumeGradients(value, error, pixels, gain_gradient, wanted)


def _check(
    origins: Tensor, directions: Tensor, jitter: Tensor | None, background: Tensor | None
) -> None:
    check_shapes(
        ("origins", origins, "N 3"),
        ("directions", directions, "N 3"),
        ("jitter", jitter, "N"),
        ("background", background, "N 3"),
    )


# ---- the CPU library


class _Model(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("table", "levels", "density", "color")],
        *[(name, ctypes.c_void_p) for name in ("bits", "coarse")],
        *[(name, ctypes.c_int32) for name in ("resolution", "cascades")],
        *[(name, ctypes.c_float) for name in ("minimum_step", "maximum_step", "cone")],
        *[(name, ctypes.c_float) for name in ("near", "far", "early_stop", "extent")],
        *[(name, ctypes.c_int32) for name in ("level_count", "features", "width")],
        *[(name, ctypes.c_int32) for name in ("density_layers", "color_layers")],
        *[(name, ctypes.c_int32) for name in ("smooth", "max_samples")],
    ]


_LOSS_FIELDS = ("huber_delta", "distortion_weight", "gradient_scale", "mean")


class _Loss(ctypes.Structure):
    _fields_ = [(name, ctypes.c_float) for name in _LOSS_FIELDS]


class _Outputs(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("color", "opacity", "distance", "counts")]


class _Targets(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("color", "weight", "gain", "gain_gradient")]


def _address(tensor: Tensor | None) -> ctypes.c_void_p | None:
    return None if tensor is None else pointer(tensor)


def _contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else t.contiguous().float() for t in tensors]


def _model(tensors: tuple[Tensor, ...], shape: list[int], lengths: list[float]) -> _Model:
    table, density, color, levels, bits, coarse = tensors
    features, width, density_layers, color_layers, smooth, samples, resolution, cascades, _ = shape
    minimum_step, maximum_step, cone, near, far, early_stop, extent = lengths
    return _Model(
        pointer(table),
        pointer(levels, torch.int32),
        pointer(density),
        pointer(color),
        pointer(bits, torch.uint8),
        pointer(coarse, torch.uint8),
        resolution,
        cascades,
        minimum_step,
        maximum_step,
        cone,
        near,
        far,
        early_stop,
        extent,
        len(levels),
        features,
        width,
        density_layers,
        color_layers,
        smooth,
        samples,
    )


def _pixels(rays: int, device: torch.device) -> VolumePixels:
    empty = torch.empty
    return VolumePixels(
        empty(rays, 3, device=device),
        empty(rays, device=device),
        empty(rays, device=device),
        empty(rays, dtype=torch.int32, device=device),
    )


def _outputs(pixels: VolumePixels) -> _Outputs:
    return _Outputs(
        pointer(pixels.color),
        pointer(pixels.opacity),
        pointer(pixels.distance),
        pointer(pixels.counts, torch.int32),
    )


Four = tuple[Tensor, Tensor, Tensor, Tensor]
Eight = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _render_cpu(
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
    tensors = (table, density_weights, color_weights, levels, bits, coarse)
    model = _model(tensors, shape, lengths)
    rays = _contiguous(origins, directions, jitter, background)
    pixels = _pixels(len(origins), origins.device)
    cpu_library().lg_volume_render(
        ctypes.byref(model),
        *map(_address, rays),
        ctypes.c_int64(len(origins)),
        ctypes.byref(_outputs(pixels)),
    )
    return pixels.color, pixels.opacity, pixels.distance, pixels.counts


def _train_cpu(
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
    tensors = (table, density_weights, color_weights, levels, bits, coarse)
    model = _model(tensors, shape, lengths)
    rays = _contiguous(origins, directions, jitter, background)
    given = _contiguous(target, weight, gain)
    gain_gradient = torch.zeros(len(origins) if gain is not None else 0, 3)
    by_gain = None if gain is None else gain_gradient
    targets = _Targets(*map(_address, [*given, by_gain]))
    pixels = _pixels(len(origins), origins.device)
    function = cpu_library().lg_volume_train
    function.restype = ctypes.c_double
    value = function(
        ctypes.byref(model),
        *map(_address, rays),
        ctypes.c_int64(len(origins)),
        ctypes.byref(targets),
        ctypes.byref(_Loss(*loss, 1 / max(3 * len(origins), 1))),
        ctypes.byref(_outputs(pixels)),
        pointer(table_gradient),
        pointer(density_gradient),
        pointer(color_gradient),
    )
    four = (pixels.color, pixels.opacity, pixels.distance, pixels.counts)
    wanted = pixels.counts.sum(dtype=torch.int32)
    compared = pixels.color if gain is None else pixels.color * gain
    error = (compared - target).square().sum() / max(target.numel(), 1)
    return torch.tensor(value, dtype=torch.float32), error, *four, gain_gradient, wanted


def _render_fake(table: Tensor, *rest: Tensor) -> Four:
    pixels = _pixels(len(rest[5]), table.device)
    return pixels.color, pixels.opacity, pixels.distance, pixels.counts


def _train_fake(table: Tensor, *rest: Tensor) -> Eight:
    gain = rest[13]
    count = 0 if gain is None else len(gain)
    wanted = table.new_empty((), dtype=torch.int32)
    gain_gradient = table.new_empty(count, 3)
    error = table.new_empty(())
    return table.new_empty(()), error, *_render_fake(table, *rest), gain_gradient, wanted


_MODEL_SCHEMA = (
    "Tensor table, Tensor density_weights, Tensor color_weights, Tensor levels, Tensor bits, "
    "Tensor coarse, Tensor origins, Tensor directions, Tensor? jitter, Tensor? background, "
    "int[] shape, float[] lengths"
)
_volume_render = operation(
    f"volume_render({_MODEL_SCHEMA}) -> (Tensor, Tensor, Tensor, Tensor)",
    reference=reference.volume_render,
    cpu=_render_cpu,
    cuda=volume_pipeline.volume_render,
    fake=_render_fake,
)
_volume_train = operation(
    f"volume_train({_MODEL_SCHEMA}, Tensor target, Tensor? weight, Tensor? gain, "
    "Tensor(a!) table_gradient, Tensor(b!) density_gradient, Tensor(c!) color_gradient, "
    "float[] loss) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=reference.volume_train,
    cpu=_train_cpu,
    cuda=volume_pipeline.volume_train,
    fake=_train_fake,
)
