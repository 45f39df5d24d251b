"""Measuring: operations and training steps against their torch twins and peers.

`lumigraph bench kernels|train|splat|splat4d` are these functions; `benchmarks/` holds scripts and
results.
"""

from .kernels import bench_kernels
from .splat import bench_splat
from .splat4d import bench_splat4d
from .train import bench_train

__all__ = ["bench_kernels", "bench_splat", "bench_splat4d", "bench_train"]
