"""When each sample passes each stage of a processor: the NumPy reference.

Times are integer cycles. Engine e of sample s, with FIFO depth d, q inputs in parallel:

    start = max(end of the sample before it on this engine, arrive[s], join[s - d q])
    end   = start + service (+ wait for a free miss register)
    data  = max(end, arrival of the lines that it fetches)
    join  = max over engines of data, not before join[s - 1], and when the array's FIFO has room

The pipeline between engines and join moves and stalls as one, so its latency is paid once and takes
no FIFO slots. The array then takes samples in batches, one layer after another (layer_serial), or
one every `interval` cycles and lane (layer_pipelined); results leave through the port to L2.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from lumigraph.hardware.cluster import ClusterSpec
from lumigraph.hardware.workloads import Workload

from .addresses import Integers


@dataclass(frozen=True)
class TimingShape:
    """The integers that the recurrence needs."""

    group: int = 1
    """Inputs in parallel."""
    depth: int = 8
    latency: int = 0
    """From the engines to the join."""
    serial: bool = False
    batch: int = 64
    lanes: int = 1
    interval: int = 1
    """layer_pipelined: cycles between samples of one lane."""
    tiles: tuple[int, ...] = (1,)
    """layer_serial: passes through the array of each layer."""
    overhead: int = 0
    """layer_serial: cycles of a layer that do not depend on the batch."""
    network_latency: int = 0
    """layer_pipelined: from issue to result."""
    input_fifo: int = 0
    """0: samples are joined when the array takes them."""
    output_fifo: int = 1 << 40
    port_bytes: int = 1
    port_latency: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    line_bytes: int = 32
    mshr: int = 16
    dram_latency: int = 0
    """On top of the port's."""

    @classmethod
    def of(cls, cluster: ClusterSpec, workload: Workload) -> TimingShape:
        """Of a cluster that runs a workload."""
        nfp, mlp = cluster.nfp, cluster.nfp.mlp
        tiles = array_tiles(workload, rows=mlp.rows, cols=mlp.cols)
        return cls(
            group=inputs_in_parallel(cluster, workload),
            depth=nfp.encoding.fifo_depth,
            latency=nfp.encoding.latency.total,
            serial=mlp.mode == "layer_serial",
            batch=mlp.batch,
            lanes=mlp.lanes,
            interval=max(tiles),
            tiles=tiles,
            overhead=mlp.pass_latency + mlp.weight_swap,
            network_latency=sum(tiles) + len(tiles) * mlp.pass_latency,
            input_fifo=mlp.input_fifo,
            output_fifo=mlp.output_fifo,
            port_bytes=nfp.l2_port.bytes_per_cycle,
            port_latency=nfp.l2_port.latency,
            input_bytes=workload.input_bytes,
            output_bytes=workload.output_bytes,
            line_bytes=cluster.memory.l2.line,
            mshr=nfp.encoding.mshr,
            dram_latency=round(cluster.memory.dram.latency_ns * nfp.clock_ghz),
        )

    def batch_cycles(self, samples: int) -> int:
        """layer_serial: of a batch with so many samples."""
        return sum(-(-samples * t // self.lanes) + self.overhead for t in self.tiles)

    def first_layer_cycles(self, samples: int) -> int:
        """layer_serial: until the batch's inputs are used up."""
        return -(-samples * self.tiles[0] // self.lanes)


def array_tiles(workload: Workload, *, rows: int, cols: int) -> tuple[int, ...]:
    """Passes of each layer through an array of rows x cols multipliers."""
    return tuple(-(-i // rows) * -(-o // cols) for i, o in workload.layers)


def inputs_in_parallel(cluster: ClusterSpec, workload: Workload) -> int:
    """Samples that are encoded at a time: engines that would idle serve further samples."""
    return max(cluster.nfp.encoding.engines // workload.encoding.levels, 1)


@dataclass
class Timing:
    """What the recurrence yields for one processor; cycles. Engine counts are (E,), summed over
    inputs in parallel; those of the array are of all lanes together."""

    cycles: int
    busy: Integers
    conflict: Integers
    miss: Integers
    back_pressure: Integers
    starve: Integers
    idle: Integers
    array_busy: int = 0
    array_overhead: int = 0
    array_starve: int = 0
    array_blocked: int = 0
    array_idle: int = 0
    samples: int = 0
    joined: int = 0
    inferred: int = 0
    written: int = 0
    events: dict[str, Integers] = field(default_factory=dict)
    """start and end (n, E), join, issue and drained (n,), where recorded."""

    def same_as(self, other: Timing) -> bool:
        """Equal in every count."""
        names = [f.name for f in fields(self) if f.name != "events"]
        return all(np.array_equal(getattr(self, n), getattr(other, n)) for n in names)


def simulate_reference(
    service: Integers,
    shape: TimingShape,
    *,
    beats: int = 1,
    from_l2: Integers | None = None,
    from_dram: Integers | None = None,
) -> Timing:
    """Follow the samples of one processor.

    Args:
        service: (n, E) cycles that each engine's banks need.
        beats: cycles of a sample without any conflict.
        from_l2, from_dram: (n, E) lines fetched, the second within the first.
    """
    n, engines = service.shape
    zero = np.zeros((n, engines), np.int64)
    lines = zero if from_l2 is None else from_l2
    far = zero if from_dram is None else from_dram
    free = np.zeros((shape.group, engines), np.int64)
    counts = {name: np.zeros(engines, np.int64) for name in ("conflict", "miss", "wait", "starve")}
    busy = np.zeros(engines, np.int64)
    start, end = np.zeros((n, engines), np.int64), np.zeros((n, engines), np.int64)
    join = np.zeros(n, np.int64)
    fetch = _Fetches(shape, engines)
    array = _Array(shape, n)
    for s in range(n):
        lane = s % shape.group
        arrive = shape.port_latency - (-(s + 1) * shape.input_bytes // shape.port_bytes)
        back = s - shape.depth * shape.group
        slot = join[back] if back >= 0 else 0
        earliest = np.maximum(free[lane], arrive)
        start[s] = np.maximum(earliest, slot)
        plain_end = start[s] + service[s]
        end[s], data = fetch.times(start[s], plain_end, lines[s], far[s])
        counts["starve"] += earliest - free[lane]
        counts["wait"] += start[s] - earliest
        counts["miss"] += end[s] - plain_end
        least = np.minimum(service[s], beats)
        busy += least
        counts["conflict"] += service[s] - least
        free[lane] = end[s]
        ready = int(data.max())
        join[s] = array.take(s, max(ready, int(join[s - 1]) if s else 0))
    total = array.finish()
    idle = (total - free).sum(0)
    return Timing(
        cycles=total,
        busy=busy,
        conflict=counts["conflict"],
        miss=counts["miss"],
        back_pressure=counts["wait"],
        starve=counts["starve"],
        idle=idle,
        array_busy=array.busy,
        array_overhead=array.overhead,
        array_starve=array.starve,
        array_blocked=array.blocked,
        array_idle=array.idle(total),
        samples=n,
        joined=n,
        inferred=array.inferred,
        written=array.written,
        events={
            "start": start,
            "end": end,
            "join": join,
            "issue": array.issue,
            "drained": array.drained,
        },
    )


class _Fetches:
    """Lines under way of all engines, through one port."""

    def __init__(self, shape: TimingShape, engines: int) -> None:
        self._shape = shape
        self._port = 0  # time at which the port is free, in bytes
        self._done = np.zeros((engines, shape.mshr), np.int64)
        self._next = np.zeros(engines, np.int64)

    def times(
        self, start: Integers, end: Integers, lines: Integers, far: Integers
    ) -> tuple[Integers, Integers]:
        """When engines are free again, and when their data are complete."""
        shape, end, data = self._shape, end.copy(), end.copy()
        for e in np.flatnonzero(lines):
            asked = int(start[e])
            for k in range(int(lines[e])):
                place = int(self._next[e]) % shape.mshr
                asked = max(asked, int(self._done[e, place]))
                begin = max(asked * shape.port_bytes, self._port)
                self._port = begin + shape.line_bytes
                arrived = -(-self._port // shape.port_bytes) + shape.port_latency
                if k >= lines[e] - far[e]:
                    arrived += shape.dram_latency
                self._done[e, place] = arrived
                self._next[e] += 1
                data[e] = max(data[e], arrived)
            end[e] = max(end[e], asked)
            data[e] = max(data[e], end[e])
        return end, data


class _Array:
    """The network's array with its FIFOs; times as in the module's head."""

    def __init__(self, shape: TimingShape, samples: int) -> None:
        self.shape, self.samples = shape, samples
        self.issue = np.zeros(samples, np.int64)
        self.drained = np.zeros(samples, np.int64)
        self.busy = self.overhead = self.starve = self.blocked = 0
        self.inferred = self.written = 0
        self._lane_free = np.zeros(shape.lanes, np.int64)
        self._freed: list[int] = []  # layer_serial: when each batch has used its inputs
        self._port = 0

    def take(self, s: int, ready: int) -> int:
        """Time of the join of sample s, which has its data at `ready`."""
        return self._serial(s, ready) if self.shape.serial else self._pipelined(s, ready)

    def _pipelined(self, s: int, ready: int) -> int:
        shape = self.shape
        join = ready
        if shape.input_fifo and s >= shape.input_fifo:
            join = max(join, int(self.issue[s - shape.input_fifo]) - shape.latency)
        lane = s % shape.lanes
        lane_free = int(self._lane_free[lane])
        wanted = max(join + shape.latency, lane_free, int(self.issue[s - 1]) if s else 0)
        issue = wanted
        if s >= shape.output_fifo:
            slot = int(self.drained[s - shape.output_fifo]) - shape.network_latency
            issue = max(issue, slot)
        self.starve += wanted - lane_free
        self.blocked += issue - wanted
        self.busy += shape.interval
        self._lane_free[lane] = issue + shape.interval
        self.issue[s] = issue
        self._write(s, issue + shape.network_latency)
        self.inferred += 1
        return join if shape.input_fifo else issue - shape.latency

    def _serial(self, s: int, ready: int) -> int:
        shape = self.shape
        join = ready
        if s >= shape.input_fifo:
            join = max(join, self._freed[(s - shape.input_fifo) // shape.batch] - shape.latency)
        if (s + 1) % shape.batch == 0 or s + 1 == self.samples:
            self._run_batch(s, join)
        return join

    def _run_batch(self, last: int, join: int) -> None:
        shape = self.shape
        first = last // shape.batch * shape.batch
        count = last - first + 1
        length = shape.batch_cycles(count)
        free = int(self._lane_free[0])
        wanted = max(join + shape.latency, free)
        begin = wanted
        if last >= shape.output_fifo:
            begin = max(begin, int(self.drained[last - shape.output_fifo]) - length)
        work = count * sum(shape.tiles)
        self.starve += (wanted - free) * shape.lanes
        self.blocked += (begin - wanted) * shape.lanes
        self.busy += work
        self.overhead += length * shape.lanes - work
        self._lane_free[:] = begin + length
        self._freed.append(begin + shape.first_layer_cycles(count))
        for s in range(first, last + 1):
            self.issue[s] = begin
            self._write(s, begin + length)
        self.inferred += count

    def _write(self, s: int, complete: int) -> None:
        shape = self.shape
        self._port = max(complete * shape.port_bytes, self._port) + shape.output_bytes
        self.drained[s] = -(-self._port // shape.port_bytes)
        self.written += 1

    def finish(self) -> int:
        """Cycle in which the last result has left."""
        return int(self.drained[-1]) if self.samples else 0

    def idle(self, total: int) -> int:
        """Lane cycles after the last work."""
        return int((total - self._lane_free).sum())
