"""Adam over rows of a tensor in one pass: `adam_rows_`, for parameters with one row a Gaussian.

Formulas and settings: `reference/optimizer.py`. Against `adam_step_`: entries of a row may have two
rates, rows may be left out as a whole (the visible ones move), and a gradient of 0 moves, too.
"""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.core.shapes import check_shapes

from .build import cpu_library
from .dispatch import operation, pointer
from .optimizer import (
    BLOCK,
    check_adam,
    no_shapes,
    settings_bytes,
    vector_blocks,
    vector_width,
)
from .reference import optimizer as reference
from .reference.optimizer import AdamSettings
from .runtime import kernel

__all__ = ["adam_rows_"]


def adam_rows_(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    *,
    step: int,
    learning_rate: float,
    tail_learning_rate: float | None = None,
    head: int | None = None,
    visible: Tensor | None = None,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-15,
    zero_grad: bool = False,
    bad_count: Tensor | None = None,
) -> Tensor:
    """One Adam step in place on (G, ...), contiguous fp32 tensors of one shape.

    Args:
        param, exp_avg, exp_avg_sq: parameter and its moments, updated.
        grad: gradient; entries that are not finite, or beyond 1e18 so that their square
            overflows, count as 0.
        step: 1 for the first step.
        learning_rate: of the first `head` numbers of every row; `tail_learning_rate` of the rest.
            head None: all of them; tail_learning_rate None: the same rate.
        visible: (G,) bool or uint8; rows with 0 keep parameter and moments (Taming 3DGS, Mallick
            et al. 2024, calls it sparse Adam). None: every row moves.
        zero_grad: set all of `grad` to 0 in the same pass.
        bad_count: int32 tensor of one number to add to; None makes one.

    Returns:
        `bad_count`: how many gradient entries of moving rows were refused. Reading it waits for
        the GPU.

    Raises:
        InputError: shapes, dtypes, devices or settings are wrong.

    >>> p, g = torch.zeros(2, 3), torch.ones(2, 3)
    >>> rates = {"learning_rate": 0.5, "tail_learning_rate": 0.25, "head": 1}
    >>> first, second, visible = torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([True, False])
    >>> adam_rows_(p, g, first, second, step=1, visible=visible, **rates)
    tensor([0], dtype=torch.int32)
    >>> p
    tensor([[-0.5000, -0.2500, -0.2500],
            [ 0.0000,  0.0000,  0.0000]])
    """
    settings = AdamSettings(
        step, learning_rate, beta1, beta2, eps, skip_zero=False, zero_grad=zero_grad
    )
    if bad_count is None:
        bad_count = torch.zeros(1, dtype=torch.int32, device=param.device)
    tensors = (param, grad, exp_avg, exp_avg_sq)
    check_adam("adam_rows_", tensors, bad_count, settings)
    _check_rows(param, visible, head)
    head = math.prod(param.shape[1:]) if head is None else head
    tail = learning_rate if tail_learning_rate is None else tail_learning_rate
    mask = visible.view(torch.uint8) if visible is not None else None
    with torch.no_grad():
        _adam_rows(*tensors, mask, bad_count, head, float(tail), settings.to_numbers())
    return bad_count


def _check_rows(param: Tensor, visible: Tensor | None, head: int | None) -> None:
    if param.dim() == 0:
        raise InputError("param must have shape (G, ...); got ()")
    if param.numel() >= 2**31:
        raise InputError(f"param must have fewer than 2^31 numbers; got {param.numel()}")
    size, kinds = str(len(param)), (torch.bool, torch.uint8)
    check_shapes(("visible", visible, size), dtype=kinds, device=param.device)
    if visible is not None and not visible.is_contiguous():
        raise InputError("visible must be contiguous")
    numbers = math.prod(param.shape[1:])
    if head is not None and not 0 <= head <= numbers:
        raise InputError(f"head must lie in [0, {numbers}], the numbers of a row; got {head}")


def _rows_reference(
    param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, visible: Tensor | None,
    bad_count: Tensor, head: int, tail_learning_rate: float, numbers: list[float],
) -> None:  # fmt: skip
    reference.adam_rows_(
        param,
        grad,
        exp_avg,
        exp_avg_sq,
        AdamSettings.from_numbers(numbers),
        head=head,
        tail_learning_rate=tail_learning_rate,
        visible=visible,
        bad_count=bad_count,
    )


def _rows_cpu(
    param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, visible: Tensor | None,
    bad_count: Tensor, head: int, tail_learning_rate: float, numbers: list[float],
) -> None:  # fmt: skip
    settings = AdamSettings.from_numbers(numbers)
    cpu_library().lg_adam_rows(
        *map(pointer, (param, grad, exp_avg, exp_avg_sq)),
        None if visible is None else pointer(visible, torch.uint8),
        pointer(bad_count, torch.int32),
        ctypes.c_int64(len(param)),
        ctypes.c_int64(math.prod(param.shape[1:])),
        ctypes.c_int64(head),
        ctypes.c_float(settings.step_size_of(tail_learning_rate)),
        settings_bytes(settings),
    )


def _rows_cuda(
    param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, visible: Tensor | None,
    bad_count: Tensor, head: int, tail_learning_rate: float, numbers: list[float],
) -> None:  # fmt: skip
    settings, tensors = AdamSettings.from_numbers(numbers), [param, grad, exp_avg, exp_avg_sq]
    vector, row = vector_width(tensors), max(math.prod(param.shape[1:]), 1)
    run = kernel(
        "optimizer.cu",
        "adam_rows",
        LG_VECTOR=vector,
        LG_ROW=row,
        LG_VISIBLE=int(visible is not None),
    )
    run(
        (vector_blocks(param, vector),),
        (BLOCK,),
        *tensors,
        bad_count if visible is None else visible,
        *(bad_count, param.numel(), head),
        settings.step_size_of(tail_learning_rate),
        settings_bytes(settings),
    )


_adam_rows = operation(
    "adam_rows_(Tensor(a!) param, Tensor(b!) grad, Tensor(c!) exp_avg, Tensor(d!) exp_avg_sq, "
    "Tensor? visible, Tensor(e!) bad_count, int head, float tail_learning_rate, "
    "float[] settings) -> ()",
    reference=_rows_reference,
    cpu=_rows_cpu,
    cuda=_rows_cuda,
    fake=no_shapes,
)
