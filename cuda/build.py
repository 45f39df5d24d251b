"""Compiles the native code on first use: the CPU library and emulated kernels with the host's
C++ compiler, CUDA kernels with NVRTC. Nothing is compiled by importing this module.

Every result is cached by content, compiler and target, so a second process loads it in
milliseconds.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lumigraph.core.errors import BackendError

from .cache import cache_folder, content_key, write_atomic
from .nvrtc import compile_cubin, nvrtc_version

SOURCES = Path(__file__).parent

# No -ffast-math: g++ before 13 then links start-up code that switches denormals off for the
# whole process. The single flags below give the same vectorisation.
CPU_FLAGS = [
    *["-std=c++17", "-O3", "-fPIC", "-fopenmp", "-fvisibility=hidden", "-Wno-psabi"],
    *["-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros"],
]
EMULATOR_FLAGS = [
    *["-std=c++17", "-O1", "-fPIC", "-DLG_EMU", "-Wno-psabi", "-Wno-ignored-attributes"],
]


@functools.cache
def host_compiler() -> str:
    """Path of the C++ compiler: `CXX`, else g++, clang++, c++.

    Raises:
        BackendError: none is installed.
    """
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        path = name and shutil.which(name)
        if path:
            return path
    raise BackendError(
        "no C++ compiler found for the CPU kernels; install g++ (Debian: apt-get install g++) "
        "or set CXX, or run with LUMIGRAPH_BACKEND=torch (slower)"
    )


@functools.cache
def host_target() -> str:
    """What `-march=native` means here: code for one CPU may not run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def architecture_flags() -> list[str]:
    """`-march=native`, or the value of `LUMIGRAPH_MARCH` (for example x86-64-v3)."""
    return [f"-march={os.environ.get('LUMIGRAPH_MARCH', 'native')}"]


def sources(*patterns: str) -> dict[str, str]:
    """File name -> text of the native sources that match."""
    return {
        path.name: path.read_text()
        for pattern in patterns
        for path in sorted(SOURCES.glob(pattern))
    }


def run_compiler(command: Sequence[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        first = next((s for s in result.stderr.splitlines() if "error" in s), result.stderr[:200])
        raise BackendError(f"{Path(command[0]).name} failed: {first.strip()}")


def _link(objects: Sequence[Path], target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / target.name
        run_compiler(
            [host_compiler(), "-shared", "-fopenmp", *map(str, objects), "-o", str(library)]
        )
        write_atomic(target, library.read_bytes())


def build_cpu_library() -> Path:
    """Path of the compiled CPU library; compiles it unless the cache has it.

    Raises:
        BackendError: no compiler, or a source does not compile.
    """
    texts = sources("cpu/*.cpp", "cpu/*.h", "common/*.h")
    flags = [*CPU_FLAGS, *architecture_flags()]
    key = content_key(sorted(texts.items()), flags, host_compiler(), host_target())
    target = cache_folder() / f"cpu-{key}.so"
    if target.is_file():
        return target
    with tempfile.TemporaryDirectory() as folder:
        files = sorted(SOURCES.glob("cpu/*.cpp"))
        objects = [Path(folder) / f"{file.stem}.o" for file in files]
        commands = [
            [host_compiler(), *flags, f"-I{SOURCES / 'common'}", "-c", str(file), "-o", str(out)]
            for file, out in zip(files, objects, strict=True)
        ]
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            list(pool.map(run_compiler, commands))
        _link(objects, target)
    return target


@functools.cache
def cpu_library() -> ctypes.CDLL:
    """The CPU kernels. torch must be imported first: both share one OpenMP runtime."""
    import torch  # noqa: F401

    return ctypes.CDLL(str(build_cpu_library()))


def build_emulated(file: str, defines: tuple[str, ...]) -> Path:
    """Path of one `.cu` compiled for the CPU emulator with the given `-D` constants."""
    texts = sources("common/*.h", "kernels/*.h", "emu/*.h")
    text = (SOURCES / "kernels" / file).read_text()
    flags = [*EMULATOR_FLAGS, *architecture_flags(), *defines]
    key = content_key(text, sorted(texts.items()), flags, host_compiler(), host_target())
    target = cache_folder() / f"emu-{Path(file).stem}-{key}.so"
    if target.is_file():
        return target
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "kernel.o"
        include = [f"-I{SOURCES / room}" for room in ("common", "kernels", "emu")]
        source = ["-x", "c++", "-include", "emulator.h", str(SOURCES / "kernels" / file)]
        run_compiler([host_compiler(), *flags, *include, *source, "-c", "-o", str(out)])
        _link([out], target)
    return target


@functools.cache
def emulated_library(file: str, defines: tuple[str, ...]) -> ctypes.CDLL:
    return ctypes.CDLL(str(build_emulated(file, defines)))


def build_cubin(file: str, architecture: str, defines: tuple[str, ...] = ()) -> bytes:
    """Machine code of one `.cu` for an architecture such as "sm_90a".

    Needs NVRTC, but neither a GPU nor nvcc.

    Raises:
        BackendError: NVRTC is missing or the kernel does not compile.
    """
    headers = sources("common/*.h", "kernels/*.h")
    text = (SOURCES / "kernels" / file).read_text()
    key = content_key(text, sorted(headers.items()), architecture, defines, nvrtc_version())
    target = cache_folder() / f"{Path(file).stem}-{architecture}-{key}.cubin"
    if target.is_file():
        return target.read_bytes()
    code = compile_cubin(text, file, architecture=architecture, options=defines, headers=headers)
    write_atomic(target, code)
    return code


def kernel_files() -> list[str]:
    """Names of all CUDA sources, for the compile check."""
    return sorted(path.name for path in (SOURCES / "kernels").glob("*.cu"))
