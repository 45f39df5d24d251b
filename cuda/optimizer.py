"""Parameter updates in one pass over memory: `adam_step_` and `ema_step_`, both in place.

Formulas and settings: `reference/optimizer.py`. A fused pass reads and writes every number once;
entries that no sample touched cost only the reading of their gradient.
"""

from __future__ import annotations

import ctypes
import struct

import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.core.shapes import check_shapes

from .build import cpu_library
from .dispatch import operation, pointer
from .reference import optimizer as reference
from .reference.optimizer import AdamSettings
from .runtime import kernel

BLOCK = 256  # threads, as in kernels/optimizer.cu
VECTOR = 4  # entries a thread


def adam_step_(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    *,
    step: int,
    learning_rate: float,
    beta1: float = 0.9,
    beta2: float = 0.99,
    eps: float = 1e-15,
    skip_zero: bool = True,
    weight_decay: float = 0.0,
    grad_scale: float = 1.0,
    zero_grad: bool = True,
    half_copy: Tensor | None = None,
    bad_count: Tensor | None = None,
) -> Tensor:
    """One Adam step in place, on contiguous fp32 tensors of one shape.

    Args:
        param, exp_avg, exp_avg_sq: parameter and its moments, updated.
        grad: gradient; divided by `grad_scale` (the loss scale); entries that are not finite, or
            beyond 1e18 so that their square overflows, count as 0.
        step: 1 for the first step.
        skip_zero: entries whose gradient is exactly 0 keep value and moments, and are not decayed.
        weight_decay: L2: adds weight_decay * param to the gradient.
        zero_grad: set `grad` to 0 in the same pass.
        half_copy: fp16 tensor that receives the parameter (with `skip_zero` at least where it
            moved: it must hold the parameter before).
        bad_count: int32 tensor of one number to add to; None makes one.

    Returns:
        `bad_count`: how many gradient entries were refused. Reading it waits for the GPU.

    Raises:
        InputError: shapes, dtypes, devices or settings are wrong.

    >>> p, g = torch.ones(2), torch.tensor([0.5, 0.0])
    >>> adam_step_(p, g, torch.zeros(2), torch.zeros(2), step=1, learning_rate=0.25)
    tensor([0], dtype=torch.int32)
    >>> p, g
    (tensor([0.7500, 1.0000]), tensor([0., 0.]))
    """
    settings = AdamSettings(
        step, learning_rate, beta1, beta2, eps, weight_decay, grad_scale, skip_zero, zero_grad
    )
    if bad_count is None:
        bad_count = torch.zeros(1, dtype=torch.int32, device=param.device)
    check_adam("adam_step_", (param, grad, exp_avg, exp_avg_sq), bad_count, settings)
    _check_half(half_copy, param)
    with torch.no_grad():
        _adam_step(param, grad, exp_avg, exp_avg_sq, half_copy, bad_count, settings.to_numbers())
    return bad_count


def ema_step_(average: Tensor, param: Tensor, decay: float) -> None:
    """Moving average in place: average <- decay average + (1 - decay) param.

    Args:
        average: fp32, contiguous, updated. param: fp32 of the same shape. decay: in [0, 1].

    >>> average = torch.zeros(2)
    >>> ema_step_(average, torch.ones(2), 0.75)
    >>> average
    tensor([0.2500, 0.2500])
    """
    check_same("ema_step_", [("average", average), ("param", param)])
    if not 0 <= decay <= 1:
        raise InputError(f"decay must lie in [0, 1]; got {decay}")
    with torch.no_grad():
        _ema_step(average, param, float(decay))


def check_same(caller: str, tensors: list[tuple[str, Tensor]]) -> None:
    first = tensors[0][1]
    if all(
        isinstance(t, Tensor)
        and t.shape == first.shape
        and t.dtype == torch.float32
        and t.device == first.device
        and t.is_contiguous()
        for _, t in tensors
    ):
        return
    letters = " ".join(f"d{i}" for i in range(first.dim()))
    check_shapes(*((name, t, letters) for name, t in tensors), dtype=torch.float32)
    for name, tensor in tensors:
        if not tensor.is_contiguous():
            raise InputError(f"{caller}: {name} must be contiguous, it is updated in place")


def check_adam(
    caller: str, tensors: tuple[Tensor, ...], bad_count: Tensor, settings: AdamSettings
) -> None:
    """Refuse what no step of Adam can take; tensors: parameter, gradient and both moments."""
    names = ("param", "grad", "exp_avg", "exp_avg_sq")
    check_same(caller, list(zip(names, tensors, strict=True)))
    check_shapes(("bad_count", bad_count, "1"), dtype=torch.int32, device=tensors[0].device)
    if settings.step < 1:
        raise InputError(f"step counts from 1; got {settings.step}")
    if not settings.grad_scale > 0:
        raise InputError(f"grad_scale must be positive; got {settings.grad_scale}")
    if not (0 <= settings.beta1 < 1 and 0 <= settings.beta2 < 1):
        raise InputError(f"betas must lie in [0, 1); got {settings.beta1}, {settings.beta2}")


def _check_half(half_copy: Tensor | None, param: Tensor) -> None:
    if half_copy is not None and (
        half_copy.dtype != torch.float16
        or half_copy.shape != param.shape
        or half_copy.device != param.device
        or not half_copy.is_contiguous()
    ):
        raise InputError("half_copy must be a contiguous fp16 tensor like param")


def settings_bytes(settings: AdamSettings) -> bytes:
    """struct AdamSettings of common/adam.h."""
    return struct.pack(
        "7f2i",
        settings.step_size,
        settings.second_correction,
        settings.beta1,
        settings.beta2,
        settings.eps,
        settings.weight_decay,
        1 / settings.grad_scale,
        int(settings.skip_zero),
        int(settings.zero_grad),
    )


def _adam_reference(
    param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, half_copy: Tensor | None,
    bad_count: Tensor, numbers: list[float],
) -> None:  # fmt: skip
    settings = AdamSettings.from_numbers(numbers)
    reference.adam_step_(
        param, grad, exp_avg, exp_avg_sq, settings, half_copy=half_copy, bad_count=bad_count
    )


def _adam_cpu(
    param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, half_copy: Tensor | None,
    bad_count: Tensor, numbers: list[float],
) -> None:  # fmt: skip
    cpu_library().lg_adam_step(
        *map(pointer, (param, grad, exp_avg, exp_avg_sq)),
        None if half_copy is None else pointer(half_copy, torch.float16),
        pointer(bad_count, torch.int32),
        ctypes.c_int64(param.numel()),
        settings_bytes(AdamSettings.from_numbers(numbers)),
    )


def _adam_cuda(
    param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, half_copy: Tensor | None,
    bad_count: Tensor, numbers: list[float],
) -> None:  # fmt: skip
    tensors = [param, grad, exp_avg, exp_avg_sq]
    vector = vector_width(tensors if half_copy is None else [*tensors, half_copy])
    run = kernel(
        "optimizer.cu", "adam_step", LG_VECTOR=vector, LG_HALF_COPY=int(half_copy is not None)
    )
    unused = bad_count if half_copy is None else half_copy
    arguments = (*tensors, unused, bad_count, param.numel())
    settings = settings_bytes(AdamSettings.from_numbers(numbers))
    run((vector_blocks(param, vector),), (BLOCK,), *arguments, settings)


def vector_width(tensors: list[Tensor]) -> int:
    """Entries a thread takes: 4 where every tensor is aligned to its vector, else 1."""
    aligned = all(t.data_ptr() % (VECTOR * t.element_size()) == 0 for t in tensors)
    return VECTOR if aligned else 1


def vector_blocks(tensor: Tensor, vector: int) -> int:
    """Blocks that cover all whole vectors and one thread more for the rest; 0 when empty."""
    return tensor.numel() and tensor.numel() // vector // BLOCK + 1


def _ema_reference(average: Tensor, param: Tensor, decay: float) -> None:
    reference.ema_step_(average, param, decay)


def _ema_cpu(average: Tensor, param: Tensor, decay: float) -> None:
    cpu_library().lg_ema_step(
        pointer(average),
        pointer(param),
        ctypes.c_float(1 - decay),
        ctypes.c_int64(average.numel()),
    )


def _ema_cuda(average: Tensor, param: Tensor, decay: float) -> None:
    vector = vector_width([average, param])
    run = kernel("optimizer.cu", "ema_step", LG_VECTOR=vector)
    run((vector_blocks(average, vector),), (BLOCK,), average, param, average.numel(), 1.0 - decay)


def no_shapes(*arguments: object) -> None:
    """Shapes do not change."""


_adam_step = operation(
    "adam_step_(Tensor(a!) param, Tensor(b!) grad, Tensor(c!) exp_avg, Tensor(d!) exp_avg_sq, "
    "Tensor(e!)? half_copy, Tensor(f!) bad_count, float[] settings) -> ()",
    reference=_adam_reference,
    cpu=_adam_cpu,
    cuda=_adam_cuda,
    fake=no_shapes,
)
_ema_step = operation(
    "ema_step_(Tensor(a!) average, Tensor param, float decay) -> ()",
    reference=_ema_reference,
    cpu=_ema_cpu,
    cuda=_ema_cuda,
    fake=no_shapes,
)
