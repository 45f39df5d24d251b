"""Upkeep of an occupancy grid in plain torch: what the occupancy kernels must compute.

Letters: K cascades of G^3 cells, M samples. Cell (x, y, z) of cascade k has the number
((k G + z) G + y) G + x and covers, along x, ((x - G / 2) + [0, 1]) 2^k / G + 1/2 of grid space.

Each cell holds a value, about the optical thickness of one step through the densest place found in
it lately; a negative one marks a cell that no camera sees. A round of upkeep is: draw cells and a
place in each, ask the field for the density there, then

    value = value * decay, for all cells or (where few are drawn at a time) for those drawn, once
    value = max(value, min(density * scale, 1e4)), for the cells drawn; NaN is passed over

both for values that are not negative. A cell is occupied where its value is above a threshold, or
where the next finer cascade, which lies in the middle of this one, has an occupied cell in it.

Random words come from a hash of (seed, sample, draw), so all implementations draw the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

WORD = 0xFFFFFFFF
LARGEST_VALUE = 1e4


def scatter_bits(x: Tensor) -> Tensor:
    """The finisher of MurmurHash3 on 32-bit words kept in int64."""
    x = x ^ (x >> 16)
    x = (x * 0x85EBCA6B) & WORD
    x = x ^ (x >> 13)
    x = (x * 0xC2B2AE35) & WORD
    return x ^ (x >> 16)


def random_words(seed: int, index: Tensor, draw: int) -> Tensor:
    mixed = scatter_bits(torch.tensor(seed & WORD, device=index.device))
    return scatter_bits((scatter_bits(index ^ mixed) + draw * 0x9E3779B9) & WORD)


def sample_cells(
    bits: Tensor, resolution: int, cascades: int, uniform: int, occupied: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Cells (M,) int32 and a random place in each (M, 3): `uniform` of them one from each equal
    part of all cells, then `occupied` from those whose bit is set (from all when there are none).
    """
    total = cascades * resolution**3
    index = torch.arange(uniform + occupied, device=bits.device)
    word = random_words(seed, index, 0)
    begin = index[:uniform] * total // max(uniform, 1)
    end = (index[:uniform] + 1) * total // max(uniform, 1)
    spread = begin + (word[:uniform] * (end - begin).clamp(min=1) >> 32)
    shifts = torch.arange(8, device=bits.device)
    full = ((bits.long()[:, None] >> shifts) & 1).flatten().nonzero()[:, 0]
    if len(full):
        drawn = full[word[uniform:] * len(full) >> 32]
    else:
        drawn = word[uniform:] * total >> 32
    cells = torch.cat([spread, drawn])
    return cells.int(), _places(cells, resolution, seed, index)


def _places(cells: Tensor, resolution: int, seed: int, index: Tensor) -> Tensor:
    scale = torch.pow(2.0, (cells // resolution**3).double()) / resolution
    columns = []
    for axis in range(3):
        corner = cells // resolution**axis % resolution
        inside = corner.float() + (random_words(seed, index, axis + 1) >> 8).float() / 2**24
        columns.append((inside.double() - resolution / 2) * scale + 0.5)
    return torch.stack(columns, 1).float()


def update_cells(
    values: Tensor,
    cells: Tensor,
    densities: Tensor,
    decay: float,
    scale: float,
    decay_all: bool,
) -> None:
    """Decay values and raise those of `cells`, in place."""
    candidate = (densities.nan_to_num(nan=0.0) * scale).clamp(0, LARGEST_VALUE)
    within = (cells >= 0) & (cells < len(values))
    best = torch.zeros_like(values)
    best.scatter_reduce_(0, cells[within].long(), candidate[within].to(values.dtype), "amax")
    factor = torch.full_like(values, decay if decay_all else 1.0)
    factor[cells[within].long()] = decay
    values.copy_(torch.where(values < 0, values, torch.maximum(values * factor, best)))


def pool_cascade(finer: Tensor) -> Tensor:
    """Cells (G, G, G) of the next coarser cascade that hold an occupied one of `finer`."""
    resolution = len(finer)
    half = resolution // 2
    pooled = torch.zeros_like(finer)
    middle = slice(half // 2, half // 2 + half)
    pooled[middle, middle, middle] = finer.reshape(half, 2, half, 2, half, 2).any(5).any(3).any(1)
    return pooled


def pack_cells(
    values: Tensor, threshold: Tensor, resolution: int, cascades: int
) -> tuple[Tensor, Tensor]:
    """`bits` (K * G^3 / 8,) and `coarse` (K * (G / 8)^3,), uint8, as marching reads them."""
    blocks = resolution // 8
    cells = (values > threshold).reshape(cascades, *[resolution] * 3)
    for k in range(1, cascades):
        cells[k] |= pool_cascade(cells[k - 1])
    place = 1 << torch.arange(8, device=values.device)
    bits = (cells.reshape(-1, 8) * place).sum(1).to(torch.uint8)
    split = cells.reshape(cascades, blocks, 8, blocks, 8, blocks, 8)
    return bits, split.any(6).any(4).any(2).flatten().to(torch.uint8)
