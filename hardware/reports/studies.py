"""Studies behind the paper's choices: table sizes, hit rates, FIFO depth, banks, memory size, clock
and lanes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lumigraph.hardware import banks
from lumigraph.hardware.analytic import evaluate, profile
from lumigraph.hardware.cluster import ClusterSpec
from lumigraph.hardware.cycle.addresses import Banking, accesses_and_service
from lumigraph.hardware.cycle.model import follow_compiled, simulate_cycles
from lumigraph.hardware.cycle.timing import TimingShape
from lumigraph.hardware.trace import Trace
from lumigraph.hardware.workloads import APPLICATION_NAMES, ENCODING_NAMES

from . import plots
from .document import Plot, Table

DEPTHS = (1, 2, 4, 8, 16, 64)
MOST_SAMPLES = 20_000
Traces = Mapping[tuple[str, str], Trace]


def tables(traces: Traces, honest: ClusterSpec) -> list[Table]:
    """All studies as tables."""
    return [
        _levels(traces, honest),
        _fifo_table(),
        _bank_table(traces),
        _memory_table(traces, honest),
        _clock_table(traces, honest),
    ]


def _levels(traces: Traces, honest: ClusterSpec) -> Table:
    """Sizes of tables, and which part of the reads is served on chip."""
    rows: list[tuple[Any, ...]] = []
    for (name, kind), trace in traces.items():
        part = slice(0, MOST_SAMPLES)
        encoding = trace.workload.encoding
        one = honest.with_settings({"nfp.count": 1})
        for bits in (8, 16):
            cluster = one.with_settings({"nfp.encoding.feature_bits": bits})
            found = simulate_cycles(
                trace.positions[part], trace.rays[part], trace.workload, cluster
            )
            sizes = encoding.level_bytes(bits)
            hits = 1 - found.lines_from_l2.sum() / max(found.accesses.sum(), 1)
            rows.append(
                (
                    APPLICATION_NAMES[name],
                    ENCODING_NAMES[kind],
                    bits,
                    sum(sizes) / 2**20,
                    max(sizes) / 2**20,
                    sum(size > 2**20 for size in sizes),
                    100 * float(hits),
                )
            )
    columns = ("application", "encoding", "bits", "tables, MiB", "largest level, MiB")
    note = "Hits of the first 20,000 samples, memories loaded with the first part of each table."
    columns_all = (*columns, "levels beyond 1 MiB", "hits, %")
    return Table("levels", "Tables and hit rates", columns_all, tuple(rows), note)


def fifo_intervals() -> dict[int, list[float]]:
    """Cycles a sample by the array's interval and FIFO depth: 16 hashed levels, 8 banks, low bits,
    independent samples."""
    law = banks.hashed_service(3, 8)
    rng = np.random.default_rng(11)
    weights = [float(share) for share in law.values()]
    service = rng.choice(list(law), p=weights, size=(MOST_SAMPLES, 16)).astype(np.uint16)
    none = np.zeros((1, 1), np.uint8)
    found = {}
    for interval in (1, 2, 3, 5):
        found[interval] = [
            follow_compiled(
                service, none, none, misses=False, shape=TimingShape(depth=d, interval=interval)
            ).cycles
            / MOST_SAMPLES
            for d in DEPTHS
        ]
    return found


def _fifo_table() -> Table:
    rows = tuple((interval, *values) for interval, values in fifo_intervals().items())
    columns = ("array, cycles a sample", *(f"depth {d}" for d in DEPTHS))
    note = "With networks of three passes the array is the bottleneck and 8 entries are plenty."
    return Table("fifo", "Cycles a sample by FIFO depth", columns, rows, note)


def bank_services(trace: Trace) -> dict[tuple[str, int], float]:
    """Mean service of the slowest level by bank map and number of banks."""
    found = {}
    for mapping in ("low_bits", "xor_fold", "prime", "parity"):
        for count in (4, 8, 16, 32):
            if mapping == "parity" and count < trace.workload.encoding.corners:
                continue
            settings = {"nfp.encoding.bank_map": mapping, "nfp.encoding.banks": count}
            banking = Banking.of(
                ClusterSpec().with_settings(settings).nfp.encoding, trace.workload.encoding
            )
            part = trace.positions[:5000]
            found[mapping, count] = max(
                float(
                    accesses_and_service(
                        part, trace.workload.encoding, level, banking=banking, group=1
                    )[1].mean()
                )
                for level in range(trace.workload.encoding.levels)
            )
    return found


def _bank_table(traces: Traces) -> Table:
    rows: list[tuple[Any, ...]] = []
    for name, kind in (("nerf", "hash"), ("nsdf", "hash"), ("nerf", "lowres")):
        found = bank_services(traces[name, kind])
        for mapping in ("low_bits", "xor_fold", "prime", "parity"):
            cells = [found.get((mapping, count)) for count in (4, 8, 16, 32)]
            rows.append((APPLICATION_NAMES[name], ENCODING_NAMES[kind], mapping, *cells))
    columns = ("application", "encoding", "bank map", *(f"{c} banks" for c in (4, 8, 16, 32)))
    note = (
        "Cycles a sample of the slowest level. Under low bits that is a level stored in full: its "
        "rows are powers of two apart."
    )
    return Table("banks", "Bank maps", columns, tuple(rows), note)


def _memory_table(traces: Traces, honest: ClusterSpec) -> Table:
    rows: list[tuple[Any, ...]] = []
    for name, kind in (("nerf", "hash"), ("nerf", "dense")):
        trace = traces[name, kind]
        for bits in (8, 16):
            cells = []
            for kib in (256, 512, 1024, 2048):
                settings = {"nfp.encoding.feature_bits": bits, "nfp.encoding.sram_kib": kib}
                cluster = honest.with_settings({**settings, "nfp.count": 1})
                result = evaluate(profile(trace, cluster), trace.workload, cluster)
                cells.append(result.interval_cycles)
            rows.append((APPLICATION_NAMES[name], ENCODING_NAMES[kind], bits, *cells))
    columns = ("application", "encoding", "bits", *(f"{k} KiB" for k in (256, 512, 1024, 2048)))
    note = "Cycles a sample of one processor, analytic model."
    return Table("memory", "Memory of an engine", columns, tuple(rows), note)


def _clock_table(traces: Traces, honest: ClusterSpec) -> Table:
    trace = traces["gia", "hash"]
    known = profile(trace, honest)
    rows = []
    for clock in (0.8, 1.0, 1.16, 1.5, 1.7, 2.0):
        cells = []
        for lanes in (1, 2, 3, 4):
            cluster = honest.with_settings({"nfp.clock_ghz": clock, "nfp.mlp.lanes": lanes})
            cells.append(evaluate(known, trace.workload, cluster).samples_per_second / 1e9)
        rows.append((clock, *cells))
    columns = ("clock, GHz", *(f"{lanes} lanes" for lanes in (1, 2, 3, 4)))
    note = (
        "Samples a nanosecond of one processor. 0.41 to 1.03, nominally 0.59, fit the published "
        "speed-ups; the preset takes 1.16 GHz and 2 lanes."
    )
    return Table("clock", "Clock and lanes", columns, tuple(rows), note)


def figures(traces: Traces) -> list[Plot]:
    """FIFO depth and bank maps."""
    fifo = {f"array {p}": values for p, values in fifo_intervals().items()}
    title = "Cycles a sample by FIFO depth"
    found = [Plot("fifo", title, plots.lines(title, DEPTHS, fifo, x_label="entries"))]
    services = bank_services(traces["nerf", "hash"])
    counts = (8, 16, 32)
    series = {
        m: [services[m, c] for c in counts] for m in ("low_bits", "xor_fold", "prime", "parity")
    }
    title = "Cycles of the slowest level, NeRF hash grid"
    found.append(Plot("banks", title, plots.lines(title, counts, series, x_label="banks")))
    return found
