"""The cluster in closed form: one design point in well under a millisecond.

    c_enc  = max over levels of the mean service        (deep FIFOs)
    c_lock = mean over samples of the slowest level     (FIFOs of depth 1)
    c_fifo = c_enc + (c_lock - c_enc) g(depth)          g from simulated FIFOs
    p      = batch cycles / batch                       (layer_serial)
    II     = max(c_fifo / q, p, port bytes per sample / port rate, misses)

II is cycles for each sample of a processor; q inputs are encoded in parallel. Misses of a level
whose table is larger than its memory follow from the share of the table that is held, or from the
Che approximation where popularities are known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cluster import ClusterSpec
from .cycle.addresses import Banking, accesses_and_service, cells_of, corner_indices
from .cycle.caches import CacheShape
from .cycle.model import check_fit, engine_service
from .cycle.timing import TimingShape
from .workloads import Encoding, Workload

FIFO_EFFECT = {1: 1.0, 2: 0.34, 4: 0.13, 8: 0.055, 16: 0.028}
"""Part of the lock-step penalty that is left at a depth; measured, see tests/hardware."""
PROFILED_SAMPLES = 10_000


@dataclass(frozen=True)
class Profile:
    """What the analytic model must know of the samples."""

    mean_service: tuple[float, ...]
    """(E,) cycles of each engine."""
    lock_step: float
    """Mean over samples of the slowest engine."""
    accesses: tuple[float, ...]
    """(L,) table reads of a sample."""
    line_misses: tuple[float, ...]
    """(L,) lines of a sample that are not on chip."""
    dram_lines: float
    """Lines of a sample that L2 lacks, all levels."""


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

    def seconds(self, samples: float, processors: int, clock_hz: float) -> float:
        """Of so many samples on a cluster, dealt evenly."""
        steady = samples / processors * self.interval_cycles
        return (steady + self.latency_cycles) / clock_hz


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


def profile(positions: NDArray[np.float32], workload: Workload, cluster: ClusterSpec) -> Profile:
    """Measure samples (n, D), at most `PROFILED_SAMPLES` of them in one run from the middle."""
    encoding, engines = workload.encoding, cluster.nfp.encoding
    check_fit(cluster, workload)
    begin = max((len(positions) - PROFILED_SAMPLES) // 2, 0)
    part = positions[begin : begin + PROFILED_SAMPLES]
    banking = Banking.of(engines, encoding)
    group = max(engines.engines // encoding.levels, 1)
    columns = [
        accesses_and_service(part, encoding, level, banking=banking, group=group)
        for level in range(encoding.levels)
    ]
    service = engine_service(np.stack([c for _, c in columns], 1), engines.engines)
    reads = tuple(float(a.mean()) for a, _ in columns)
    misses, far = (0.0,) * encoding.levels, 0.0
    if cluster.capacity == "honest":
        misses, far = line_misses(positions, encoding, cluster)
        share = [r / encoding.corners for r in reads]  # look-ups that reuse leaves
        misses = tuple(m * s for m, s in zip(misses, share, strict=True))
    return Profile(
        mean_service=tuple(float(mean) for mean in service.mean(0)),
        lock_step=float(service.max(1).mean()),
        accesses=reads,
        line_misses=misses,
        dram_lines=min(far, sum(misses)),
    )


def line_misses(
    positions: NDArray[np.float32], encoding: Encoding, cluster: ClusterSpec
) -> tuple[tuple[float, ...], float]:
    """Lines of a sample that each level's memory lacks, (L,), and that L2 lacks.

    Popularities are counted over the samples; with LRU the Che approximation makes hit rates of
    them, pinned tables hit where the line lies in the part that is held.
    """
    caches = CacheShape.of(cluster, encoding)
    missing, streams = [], []
    n = max(len(positions), 1)
    for level in range(encoding.levels):
        if caches.fits(level) or not len(positions):
            missing.append(0.0)
            continue
        cells = cells_of(positions, encoding, level)
        index = corner_indices(cells, encoding, level)[0]
        lines = np.sort(index * caches.entry_bytes // caches.line_bytes, 1)
        fresh = np.ones(lines.shape, bool)
        fresh[:, 1:] = lines[:, 1:] != lines[:, :-1]  # a line twice in a sample hits
        names, counts = np.unique(lines[fresh], return_counts=True)
        rates = counts / n
        if caches.pinned:
            hits = (names < caches.capacity).astype(np.float64)
        else:
            hits = che_hits(rates, caches.capacity)
            # lines that are there at the start hit at their first use, others miss once
            preloaded = names < caches.capacity
            hits = np.where(preloaded, np.maximum(hits, 1 / counts), hits - hits / counts)
        missed = rates * (1 - hits)
        missing.append(float(missed.sum()))
        streams.append((missed, counts))
    if not streams:
        return tuple(missing), 0.0
    missed = np.concatenate([m for m, _ in streams])
    counts = np.maximum(missed * n, 1.0)
    hits = che_hits(missed, caches.l2_sets * caches.l2_ways)
    far = missed * (1 - (hits - hits / counts).clip(0))
    return tuple(missing), float(far.sum())


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
    parts = {
        "encoding": encoding,
        "array": array,
        "port": port,
        "misses": _miss_cycles(profile, cluster, shape),
    }
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


def _miss_cycles(profile: Profile, cluster: ClusterSpec, shape: TimingShape) -> float:
    """Cycles of a sample that its fetched lines take of the port, and of the slowest engine's miss
    registers."""
    lines = sum(profile.line_misses)
    if not lines:
        return 0.0
    far_share = profile.dram_lines / lines
    latency = shape.port_latency + far_share * shape.dram_latency
    engines = cluster.nfp.encoding.engines
    waiting = [0.0] * engines
    for level, misses in enumerate(profile.line_misses):
        waiting[level % engines] += misses * latency / shape.mshr / shape.group
    return max(lines * shape.line_bytes / shape.port_bytes, *waiting)


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
