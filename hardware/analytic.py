"""The cluster in closed form: one design point in well under a millisecond.

    c_enc  = max over levels of the mean service        (deep FIFOs)
    c_lock = mean over samples of the slowest level     (FIFOs of depth 1)
    c_fifo = c_enc + (c_lock - c_enc) g(depth)          g from simulated FIFOs
    p      = batch cycles / batch                       (layer_serial)
    II     = max(c_fifo / q, p, port bytes per sample / port rate, misses)

II is cycles for each sample of a processor; q inputs are encoded in parallel. Which lines miss does
not depend on time, so they are counted exactly; what they cost follows from windows (`Misses`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cluster import ClusterSpec
from .cycle.addresses import Banking, accesses_and_service
from .cycle.model import check_fit, engine_service, lines_of_samples
from .cycle.timing import TimingShape, inputs_in_parallel
from .trace import Trace
from .workloads import Workload

FIFO_EFFECT = {1: 1.0, 2: 0.34, 4: 0.13, 8: 0.055, 16: 0.028}
"""Part of the lock-step penalty that is left at a depth; measured, see tests/hardware."""
PROFILED_SAMPLES = 10_000
LEAST_SAMPLES = 1 << 14
"""Of a processor whose rate is measured: fewer would be filling and draining alone."""


@dataclass(frozen=True)
class Profile:
    """What the analytic model must know of the samples."""

    mean_service: tuple[float, ...]
    """(E,) cycles of each engine."""
    lock_step: float
    """Mean over samples of the slowest engine."""
    accesses: tuple[float, ...]
    """(L,) table reads of a sample."""
    misses: Misses | None
    """None where every table is on chip."""


@dataclass(frozen=True)
class AnalyticResult:
    """One design point."""

    interval_cycles: float
    """Of one processor, for each sample, in the steady state."""
    encoding_cycles: float
    array_cycles: float
    port_cycles: float
    miss_cycles: float
    latency_cycles: int
    """From the first input to the first result."""
    samples_per_second: float
    """Of one processor."""
    bottleneck: str
    mac_utilization: float
    """Useful multiply-accumulates over those that the array could do."""


def array_interval(shape: TimingShape) -> float:
    """Cycles of the array for each sample."""
    if shape.serial:
        return shape.batch_cycles(shape.batch) / shape.batch
    return shape.interval / shape.lanes


def fifo_effect(depth: int) -> float:
    """g(depth), between measured depths by powers."""
    depths = sorted(FIFO_EFFECT)
    logs = [math.log2(d) for d in depths]
    values = [math.log2(FIFO_EFFECT[d]) for d in depths]
    at = math.log2(depth)
    if at > logs[-1]:  # it halves with every doubling
        return FIFO_EFFECT[depths[-1]] * 2.0 ** (logs[-1] - at)
    return float(2.0 ** np.interp(at, logs, values))


def profile(trace: Trace, cluster: ClusterSpec) -> Profile:
    """Measure the samples of a trace: banks on at most `PROFILED_SAMPLES` of them in one run from
    the middle, caches on all, as what they hold depends on all that came before.

    Raises:
        ConfigError: the cluster cannot run the workload.
        MissingExtraError: tables do not fit, and numba is not installed.
    """
    work, engines = trace.workload, cluster.nfp.encoding
    encoding = work.encoding
    check_fit(cluster, work)
    begin = max((len(trace.positions) - PROFILED_SAMPLES) // 2, 0)
    part = trace.positions[begin : begin + PROFILED_SAMPLES]
    banking = Banking.of(engines, encoding)
    group = inputs_in_parallel(cluster, work)
    columns = [
        accesses_and_service(part, encoding, level, banking=banking, group=group)
        for level in range(encoding.levels)
    ]
    service = engine_service(np.stack([c for _, c in columns], 1), engines.engines)
    return Profile(
        mean_service=tuple(float(mean) for mean in service.mean(0)),
        lock_step=float(service.max(1).mean()),
        accesses=tuple(float(a.mean()) for a, _ in columns),
        misses=_misses(trace, cluster) if cluster.capacity == "honest" else None,
    )


@dataclass(frozen=True)
class Misses:
    """Lines that samples fetch, and what waits for them.

    Samples join in order, so that the first missing sample of a window holds back all behind it. A
    window ends when the FIFOs are full or the miss registers used up; what misses within it is
    fetched side by side.
    """

    lines: float
    """From L2, of a sample."""
    dram_lines: float
    waits: tuple[tuple[float, float, float], ...]
    """(windows for each sample, their samples, cycles until the data are there): from L2 alone,
    and with DRAM."""


def _misses(trace: Trace, cluster: ClusterSpec) -> Misses | None:
    count = int(np.clip(len(trace.positions) // LEAST_SAMPLES, 1, cluster.nfp.count))
    alike = cluster.with_settings({"nfp.count": count})
    found = lines_of_samples(trace.positions, trace.rays, trace.workload, alike)
    if found is None or not found[0].any():
        return None
    near, far, bounds = found
    shape = TimingShape.of(cluster, trace.workload)
    n = len(near)
    windows = {False: [0, 0], True: [0, 0]}  # with DRAM: windows, samples in them
    for begin, end in pairwise(bounds):
        lines = near[begin:end].astype(np.int64)
        missing = np.flatnonzero(lines.any(1))
        worst = np.cumsum(lines[missing], 0)  # of each engine
        distant = np.cumsum(far[begin:end][missing].any(1))
        at = 0
        while at < len(missing):
            before = worst[at - 1] if at else 0
            full = int(np.searchsorted(missing, missing[at] + shape.depth * shape.group))
            used = (worst[at:full] - before).max(1)
            # registers serve in turn: the window ends with the sample that waits for the first
            last = at + max(int(np.searchsorted(used, shape.mshr, side="right")), 1)
            has_far = bool(distant[last - 1] - (distant[at - 1] if at else 0))
            span = shape.depth * shape.group if last == full else missing[last] - missing[at]
            windows[has_far][0] += 1
            windows[has_far][1] += int(span)
            at = last
    waits = [
        (count / n, samples / max(count, 1), shape.port_latency + is_far * shape.dram_latency)
        for is_far, (count, samples) in windows.items()
    ]
    return Misses(float(near.sum()) / n, float(far.sum()) / n, tuple(waits))


def che_hits(rates: NDArray[np.float64], capacity: int) -> NDArray[np.float64]:
    """Hit rate of each item of an LRU cache of so many items, by Che's approximation: one
    characteristic time T solves sum(1 - exp(-rate T)) = capacity.

    >>> che_hits(np.ones(4), 2).round(3).tolist()
    [0.5, 0.5, 0.5, 0.5]
    """
    used = rates > 0
    if used.sum() <= capacity:
        return np.ones_like(rates)
    low, high = 0.0, 1.0
    while (1 - np.exp(-rates * high)).sum() < capacity:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if (1 - np.exp(-rates * middle)).sum() < capacity:
            low = middle
        else:
            high = middle
    return 1 - np.exp(-rates * high)


def evaluate(profile: Profile, workload: Workload, cluster: ClusterSpec) -> AnalyticResult:
    """One design point from a profile of the samples."""
    shape = TimingShape.of(cluster, workload)
    mlp = cluster.nfp.mlp
    enc, lock = max(profile.mean_service), profile.lock_step
    encoding = (enc + (lock - enc) * fifo_effect(shape.depth)) / shape.group
    array = array_interval(shape)
    port = max(shape.input_bytes, shape.output_bytes) / shape.port_bytes
    parts = {"encoding": encoding, "array": array, "port": port}
    smooth = max(parts.values())
    parts["misses"] = _miss_cycles(profile.misses, shape, smooth) if profile.misses else 0.0
    interval = max(parts.values())
    latency = shape.port_latency + shape.latency + math.ceil(enc)
    latency += shape.batch_cycles(shape.batch) if shape.serial else shape.network_latency
    arrays = mlp.lanes if shape.serial else mlp.lanes * len(shape.tiles)
    slots = mlp.rows * mlp.cols * arrays * interval
    return AnalyticResult(
        interval_cycles=interval,
        encoding_cycles=encoding,
        array_cycles=array,
        port_cycles=port,
        miss_cycles=parts["misses"],
        latency_cycles=latency,
        samples_per_second=cluster.clock_hz / interval,
        bottleneck=max(parts, key=lambda name: parts[name]),
        mac_utilization=workload.macs / slots,
    )


def _miss_cycles(misses: Misses, shape: TimingShape, smooth: float) -> float:
    """Cycles of a sample: with what is left of each wait after the window's own work, and at least
    what the lines take of the port."""
    waiting = sum(
        often * max(cycles - samples * smooth, 0.0) for often, samples, cycles in misses.waits
    )
    return max(misses.lines * shape.line_bytes / shape.port_bytes, smooth + waiting)


def bandwidth_stretch(
    moved_bytes: dict[str, float], seconds: float, cluster: ClusterSpec
) -> dict[str, float]:
    """How many times longer a frame takes for want of bandwidth of L2 and of DRAM, at least 1 each.

    Args:
        moved_bytes: "l2" and "dram", of a frame.
        seconds: the frame's, with bandwidth to spare.
    """
    memory = cluster.memory
    supply = {
        "l2": memory.l2.gb_s * 1e9,
        "dram": memory.dram.gb_s * 1e9 * memory.dram.efficiency,
    }
    wanted: dict[str, Any] = {name: moved_bytes[name] / supply[name] for name in supply}
    return {name: max(wanted[name] / seconds, 1.0) if seconds else 1.0 for name in supply}
