"""Fused small network: `mlp`, with gradients to its input and weights.

On the CPU fp32 throughout; on a GPU fp16 operands with fp32 sums on tensor cores, the weights
staying fp32. Definition and layout of the weights: `reference/mlp.py`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.core.shapes import check_shapes

from .build import cpu_library
from .dispatch import operation, pointer
from .mlp_launch import ACTIVATIONS, Network, launch_backward, launch_forward
from .reference import mlp as reference

LARGEST_HIDDEN_WIDTH = 128
FLOATS = (torch.float16, torch.float32, torch.float64)


def mlp(
    x: Tensor,
    weights: Tensor,
    widths: Sequence[int],
    *,
    output_activation: str = "none",
    half: bool = False,
    gradient_scale: float | None = None,
) -> Tensor:
    """Small network without bias, ReLU between its layers.

    Args:
        x: inputs (M, widths[0]), fp32 or fp16; differentiable.
        weights: flat fp32 (`mlp_weight_count(widths)`,), layer l as (widths[l + 1], widths[l])
            row-major; differentiable.
        widths: (I, H, ..., O): any input and output, hidden widths equal, 16 to 128 in steps
            of 16.
        output_activation: none, relu, sigmoid, exp (argument clamped at 15) or softplus.
        half: return fp16 (saturated to finite values).
        gradient_scale: on a GPU the backward runs in fp16: the incoming gradient is multiplied
            by this power of two and the results divided by it. None chooses it from the largest
            entry (one small kernel more); 1 suits a loss that is scaled already.

    Returns:
        (M, widths[-1]), fp32 or fp16. Twice differentiable.

    Raises:
        InputError: shapes, widths or activation do not fit together.

    >>> mlp(torch.ones(1, 2), torch.ones(32), (2, 16))
    tensor([[2., 2., 2., 2., 2., 2., 2., 2., 2., 2., 2., 2., 2., 2., 2., 2.]])
    """
    widths = tuple(int(width) for width in widths)
    _check_widths(widths, output_activation)
    check_shapes(
        ("x", x, f"M {widths[0]}"),
        ("weights", weights, str(mlp_weight_count(widths))),
        dtype=FLOATS,
    )
    scale = 0.0 if gradient_scale is None else float(gradient_scale)
    result: Tensor = mlp_forward(x, weights, widths, output_activation, half, scale)
    return result


def mlp_weight_count(widths: Sequence[int]) -> int:
    """Weights of a network with these widths.

    >>> mlp_weight_count((32, 64, 16))
    3072
    """
    return sum(a * b for a, b in pairwise(widths))


def _check_widths(widths: tuple[int, ...], activation: str) -> None:
    hidden = widths[1:-1]
    if len(widths) < 2 or min(widths) < 1:
        raise InputError(f"widths must be (inputs, hidden ..., outputs), all >= 1; got {widths}")
    if any(h % 16 or h > LARGEST_HIDDEN_WIDTH or h != hidden[0] for h in hidden):
        raise InputError(
            f"hidden widths must be equal and a multiple of 16 up to 128; got {hidden}"
        )
    if activation not in ACTIVATIONS:
        raise InputError(
            f"output_activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}"
        )


# ---- forward


def _forward_reference(
    x: Tensor, weights: Tensor, widths: list[int], activation: str, half: bool, scale: float
) -> Tensor:
    return reference.mlp(x, weights, widths, output_activation=activation, half=half)


def _forward_cpu(
    x: Tensor, weights: Tensor, widths: list[int], activation: str, half: bool, scale: float
) -> Tensor:
    x, weights = x.float().contiguous(), weights.float().contiguous()
    y = x.new_empty(len(x), widths[-1])
    if len(x):
        cpu_library().lg_mlp_forward(
            pointer(x), pointer(weights), *_shape_arguments(widths, activation), pointer(y),
            ctypes.c_int64(len(x)),
        )  # fmt: skip
    return reference.to_half(y) if half else y


def _shape_arguments(widths: Sequence[int], activation: str) -> tuple[Any, ...]:
    sizes = (ctypes.c_int64 * len(widths))(*widths)
    code = ctypes.c_int64(ACTIVATIONS.index(activation))
    return sizes, ctypes.c_int64(len(widths) - 1), code


def _forward_cuda(
    x: Tensor, weights: Tensor, widths: list[int], activation: str, half: bool, scale: float
) -> Tensor:
    network = Network(tuple(widths), activation)
    return launch_forward(network, _kernel_input(x), weights.float().contiguous(), half=half)


def _kernel_input(x: Tensor) -> Tensor:
    """fp16 or fp32, contiguous, aligned to the pairs that the kernels read."""
    x = (x if x.dtype == torch.float16 else x.float()).contiguous()
    return x if x.data_ptr() % (2 * x.element_size()) == 0 else x.clone()


def _forward_fake(
    x: Tensor, weights: Tensor, widths: list[int], activation: str, half: bool, scale: float
) -> Tensor:
    return x.new_empty(x.shape[0], widths[-1], dtype=torch.float16 if half else torch.float32)


# ---- backward


def _backward_reference(
    grad: Tensor, x: Tensor, weights: Tensor, y: Tensor, widths: list[int], activation: str,
    need_x: bool, need_weights: bool, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    dx, dw = reference.mlp_backward(grad, x, weights, y, widths, output_activation=activation)
    return dx if need_x else x.new_empty(0), dw if need_weights else weights.new_empty(0)


def _backward_cpu(
    grad: Tensor, x: Tensor, weights: Tensor, y: Tensor, widths: list[int], activation: str,
    need_x: bool, need_weights: bool, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    grad, y = grad.float().contiguous(), y.float().contiguous()
    inputs, floats = x.float().contiguous(), weights.float().contiguous()
    dx = torch.empty_like(inputs) if need_x else inputs.new_empty(0)
    dw = torch.zeros_like(floats) if need_weights else floats.new_empty(0)
    if len(x):
        cpu_library().lg_mlp_backward(
            pointer(grad), pointer(inputs), pointer(floats), pointer(y),
            *_shape_arguments(widths, activation),
            pointer(dx) if need_x else None, pointer(dw) if need_weights else None,
            ctypes.c_int64(len(x)),
        )  # fmt: skip
    return dx.to(x.dtype), dw.to(weights.dtype)


def _backward_cuda(
    grad: Tensor, x: Tensor, weights: Tensor, y: Tensor, widths: list[int], activation: str,
    need_x: bool, need_weights: bool, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    inputs = _kernel_input(x)
    dx, dw = launch_backward(
        Network(tuple(widths), activation),
        (_kernel_input(grad.to(y.dtype)), inputs, weights.float().contiguous(), _kernel_input(y)),
        need_x=need_x,
        need_weights=need_weights,
        gradient_scale=scale,
    )
    return dx.to(x.dtype), dw.to(weights.dtype)


def _backward_fake(
    grad: Tensor, x: Tensor, weights: Tensor, y: Tensor, widths: list[int], activation: str,
    need_x: bool, need_weights: bool, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    dx = torch.empty_like(x) if need_x else x.new_empty(0)
    return dx, torch.empty_like(weights) if need_weights else weights.new_empty(0)


mlp_forward = operation(
    "mlp_forward(Tensor x, Tensor weights, int[] widths, str activation, bool half, "
    "float gradient_scale) -> Tensor",
    reference=_forward_reference,
    cpu=_forward_cpu,
    cuda=_forward_cuda,
    fake=_forward_fake,
)
mlp_backward = operation(
    "mlp_backward(Tensor grad, Tensor x, Tensor weights, Tensor y, int[] widths, str activation, "
    "bool need_x, bool need_weights, float gradient_scale) -> (Tensor, Tensor)",
    reference=_backward_reference,
    cpu=_backward_cpu,
    cuda=_backward_cuda,
    fake=_backward_fake,
)


# ---- autograd


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weights, ctx.widths, ctx.activation, _, ctx.scale = inputs
    ctx.save_for_backward(x, weights, output)


def _differentiate_forward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weights, y = ctx.saved_tensors
    need_x, need_weights = ctx.needs_input_grad[:2]
    dx, dw = mlp_backward(
        grad, x, weights, y, ctx.widths, ctx.activation, need_x, need_weights, ctx.scale
    )
    return dx if need_x else None, dw if need_weights else None, None, None, None, None


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.widths, ctx.activation, ctx.need_x, ctx.need_weights = inputs[4:8]


def _differentiate_backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    """Second order through the reference: rare (surface normals), so plain torch serves."""
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
        grad, x, weights, y = leaves
        results = reference.mlp_backward(
            grad, x, weights, y, ctx.widths, output_activation=ctx.activation
        )
        wanted = (ctx.need_x, ctx.need_weights)
        pairs = [(r, g) for r, g, used in zip(results, grads, wanted, strict=True) if used]
        outputs, directions = zip(*pairs, strict=True)
        second = torch.autograd.grad(outputs, leaves, directions, allow_unused=True)
    return (*second, None, None, None, None, None)


torch.library.register_autograd(
    "lumigraph::mlp_forward", _differentiate_forward, setup_context=_save_forward
)
torch.library.register_autograd(
    "lumigraph::mlp_backward", _differentiate_backward, setup_context=_save_backward
)
