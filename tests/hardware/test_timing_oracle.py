"""V10: the recurrence against an event simulation that was written apart, with queues and a heap of
times instead of formulas. Latencies shift everything and are tested in test_timing.py."""

import heapq
import random

import numpy as np
import pytest

from lumigraph.hardware.cycle.model import follow_compiled
from lumigraph.hardware.cycle.timing import TimingShape, simulate_reference


def event_simulation(service, *, lines=None, far=None, shape):
    """Cycle in which the last result has left, by events. One byte passes a port in a cycle."""
    n, engines = service.shape
    q, now, heap = shape.group, 0, [0]
    begun = np.zeros((q, engines), int)  # samples that each engine has begun
    ends = np.zeros((q, engines), int)
    data = {}  # (sample, engine) -> complete
    joined, issued, freed_at = 0, 0, []
    lane_free, outstanding = [0] * shape.lanes, [[] for _ in range(engines)]
    fetch_free = out_free = 0
    drained, joins = [], []

    def drain(complete):
        nonlocal out_free
        out_free = max(out_free, complete) + shape.output_bytes
        drained.append(out_free)
        heapq.heappush(heap, out_free)

    def step_engines():
        nonlocal fetch_free
        moved = False
        for lane in range(q):
            for e in range(engines):
                s = lane + q * begun[lane, e]
                in_fifo = begun[lane, e] - sum(1 for j in range(joined) if j % q == lane)
                arrived = shape.port_latency + (s + 1) * shape.input_bytes
                if s >= n or ends[lane, e] > now or arrived > now or in_fifo >= shape.depth:
                    if s < n and arrived > now:
                        heapq.heappush(heap, arrived)
                    continue
                end = ready = now + int(service[s, e])
                asked = now
                for k in range(0 if lines is None else int(lines[s, e])):
                    if len(outstanding[e]) >= shape.mshr:  # registers serve in turn
                        asked = max(asked, outstanding[e][-shape.mshr])
                    fetch_free = max(fetch_free, asked) + shape.line_bytes
                    slow = shape.dram_latency if k >= lines[s, e] - far[s, e] else 0
                    outstanding[e].append(fetch_free + shape.port_latency + slow)
                    ready = max(ready, outstanding[e][-1])
                ends[lane, e] = max(end, asked)
                data[s, e] = max(ready, ends[lane, e])
                begun[lane, e] += 1
                heapq.heappush(heap, ends[lane, e])
                heapq.heappush(heap, data[s, e])
                moved = True
        return moved

    def step_join():
        nonlocal joined
        if joined == n or any(data.get((joined, e), 1 << 60) > now for e in range(engines)):
            return False
        if shape.serial:
            room = sum(1 for s in range(joined) if not freed(s)) < shape.input_fifo
        elif shape.input_fifo:
            room = joined - issued < shape.input_fifo
        else:
            room = can_issue()
        if not room:
            return False
        joins.append(now)
        joined += 1
        return True

    def freed(s):
        batch = s // shape.batch
        return batch < len(freed_at) and freed_at[batch] <= now

    def can_issue():
        lane = issued % shape.lanes
        waiting = sum(1 for t in drained if t > now)
        return lane_free[lane] <= now and waiting < shape.output_fifo

    def step_array():
        nonlocal issued
        if shape.serial:
            count = min(shape.batch, n - issued)
            if not count or joined < issued + count or lane_free[0] > now:
                return False
            length = shape.batch_cycles(count)
            oldest = issued + count - 1 - shape.output_fifo
            if oldest >= 0 and drained[oldest] > now + length:
                heapq.heappush(heap, drained[oldest] - length)
                return False
            freed_at.append(now + shape.first_layer_cycles(count))
            lane_free[0] = now + length
            heapq.heappush(heap, freed_at[-1])
            heapq.heappush(heap, lane_free[0])
            for _ in range(count):
                drain(now + length)
            issued += count
            return True
        if issued >= joined or not can_issue():
            return False
        lane_free[issued % shape.lanes] = now + shape.interval
        heapq.heappush(heap, now + shape.interval)
        drain(now)
        issued += 1
        return True

    while heap and issued < n:
        now = heapq.heappop(heap)
        while heap and heap[0] == now:
            heapq.heappop(heap)
        while any([step_array(), step_join(), step_engines()]):
            pass
        assert now < 10**7
    return drained[-1]


def random_case(rng, *, misses):
    engines, n = (1 if misses else rng.randint(1, 4)), rng.randint(1, 24)
    serial = rng.random() < 0.5
    batch = rng.randint(1, 6)
    shape = TimingShape(
        group=1 if misses else rng.choice([1, 1, 2, 3]),
        depth=rng.randint(1, 4),
        serial=serial,
        batch=batch,
        lanes=rng.randint(1, 3) if not serial else 1,
        interval=rng.randint(1, 4),
        tiles=tuple(rng.randint(1, 2) for _ in range(rng.randint(1, 3))),
        overhead=rng.randint(0, 3),
        network_latency=0,
        input_fifo=batch + rng.randint(0, 8) if serial else rng.choice([0, 0, 1, 3]),
        output_fifo=batch + rng.randint(0, 4) if serial else rng.randint(1, 5),
        port_bytes=1,
        port_latency=rng.randint(0, 6),
        input_bytes=rng.randint(0, 3),
        output_bytes=rng.randint(1, 3),
        line_bytes=rng.randint(1, 5),
        mshr=rng.randint(1, 4),
        dram_latency=rng.randint(0, 9),
    )
    service = np.array([[rng.randint(1, 4) for _ in range(engines)] for _ in range(n)])
    lines = np.array([[rng.choice([0, 0, 1, 3]) for _ in range(engines)] for _ in range(n)])
    far = np.array([[rng.randint(0, k) for k in row] for row in lines])
    return service, lines, far, shape


@pytest.mark.parametrize("misses", [False, True])
def test_recurrence_equals_event_simulation(misses):
    rng = random.Random(7 + misses)
    for _ in range(500):
        service, lines, far, shape = random_case(rng, misses=misses)
        if not misses:
            lines = far = None
        wanted = event_simulation(service, lines=lines, far=far, shape=shape)
        found = simulate_reference(service, shape, from_l2=lines, from_dram=far)
        assert found.cycles == wanted, (service, lines, far, shape)


def test_compiled_equals_reference():
    pytest.importorskip("numba")
    rng = random.Random(1)
    for case in range(200):
        service, lines, far, shape = random_case(rng, misses=case % 2 == 1)
        reference = simulate_reference(service, shape, beats=2, from_l2=lines, from_dram=far)
        compiled = follow_compiled(
            service.astype(np.uint16),
            lines.astype(np.uint8),
            far.astype(np.uint8),
            misses=True,
            shape=shape,
            beats=2,
            keep=True,
        )
        assert compiled.same_as(reference)
        for name, times in reference.events.items():
            assert np.array_equal(times, compiled.events[name][: len(times)]), name
