"""Exploration noise of Gaussians, in place: `perturb_means_`. Formula: `reference/perturb.py`."""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.core.shapes import check_shapes

from .build import cpu_library
from .dispatch import operation, pointer
from .optimizer import no_shapes
from .reference import perturb as reference
from .runtime import kernel

__all__ = ["perturb_means_"]

BLOCK = 256  # threads, as in kernels/perturb.cu


def perturb_means_(
    means: Tensor,
    rotations: Tensor,
    log_scales: Tensor,
    opacity_logits: Tensor,
    noise: Tensor,
    *,
    rate: float,
) -> None:
    """Move the means of faint Gaussians at random within their own shape, in place.

    Args:
        means: (G, 3) contiguous; rate sigmoid(-100 (o - 0.005)) R S S^T R^T noise is added.
        rotations: (G, 4) wxyz, any length above 0. log_scales: (G, 3). opacity_logits: (G,).
        noise: (G, 3), usually standard normal.
        rate: learning rate of the means times the strength of the noise (5e5 in the paper).

    A Gaussian whose move is not finite stays where it is. No gradient flows.

    Raises:
        InputError: shapes, dtypes (all float32), devices or the rate are wrong.

    >>> means, faint = torch.zeros(1, 3), torch.tensor([-20.0])
    >>> turn, size = torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, -9.0]])
    >>> perturb_means_(means, turn, size, faint, torch.ones(1, 3), rate=0.1)
    >>> means.round(decimals=4)
    tensor([[0.0622, 0.0622, 0.0000]])
    """
    check_shapes(
        ("means", means, "G 3"),
        ("rotations", rotations, "G 4"),
        ("log_scales", log_scales, "G 3"),
        ("opacity_logits", opacity_logits, "G"),
        ("noise", noise, "G 3"),
        dtype=torch.float32,
    )
    if not means.is_contiguous():
        raise InputError("perturb_means_: means must be contiguous, it is updated in place")
    if not math.isfinite(rate):
        raise InputError(f"rate must be finite; got {rate}")
    with torch.no_grad():
        _perturb(means, rotations, log_scales, opacity_logits, noise, float(rate))


def _perturb_reference(
    means: Tensor, rotations: Tensor, log_scales: Tensor, logits: Tensor, noise: Tensor, rate: float
) -> None:
    means.copy_(reference.perturb_means(means, rotations, log_scales, logits, noise, rate=rate))


def _perturb_cpu(
    means: Tensor, rotations: Tensor, log_scales: Tensor, logits: Tensor, noise: Tensor, rate: float
) -> None:
    tensors = [t.contiguous() for t in (means, rotations, log_scales, logits, noise)]
    count = ctypes.c_int64(len(means))
    cpu_library().lg_perturb_means(*map(pointer, tensors), count, ctypes.c_float(rate))


def _perturb_cuda(
    means: Tensor, rotations: Tensor, log_scales: Tensor, logits: Tensor, noise: Tensor, rate: float
) -> None:
    tensors = [t.contiguous() for t in (means, rotations, log_scales, logits, noise)]
    if tensors[1].data_ptr() % 16:  # rows are read whole
        tensors[1] = tensors[1].clone()
    run = kernel("perturb.cu", "perturb_means")
    run((-(-len(means) // BLOCK),), (BLOCK,), *tensors, len(means), rate)


_perturb = operation(
    "perturb_means_(Tensor(a!) means, Tensor rotations, Tensor log_scales, Tensor logits, "
    "Tensor noise, float rate) -> ()",
    reference=_perturb_reference,
    cpu=_perturb_cpu,
    cuda=_perturb_cuda,
    fake=no_shapes,
)
