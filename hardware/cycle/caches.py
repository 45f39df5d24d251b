"""Tables that do not fit: which lines each sample fetches, and from where. The NumPy reference.

Every level has its share of its engine's memory: a set-associative cache with LRU replacement, or
the first part of the table held for good. At the start of a frame it holds the first lines of the
table. Lines that it lacks come from L2 (LRU, empty at the start), and what L2 lacks from DRAM.
Which lines miss depends on the order of samples alone and not on time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumigraph.hardware.cluster import ClusterSpec
from lumigraph.hardware.workloads import Encoding

from .addresses import Integers, cells_of, corner_indices


@dataclass(frozen=True)
class CacheShape:
    """Sizes of the caches, in lines."""

    entry_bytes: int
    line_bytes: int
    sets: int
    """Of each level's share."""
    ways: int
    pinned: bool
    l2_sets: int
    l2_ways: int
    bases: tuple[int, ...]
    """First line of each level in memory."""
    table_lines: tuple[int, ...]

    @classmethod
    def of(cls, cluster: ClusterSpec, encoding: Encoding) -> CacheShape:
        """Of a cluster for an encoding."""
        engines, l2 = cluster.nfp.encoding, cluster.memory.l2
        shared = -(-encoding.levels // engines.engines)
        lines = engines.sram_kib * 1024 // l2.line // shared
        table = [-(-size // l2.line) for size in encoding.level_bytes(engines.feature_bits)]
        bases = np.concatenate([[0], np.cumsum(table)[:-1]])
        return cls(
            entry_bytes=encoding.features * engines.feature_bits // 8,
            line_bytes=l2.line,
            sets=max(lines // engines.ways, 1),
            ways=engines.ways,
            pinned=engines.replacement == "pinned",
            l2_sets=max(l2.kib * 1024 // l2.line // l2.ways, 1),
            l2_ways=l2.ways,
            bases=tuple(int(base) for base in bases),
            table_lines=tuple(table),
        )

    @property
    def capacity(self) -> int:
        """Lines of a level that are on chip."""
        return self.sets * self.ways

    def fits(self, level: int) -> bool:
        """Whether a level's whole table is on chip."""
        return self.table_lines[level] <= self.capacity


class LruCache:
    """A set-associative cache of line numbers."""

    def __init__(self, sets: int, ways: int, *, preload: int = 0) -> None:
        self.sets = sets
        self._lines: list[list[int]] = [[] for _ in range(sets)]
        self._ways = ways
        for line in range(preload):
            self.touch(line)

    def touch(self, line: int) -> bool:
        """Use a line; True when it was there."""
        held = self._lines[line % self.sets]
        found = line in held
        if found:
            held.remove(line)
        elif len(held) == self._ways:
            held.pop()
        held.insert(0, line)
        return found


def fetched_lines(
    positions: NDArray[np.float32],
    encoding: Encoding,
    shape: CacheShape,
    *,
    reuse: bool = False,
    group: int = 1,
) -> tuple[Integers, Integers]:
    """Lines (n, L) that samples fetch from L2, and those (n, L) that L2 fetches from DRAM.

    Args:
        positions: (n, D) in the order of one processor.
        reuse: a sample in the cell of the one `group` before it touches nothing.
    """
    n, levels = len(positions), encoding.levels
    from_l2, from_dram = np.zeros((n, levels), np.int64), np.zeros((n, levels), np.int64)
    open_levels = [level for level in range(levels) if not shape.fits(level)]
    l2 = LruCache(shape.l2_sets, shape.l2_ways)
    caches = {
        level: LruCache(
            shape.sets, shape.ways, preload=min(shape.capacity, shape.table_lines[level])
        )
        for level in open_levels
    }
    cells = {level: cells_of(positions, encoding, level) for level in open_levels}
    index = {level: corner_indices(cells[level], encoding, level)[0] for level in open_levels}
    for s in range(n):
        for level in open_levels:
            if reuse and s >= group and (cells[level][s] == cells[level][s - group]).all():
                continue
            for entry in index[level][s]:
                line = int(entry) * shape.entry_bytes // shape.line_bytes
                held = line < shape.capacity if shape.pinned else caches[level].touch(line)
                if not held:
                    from_l2[s, level] += 1
                    from_dram[s, level] += not l2.touch(shape.bases[level] + line)
    return from_l2, from_dram
