"""Choosing the device that tensors live on, and how much memory it has left."""

from __future__ import annotations

from pathlib import Path

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


def available_bytes(device: torch.device) -> int:
    """Memory that is free on a device, of the whole machine or of the container."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + reserved
    return min([_machine_bytes(), *_container_bytes()])


def _machine_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 2**63 - 1
    found = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return found[0] * 1024 if found else 2**63 - 1


def _container_bytes() -> list[int]:
    """Room below the limit of a control group (version 2), if there is one."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        cache = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return []
    if limit == "max":
        return []
    # files in memory give way
    return [int(limit) - used + int(cache.get("inactive_file", 0))]
