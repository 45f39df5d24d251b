"""Stable sort on a GPU (and the emulator) with a third of the launches of `torch.sort`, which are
what sorting a frame's lists is limited by. On a CPU the tile lists sort by themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from lumigraph.cuda.runtime import kernel

BLOCK = 256  # threads, as in kernels/radix_sort.cu
DIGITS, DIGIT_BITS = 256, 8
FEW, MANY = 4, 16  # keys a thread
MANY_KEYS = 2**19
HISTOGRAM_BLOCKS = 512
MOST_KEYS = 2**30 - 1  # counts share a word with two bits of state


def scratch_size(count: int, bits: int) -> int:
    """Numbers of scratch memory for so many keys: histograms, tickets and look-back tables."""
    tiles, passes = -(-count // (BLOCK * _items(count))), -(-bits // DIGIT_BITS)
    return passes * (DIGITS * (tiles + 1) + 1)


def _items(count: int) -> int:
    return MANY if count >= MANY_KEYS else FEW


def radix_sort(
    keys: Tensor,
    values: Tensor | None,
    *,
    bits: int,
    keep_keys: bool = True,
    scratch: Tensor | None = None,
    counted: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Sort by the lowest `bits` of keys, taken as unsigned numbers; equal keys keep their order.

    Args:
        keys: (N,) int16, int32 or float32, contiguous, N from 1 to 2^30 - 1. Floats that are not
            negative sort by their bits as they do by value.
        values: (N,) int32 that move with the keys, contiguous; None: the places 0 to N - 1.
        bits: 1 to 16 or 32.
        keep_keys: False where sorted keys are not needed; they then come back in no order.
        scratch: (`scratch_size`,) int32 zeros on the device; None makes them.
        counted: (1,) int64 on the device, how many of the N keys there are; None: all of them.

    Returns:
        Keys and values, (N,) each, of which those beyond `counted` hold anything.
    """
    count, device = len(keys), keys.device
    wide = int(keys.dtype != torch.int16)
    items = _items(count)
    tiles, passes = -(-count // (BLOCK * items)), -(-bits // DIGIT_BITS)
    if scratch is None:
        scratch = torch.zeros(scratch_size(count, bits), dtype=torch.int32, device=device)
    number = scratch if counted is None else counted
    constants = {"LG_WIDE": wide, "LG_ITEMS": items, "LG_COUNTED": int(counted is not None)}
    run = kernel("radix_sort.cu", "radix_histogram", **constants)
    blocks = min(-(-count // BLOCK), HISTOGRAM_BLOCKS)
    run((blocks,), (BLOCK,), keys, number, count, passes, scratch)
    run = kernel("radix_sort.cu", "radix_pass", **constants)
    # two sets of results in turn: nobody needs those of the pass before the last
    keys_out = [torch.empty_like(keys) for _ in range(min(passes, 2))]
    values_out = [keys.new_empty(count, dtype=torch.int32) for _ in range(min(passes, 2))]
    for digit in range(passes):
        turn = digit % 2
        keeps = keep_keys or digit < passes - 1
        run(
            (tiles,),
            (BLOCK,),
            *(keys, values_out[0] if values is None else values, number, count, digit, passes),
            *(int(values is None), int(keeps), scratch, keys_out[turn], values_out[turn]),
        )
        keys, values = keys_out[turn], values_out[turn]
    assert values is not None
    return keys, values
