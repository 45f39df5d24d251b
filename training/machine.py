"""What a measurement ran on: processor, memory, GPU and versions, for reports and benchmarks."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy
import torch

import lumigraph


def machine_facts() -> dict[str, str]:
    """Name -> value, for people; nothing that identifies a person or a host.

    >>> sorted(machine_facts())[:3]
    ['CPU', 'GPU', 'PyTorch']
    """
    facts = {
        "CPU": f"{_cpu_name()}, {_usable_cores()} cores",
        "memory": _memory(),
        "GPU": _gpu_name(),
        "system": f"{platform.system()} {platform.machine()}",
        "lumigraph": lumigraph.__version__,
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "numpy": numpy.__version__,
    }
    return {name: value for name, value in facts.items() if value}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _usable_cores() -> int:
    """Cores that this process may use, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return ""
    return f"{size / 2**30:.0f} GiB"


def _gpu_name() -> str:
    if not torch.cuda.is_available():
        return "none"
    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
