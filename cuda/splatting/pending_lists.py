"""Tile lists on a GPU (and the emulator) without waiting for it: `PendingLists`.

How many pairs of a tile and a splat there are is known to the device alone. Everything is launched
for as many as there is room for, a quarter more than lately, while the true number is on its way to
the host, which looks at it when nothing else is left to launch. In the rare case of too many pairs
the lists are written again.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.cuda.runtime import kernel

from .radix_sort import MOST_KEYS, radix_sort, scratch_size

BLOCK = 128  # threads, as in kernels/splat_tiles.cu
SCAN_BLOCK, SCAN_COUNTS = 256, 4096  # threads, and counts of a block of splat_scan
RANGES_BLOCK = 256
DEPTH_BITS = 32
ROOM_PER_SPLAT, ROOM_UNIT = 4, 2**14  # pairs; of a first look
SPARE = 1.25  # room over the pairs of lately
FADING = 0.95  # of a large number of pairs, a call
MOST_NOTES = 256
MOST_NARROW_TILES = 32766  # 16-bit keys; one more stands for no tile
# Ranks of a warp lie apart when pairs are written for fewer splats than this (measured on an H100:
# 0.30 -> 0.12 ms at 100 k, but 0.16 -> 0.26 ms at 3 M).
APART_BELOW = 1_000_000

_lately: dict[tuple[int, int, int], float] = {}
"""Pairs of recent calls by device, tiles and order of magnitude of the splats."""
_local = threading.local()


def too_many_pairs() -> InputError:
    return InputError(
        "the picture needs more pairs of tile and Gaussian than can be counted; use a smaller "
        "image, fewer or smaller Gaussians"
    )


class _Mailbox:
    """Memory of the host into which a kernel writes a number."""

    def __init__(self, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self.number = torch.zeros(1, dtype=torch.int64, pin_memory=on_gpu)
        self._event = torch.cuda.Event() if on_gpu else None
        self._device = device

    def sent(self) -> None:
        """The kernel that writes has been launched."""
        if self._event is not None:
            self._event.record(torch.cuda.current_stream(self._device))

    def read(self) -> int:
        """Wait for the number."""
        if self._event is not None:
            self._event.synchronize()
        return int(self.number)


def _mailbox(device: torch.device) -> _Mailbox:
    """One for each thread and device: a thread reads its mail before it has more sent."""
    boxes = _local.__dict__.setdefault("boxes", {})
    if device not in boxes:
        boxes[device] = _Mailbox(device)
    return boxes[device]


class PendingLists:
    """Tile lists whose length the host does not know until `settle`.

    Attributes:
        ids: (I,) int32, splats; before `settle` with room behind them.
        starts: (tiles + 1,) int32, where each tile's list begins.
    """

    def __init__(self, splats: Tensor, depths: Tensor, columns: int, rows: int) -> None:
        self.splats, self.columns, self.rows = splats, columns, rows
        self.device, self.tiles, count = splats.device, columns * rows, len(splats)
        self._empty = not count or not self.tiles
        if self._empty:
            self.ids = torch.empty(0, dtype=torch.int32, device=self.device)
            self.starts = torch.zeros(self.tiles + 1, dtype=torch.int32, device=self.device)
            return
        self._key = (self.device.index or 0, self.tiles, count.bit_length())
        self._bits = self.tiles.bit_length()
        self._constants = {"LG_WIDE": int(self.tiles > MOST_NARROW_TILES)}
        self._mailbox = _mailbox(self.device)
        lately = _lately.get(self._key)
        wanted = ROOM_PER_SPLAT * count if lately is None else int(SPARE * lately)
        room = min((wanted // ROOM_UNIT + 1) * ROOM_UNIT, MOST_KEYS)
        # all zeros in one: look-back table of 64-bit words and ticket of the scan, then the sorts'
        blocks, by_depth = -(-count // SCAN_COUNTS), scratch_size(count, DEPTH_BITS)
        sizes = (2 * blocks, 1, by_depth, scratch_size(room, self._bits))
        zeros = torch.zeros(sum(sizes), dtype=torch.int32, device=self.device)
        table, ticket, for_depths, for_tiles = zeros.split(sizes)
        self._count(depths.contiguous(), blocks, table, ticket, for_depths)
        self._write(room, for_tiles)

    def settle(self) -> bool:
        """Wait for the number of pairs, and cut `ids` to it.

        Returns:
            Whether there was room for them. If not, both lists are written again, and what was
            made of them must be made again, too.

        Raises:
            InputError: more pairs than can be sorted.
        """
        if self._empty:
            return True
        pairs, room = self._mailbox.read(), len(self.ids)
        if pairs > MOST_KEYS:
            raise too_many_pairs()
        if len(_lately) >= MOST_NOTES:
            _lately.clear()
        _lately[self._key] = max(pairs, FADING * _lately.get(self._key, 0))
        if pairs > room:
            self._write(pairs)
        self.ids = self.ids[:pairs]
        return pairs <= room

    def _count(
        self, depths: Tensor, blocks: int, table: Tensor, ticket: Tensor, scratch: Tensor
    ) -> None:
        """Splats by rank, for each rank the number of pairs up to its own, and their total."""
        splats, count = self.splats, len(self.splats)
        self._order = radix_sort(depths, None, bits=DEPTH_BITS, keep_keys=False, scratch=scratch)[1]
        counts, self._ends = (splats.new_empty(count, dtype=torch.int32) for _ in range(2))
        self._total = splats.new_empty(1, dtype=torch.int64)
        run = kernel("splat_tiles.cu", "splat_count", **self._constants)
        shape = (count, self.columns, self.rows)
        run((-(-count // BLOCK),), (BLOCK,), splats, self._order, *shape, 1, counts)
        run = kernel("splat_tiles.cu", "splat_scan", **self._constants)
        run(
            *((blocks,), (SCAN_BLOCK,), counts, count, table, ticket, self._ends, self._total),
            self._mailbox.number,
        )
        self._mailbox.sent()

    def _write(self, room: int, scratch: Tensor | None = None) -> None:
        """The first `room` pairs in rank order, sorted by tile, and where each tile's begin."""
        splats, count = self.splats, len(self.splats)
        wide = self._constants["LG_WIDE"]
        keys = splats.new_empty(room, dtype=torch.int32 if wide else torch.int16)
        ids = splats.new_empty(room, dtype=torch.int32)
        run = kernel("splat_tiles.cu", "splat_emit", **self._constants)
        shape = (count, self.columns, self.rows, int(count < APART_BELOW), room)
        run((-(-count // BLOCK),), (BLOCK,), splats, self._order, self._ends, *shape, keys, ids)
        keys, self.ids = radix_sort(
            keys, ids, bits=self._bits, scratch=scratch, counted=self._total
        )
        self.starts = splats.new_empty(self.tiles + 1, dtype=torch.int32)
        run = kernel("splat_tiles.cu", "splat_ranges", **self._constants)
        blocks = -(-room // RANGES_BLOCK)
        run((blocks,), (RANGES_BLOCK,), keys, self._total, room, self.tiles, self.starts)
