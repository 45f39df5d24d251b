"""Spherical harmonics encoding of view directions. The polynomials stand in
`reference/harmonics.py`."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.core.shapes import check_shapes
from lumigraph.cuda.build import cpu_library
from lumigraph.cuda.dispatch import library, operation, pointer
from lumigraph.cuda.reference import harmonics as reference
from lumigraph.cuda.runtime import kernel

__all__ = ["harmonics_encode"]

BLOCK = 128  # threads, as in kernels/harmonics.cu
MOST_DEGREES = 5


def harmonics_encode(directions: Tensor, degree_count: int = 4) -> Tensor:
    """Real spherical harmonics of directions.

    Args:
        directions: (M, 3) of unit length, float32 (float64 takes the plain torch twin).
        degree_count: bands, 1 to 5: band 0 is the constant.

    Returns:
        (M, degree_count^2). Differentiable twice by the directions.

    Raises:
        InputError: wrong shape or dtype, or a degree_count out of range.

    Example:
        >>> harmonics_encode(torch.tensor([[0.0, 0.0, 1.0]]), 4).shape
        torch.Size([1, 16])
    """
    if not 1 <= degree_count <= MOST_DEGREES:
        raise InputError(f"degree_count must be 1 to {MOST_DEGREES}; got {degree_count}")
    check_shapes(("directions", directions, "M 3"), dtype=(torch.float32, torch.float64))
    if directions.dtype == torch.float64:
        return reference.harmonics_forward(directions, degree_count)
    values: Tensor = _forward(directions, degree_count)
    return values


def _cpu_forward(directions: Tensor, degree_count: int) -> Tensor:
    directions = directions.contiguous()
    out = directions.new_empty(len(directions), degree_count**2)
    points = ctypes.c_int64(len(directions))
    cpu_library().lg_harmonics_forward(pointer(directions), pointer(out), points, degree_count)
    return out


def _cpu_backward(directions: Tensor, gradient: Tensor, degree_count: int) -> Tensor:
    directions, gradient = directions.contiguous(), gradient.contiguous()
    out, points = torch.empty_like(directions), ctypes.c_int64(len(directions))
    arguments = (pointer(directions), pointer(gradient), pointer(out), points, degree_count)
    cpu_library().lg_harmonics_backward(*arguments)
    return out


def _cuda_forward(directions: Tensor, degree_count: int) -> Tensor:
    directions, points = directions.contiguous(), len(directions)
    out = directions.new_empty(points, degree_count**2)
    run = kernel("harmonics.cu", "harmonics_forward", LG_DEGREES=degree_count)
    run((-(-points // BLOCK),), (BLOCK,), directions, out, points)
    return out


def _cuda_backward(directions: Tensor, gradient: Tensor, degree_count: int) -> Tensor:
    directions, gradient = directions.contiguous(), gradient.contiguous()
    out, points = torch.empty_like(directions), len(directions)
    run = kernel("harmonics.cu", "harmonics_backward", LG_DEGREES=degree_count)
    run((-(-points // BLOCK),), (BLOCK,), directions, gradient, out, points)
    return out


_forward = operation(
    "harmonics_forward(Tensor directions, int degree_count) -> Tensor",
    reference=reference.harmonics_forward,
    cpu=_cpu_forward,
    cuda=_cuda_forward,
    fake=lambda directions, degree_count: directions.new_empty(
        directions.shape[0], degree_count**2
    ),
)
_backward = operation(
    "harmonics_backward(Tensor directions, Tensor gradient, int degree_count) -> Tensor",
    reference=reference.harmonics_backward,
    cpu=_cpu_backward,
    cuda=_cuda_backward,
    fake=lambda directions, gradient, degree_count: torch.empty_like(directions),
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:-1])
    ctx.degree_count = inputs[-1]


def _forward_derivative(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    (directions,) = ctx.saved_tensors
    return _backward(directions, grad, ctx.degree_count), None


def _backward_derivative(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    """Through the torch twin: the backward of a backward is rare and small here."""
    directions, gradient = ctx.saved_tensors

    def product(at: Tensor, row: Tensor) -> Tensor:
        return (reference.harmonics_backward(at, row, ctx.degree_count) * grad).sum()

    by_directions, by_gradient = torch.func.grad(product, argnums=(0, 1))(directions, gradient)
    return by_directions, by_gradient, None


for _name, _derivative in (
    ("harmonics_forward", _forward_derivative),
    ("harmonics_backward", _backward_derivative),
):
    torch.library.register_autograd(
        f"lumigraph::{_name}", _derivative, setup_context=_save, lib=library
    )
