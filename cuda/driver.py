"""The few calls of the CUDA driver that launching needs, through ctypes."""

from __future__ import annotations

import ctypes
import functools

from lumigraph.core.errors import BackendError

MAX_DYNAMIC_SHARED_SIZE = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
# A thread that has made no CUDA run-time call yet has no context (or another library's).
NO_CONTEXT_ERRORS = (201, 400)  # CUDA_ERROR_INVALID_CONTEXT, CUDA_ERROR_INVALID_HANDLE


@functools.cache
def driver() -> ctypes.CDLL:
    """libcuda with argument types set.

    Raises:
        BackendError: no NVIDIA driver on this machine.
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise BackendError("no NVIDIA driver found (libcuda.so.1); use --device cpu") from error
    pointer, unsigned = ctypes.c_void_p, ctypes.c_uint
    library.cuLaunchKernel.argtypes = [pointer, *[unsigned] * 7, pointer, pointer, pointer]
    library.cuCtxSetCurrent.argtypes = [pointer]
    library.cuFuncSetAttribute.argtypes = [pointer, ctypes.c_int, ctypes.c_int]
    library.cuGetErrorName.argtypes = [ctypes.c_int, pointer]
    return library


def check(code: int, what: str) -> None:
    """Raise BackendError naming the driver's error when `code` is not success."""
    if code:
        name = ctypes.c_char_p()
        driver().cuGetErrorName(code, ctypes.byref(name))
        raise BackendError(f"{what}: {(name.value or b'unknown').decode()} ({code})")


def use_primary_context(device: int) -> None:
    """Make the device's primary context, which torch uses, current in this thread."""
    handle, context, cuda = ctypes.c_int(), ctypes.c_void_p(), driver()
    check(cuda.cuDeviceGet(ctypes.byref(handle), device), "cuDeviceGet")
    check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), handle), "cuDevicePrimaryCtxRetain")
    check(cuda.cuCtxSetCurrent(context), "cuCtxSetCurrent")


def load_module(code: bytes, what: str) -> ctypes.c_void_p:
    module = ctypes.c_void_p()
    check(driver().cuModuleLoadData(ctypes.byref(module), code), f"load {what}")
    return module


def get_function(module: ctypes.c_void_p, name: str) -> int:
    function = ctypes.c_void_p()
    check(driver().cuModuleGetFunction(ctypes.byref(function), module, name.encode()), name)
    assert function.value is not None
    return function.value
