"""Compiles everything native without a GPU: the CPU library, and every CUDA source for every
architecture of the list. Exits with 1 and the first error of each file that fails."""

from __future__ import annotations

import sys
import time

import torch  # noqa: F401  (the CPU library shares torch's OpenMP)

from lumigraph.core.errors import BackendError
from lumigraph.cuda.build import build_cpu_library, build_cubin, kernel_files

ARCHITECTURES = ("sm_80", "sm_90a", "sm_120")


def main() -> int:
    failures = 0
    begin = time.perf_counter()
    try:
        build_cpu_library()
        print(f"cpu library: {time.perf_counter() - begin:.1f} s")
    except BackendError as error:
        failures += 1
        print(error)
    for file in kernel_files():
        for architecture in ARCHITECTURES:
            begin = time.perf_counter()
            try:
                size = len(build_cubin(file, architecture))
            except BackendError as error:
                failures += 1
                print(error)
                continue
            seconds = time.perf_counter() - begin
            print(f"{file} {architecture}: {size} bytes, {seconds:.1f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
