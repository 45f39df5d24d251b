"""Launching kernels: on a GPU through the driver on torch's current stream, on CPU tensors
through the emulator.

A launch costs about 8 us of Python and driver time, what a torch operation costs.
"""

from __future__ import annotations

import ctypes
import functools
import struct
import threading
from collections.abc import Sequence
from typing import Any

import torch

from .build import build_cubin, emulated_library
from .driver import (
    MAX_DYNAMIC_SHARED_SIZE,
    NO_CONTEXT_ERRORS,
    check,
    driver,
    get_function,
    load_module,
    use_primary_context,
)

DEFAULT_SHARED_LIMIT = 49152  # bytes a block may use without asking the driver for more
ARGUMENT_BUFFER_SIZE = 4096  # the hardware's limit on kernel arguments

_modules: dict[tuple[str, tuple[str, ...], int], ctypes.c_void_p] = {}
_modules_lock = threading.Lock()
_local = threading.local()


def device_architecture(device: int) -> str:
    """The name NVRTC wants: compute capability 9.0 and later take the arch-specific "a" form."""
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}" + ("a" if major >= 9 else "")


def _argument_space() -> tuple[Any, Any, Any]:
    """Per thread: buffer of packed arguments, its size, and the driver's description of both."""
    try:
        return _local.space
    except AttributeError:
        buffer, size = ctypes.create_string_buffer(ARGUMENT_BUFFER_SIZE), ctypes.c_size_t()
        # CU_LAUNCH_PARAM_BUFFER_POINTER, _BUFFER_SIZE, _END
        extra = (ctypes.c_void_p * 5)(1, ctypes.addressof(buffer), 2, ctypes.addressof(size), 0)
        _local.space = (buffer, size, extra)
        return _local.space


def _three(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) == 1:  # nearly always
        return shape[0], 1, 1
    x, y, z = (*shape, 1, 1)[:3]
    return x, y, z


class Kernel:
    """One `__global__` function of one `.cu` with its `-D` constants.

    Call as `kernel(grid, block, *arguments, shared=0)`: tensors are passed as pointers, `int` as
    int32, `float` as float32, `bytes` as a struct by value (4-byte aligned). Argument kinds are
    fixed by the first call. All tensors lie on one device; on a GPU the launch goes to torch's
    current stream there, on the CPU the emulator runs it. A grid with a zero does nothing.
    """

    def __init__(self, file: str, name: str, defines: tuple[str, ...]) -> None:
        self.file, self.name, self.defines = file, name, defines
        self._functions: dict[int, int] = {}
        self._shared: dict[int, int] = {}
        self._format: struct.Struct | None = None
        self._tensor_places: list[int] = []

    def __repr__(self) -> str:
        return f"Kernel({self.file}:{self.name} {' '.join(self.defines)})"

    def load(self, device: int) -> int:
        """Compile or read the machine code and load it: done before capturing a CUDA graph."""
        torch.cuda.init()
        key = (self.file, self.defines, device)
        with _modules_lock, torch.cuda.device(device):
            use_primary_context(device)
            if key not in _modules:
                code = build_cubin(self.file, device_architecture(device), self.defines)
                _modules[key] = load_module(code, self.file)
            self._functions[device] = get_function(_modules[key], self.name)
        return self._functions[device]

    def _describe(self, arguments: Sequence[Any]) -> struct.Struct:
        kinds = []
        for argument in arguments:
            if isinstance(argument, torch.Tensor):
                kinds.append("P")
            elif isinstance(argument, float):
                kinds.append("f")
            elif isinstance(argument, bytes):
                kinds.append(f"0i{len(argument)}s")
            else:
                kinds.append("i")
        self._tensor_places = [i for i, kind in enumerate(kinds) if kind == "P"]
        return struct.Struct("@" + "".join(kinds))

    def _allow_shared(self, function: int, device: int, shared: int) -> None:
        if self._shared.get(device, 0) < shared:
            use_primary_context(device)
            code = driver().cuFuncSetAttribute(function, MAX_DYNAMIC_SHARED_SIZE, shared)
            check(code, f"{self.name}: {shared} bytes of shared memory")
            self._shared[device] = shared

    def __call__(
        self, grid: Sequence[int], block: Sequence[int], *arguments: Any, shared: int = 0
    ) -> None:
        if 0 in grid:
            return
        if self._format is None:
            self._format = self._describe(arguments)
        device = arguments[self._tensor_places[0]].get_device()
        if device < 0:
            self._emulate(grid, block, arguments)
            return
        values = list(arguments)
        for place in self._tensor_places:
            values[place] = values[place].data_ptr()
        function = self._functions.get(device) or self.load(device)
        if shared > DEFAULT_SHARED_LIMIT:
            self._allow_shared(function, device, shared)
        buffer, size, extra = _argument_space()
        self._format.pack_into(buffer, 0, *values)
        size.value = self._format.size
        stream = torch._C._cuda_getCurrentRawStream(device)
        call = (function, *_three(grid), *_three(block), shared, stream, None, extra)
        launch = driver().cuLaunchKernel
        code = launch(*call)
        if code in NO_CONTEXT_ERRORS:
            use_primary_context(device)
            code = launch(*call)
        if code:
            check(code, self.name)

    def _emulate(self, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any]) -> None:
        values: list[Any] = []
        for argument in arguments:
            if isinstance(argument, torch.Tensor):
                values.append(ctypes.c_void_p(argument.data_ptr()))
            elif isinstance(argument, float):
                values.append(ctypes.c_float(argument))
            elif isinstance(argument, bytes):
                values.append(ctypes.create_string_buffer(argument, len(argument)))
            else:
                values.append(ctypes.c_int(argument))
        addresses = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        shape = (ctypes.c_int * 6)(*_three(grid), *_three(block))
        library = emulated_library(self.file, self.defines)
        getattr(library, f"emulate_{self.name}")(shape, addresses)


@functools.cache
def _kernel(file: str, name: str, defines: tuple[str, ...]) -> Kernel:
    return Kernel(file, name, defines)


@functools.cache
def _specialised(file: str, name: str, constants: tuple[tuple[str, int], ...]) -> Kernel:
    return _kernel(file, name, tuple(f"-D{key}={value}" for key, value in sorted(constants)))


def kernel(file: str, name: str, **defines: int) -> Kernel:
    """The kernel `name` of `cuda/kernels/<file>`, specialised by `-D` constants.

    Example:
        kernel("grid.cu", "grid_forward", LG_LEVELS=16)((blocks,), (128,), x, table, out, len(x))
    """
    return _specialised(file, name, tuple(defines.items()))
