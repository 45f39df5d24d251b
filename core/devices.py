"""Choosing the device that tensors live on."""

from __future__ import annotations

import torch

from lumigraph.core.errors import BackendError


def choose_device(name: str = "auto") -> torch.device:
    """The device for a name given by a user.

    Args:
        name: "auto" (an NVIDIA GPU where there is one, else the CPU), "cpu", "cuda" or "cuda:N".

    Raises:
        BackendError: the name is unknown, or asks for a GPU that cannot be used; says why.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in {"cpu", "cuda"}:
        raise BackendError(f"device must be auto, cpu, cuda or cuda:N; got {name!r}")
    if device.type == "cuda":
        _check_cuda(name, device.index)
    return device


def _check_cuda(name: str, index: int | None) -> None:
    if torch.version.cuda is None:
        reason = f"torch {torch.__version__} is built without CUDA; install a CUDA build of torch"
    elif not torch.cuda.is_available():
        reason = "torch finds no usable NVIDIA GPU or driver (nvidia-smi shows what is there)"
    elif index is not None and index >= torch.cuda.device_count():
        reason = f"there are {torch.cuda.device_count()} GPUs, numbered from 0"
    else:
        return
    raise BackendError(f"device {name!r} cannot be used: {reason}; or choose auto or cpu")
