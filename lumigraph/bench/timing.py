"""Timing contenders against each other in one process.

On a CPU their calls alternate, so that a busy machine slows all alike. On a GPU each call stands
between two events, after warm-up, in two alternating blocks of calls without a host sync; a third
block counts its peak memory. Autograd runs in the calling thread, as in the trainer. Figures are
medians with the 10th and 90th percentile as spread.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

Call = Callable[[int], Any]
"""One timed call; the number chooses among rotating inputs, so that no cache holds them all."""

WARM_UP_CALLS = 3  # on a GPU, after the first call; fills the allocator
BLOCKS = 2


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        seconds: for each contender, about.
        fewest, most: calls of each contender.
    """

    seconds: float = 1.0
    fewest: int = 5
    most: int = 200


@dataclass(frozen=True)
class Timing:
    """What calls took, in milliseconds."""

    median_ms: float
    low_ms: float
    """10th percentile."""
    high_ms: float
    """90th percentile."""
    calls: int
    peak_mib: float | None = None
    """GPU memory that a call took on top of its inputs."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values with four digits or so."""
        return {
            name: rounded(value) if isinstance(value, float) else value
            for name, value in asdict(self).items()
            if value is not None
        }


def rounded(value: float, digits: int = 4) -> float:
    """A number with that many significant digits.

    >>> rounded(0.0123456), rounded(123.456)
    (0.01235, 123.5)
    """
    if value == 0 or not math.isfinite(value):
        return value
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))


def summary(milliseconds: list[float], peak_mib: float | None = None) -> Timing:
    """Median and spread of the times of single calls.

    >>> summary([1.0, 9.0, 2.0]).median_ms
    2.0
    """
    ordered = sorted(milliseconds)
    last = len(ordered) - 1
    return Timing(
        median_ms=statistics.median(ordered),
        low_ms=ordered[round(0.1 * last)],
        high_ms=ordered[round(0.9 * last)],
        calls=len(ordered),
        peak_mib=peak_mib,
    )


def measure(
    contenders: Mapping[str, Call], device: torch.device, effort: Effort | None = None
) -> dict[str, Timing]:
    """Time contenders that do the same work; every one has been called once before."""
    effort = effort or Effort()
    if device.type == "cuda":
        with torch.autograd.set_multithreading_enabled(False):
            return _measure_cuda(contenders, effort)
    return _measure_cpu(contenders, effort)


def _measure_cpu(contenders: Mapping[str, Call], effort: Effort) -> dict[str, Timing]:
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(effort.most):
        for name, call in contenders.items():
            begin = time.perf_counter()
            call(turn)
            times[name].append((time.perf_counter() - begin) * 1e3)
        spent = sum(map(sum, times.values())) / 1e3
        if turn + 1 >= effort.fewest and spent > effort.seconds * len(contenders):
            break
    return {name: summary(values) for name, values in times.items()}


def _measure_cuda(contenders: Mapping[str, Call], effort: Effort) -> dict[str, Timing]:
    times: dict[str, list[float]] = {name: [] for name in contenders}
    counts = {name: _calls_of_block(call, effort) for name, call in contenders.items()}
    for _ in range(BLOCKS):
        for name, call in contenders.items():
            times[name] += _timed_block(call, counts[name])
    peaks = {name: _peak_mib(call) for name, call in contenders.items()}
    return {name: summary(values, peaks[name]) for name, values in times.items()}


def _calls_of_block(call: Call, effort: Effort) -> int:
    for turn in range(WARM_UP_CALLS):
        call(turn)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    call(0)
    torch.cuda.synchronize()
    once = max(time.perf_counter() - begin, 1e-6)
    wanted = effort.seconds / once
    return math.ceil(min(effort.most, max(effort.fewest, wanted)) / BLOCKS)


def _timed_block(call: Call, count: int) -> list[float]:
    pairs = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
        for _ in range(count)
    ]
    call(0)  # the clocks may have dropped since the last block
    torch.cuda.synchronize()
    for turn, (begin, end) in enumerate(pairs):
        begin.record()
        call(turn)
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) for begin, end in pairs]


def _peak_mib(call: Call) -> float:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call(0)
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def kernel_profile(call: Call, *, calls: int = 5, most: int = 10) -> dict[str, Any]:
    """GPU kernels of a call: their summed time, their number, and the longest ones.

    Returns:
        `kernel_ms`, `kernels`, and `longest`: rows of name, milliseconds and launches a call.
    """
    from torch.profiler import ProfilerActivity, profile

    call(0)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        for turn in range(calls):
            call(turn)
        torch.cuda.synchronize()
    rows = []
    for event in profiler.key_averages():
        on_gpu = str(getattr(event, "device_type", "")).endswith("CUDA")
        took = float(getattr(event, "self_device_time_total", 0.0) or 0.0)
        if on_gpu and took > 0 and not getattr(event, "is_user_annotation", False):
            rows.append((took / calls / 1e3, event.count / calls, event.key[:80]))
    rows.sort(reverse=True)
    return {
        "kernel_ms": rounded(sum(row[0] for row in rows)),
        "kernels": rounded(sum(row[1] for row in rows)),
        "longest": [
            {"name": name, "ms": rounded(took), "launches": count}
            for took, count, name in rows[:most]
        ],
    }
