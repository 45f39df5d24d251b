"""NVRTC through ctypes: CUDA C++ to machine code without nvcc, a host compiler or a GPU."""

from __future__ import annotations

import ctypes
import functools
import site
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lumigraph.core.errors import BackendError

OPTIONS = ("--std=c++17", "-default-device", "--use_fast_math", "-lineinfo")
SYSTEM_NAMES = (
    "/usr/local/cuda/lib64/libnvrtc.so",
    "libnvrtc.so.13",
    "libnvrtc.so.12",
    "libnvrtc.so",
)


def _loaded_by_torch() -> list[str]:
    """Two versions of NVRTC in one process fight over their built-ins library: prefer torch's."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    return [line.split()[-1] for line in lines if "libnvrtc.so" in line][:1]


def _from_packages() -> list[str]:
    found = []
    for root in dict.fromkeys([*site.getsitepackages(), *sys.path]):
        for pattern in ("nvidia/cu1?/lib/libnvrtc.so.1?", "nvidia/cuda_nvrtc/lib/libnvrtc.so.1?"):
            found += sorted(map(str, Path(root or ".").glob(pattern)), reverse=True)
    return found


@functools.cache
def _library() -> ctypes.CDLL:
    for path in (*_loaded_by_torch(), *_from_packages(), *SYSTEM_NAMES):
        try:
            # NVRTC opens its built-ins by bare name: loaded beforehand, they need no search path.
            for companion in Path(path).parent.glob("libnvrtc-builtins.so.1?.*"):
                ctypes.CDLL(str(companion))
            return ctypes.CDLL(path)
        except OSError:
            continue
    raise BackendError(
        "NVRTC (CUDA's run-time compiler) was not found; "
        "pip install 'nvidia-cuda-nvrtc>=13.0,<13.1', or a torch build with CUDA"
    )


@functools.cache
def nvrtc_version() -> tuple[int, int]:
    """(major, minor). Raises BackendError when NVRTC is missing."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


def _strings(values: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * len(values))(*[value.encode() for value in values])


def _text(program: ctypes.c_void_p, size_call: str, text_call: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(_library(), size_call)(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(_library(), text_call)(program, buffer)
    return buffer.raw


def compile_cubin(
    text: str,
    name: str,
    *,
    architecture: str,
    options: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Compile CUDA C++ `text` to a cubin.

    Args:
        name: file name used in messages.
        architecture: for example "sm_80" or "sm_90a".
        options: further compiler options, mostly `-DNAME=VALUE`.
        headers: header name -> text; nothing is read from disk.

    Raises:
        BackendError: NVRTC is missing, or the text does not compile (first error is quoted).
    """
    library, program, headers = _library(), ctypes.c_void_p(), headers or {}
    library.nvrtcCreateProgram(
        ctypes.byref(program),
        text.encode(),
        name.encode(),
        len(headers),
        _strings(list(headers.values())),
        _strings(list(headers)),
    )
    flags = [f"--gpu-architecture={architecture}", *OPTIONS, *options]
    try:
        if library.nvrtcCompileProgram(program, len(flags), _strings(flags)):
            log = _text(program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog").decode()
            first = next((s for s in log.splitlines() if "error" in s), log[:300])
            raise BackendError(f"kernel {name} does not compile for {architecture}: {first}")
        return _text(program, "nvrtcGetCUBINSize", "nvrtcGetCUBIN")
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
