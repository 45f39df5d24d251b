"""Small network in plain torch: the definition of correct for `mlp`.

Layers have no bias; ReLU stands between them. With widths (I, H, ..., O) the flat weights hold
layer l as (widths[l + 1], widths[l]) row-major:

    h_0 = x,  h_l = relu(W_l h_{l-1}),  y = activation(W_last h)

Any device and dtype (arithmetic runs in the dtype of the weights), differentiable twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

LARGEST_EXPONENT = 15.0


class _ClampedExp(torch.autograd.Function):
    """exp(min(x, 15)) whose derivative is its value, beyond the clamp too: a density that is too
    large still feels its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.exp(x.clamp(max=LARGEST_EXPONENT))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return grads[0] * y


def activate(x: Tensor, activation: str) -> Tensor:
    """Output activation: none, relu, sigmoid, exp (argument clamped at 15) or softplus."""
    if activation == "relu":
        return torch.relu(x)
    if activation == "sigmoid":
        return torch.sigmoid(x)
    if activation == "exp":
        result: Tensor = _ClampedExp.apply(x)
        return result
    if activation == "softplus":
        return torch.nn.functional.softplus(x)
    return x


def activation_slope(y: Tensor, activation: str) -> Tensor:
    """Derivative of the output activation as a function of its result `y`."""
    if activation == "relu":
        return (y > 0).to(y.dtype)
    if activation == "sigmoid":
        return y * (1 - y)
    if activation == "exp":
        return y
    if activation == "softplus":
        return -torch.expm1(-y)
    return torch.ones_like(y)


def split_weights(weights: Tensor, widths: Sequence[int]) -> list[Tensor]:
    """Views (out, in) of the flat weights, one a layer."""
    layers, start = [], 0
    for inputs, outputs in pairwise(widths):
        layers.append(weights[start : start + inputs * outputs].view(outputs, inputs))
        start += inputs * outputs
    return layers


def mlp(
    x: Tensor,
    weights: Tensor,
    widths: Sequence[int],
    *,
    output_activation: str = "none",
    half: bool = False,
) -> Tensor:
    """Network of `x`.

    Args:
        x: inputs (M, widths[0]); differentiable.
        weights: all layers, flat (P,); differentiable.
        widths: (I, H, ..., O).
        output_activation: none, relu, sigmoid, exp or softplus.
        half: round the result to fp16, saturated to finite values.

    Returns:
        (M, widths[-1]) in the dtype of the weights, or fp16.

    >>> mlp(torch.ones(1, 2), torch.ones(4 + 2), (2, 2, 1))
    tensor([[4.]])
    """
    hidden = x.to(weights.dtype)
    layers = split_weights(weights, widths)
    for layer in layers[:-1]:
        hidden = torch.relu(hidden @ layer.T)
    result = activate(hidden @ layers[-1].T, output_activation)
    return to_half(result) if half else result


def to_half(x: Tensor) -> Tensor:
    """fp16 with values beyond its range set to its largest; NaN stays."""
    largest = torch.finfo(torch.float16).max
    return x.clamp(-largest, largest).to(torch.float16)


def mlp_backward(
    grad: Tensor,
    x: Tensor,
    weights: Tensor,
    y: Tensor,
    widths: Sequence[int],
    *,
    output_activation: str = "none",
) -> tuple[Tensor, Tensor]:
    """Gradients of `mlp`, themselves made of differentiable operations.

    Args:
        grad: gradient of the result (M, O). y: the result (M, O); others as in `mlp`.

    Returns:
        gradient of x (M, I) in its dtype, gradient of the weights (P,).
    """
    layers = split_weights(weights, widths)
    values = [x.to(weights.dtype)]
    for layer in layers[:-1]:
        values.append(torch.relu(values[-1] @ layer.T))
    delta = grad.to(weights.dtype) * activation_slope(y.to(weights.dtype), output_activation)
    weight_gradients = []
    for index in range(len(layers) - 1, -1, -1):
        weight_gradients.append((delta.T @ values[index]).reshape(-1))
        delta = delta @ layers[index]
        if index:
            delta = delta * (values[index] > 0)
    return delta.to(x.dtype), torch.cat(weight_gradients[::-1])
