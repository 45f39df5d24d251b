"""The three steps of the cycle model in Numba: the same integers as their NumPy references, fast
enough for whole frames. Compiled on first use (a few seconds) and kept on disk by Numba.

Functions release the interpreter's lock, so that `model.py` runs processors side by side.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lumigraph.hardware.workloads import HASH_FACTORS

_FACTOR_X, _FACTOR_Y, _FACTOR_Z, _FACTOR_W = (np.int64(factor) for factor in HASH_FACTORS)
WORD = np.int64(0xFFFFFFFF)
LOW_BITS, XOR_FOLD, PARITY, PRIME = range(4)
MOST_BANKS = 64


@njit(inline="always")
def _factor(axis):
    if axis == 0:
        return _FACTOR_X
    if axis == 1:
        return _FACTOR_Y
    return _FACTOR_Z if axis == 2 else _FACTOR_W


@njit(inline="always")
def _cell(x, scale, resolution):
    inside = min(max(np.float64(x), 0.0), 1.0)
    t = np.float32(inside * np.float64(scale) + 0.5)
    return min(np.int64(math.floor(t)), resolution - 2)


@njit(inline="always")
def _corners(cell, dimensions, resolution, size, hashed, index):
    """Entries of the corners of one cell, into `index`."""
    index[0] = 0
    count = 1
    stride = np.int64(1)
    for axis in range(dimensions):
        factor = _factor(axis) if hashed else stride
        low = cell[axis] * factor
        high = low + factor
        for c in range(count):
            before = index[c]
            if hashed:
                index[c] = before ^ (low & WORD)
                index[c + count] = before ^ (high & WORD)
            else:
                index[c] = before + low
                index[c + count] = before + high
        count *= 2
        stride *= resolution
    if hashed:
        for c in range(count):
            index[c] &= size - 1


@njit(nogil=True, cache=True)
def service_times(
    positions, scales, resolutions, sizes, hashed, shape, begin, end, first, service, accesses
):
    """Cycles (n, L) of samples begin to end, and accesses (L,) added up.

    shape: banks, map, ports, beats, merge, reuse, group. `first` is the first sample of the
    processor: what lies before it was another's.
    """
    banks, mapping, ports, beats, merge, reuse, group = shape
    dimensions = positions.shape[1]
    corners = 1 << dimensions
    index = np.empty(16, np.int64)
    cell = np.empty(4, np.int64)
    used = np.empty(16, np.int64)
    counts = np.zeros(MOST_BANKS, np.int64)
    spread = mapping == PARITY  # corners of a cell differ in parity: no two in one bank
    for level in range(len(scales)):
        scale, resolution, size = scales[level], resolutions[level], sizes[level]
        merges = merge and hashed[level]  # vertices of a full level are all different
        total = 0
        for s in range(begin, end):
            same = reuse and s - group >= first
            if reuse or not spread:
                for axis in range(dimensions):
                    cell[axis] = _cell(positions[s, axis], scale, resolution)
                    if same and s - group >= first:
                        before = _cell(positions[s - group, axis], scale, resolution)
                        same = same and before == cell[axis]
            if same:
                service[s, level] = 1
                continue
            if spread:
                service[s, level] = beats
                total += corners
                continue
            _corners(cell, dimensions, resolution, size, hashed[level], index)
            most = 0
            for c in range(corners):
                i = index[c]
                if mapping == LOW_BITS:
                    bank = i & (banks - 1)
                elif mapping == XOR_FOLD:
                    bank = (i ^ i >> 5 ^ i >> 11) & (banks - 1)
                else:
                    bank = i % banks
                fresh = True
                if merges and counts[bank]:
                    for earlier in range(c):
                        if index[earlier] == i:
                            fresh = False
                            break
                used[c] = bank
                if fresh:
                    counts[bank] += 1
                    total += 1
                    most = max(most, counts[bank])
            for c in range(corners):
                counts[used[c]] = 0
            service[s, level] = (most + ports - 1) // ports * beats
        accesses[level] += total


@njit(inline="always")
def _touch(tags, row, ways, line):
    """Use a line of one set of an LRU cache; True when it was there."""
    found = ways - 1
    hit = False
    for way in range(ways):
        if tags[row, way] == line:
            found = way
            hit = True
            break
    for way in range(found, 0, -1):
        tags[row, way] = tags[row, way - 1]
    tags[row, 0] = line
    return hit


@njit(nogil=True, cache=True)
def fetched_lines(
    positions,
    scales,
    resolutions,
    sizes,
    hashed,
    fits,
    bases,
    table_lines,
    shape,
    begin,
    end,
    from_l2,
    from_dram,
):
    """Lines (n, L) from L2 and, within them, from DRAM, of one processor's samples.

    shape: entry bytes, line bytes, sets, ways, pinned, L2 sets, L2 ways, reuse, group.
    """
    entry, line_bytes, sets, ways, pinned, l2_sets, l2_ways, reuse, group = shape
    dimensions = positions.shape[1]
    levels = len(scales)
    l2 = np.full((l2_sets, l2_ways), -1, np.int64)
    rows = np.zeros(levels, np.int64)
    kept = 0
    for level in range(levels):
        rows[level] = kept * sets
        if not fits[level]:
            kept += 1
    caches = np.full((max(kept, 1) * sets, ways), -1, np.int64)
    for level in range(levels):
        if not fits[level] and not pinned:
            for line in range(min(sets * ways, table_lines[level])):
                _touch(caches, rows[level] + line % sets, ways, line)
    index = np.empty(16, np.int64)
    cell = np.empty(4, np.int64)
    for s in range(begin, end):
        for level in range(levels):
            if fits[level]:
                continue
            same = reuse and s - group >= begin
            for axis in range(dimensions):
                cell[axis] = _cell(positions[s, axis], scales[level], resolutions[level])
                if same:
                    before = positions[s - group, axis]
                    same = _cell(before, scales[level], resolutions[level]) == cell[axis]
            if same:
                continue
            _corners(cell, dimensions, resolutions[level], sizes[level], hashed[level], index)
            near = far = 0
            for c in range(1 << dimensions):
                line = index[c] * entry // line_bytes
                if pinned:
                    held = line < sets * ways
                else:
                    held = _touch(caches, rows[level] + line % sets, ways, line)
                if not held:
                    near += 1
                    wide = bases[level] + line
                    if not _touch(l2, wide % l2_sets, l2_ways, wide):
                        far += 1
            from_l2[s, level] = near
            from_dram[s, level] = far


@njit(inline="always")
def _ceil(a, b):
    return (a + b - 1) // b


@njit(nogil=True, cache=True)
def follow(service, from_l2, from_dram, misses, shape, tiles, beats, counts, totals, events, keep):
    """The recurrence of `timing.py` for one processor.

    shape: the integers of `TimingShape` in its order, without `tiles`. Filled in: counts (6, E)
    busy, conflict, miss, back-pressure, starve, idle; totals (10,) as `Timing`. With `keep` also
    events (3, n) join, issue, drained and (2, n, E) start, end.
    """
    (group, depth, latency, serial, batch, lanes, interval, overhead, network_latency, input_fifo,
     output_fifo, port_bytes, port_latency, input_bytes, output_bytes, line_bytes, mshr,
     dram_latency) = shape  # fmt: skip
    points, spans = events
    n, engines = service.shape
    free = np.zeros((group, engines), np.int64)
    lane_free = np.zeros(lanes, np.int64)
    join, issue, drained = points[0], points[1], points[2]
    freed = np.zeros(n // batch + 1 if serial else 1, np.int64)
    fetched = np.zeros((engines, mshr), np.int64)
    following = np.zeros(engines, np.int64)
    fetch_port, out_port = np.int64(0), np.int64(0)
    all_tiles = 0
    for layer in range(len(tiles)):
        all_tiles += tiles[layer]
    array_busy = array_overhead = array_starve = array_blocked = inferred = written = 0
    for s in range(n):
        inputs = s % group
        arrive = port_latency + _ceil((s + 1) * input_bytes, port_bytes)
        back = s - depth * group
        slot = join[back] if back >= 0 else 0
        ready = join[s - 1] if s else np.int64(0)
        for e in range(engines):
            earliest = max(free[inputs, e], arrive)
            start = max(earliest, slot)
            cycles = np.int64(service[s, e])
            plain_end = start + cycles
            end = plain_end
            data = end
            if misses and from_l2[s, e]:
                asked = start
                near = np.int64(from_l2[s, e]) - np.int64(from_dram[s, e])
                for k in range(np.int64(from_l2[s, e])):
                    place = following[e] % mshr
                    asked = max(asked, fetched[e, place])
                    fetch_port = max(asked * port_bytes, fetch_port) + line_bytes
                    arrived = _ceil(fetch_port, port_bytes) + port_latency
                    if k >= near:
                        arrived += dram_latency
                    fetched[e, place] = arrived
                    following[e] += 1
                    data = max(data, arrived)
                end = max(end, asked)
                data = max(data, end)
            least = min(cycles, beats)
            counts[0, e] += least
            counts[1, e] += cycles - least
            counts[2, e] += end - plain_end
            counts[3, e] += start - earliest
            counts[4, e] += earliest - free[inputs, e]
            free[inputs, e] = end
            ready = max(ready, data)
            if keep:
                spans[0, s, e] = start
                spans[1, s, e] = end
        if serial:
            if s >= input_fifo:
                ready = max(ready, freed[(s - input_fifo) // batch] - latency)
            join[s] = ready
            if (s + 1) % batch == 0 or s + 1 == n:
                first = s // batch * batch
                count = s - first + 1
                length = np.int64(0)
                for layer in range(len(tiles)):
                    length += _ceil(count * tiles[layer], lanes) + overhead
                wanted = max(ready + latency, lane_free[0])
                begin = wanted
                if s >= output_fifo:
                    begin = max(begin, drained[s - output_fifo] - length)
                array_starve += (wanted - lane_free[0]) * lanes
                array_blocked += (begin - wanted) * lanes
                array_busy += count * all_tiles
                array_overhead += length * lanes - count * all_tiles
                lane_free[:] = begin + length
                freed[s // batch] = begin + _ceil(count * tiles[0], lanes)
                for i in range(first, s + 1):
                    issue[i] = begin
                    out_port = max((begin + length) * port_bytes, out_port) + output_bytes
                    drained[i] = _ceil(out_port, port_bytes)
                    written += 1
                inferred += count
        else:
            if input_fifo and s >= input_fifo:
                ready = max(ready, issue[s - input_fifo] - latency)
            lane = s % lanes
            wanted = max(ready + latency, lane_free[lane], issue[s - 1] if s else np.int64(0))
            issued = wanted
            if s >= output_fifo:
                issued = max(issued, drained[s - output_fifo] - network_latency)
            array_starve += wanted - lane_free[lane]
            array_blocked += issued - wanted
            array_busy += interval
            lane_free[lane] = issued + interval
            issue[s] = issued
            join[s] = ready if input_fifo else issued - latency
            out_port = max((issued + network_latency) * port_bytes, out_port) + output_bytes
            drained[s] = _ceil(out_port, port_bytes)
            written += 1
            inferred += 1
    total = drained[n - 1] if n else np.int64(0)
    for e in range(engines):
        for inputs in range(group):
            counts[5, e] += total - free[inputs, e]
    left = np.int64(0)
    for lane in range(lanes):
        left += total - lane_free[lane]
    totals[:] = (total, array_busy, array_overhead, array_starve, array_blocked, left, n, n,
                 inferred, written)  # fmt: skip
