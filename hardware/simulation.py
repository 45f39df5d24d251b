"""One workload on one cluster beside one GPU: from a trace to frame time, power and area.

Processors are alike and take their samples independently, so a rate is measured on as many of them
as the trace can keep busy (`Rate`), and the frame follows for any number of them (`frame_of`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lumigraph.core.errors import ConfigError

from .analytic import LEAST_SAMPLES, bandwidth_stretch, evaluate, profile
from .claims import published
from .cluster import ClusterSpec
from .cycle.model import CycleResult, simulate_cycles
from .energy import actions_of_sample, area_mm2, energy_joules, leakage_watts
from .equations import FHD_PIXELS
from .schedule import FrameSchedule, FrameWork, best_schedule
from .trace import Estimate, Trace
from .workloads import Workload

Fidelity = Literal["cycle", "analytic"]
Baseline = Literal["published", "measured"]
PRE_SHARE = 0.5
"""Of the rest that comes before the cluster; assumed, published is only the sum."""


@dataclass(frozen=True)
class Rate:
    """What one processor needs for each sample, in the steady state."""

    fidelity: Fidelity
    interval_cycles: float
    latency_cycles: float
    """From the first input to the first result."""
    table_reads: float
    line_bytes: float
    """From L2, for tables that do not fit."""
    dram_bytes: float
    bottleneck: str
    mac_utilization: float
    engines: tuple[dict[str, Any], ...] = ()
    """A row for each engine: where its cycles go, as shares (cycle model)."""
    array: dict[str, float] | None = None
    """The same of the array."""


def measure_rate(trace: Trace, cluster: ClusterSpec, *, fidelity: Fidelity = "cycle") -> Rate:
    """The rate of a processor on the samples of a trace.

    Raises:
        ConfigError: the cluster cannot run it, or the trace is empty.
        MissingExtraError: numba is needed and not installed.
    """
    if not len(trace.positions):
        raise ConfigError(f"{trace.scene}: the trace holds no samples; nothing was hit")
    work = trace.workload
    known = profile(trace, cluster)
    closed = evaluate(known, work, cluster)
    line = cluster.memory.l2.line
    if fidelity == "analytic":
        return Rate(
            fidelity=fidelity,
            interval_cycles=closed.interval_cycles,
            latency_cycles=closed.latency_cycles,
            table_reads=sum(known.accesses),
            line_bytes=(known.misses.lines if known.misses else 0.0) * line,
            dram_bytes=(known.misses.dram_lines if known.misses else 0.0) * line,
            bottleneck=closed.bottleneck,
            mac_utilization=closed.mac_utilization,
        )
    count = int(np.clip(len(trace.positions) // LEAST_SAMPLES, 1, cluster.nfp.count))
    alike = cluster.with_settings({"nfp.count": count})
    result = simulate_cycles(trace.positions, trace.rays, work, alike)
    samples = len(trace.positions)
    # the first sample's way through is paid once a batch and not once a sample
    once = min(closed.latency_cycles, min(result.cycles) - 1)
    interval = (sum(result.cycles) - once * count) / samples
    moved = result.moved_bytes()
    arrays = closed.mac_utilization * closed.interval_cycles
    return Rate(
        fidelity=fidelity,
        interval_cycles=interval,
        latency_cycles=closed.latency_cycles,
        table_reads=float(result.accesses.sum()) / samples,
        line_bytes=moved["line_bytes"] / samples,
        dram_bytes=moved["dram_bytes"] / samples,
        bottleneck=closed.bottleneck,
        mac_utilization=arrays / interval,
        engines=_engine_rows(result),
        array=_array_shares(result),
    )


def _engine_rows(result: CycleResult) -> tuple[dict[str, Any], ...]:
    names = ("busy", "conflict", "miss", "back_pressure", "starve", "idle")
    total = sum(t.cycles for t in result.timings) * result.shape.group
    sums = {name: sum(getattr(t, name) for t in result.timings) for name in names}
    return tuple(
        {"engine": e, **{name: float(sums[name][e]) / max(total, 1) for name in names}}
        for e in range(len(sums["busy"]))
    )


def _array_shares(result: CycleResult) -> dict[str, float]:
    total = sum(t.cycles for t in result.timings) * result.shape.lanes
    names = ("busy", "overhead", "starve", "blocked", "idle")
    return {n: sum(getattr(t, f"array_{n}") for t in result.timings) / total for n in names}


@dataclass(frozen=True)
class GpuFrame:
    """A frame on the GPU alone, unfused."""

    source: Baseline
    seconds: float
    rest_seconds: float
    """Pre- and post-processing."""


def gpu_frame(trace: Trace, baseline: Baseline = "published") -> GpuFrame:
    """The GPU side of a trace.

    Published times are those of the application at 1920x1080, scaled by pixels; the rest is taken
    to be the same for every encoding.

    Raises:
        ConfigError: the trace holds no measured kernels, or its application was not published.
    """
    if baseline == "measured":
        if not trace.kernels:
            raise ConfigError(
                f"{trace.scene}: the trace holds no measured kernels; use --baseline published"
            )
        rest = sum(k.seconds for k in trace.kernels if k.kind in ("pre", "post"))
        return GpuFrame("measured", sum(k.seconds for k in trace.kernels), rest)
    known, name = published(), trace.application
    if name not in known.applications:
        raise ConfigError(
            f"application {name!r}: nothing is published about it; use --baseline measured"
        )
    kind = trace.workload.encoding.kind
    rest_share = rest_of(name, kind)
    app = known.applications[name]
    rest = app.rest * app.frame_seconds * trace.pixels / FHD_PIXELS
    return GpuFrame("published", rest / rest_share, rest)


def rest_of(application: str, kind: str) -> float:
    """Share of a frame that is neither encoding nor networks: the hash grid's by application, that
    of other encodings scaled to their mean."""
    known = published()
    return known.applications[application].rest * known.rest_mean[kind] / known.rest_mean["hash"]


@dataclass(frozen=True)
class FrameResult:
    """A frame with the cluster."""

    workload: Workload
    cluster: ClusterSpec
    scene: str
    resolution: tuple[int, int]
    samples: Estimate
    rate: Rate
    gpu: GpuFrame
    schedule: FrameSchedule
    cluster_seconds: float
    rest_seconds: float
    """On the GPU, with fused kernels."""
    stretch: dict[str, float]
    """How much longer for want of bandwidth, by memory."""
    energy: dict[str, float]
    """Joules of a frame by kind of action, of the cluster."""
    area: dict[str, float]
    """mm2 by block, of all processors."""
    bytes: dict[str, float]
    """Of a frame by way."""
    warnings: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return self.schedule.seconds * max(self.stretch.values())

    @property
    def frames_per_second(self) -> float:
        return 1 / self.seconds

    @property
    def speed_up(self) -> float:
        """Against the GPU as it was."""
        return self.gpu.seconds / self.seconds

    @property
    def speed_up_of_fused(self) -> float:
        """Against the GPU with fused pre- and post-processing, which needs no cluster."""
        return (self.gpu.seconds - self.gpu.rest_seconds + self.rest_seconds) / self.seconds

    @property
    def watts(self) -> float:
        """Of the cluster at this frame rate."""
        return sum(self.energy.values()) / self.seconds + leakage_watts(self.cluster)

    @property
    def bandwidth(self) -> float:
        """Bytes a second between cluster and L2."""
        return self.bytes["l2"] / self.seconds


def frame_of(
    trace: Trace,
    rate: Rate,
    cluster: ClusterSpec,
    *,
    baseline: Baseline = "published",
    samples: float | None = None,
) -> FrameResult:
    """A frame from the rate of one processor.

    Args:
        samples: of the frame; those of the trace when None.
    """
    work, count = trace.workload, cluster.nfp.count
    estimate = trace.samples_of_frame() if samples is None else Estimate(samples, 0.0)
    gpu = gpu_frame(trace, baseline)
    rounds = int(trace.rounds.max(initial=0)) + 1
    cycles = estimate.value / count * rate.interval_cycles + rate.latency_cycles
    on_cluster = cycles / cluster.clock_hz + _fill_seconds(work, cluster)
    rest = gpu.rest_seconds / cluster.gpu.rest_fusion
    plan = best_schedule(
        FrameWork(
            pre=rest * PRE_SHARE,
            cluster=on_cluster,
            post=rest * (1 - PRE_SHARE),
            launch=cluster.gpu.launch_us * 1e-6,
            rounds=rounds,
        ),
        batches=cluster.schedule.batches,
        overlap=cluster.schedule.overlap,
    )
    n = estimate.value
    moved = {
        "input": n * work.input_bytes,
        "output": n * work.output_bytes,
        "lines": n * rate.line_bytes,
        "dram": n * rate.dram_bytes,
    }
    moved["l2"] = moved["input"] + moved["output"] + moved["lines"]
    actions = actions_of_sample(
        work,
        table_reads=rate.table_reads,
        line_bytes=rate.line_bytes,
        dram_bytes=rate.dram_bytes,
    ).times(n)
    return FrameResult(
        workload=work,
        cluster=cluster,
        scene=trace.scene,
        resolution=(trace.width, trace.height),
        samples=estimate,
        rate=rate,
        gpu=gpu,
        schedule=plan,
        cluster_seconds=on_cluster,
        rest_seconds=rest,
        stretch=bandwidth_stretch(moved, plan.seconds, cluster),
        energy=energy_joules(actions, work, cluster),
        area={name: value * count for name, value in area_mm2(cluster).items()},
        bytes=moved,
        warnings=_warnings(trace, estimate, cluster),
    )


def simulate(
    trace: Trace,
    cluster: ClusterSpec,
    *,
    fidelity: Fidelity = "cycle",
    baseline: Baseline = "published",
) -> FrameResult:
    """Simulate a trace on a cluster beside a GPU.

    Args:
        fidelity: cycle (Numba) or analytic (closed form, a rough hundredth of the time).
        baseline: times of the GPU as published, or as measured in the trace.

    Raises:
        ConfigError: the cluster cannot run it, or the baseline does not exist.

    Example:
        >>> from lumigraph.hardware import ClusterSpec, synthetic_trace
        >>> frame = simulate(synthetic_trace("gia", tiles=8), ClusterSpec(), fidelity="analytic")
        >>> frame.rate.bottleneck
        'array'
    """
    rate = measure_rate(trace, cluster, fidelity=fidelity)
    return frame_of(trace, rate, cluster, baseline=baseline)


def _fill_seconds(work: Workload, cluster: ClusterSpec) -> float:
    """Loading the tables, where that is done every frame."""
    if cluster.schedule.table_fill == "scene":
        return 0.0
    engines = cluster.nfp.encoding
    held = sum(
        min(size, engines.sram_kib * 1024)
        for size in work.encoding.level_bytes(engines.feature_bits)
    )
    copies = 1 if cluster.schedule.broadcast else cluster.nfp.count
    return held * copies / (cluster.memory.l2.gb_s * 1e9)


def _warnings(trace: Trace, estimate: Estimate, cluster: ClusterSpec) -> tuple[str, ...]:
    found = []
    if estimate.relative > 0.01:
        found.append(
            f"samples of the frame are known to ±{100 * estimate.relative:.1f} % (95 %), from "
            f"{len(trace.tiles)} tiles; record more tiles for ±1 %"
        )
    encoding = trace.workload.encoding
    if cluster.nfp.encoding.bank_map == "parity" and any(encoding.hashed):
        found.append(
            "bank map parity: hashed levels must be trained as 2^D tables by the parity of the "
            "vertex; fetched lines follow the field's own addresses"
        )
    if trace.facts.get("generated"):
        found.append("samples come from a scene given by formulas, not from a trained one")
    return tuple(found)
