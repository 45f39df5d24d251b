"""Launching the network kernels: which specialisation fits a device, grid sizes, scratch memory.

Shared memory holds the weights (all layers, or one at a time where they do not fit) and, in the
backward, the activations of the rows a block works on. Registers hold the weight gradients of as
many layers at a time as fit; a larger network takes several passes.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lumigraph.core.errors import BackendError

from .driver import check, driver
from .runtime import kernel

# The order is shared with cpu/mlp.cpp and kernels/mlp.h.
ACTIVATIONS = ("none", "relu", "sigmoid", "exp", "softplus")

PADDING = 8  # halves behind a row in shared memory, as in kernels/mlp.h
FORWARD_SHARED_BYTES = 65536  # more would leave too few warps on a multiprocessor
PIECES_TWO_BLOCKS = 6  # 16x16 pieces of weight gradient a warp holds in 128 registers
PIECES_ONE_BLOCK = 16  # and in 255
SHARED_BYTES_ATTRIBUTE = 97  # CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
EMULATED_SHARED_BYTES = 101376  # the smallest limit among the supported GPUs
EMULATED_MULTIPROCESSORS = 2


@dataclass(frozen=True)
class Network:
    """Shapes of a network: widths (I, H, ..., H, O) and output activation."""

    widths: tuple[int, ...]
    activation: str

    @property
    def layers(self) -> int:
        return len(self.widths) - 1

    @property
    def hidden_width(self) -> int:
        return self.widths[1] if self.layers > 1 else 16

    @property
    def weight_count(self) -> int:
        return sum(a * b for a, b in pairwise(self.widths))

    def defines(self, x: Tensor, half: bool) -> dict[str, int]:
        """The constants that kernels/mlp.h takes for this network."""
        return {
            "LG_INPUT": self.widths[0],
            "LG_WIDTH": self.hidden_width,
            "LG_HIDDEN_LAYERS": self.layers - 1,
            "LG_OUTPUT": self.widths[-1],
            "LG_ACTIVATION": ACTIVATIONS.index(self.activation),
            "LG_INPUT_HALF": int(x.dtype == torch.float16),
            "LG_OUTPUT_HALF": int(half),
        }


@dataclass(frozen=True)
class Plan:
    """How a kernel is launched: warps a block, weights resident or not, bytes of shared memory."""

    warps: int
    resident: bool
    shared_bytes: int


def _padded(width: int) -> int:
    return (width + 15) // 16 * 16


def _weight_bytes(network: Network, *, resident: bool) -> int:
    pairs = pairwise(network.widths)
    layers = [2 * _padded(out) * (_padded(inputs) + PADDING) for inputs, out in pairs]
    return sum(layers) if resident else max(layers)


def forward_plan(network: Network, limit: int) -> Plan:
    """Plan of the forward on a device whose blocks may use `limit` bytes of shared memory."""
    for resident, bound in ((True, min(limit, FORWARD_SHARED_BYTES)), (False, limit)):
        size = _weight_bytes(network, resident=resident)
        if size <= bound:
            return Plan(4 if size <= bound // 2 else 8, resident, size)
    raise _too_large(network, limit)


def backward_plan(network: Network, limit: int) -> Plan:
    """Plan of the backward: as many warps, then as many resident weights, as fit."""
    row_bytes = 2 * sum(_padded(width) + PADDING for width in network.widths)
    for warps in (8, 4, 2, 1):
        for resident in (True, False):
            size = _weight_bytes(network, resident=resident) + warps * 16 * row_bytes
            if size <= limit:
                return Plan(warps, resident, size)
    raise _too_large(network, limit)


def _too_large(network: Network, limit: int) -> BackendError:
    return BackendError(
        f"network {network.widths} does not fit in the {limit} bytes of shared memory of this "
        "GPU; use fewer or narrower layers, or LUMIGRAPH_BACKEND=torch (slower)"
    )


def weight_passes(network: Network, warps: int) -> list[tuple[int, int]]:
    """First and last layer of every backward pass whose weight gradients fit in registers."""
    passes: list[tuple[int, int]] = []
    held = 0
    for layer in range(network.layers):
        pieces = _pieces(network, layer, warps)
        if passes and held + pieces <= PIECES_ONE_BLOCK:
            passes[-1] = (passes[-1][0], layer)
            held += pieces
        else:
            passes.append((layer, layer))
            held = pieces
    return passes


def _pieces(network: Network, layer: int, warps: int) -> int:
    across, down = _padded(network.widths[layer]) // 16, _padded(network.widths[layer + 1]) // 16
    return -(-across * down // warps)


@functools.cache
def _device_limits(device: torch.device) -> tuple[int, int]:
    """(bytes of shared memory a block may ask for, multiprocessors)."""
    if device.type != "cuda":
        return EMULATED_SHARED_BYTES, EMULATED_MULTIPROCESSORS
    index, limit = device.index or 0, ctypes.c_int()
    code = driver().cuDeviceGetAttribute(ctypes.byref(limit), SHARED_BYTES_ATTRIBUTE, index)
    check(code, "cuDeviceGetAttribute")
    return limit.value, torch.cuda.get_device_properties(device).multi_processor_count


def launch_forward(network: Network, x: Tensor, weights: Tensor, *, half: bool) -> Tensor:
    """`mlp` forward; x (M, I) fp16 or fp32, weights flat fp32, all contiguous."""
    rows = len(x)
    y = x.new_empty(rows, network.widths[-1], dtype=torch.float16 if half else torch.float32)
    if rows == 0:
        return y
    limit, multiprocessors = _device_limits(x.device)
    plan = forward_plan(network, limit)
    tiles = 2 if network.hidden_width <= 64 else 1
    run = kernel(
        "mlp.cu",
        "mlp_forward",
        LG_PASS=1,
        LG_WARPS=plan.warps,
        LG_TILES=tiles,
        LG_RESIDENT=int(plan.resident),
        **network.defines(x, half),
    )
    steps = -(-rows // (plan.warps * tiles * 16))
    blocks = min(steps, multiprocessors * (16 // plan.warps))
    run((blocks,), (plan.warps * 32,), x, weights, y, rows, shared=plan.shared_bytes)
    return y


def _largest_delta(network: Network, grad: Tensor, y: Tensor) -> Tensor:
    """Bound of the gradients that the kernel rounds to fp16; every slope but that of exp is at
    most 1."""
    if network.activation == "exp":
        grad = grad.float() * y
    return torch.linalg.vector_norm(grad, float("inf"), dtype=torch.float32)


def launch_backward(
    network: Network,
    tensors: Sequence[Tensor],
    *,
    need_x: bool,
    need_weights: bool,
    gradient_scale: float,
) -> tuple[Tensor, Tensor]:
    """`mlp` backward.

    Args:
        tensors: grad (M, O), x, weights, y as in the forward; grad in the dtype of y.
        gradient_scale: power of two that grad is multiplied by inside, 0: chosen from the
            largest entry of grad times slope.
    """
    grad, x, weights, y = tensors
    rows = len(x)
    dx = torch.empty_like(x) if need_x else x.new_empty(0)
    dw = torch.zeros_like(weights) if rows == 0 else torch.empty_like(weights)
    if rows == 0:
        return dx, dw
    limit, multiprocessors = _device_limits(x.device)
    plan = backward_plan(network, limit)
    passes = weight_passes(network, plan.warps) if need_weights else [(network.layers, -1)]
    largest = _largest_delta(network, grad, y) if gradient_scale == 0 else weights
    steps = -(-rows // (plan.warps * 16))
    blocks = min(steps, multiprocessors * (2 if network.hidden_width <= 64 else 1))
    parts = weights.new_empty(blocks if need_weights else 1, network.weight_count)
    for first, last in passes:
        pieces = sum(_pieces(network, i, plan.warps) for i in range(first, last + 1))
        two = pieces <= PIECES_TWO_BLOCKS and network.hidden_width <= 64
        run = kernel(
            "mlp.cu",
            "mlp_backward",
            LG_PASS=2,
            LG_WARPS=plan.warps,
            LG_BLOCKS=2 if two else 1,
            LG_RESIDENT=int(plan.resident),
            LG_FIRST=first,
            LG_LAST=last,
            LG_NEED_X=int(need_x and (first, last) == passes[0]),
            LG_AUTO_SCALE=int(gradient_scale == 0),
            **network.defines(x, y.dtype == torch.float16),
        )
        arguments = (grad, x, weights, y, largest, dx, parts, rows, float(gradient_scale))
        run((blocks,), (plan.warps * 32,), *arguments, shared=plan.shared_bytes)
    if need_weights:
        reduce = kernel("mlp.cu", "mlp_reduce", LG_PASS=3)
        grid = (-(-network.weight_count // 32),)
        reduce(grid, (32, 8), parts, dw, blocks, network.weight_count)
    return dx, dw if need_weights else weights.new_empty(0)
