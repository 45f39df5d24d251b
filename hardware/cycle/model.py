"""The cycle-level model of a whole cluster: samples dealt to processors, each followed in integer
cycles, results added up. `backend="numpy"` takes the references, `"numba"` the compiled twins."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lumigraph.core.errors import ConfigError, InputError, require
from lumigraph.hardware.cluster import ClusterSpec
from lumigraph.hardware.workloads import Encoding, Workload

from .addresses import BANK_MAPS, Banking, Integers, accesses_and_service
from .caches import CacheShape
from .caches import fetched_lines as fetched_lines_reference
from .timing import Timing, TimingShape, simulate_reference

Backend = Literal["numba", "numpy"]
ARRAY_COUNTS: tuple[str, ...] = (
    "array_busy",
    "array_overhead",
    "array_starve",
    "array_blocked",
    "array_idle",
)
ARRAY_COUNTS += ("samples", "joined", "inferred", "written")
CHUNK = 1 << 15  # samples whose addresses one thread takes at a time


@dataclass(frozen=True)
class CycleResult:
    """What the cluster does with the samples of a trace, and where its cycles go."""

    cycles: tuple[int, ...]
    """Of each processor, from the first input to the last result."""
    samples: tuple[int, ...]
    timings: tuple[Timing, ...]
    accesses: Integers
    """(L,) reads of table entries, all processors together."""
    lines_from_l2: Integers
    """(L,) lines fetched, 0 where tables are ideal or fit."""
    lines_from_dram: Integers
    shape: TimingShape
    passes: int
    """Tiles of all layers."""
    macs: int
    """Useful multiply-accumulates of a sample."""
    array_macs: int
    """Multipliers of one array."""

    @property
    def frame_cycles(self) -> int:
        """Of the slowest processor."""
        return max(self.cycles, default=0)

    @property
    def macs_issued(self) -> int:
        """Multiplier slots that were used: samples times passes times the array."""
        return sum(timing.inferred for timing in self.timings) * self.passes * self.array_macs

    @property
    def macs_useful(self) -> int:
        return sum(timing.inferred for timing in self.timings) * self.macs

    def moved_bytes(self) -> dict[str, int]:
        """Bytes through the ports of all processors, by purpose."""
        samples = sum(self.samples)
        return {
            "input_bytes": samples * self.shape.input_bytes,
            "output_bytes": sum(t.written for t in self.timings) * self.shape.output_bytes,
            "line_bytes": int(self.lines_from_l2.sum()) * self.shape.line_bytes,
            "dram_bytes": int(self.lines_from_dram.sum()) * self.shape.line_bytes,
        }


def deal(rays: NDArray[np.integer[Any]], processors: int, how: str) -> tuple[Integers, Integers]:
    """Order (n,) of samples by processor and bounds (P + 1,) of each in it. A ray stays on one
    processor, whose samples keep their order of issue.

    Args:
        rays: (n,) ray of each sample; rays count in the order in which they come first.
        how: block for neighbouring runs of rays with about equally many samples, cyclic for rays
            in turn.
    """
    n = len(rays)
    if not n:
        return np.zeros(0, np.int64), np.zeros(processors + 1, np.int64)
    changes = np.flatnonzero(np.diff(rays.astype(np.int64), prepend=-1))
    if np.all(rays[1:] >= rays[:-1]):
        lengths = np.diff(np.append(changes, n))
        rank = np.repeat(np.arange(len(changes)), lengths)
    else:
        _, first, inverse = np.unique(rays, return_index=True, return_inverse=True)
        place = np.empty(len(first), np.int64)
        place[np.argsort(first)] = np.arange(len(first))
        rank = place[inverse]
        lengths = np.bincount(rank)
    if how == "block":
        middle = np.cumsum(lengths) - (lengths + 1) / 2
        owner = np.minimum((middle * processors / n).astype(np.int64), processors - 1)
    else:
        owner = np.arange(len(lengths)) % processors
    owners = owner[rank]
    order = np.argsort(owners, kind="stable")
    bounds = np.searchsorted(owners[order], np.arange(processors + 1))
    return order, bounds.astype(np.int64)


def simulate_cycles(
    positions: NDArray[np.float32],
    rays: NDArray[np.integer[Any]],
    workload: Workload,
    cluster: ClusterSpec,
    *,
    backend: Backend = "numba",
    keep_events: bool = False,
    processors: Sequence[int] | None = None,
) -> CycleResult:
    """Simulate samples on a cluster.

    Args:
        positions: (n, D) in [0, 1], in the order of issue.
        rays: (n,) ray of each.
        keep_events: also keep when each sample passed each stage (memory: 16 L + 24 bytes each).
        processors: only these, by index; all when None.

    Raises:
        InputError: positions of another dimension than the encoding's.
        ConfigError: the cluster cannot run the workload.
        MissingExtraError: numba is not installed.
    """
    encoding = workload.encoding
    if positions.ndim != 2 or positions.shape[1] != encoding.dimensions:
        raise InputError(
            f"positions: expected (n, {encoding.dimensions}) for the encoding; got "
            f"{tuple(positions.shape)}"
        )
    check_fit(cluster, workload)
    order, bounds = deal(rays, cluster.nfp.count, cluster.nfp.deal)
    chosen = list(range(cluster.nfp.count) if processors is None else processors)
    ordered = np.ascontiguousarray(positions[order], np.float32)
    run = _run_numba if backend == "numba" else _run_numpy
    timings, counts = run(ordered, bounds, chosen, workload, cluster, keep_events)
    mlp = cluster.nfp.mlp
    shape = TimingShape.of(cluster, workload)
    return CycleResult(
        cycles=tuple(timing.cycles for timing in timings),
        samples=tuple(timing.samples for timing in timings),
        timings=tuple(timings),
        accesses=counts[0],
        lines_from_l2=counts[1],
        lines_from_dram=counts[2],
        shape=shape,
        passes=sum(shape.tiles),
        macs=workload.macs,
        array_macs=mlp.rows * mlp.cols,
    )


def check_fit(cluster: ClusterSpec, workload: Workload) -> None:
    """Raises ConfigError when there are more levels or layers than the cluster can serve."""
    engines, encoding, mlp = cluster.nfp.encoding, workload.encoding, cluster.nfp.mlp
    if mlp.mode == "layer_pipelined" and len(workload.layers) > mlp.stages:
        raise ConfigError(
            f"nfp.mlp.stages = {mlp.stages}: the networks have {len(workload.layers)} layers, and "
            "layer_pipelined needs an array for each; raise it or use layer_serial"
        )
    room = engines.engines * engines.passes
    if encoding.levels > room:
        raise ConfigError(
            f"the encoding has {encoding.levels} levels, more than nfp.encoding.engines x passes = "
            f"{engines.engines} x {engines.passes}; raise one of them to reach {encoding.levels}"
        )


def engine_service(service: NDArray[Any], engines: int) -> NDArray[Any]:
    """Levels (n, L) that share an engine, one after another: (n, E)."""
    levels = service.shape[1]
    if levels <= engines:
        return service
    total = np.zeros((len(service), engines), np.int64)
    for level in range(levels):
        total[:, level % engines] += service[:, level]
    return total


Counts = tuple[Integers, Integers, Integers]


def _run_numpy(
    positions: NDArray[np.float32],
    bounds: Integers,
    chosen: list[int],
    workload: Workload,
    cluster: ClusterSpec,
    keep: bool,
) -> tuple[list[Timing], Counts]:
    encoding, engines = workload.encoding, cluster.nfp.encoding
    shape, banking = TimingShape.of(cluster, workload), Banking.of(engines, encoding)
    counts = tuple(np.zeros(encoding.levels, np.int64) for _ in range(3))
    timings = []
    for p in chosen:
        own = positions[bounds[p] : bounds[p + 1]]
        columns = [
            accesses_and_service(own, encoding, level, banking=banking, group=shape.group)
            for level in range(encoding.levels)
        ]
        service = np.stack([service for _, service in columns], 1)
        near = far = None
        if cluster.capacity == "honest":
            caches = CacheShape.of(cluster, encoding)
            near, far = fetched_lines_reference(
                own, encoding, caches, reuse=banking.reuse, group=shape.group
            )
            counts[1][:] += near.sum(0)
            counts[2][:] += far.sum(0)
            near, far = engine_service(near, engines.engines), engine_service(far, engines.engines)
        counts[0][:] += np.array([accesses.sum() for accesses, _ in columns])
        timing = simulate_reference(
            engine_service(service, engines.engines),
            shape,
            beats=_least_service(encoding, banking, engines.engines),
            from_l2=near,
            from_dram=far,
        )
        if not keep:
            timing.events = {}
        timings.append(timing)
    return timings, (counts[0], counts[1], counts[2])


def _least_service(encoding: Encoding, banking: Banking, engines: int) -> int:
    """Cycles of a sample without conflicts on an engine that serves as many levels as any."""
    return banking.beats * -(-encoding.levels // engines)


def _run_numba(
    positions: NDArray[np.float32],
    bounds: Integers,
    chosen: list[int],
    workload: Workload,
    cluster: ClusterSpec,
    keep: bool,
) -> tuple[list[Timing], Counts]:
    compiled = _compiled()
    encoding, engines = workload.encoding, cluster.nfp.encoding
    shape, banking = TimingShape.of(cluster, workload), Banking.of(engines, encoding)
    levels = encoding.levels
    grid = _grid(workload)
    mapping = BANK_MAPS.index(banking.map)
    bank_shape = (banking.banks, mapping, banking.ports, banking.beats)
    bank_flags = (banking.merge, banking.reuse, shape.group)
    service = np.zeros((len(positions), levels), np.uint16)
    pieces = [
        (begin, min(begin + CHUNK, int(bounds[p + 1])), int(bounds[p]))
        for p in chosen
        for begin in range(int(bounds[p]), int(bounds[p + 1]), CHUNK)
    ]

    def addresses(piece: tuple[int, int, int]) -> Integers:
        accesses = np.zeros(levels, np.int64)
        compiled.service_times(
            positions, *grid, (*bank_shape, *bank_flags), *piece, service, accesses
        )
        return accesses

    reads: Integers = np.sum(_each(addresses, pieces), axis=0, dtype=np.int64)
    reads = np.broadcast_to(reads, levels).astype(np.int64)
    near, far = _numba_lines(positions, bounds, chosen, workload, cluster, grid, banking, shape)
    misses = near is not None
    lines = [np.zeros(levels, np.int64)] * 2
    if near is not None and far is not None:
        lines = [near.sum(0, dtype=np.int64), far.sum(0, dtype=np.int64)]
        near, far = engine_service(near, engines.engines), engine_service(far, engines.engines)
    none = np.zeros((1, 1), np.uint8)
    per_engine = engine_service(service, engines.engines)
    beats = _least_service(encoding, banking, engines.engines)

    def follow(p: int) -> Timing:
        part = slice(int(bounds[p]), int(bounds[p + 1]))
        moved = (near[part], far[part]) if near is not None and far is not None else (none, none)
        return follow_compiled(
            per_engine[part], *moved, misses=misses, shape=shape, beats=beats, keep=keep
        )

    return _each(follow, chosen), (reads, lines[0], lines[1])


def _numba_lines(
    positions: NDArray[np.float32],
    bounds: Integers,
    chosen: list[int],
    workload: Workload,
    cluster: ClusterSpec,
    grid: tuple[NDArray[Any], ...],
    banking: Banking,
    shape: TimingShape,
) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    """Lines (n, L) fetched; None where every table is on chip."""
    compiled = _compiled()
    encoding = workload.encoding
    caches = CacheShape.of(cluster, encoding)
    fits = np.array([caches.fits(level) for level in range(encoding.levels)], np.bool_)
    if cluster.capacity == "ideal" or fits.all():
        return None, None
    near, far = (np.zeros((len(positions), encoding.levels), np.uint8) for _ in range(2))
    sizes = (caches.entry_bytes, caches.line_bytes, caches.sets, caches.ways, caches.pinned)
    flags = (caches.l2_sets, caches.l2_ways, banking.reuse, shape.group)
    sizes_and_flags = (*sizes, *flags)
    bases, tables = np.array(caches.bases), np.array(caches.table_lines)

    def lines(p: int) -> None:
        span = (int(bounds[p]), int(bounds[p + 1]))
        compiled.fetched_lines(
            positions, *grid, fits, bases, tables, sizes_and_flags, *span, near, far
        )

    _each(lines, chosen)
    return near, far


def follow_compiled(
    service: NDArray[Any],
    near: NDArray[Any],
    far: NDArray[Any],
    *,
    misses: bool,
    shape: TimingShape,
    beats: int = 1,
    keep: bool = False,
) -> Timing:
    """`simulate_reference` in Numba; without `misses` the lines are not looked at."""
    compiled = _compiled()
    n, engines = service.shape
    numbers = tuple(int(value) for value in astuple(shape) if not isinstance(value, tuple))
    counts, totals = np.zeros((6, engines), np.int64), np.zeros(10, np.int64)
    points = np.zeros((3, max(n, 1)), np.int64)
    spans = np.zeros((2, n if keep else 1, engines), np.int64)
    compiled.follow(
        service, near, far, misses, numbers, np.array(shape.tiles), beats, counts, totals,
        (points, spans), keep,
    )  # fmt: skip
    events = {}
    if keep:
        events = dict(zip(("join", "issue", "drained"), points, strict=True))
        events |= {"start": spans[0], "end": spans[1]}
    array: dict[str, Any] = dict(zip(ARRAY_COUNTS, map(int, totals[1:]), strict=True))
    return replace(Timing(int(totals[0]), *counts), **array, events=events)


def lines_of_samples(
    positions: NDArray[np.float32],
    rays: NDArray[np.integer[Any]],
    workload: Workload,
    cluster: ClusterSpec,
) -> tuple[NDArray[Any], NDArray[Any], Integers] | None:
    """Lines (n, E) that each sample fetches from L2 and, within them, from DRAM, in the order of
    processors, with the bounds (P + 1,) of these; None where every table is on chip."""
    engines = cluster.nfp.encoding
    order, bounds = deal(rays, cluster.nfp.count, cluster.nfp.deal)
    ordered = np.ascontiguousarray(positions[order], np.float32)
    shape, banking = TimingShape.of(cluster, workload), Banking.of(engines, workload.encoding)
    chosen = list(range(cluster.nfp.count))
    near, far = _numba_lines(
        ordered, bounds, chosen, workload, cluster, _grid(workload), banking, shape
    )
    if near is None or far is None:
        return None
    return engine_service(near, engines.engines), engine_service(far, engines.engines), bounds


def _grid(workload: Workload) -> tuple[NDArray[Any], ...]:
    """Scales, resolutions, sizes and whether hashed, of each level."""
    encoding = workload.encoding
    return (
        np.array(encoding.scales, np.float32),
        np.array(encoding.resolutions, np.int64),
        np.array(encoding.sizes, np.int64),
        np.array(encoding.hashed, np.bool_),
    )


def _compiled() -> Any:
    """Raises MissingExtraError without numba."""
    require("numba", extra="hardware")
    return importlib.import_module("lumigraph.hardware.cycle.compiled")


def _each(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Results in order, computed side by side."""
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, len(items))) as pool:
        return list(pool.map(function, items))
