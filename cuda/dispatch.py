"""One torch.library namespace, and which implementation of an operation runs.

By tensor device: CPU tensors take the C++ kernels, CUDA tensors the CUDA kernels.
`LUMIGRAPH_BACKEND` overrides: `torch` (plain torch twins, any device), `cpu`, `cuda`, or `emu`
(CUDA kernels on the CPU emulator: for tests, slow). A wish that can't be met is an error.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch

from lumigraph.core.errors import BackendError

from .build import cpu_library

BACKENDS = ("torch", "cpu", "cuda", "emu")

logger = logging.getLogger("lumigraph.cuda")
library = torch.library.Library("lumigraph", "DEF")


def requested_backend() -> str | None:
    """`LUMIGRAPH_BACKEND`, or None.

    Raises:
        BackendError: the environment names an unknown backend.
    """
    name = os.environ.get("LUMIGRAPH_BACKEND") or None
    if name is not None and name not in BACKENDS:
        raise BackendError(f"LUMIGRAPH_BACKEND={name}: unknown, use one of {', '.join(BACKENDS)}")
    return name


@contextlib.contextmanager
def backend_override(name: str) -> Iterator[None]:
    """Set `LUMIGRAPH_BACKEND` inside the block: for the whole process, because autograd runs
    the backward of CUDA tensors in a thread of its own."""
    before = os.environ.get("LUMIGRAPH_BACKEND")
    os.environ["LUMIGRAPH_BACKEND"] = name
    try:
        requested_backend()
        yield
    finally:
        if before is None:
            del os.environ["LUMIGRAPH_BACKEND"]
        else:
            os.environ["LUMIGRAPH_BACKEND"] = before


@functools.cache
def _cpu_or_torch() -> str:
    """Without a compiler the torch twins serve, announced once."""
    try:
        cpu_library()
    except BackendError as error:
        logger.warning("CPU kernels are not available, torch twins are used instead: %s", error)
        return "torch"
    return "cpu"


def backend_for(device: torch.device) -> str:
    """Which backend serves tensors on `device` now.

    Raises:
        BackendError: the requested backend cannot serve that device.
    """
    wish = requested_backend()
    if device.type == "cuda":
        if wish in ("cpu", "emu"):
            raise BackendError(f"LUMIGRAPH_BACKEND={wish} runs CPU tensors; use --device cpu")
        return wish or "cuda"
    if device.type == "cpu":
        if wish == "cuda":
            raise BackendError("LUMIGRAPH_BACKEND=cuda needs CUDA tensors; use --device cuda")
        if wish == "cpu":
            cpu_library()  # raises with the reason
        return wish or _cpu_or_torch()
    return "torch"


def operation(
    schema: str,
    *,
    reference: Callable[..., Any],
    cpu: Callable[..., Any],
    cuda: Callable[..., Any],
    fake: Callable[..., Any],
) -> Callable[..., Any]:
    """Define `lumigraph::<name>` with its implementations and return the callable.

    Args:
        schema: torch.library schema without the namespace; tensors marked `Tensor(a!)` are
            written in place.
        reference: plain torch, any device. cpu: calls the C++ library. cuda: launches kernels;
            also serves the emulator, on CPU tensors. fake: shapes and dtypes only.
    """
    name = schema.split("(", 1)[0].strip()
    library.define(schema)
    table = {"torch": reference, "cpu": cpu, "cuda": cuda, "emu": cuda}

    def on_cpu(*arguments: Any, **options: Any) -> Any:
        return table[backend_for(torch.device("cpu"))](*arguments, **options)

    def on_cuda(*arguments: Any, **options: Any) -> Any:
        return table[backend_for(torch.device("cuda"))](*arguments, **options)

    library.impl(name, on_cpu, "CPU")
    library.impl(name, on_cuda, "CUDA")
    torch.library.register_fake(f"lumigraph::{name}", fake, lib=library)
    overload: Callable[..., Any] = getattr(torch.ops.lumigraph, name).default
    return overload


def pointer(tensor: torch.Tensor, dtype: torch.dtype | None = torch.float32) -> ctypes.c_void_p:
    """Address of a contiguous tensor. The caller keeps `tensor` alive during the call: never
    pass a temporary."""
    assert tensor.is_contiguous(), "native code needs a contiguous tensor"
    assert dtype is None or tensor.dtype == dtype, f"expected {dtype}, got {tensor.dtype}"
    return ctypes.c_void_p(tensor.data_ptr())
