"""Compositing packed samples along rays: densities and colors of samples to pixels.

Letters: N rays, M samples. Equations and gradients stand in `reference/compositing.py`.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.core.shapes import check_shapes
from lumigraph.cuda.build import cpu_library
from lumigraph.cuda.dispatch import library, operation, pointer
from lumigraph.cuda.reference import compositing as reference
from lumigraph.cuda.runtime import kernel

__all__ = ["Composite", "composite"]

BLOCK = 128  # threads
LANES = 8  # LG_LANES of kernels/compositing.cu
HAS_BACKGROUND, WANTS_DISTORTION, WANTS_BACKGROUND_GRADIENT = 1, 2, 2  # the same
FIRST_GRADIENT_BIT = 2  # BY_COLOR = 4, then doubling

Seven = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
Three = tuple[Tensor, Tensor, Tensor]


class Composite(NamedTuple):
    """What rays see."""

    color: Tensor
    """(N, 3), background included."""
    opacity: Tensor
    """(N,) sum of the weights, 1 - transmittance."""
    depth: Tensor
    """(N,) sum of weight times distance; divide by opacity for the mean distance."""
    distortion: Tensor | None
    """(N,) how far apart along the ray its light comes from, or None."""
    weights: Tensor
    """(M,) part of each sample in its pixel; 0 behind the early stop and for padding."""
    counts: Tensor
    """(N,) int32, samples of each ray in front of the early stop."""


def composite(
    density: Tensor,
    color: Tensor,
    distances: Tensor,
    steps: Tensor,
    ray_offsets: Tensor,
    *,
    background: Tensor | None = None,
    early_stop: float = 1e-4,
    distortion: bool = False,
) -> Composite:
    """Blend samples, front to back.

    Args:
        density: (M,) per unit of length, not negative. A NaN spoils its own ray only.
        color: (M, 3).
        distances: (M,) along the ray, near to far within a ray.
        steps: (M,) length that each sample stands for.
        ray_offsets: (N, 2) int, first sample and number of samples; samples of no ray are padding.
        background: (N, 3) or (3,), seen through what is left of the transmittance; None is black.
        early_stop: samples with a transmittance in front of them below this are left out, and so
            is the background. 0: never.
        distortion: compute it (Mip-NeRF 360, eq. 15, on distances as given).

    Returns:
        All but counts are differentiable by density, color and background. With density and
        color in float64 the plain torch twin runs, for checks.

    Raises:
        InputError: shapes that do not fit, or (CPU) offsets that point outside the samples.

    Example:
        >>> offsets = torch.tensor([[0, 2]])
        >>> t, step = torch.tensor([1.0, 1.5]), torch.tensor([0.5, 0.5])
        >>> out = composite(torch.tensor([0.0, 1e3]), torch.eye(3)[:2], t, step, offsets)
        >>> out.color.tolist(), out.depth.tolist()
        ([[0.0, 1.0, 0.0]], [1.5])
    """
    check_shapes(
        ("density", density, "M"),
        ("color", color, "M 3"),
        ("distances", distances, "M"),
        ("steps", steps, "M"),
        ("ray_offsets", ray_offsets, "N 2"),
    )
    rays = len(ray_offsets)
    if background is not None:
        if background.dim() == 1:
            background = background.expand(rays, -1)
        check_shapes(("ray_offsets", ray_offsets, "N 2"), ("background", background, "N 3"))
    _check_offsets(ray_offsets, len(density))
    operate = _composite
    if density.dtype == color.dtype == torch.float64:
        operate = reference.composite
    else:
        density, color = density.float(), color.float()
        background = background if background is None else background.float()
    offsets = ray_offsets.int()
    pixel, opacity, depth, spread, weights, _, counts = operate(
        density, color, distances, steps, offsets, background, early_stop, distortion
    )
    return Composite(pixel, opacity, depth, spread if distortion else None, weights, counts)


def _check_offsets(ray_offsets: Tensor, samples: int) -> None:
    if ray_offsets.device.type != "cpu" or not len(ray_offsets):
        return  # on a GPU a look would cost a sync
    if int(ray_offsets.min()) < 0 or int(ray_offsets.sum(1).max()) > samples:
        raise InputError(f"ray_offsets point outside the {samples} samples that were given")


# ---- forward


def _outputs(density: Tensor, rays: int) -> Seven:
    empty, real = density.new_empty, torch.float32
    return (
        empty(rays, 3, dtype=real),
        empty(rays, dtype=real),
        empty(rays, dtype=real),
        empty(rays, dtype=real),
        density.new_zeros(len(density), dtype=real),
        empty(rays, dtype=real),
        empty(rays, dtype=torch.int32),
    )


def _plain(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if tensor is None else tensor.float().contiguous() for tensor in tensors]


def _addresses(*tensors: Tensor | None) -> list[Any]:
    return [None if tensor is None else pointer(tensor, None) for tensor in tensors]


def _forward_cpu(
    density: Tensor, color: Tensor, distances: Tensor, steps: Tensor, ray_offsets: Tensor,
    background: Tensor | None, early_stop: float, distortion: bool,
) -> Seven:  # fmt: skip
    inputs = _plain(density, color, distances, steps)
    ray_offsets, (background,) = ray_offsets.contiguous(), _plain(background)
    out = _outputs(density, len(ray_offsets))
    cpu_library().lg_composite(
        *_addresses(*inputs, ray_offsets, background),
        ctypes.c_int64(len(ray_offsets)),
        ctypes.c_float(early_stop),
        int(distortion),
        *_addresses(*out),
    )
    return out


def composite_cuda(
    density: Tensor, color: Tensor, distances: Tensor, steps: Tensor, ray_offsets: Tensor,
    background: Tensor | None, early_stop: float, distortion: bool,
) -> Seven:  # fmt: skip
    inputs = _plain(density, color, distances, steps)
    ray_offsets, (background,) = ray_offsets.contiguous(), _plain(background)
    rays = len(ray_offsets)
    out = _outputs(density, rays)
    options = HAS_BACKGROUND * (background is not None) | WANTS_DISTORTION * distortion
    kernel("compositing.cu", "composite_forward", LG_LANES=LANES)(
        (-(-rays * LANES // BLOCK),),
        (BLOCK,),
        *(*inputs, ray_offsets, inputs[0] if background is None else background, *out),
        *(rays, float(early_stop), int(options)),
    )
    return out


def _forward_fake(
    density: Tensor, color: Tensor, distances: Tensor, steps: Tensor, ray_offsets: Tensor,
    background: Tensor | None, early_stop: float, distortion: bool,
) -> Seven:  # fmt: skip
    return _outputs(density, len(ray_offsets))


# ---- backward. gradients: by color, opacity, depth, distortion, weights; saved: opacity, weights,
# transmittance, used. None, or an empty result, for what is not there or not wanted.


def _backward_outputs(density: Tensor, rays: int, wants_background: bool) -> Three:
    samples, real = len(density), torch.float32
    return (
        density.new_zeros(samples, dtype=real),
        density.new_zeros(samples, 3, dtype=real),
        density.new_empty(rays if wants_background else 0, 3, dtype=real),
    )


def _backward_reference(
    gradients: list[Tensor | None], saved: list[Tensor], density: Tensor, color: Tensor,
    distances: Tensor, steps: Tensor, ray_offsets: Tensor, background: Tensor | None,
    early_stop: float, wants_background: bool,
) -> Three:  # fmt: skip
    rays, samples, new = len(ray_offsets), len(density), density.new_zeros
    shapes = [(rays, 3), (rays,), (rays,), (rays,), (samples,)]
    given = [new(s) if g is None else g for g, s in zip(gradients, shapes, strict=True)]
    d_density, d_color, d_background = reference.composite_backward(
        (given[0], given[1], given[2], given[3], given[4]),
        *(density, color, distances, steps, ray_offsets, background, early_stop),
    )
    return d_density, d_color, d_background if wants_background else new(0, 3)


def _backward_cpu(
    gradients: list[Tensor | None], saved: list[Tensor], density: Tensor, color: Tensor,
    distances: Tensor, steps: Tensor, ray_offsets: Tensor, background: Tensor | None,
    early_stop: float, wants_background: bool,
) -> Three:  # fmt: skip
    inputs, given = _plain(density, color, distances, steps), _plain(*gradients)
    ray_offsets, (background,) = ray_offsets.contiguous(), _plain(background)
    rays = len(ray_offsets)
    out = _backward_outputs(density, rays, wants_background)
    cpu_library().lg_composite_backward(
        *_addresses(*inputs, ray_offsets, background),
        ctypes.c_int64(rays),
        ctypes.c_float(early_stop),
        *_addresses(*given, *saved, out[0], out[1], out[2] if wants_background else None),
    )
    return out


def composite_backward_cuda(
    gradients: list[Tensor | None], saved: list[Tensor], density: Tensor, color: Tensor,
    distances: Tensor, steps: Tensor, ray_offsets: Tensor, background: Tensor | None,
    early_stop: float, wants_background: bool,
) -> Three:  # fmt: skip
    inputs, given = _plain(color, distances, steps), _plain(*gradients)
    ray_offsets, (background,) = ray_offsets.contiguous(), _plain(background)
    rays = len(ray_offsets)
    out = _backward_outputs(density, rays, wants_background)
    options = HAS_BACKGROUND * (background is not None)
    options |= WANTS_BACKGROUND_GRADIENT * wants_background
    for bit, tensor in enumerate(given, FIRST_GRADIENT_BIT):
        options |= (tensor is not None) << bit
    filler = density  # stands for what is not there; never read
    optional = [filler if tensor is None else tensor for tensor in (background, *given)]
    kernel("compositing.cu", "composite_backward", LG_LANES=LANES)(
        (-(-rays * LANES // BLOCK),),
        (BLOCK,),
        *(*inputs, ray_offsets, *optional, *saved, *out),
        *(rays, float(early_stop), int(options)),
    )
    return out


def _backward_fake(
    gradients: list[Tensor | None], saved: list[Tensor], density: Tensor, color: Tensor,
    distances: Tensor, steps: Tensor, ray_offsets: Tensor, background: Tensor | None,
    early_stop: float, wants_background: bool,
) -> Three:  # fmt: skip
    return _backward_outputs(density, len(ray_offsets), wants_background)


_composite = operation(
    "composite(Tensor density, Tensor color, Tensor distances, Tensor steps, Tensor ray_offsets, "
    "Tensor? background, float early_stop, bool distortion) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=reference.composite,
    cpu=_forward_cpu,
    cuda=composite_cuda,
    fake=_forward_fake,
)
_composite_backward = operation(
    "composite_backward(Tensor?[] gradients, Tensor[] saved, Tensor density, Tensor color, "
    "Tensor distances, Tensor steps, Tensor ray_offsets, Tensor? background, float early_stop, "
    "bool wants_background) -> (Tensor, Tensor, Tensor)",
    reference=_backward_reference,
    cpu=_backward_cpu,
    cuda=composite_backward_cuda,
    fake=_backward_fake,
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Seven) -> None:
    *tensors, early_stop, distortion = inputs
    _, opacity, _, _, weights, transmittance, used = output
    ctx.save_for_backward(*tensors, opacity, weights, transmittance, used)
    ctx.early_stop, ctx.distortion = early_stop, distortion
    ctx.mark_non_differentiable(transmittance, used)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    *tensors, opacity, weights, transmittance, used = ctx.saved_tensors
    by_output = list(gradients[:5])
    if not ctx.distortion:
        by_output[3] = None
    d_density, d_color, d_background = _composite_backward(
        by_output,
        [opacity, weights, transmittance, used],
        *tensors,
        ctx.early_stop,
        bool(ctx.needs_input_grad[5]),
    )
    wanted = d_background if ctx.needs_input_grad[5] else None
    return d_density, d_color, None, None, None, wanted, None, None


torch.library.register_autograd("lumigraph::composite", _backward, setup_context=_save, lib=library)
