"""L1 and structural dissimilarity of a rendered picture in one pass: `image_loss`.

Formulas: `reference/image_loss.py`. What the windows of SSIM need stays in registers and caches;
the forward pass writes three maps of the picture's size, and only where a gradient is wanted.

Letters: H W image.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.core.shapes import check_shapes

from .build import cpu_library
from .dispatch import library, operation, pointer
from .reference import image_loss as reference
from .reference.image_loss import ImageLoss
from .runtime import kernel

__all__ = ["ImageLoss", "image_loss"]

THREADS, COLUMNS, SUMS = 256, 224, 4  # as in kernels/image_loss.cu
CHANNELS = 3
# Each block reads ten rows more than it owns: many rows a block, but blocks enough for a large GPU
# (three for each of an H100's 132 multiprocessors).
BLOCKS, FEWEST_ROWS, MOST_ROWS = 396, 16, 128

Three = tuple[Tensor, Tensor, Tensor]


def image_loss(
    prediction: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ssim_weight: float = 0.2,
) -> ImageLoss:
    """Loss of a picture: (1 - ssim_weight) mean(w |p - t|) + ssim_weight mean(w (1 - SSIM)).

    Args:
        prediction: (H, W, 3), float32; values of about [0, 1], the range that the constants of SSIM
            are made for. float64 takes the plain twin, for checks.
        target: (H, W, 3) like it.
        weight: (H, W) >= 0, float32; None is 1. Where it is 0 (or negative, or NaN) the target
            stands for the prediction, whose value there has no effect at all. Both means divide by
            the number of pixels, so that a pixel pulls as hard whatever else is ignored.
        ssim_weight: in [0, 1]; 0 leaves SSIM out, which is then NaN in the result.

    Returns:
        Scalars on the device: the loss, and weighted means of |p - t|, SSIM and (p - t)^2 (divided
        by the sum of the weights). Only the loss has a gradient, by the prediction alone.

    Raises:
        InputError: shapes, dtypes, devices or `ssim_weight` are wrong.

    >>> image = torch.full((8, 8, 3), 0.5, requires_grad=True)
    >>> result = image_loss(image, torch.full((8, 8, 3), 0.75), ssim_weight=0.0)
    >>> round(result.loss.item(), 4), round(float(result.squared_error), 4)
    (0.25, 0.0625)
    >>> result.loss.backward()
    >>> round(float(image.grad.sum()), 4)
    -1.0
    """
    double = isinstance(prediction, Tensor) and prediction.dtype == torch.float64
    check_shapes(
        ("prediction", prediction, f"H W {CHANNELS}"),
        ("target", target, f"H W {CHANNELS}"),
        ("weight", weight, "H W"),
        dtype=torch.float64 if double else torch.float32,
    )
    if not 0 <= ssim_weight <= 1:
        raise InputError(f"ssim_weight must lie in [0, 1]; got {ssim_weight}")
    if prediction.numel() >= 2**31:
        raise InputError(f"prediction must have fewer than 2^31 numbers; got {prediction.numel()}")
    if double:
        return reference.image_loss(prediction, target, weight, float(ssim_weight))
    keep = prediction.requires_grad and torch.is_grad_enabled()
    loss, values, _ = _image_loss(prediction, target, weight, float(ssim_weight), keep)
    return ImageLoss(loss, *values.unbind())


def _outputs(prediction: Tensor, ssim_weight: float, keep: bool) -> Three:
    """Loss, then l1, ssim and squared error, then maps (3, H, W, 3), empty where not kept."""
    kept = (3, *prediction.shape) if keep and ssim_weight else (0,)
    new = prediction.new_empty
    return new(()), new(3), new(kept)


def _loss_reference(
    prediction: Tensor, target: Tensor, weight: Tensor | None, ssim_weight: float, keep: bool
) -> Three:
    found = reference.image_loss(prediction, target, weight, ssim_weight)
    maps = _outputs(prediction, ssim_weight, keep)[2]  # the gradient is computed from scratch
    return found.loss, torch.stack(found[1:]), maps


def _pictures(prediction: Tensor, target: Tensor, weight: Tensor | None) -> list[Tensor]:
    """What kernels read; an absent weight is never read."""
    pictures = [prediction.contiguous(), target.contiguous()]
    return [*pictures, pictures[1] if weight is None else weight.contiguous()]


def _cpu_arguments(prediction: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Any, ...]:
    """Contiguous tensors to hold while their addresses are used, and the addresses. Ignored pixels
    already have the target's values."""
    if weight is not None:
        prediction = torch.where(weight[..., None] > 0, prediction, target)
    held = _pictures(prediction, target, weight)
    return held, [*map(pointer, held[:2]), None if weight is None else pointer(held[2])]


def _size(prediction: Tensor) -> tuple[ctypes.c_int64, ctypes.c_int64]:
    return ctypes.c_int64(prediction.shape[0]), ctypes.c_int64(prediction.shape[1])


def _loss_cpu(
    prediction: Tensor, target: Tensor, weight: Tensor | None, ssim_weight: float, keep: bool
) -> Three:
    loss, values, maps = _outputs(prediction, ssim_weight, keep)
    held, addresses = _cpu_arguments(prediction, target, weight)
    cpu_library().lg_image_loss(
        *addresses,
        *_size(held[0]),
        ctypes.c_float(ssim_weight),
        pointer(maps) if maps.numel() else None,
        pointer(loss),
        pointer(values),
    )
    return loss, values, maps


def _grid(prediction: Tensor) -> tuple[tuple[int, int], int]:
    """Blocks across and down, and the rows of a block."""
    height, width = prediction.shape[0], prediction.shape[1] * CHANNELS
    across = -(-width // COLUMNS)
    rows = min(max(-(-height * across // BLOCKS), FEWEST_ROWS), MOST_ROWS)
    return (across, -(-height // rows)), rows


def _loss_cuda(
    prediction: Tensor, target: Tensor, weight: Tensor | None, ssim_weight: float, keep: bool
) -> Three:
    loss, values, maps = _outputs(prediction, ssim_weight, keep)
    grid, rows = _grid(prediction)
    sums = prediction.new_empty(grid[0] * grid[1] * SUMS)
    size = (prediction.shape[1] * CHANNELS, prediction.shape[0])
    constants = {"LG_SSIM": int(ssim_weight != 0), "LG_WEIGHTED": int(weight is not None)}
    run = kernel("image_loss.cu", "image_loss", LG_KEEP=int(maps.numel() > 0), **constants)
    pictures = _pictures(prediction, target, weight)
    run(grid, (THREADS,), *pictures, *size, rows, maps, sums)
    finish = kernel(
        "image_loss.cu", "image_loss_finish", LG_KEEP=int(maps.numel() > 0), **constants
    )
    finish((1,), (THREADS,), sums, grid[0] * grid[1], *size, ssim_weight, loss, values)
    return loss, values, maps


def _loss_fake(
    prediction: Tensor, target: Tensor, weight: Tensor | None, ssim_weight: float, keep: bool
) -> Three:
    return _outputs(prediction, ssim_weight, keep)


def _backward_reference(
    gradient: Tensor, prediction: Tensor, target: Tensor, weight: Tensor | None, maps: Tensor,
    ssim_weight: float,
) -> Tensor:  # fmt: skip
    with torch.enable_grad():
        leaf = prediction.detach().requires_grad_()
        loss = reference.image_loss(leaf, target, weight, ssim_weight).loss
        return torch.autograd.grad(loss, leaf, gradient)[0]


def _backward_cpu(
    gradient: Tensor, prediction: Tensor, target: Tensor, weight: Tensor | None, maps: Tensor,
    ssim_weight: float,
) -> Tensor:  # fmt: skip
    held, addresses = _cpu_arguments(prediction, target, weight)
    out = torch.empty_like(held[0])
    cpu_library().lg_image_loss_backward(
        *addresses,
        pointer(maps),
        pointer(gradient),
        *_size(out),
        ctypes.c_float(ssim_weight),
        pointer(out),
    )
    return out


def _backward_cuda(
    gradient: Tensor, prediction: Tensor, target: Tensor, weight: Tensor | None, maps: Tensor,
    ssim_weight: float,
) -> Tensor:  # fmt: skip
    pictures = _pictures(prediction, target, weight)
    out = torch.empty_like(pictures[0])
    grid, rows = _grid(prediction)
    size = (prediction.shape[1] * CHANNELS, prediction.shape[0])
    constants = {"LG_SSIM": int(ssim_weight != 0), "LG_WEIGHTED": int(weight is not None)}
    run = kernel("image_loss.cu", "image_loss_backward", **constants)
    run(grid, (THREADS,), *pictures, maps, gradient, *size, rows, ssim_weight, out)
    return out


def _backward_fake(
    gradient: Tensor, prediction: Tensor, target: Tensor, weight: Tensor | None, maps: Tensor,
    ssim_weight: float,
) -> Tensor:  # fmt: skip
    return prediction.new_empty(prediction.shape)


_image_loss = operation(
    "image_loss(Tensor prediction, Tensor target, Tensor? weight, float ssim_weight, bool keep) "
    "-> (Tensor, Tensor, Tensor)",
    reference=_loss_reference,
    cpu=_loss_cpu,
    cuda=_loss_cuda,
    fake=_loss_fake,
)
_image_loss_backward = operation(
    "image_loss_backward(Tensor gradient, Tensor prediction, Tensor target, Tensor? weight, "
    "Tensor maps, float ssim_weight) -> Tensor",
    reference=_backward_reference,
    cpu=_backward_cpu,
    cuda=_backward_cuda,
    fake=_backward_fake,
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Three) -> None:
    prediction, target, weight, ctx.ssim_weight, _ = inputs
    ctx.save_for_backward(prediction, target, weight, output[2])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # zeros for the maps would cost as much as the kernels


def _derivative(ctx: Any, gradient: Tensor | None, *others: None) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return (None,) * 5
    found = _image_loss_backward(gradient.contiguous(), *ctx.saved_tensors, ctx.ssim_weight)
    return found, None, None, None, None


torch.library.register_autograd(
    "lumigraph::image_loss", _derivative, setup_context=_save, lib=library
)
