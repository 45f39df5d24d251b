"""From positions to the service time of a level's memory banks: the NumPy reference.

t = x * scale + 1/2 (rounded once to float32), cell = min(floor(t), R - 2)
index of a vertex: row by row where the level is stored in full, else the spatial hash
service = max over banks of ceil(accesses to the bank / ports) * beats
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumigraph.core.errors import ConfigError
from lumigraph.hardware.cluster import EncodingEngines
from lumigraph.hardware.workloads import HASH_FACTORS, Encoding

BANK_MAPS = ("low_bits", "xor_fold", "parity", "prime")
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Banking:
    """How the entries of a level are spread over banks."""

    banks: int
    """The largest prime below it for the map prime."""
    map: str
    ports: int
    beats: int
    """Words of an entry."""
    merge: bool
    reuse: bool

    @classmethod
    def of(cls, engines: EncodingEngines, encoding: Encoding) -> Banking:
        """Of the engines of a cluster for an encoding.

        Raises:
            ConfigError: parity with fewer banks than a cell has corners.
        """
        if engines.bank_map == "parity" and engines.banks < encoding.corners:
            raise ConfigError(
                f"nfp.encoding.banks = {engines.banks}: the map parity needs one for each of the "
                f"{encoding.corners} corners of a cell; use {encoding.corners} or more, or low_bits"
            )
        entry = encoding.features * engines.feature_bits // 8
        banks = engines.banks if engines.bank_map != "prime" else _prime_below(engines.banks)
        return cls(
            banks=banks,
            map=engines.bank_map,
            ports=engines.ports_per_bank,
            beats=-(-entry // engines.word_bytes),
            merge=engines.corner_merge,
            reuse=engines.reuse_last_cell,
        )


def cells_of(positions: NDArray[np.float32], encoding: Encoding, level: int) -> Integers:
    """(n, D) integer cell of each position in [0, 1] on a level."""
    scale = np.float64(np.float32(encoding.scales[level]))
    inside = np.clip(positions.astype(np.float64), 0.0, 1.0)
    t = (inside * scale + 0.5).astype(np.float32)
    return np.minimum(np.floor(t).astype(np.int64), encoding.resolutions[level] - 2)


def corner_indices(cells: Integers, encoding: Encoding, level: int) -> tuple[Integers, Integers]:
    """Entries (n, 2^D) of a cell's corners within the level, and their vertices (n, 2^D, D)."""
    dimensions = encoding.dimensions
    offsets = np.array([[c >> a & 1 for a in range(dimensions)] for c in range(1 << dimensions)])
    vertices = cells[:, None, :] + offsets[None]
    size = encoding.sizes[level]
    if not encoding.hashed[level]:
        strides = encoding.resolutions[level] ** np.arange(dimensions, dtype=np.int64)
        return vertices @ strides, vertices
    index = np.zeros(vertices.shape[:2], np.int64)
    for axis in range(dimensions):
        index ^= (vertices[..., axis] * HASH_FACTORS[axis]) & 0xFFFFFFFF
    return index & (size - 1), vertices


def bank_of(index: Integers, vertices: Integers, banking: Banking) -> Integers:
    """Bank of each access."""
    if banking.map == "xor_fold":
        return (index ^ index >> 5 ^ index >> 11) % banking.banks
    if banking.map == "parity":
        weights = 1 << np.arange(vertices.shape[-1])
        return (vertices & 1) @ weights
    return index % banking.banks


def accesses_and_service(
    positions: NDArray[np.float32], encoding: Encoding, level: int, *, banking: Banking, group: int
) -> tuple[Integers, Integers]:
    """(n,) table accesses after merging, and (n,) cycles that they take.

    Args:
        positions: (n, D) in the order of one processor.
        group: inputs in parallel: the sample before one on the same engine is so many back.
    """
    cells = cells_of(positions, encoding, level)
    index, vertices = corner_indices(cells, encoding, level)
    bank = bank_of(index, vertices, banking)
    counts = np.ones(index.shape, bool)
    if banking.merge and banking.map != "parity":
        for corner in range(1, index.shape[1]):
            counts[:, corner] = (index[:, :corner] != index[:, corner, None]).all(1)
    per_bank = np.stack(
        [((bank == b) & counts).sum(1) for b in range(int(bank.max(initial=0)) + 1)]
    )
    accesses = counts.sum(1)
    service = -(-per_bank.max(0) // banking.ports) * banking.beats
    if banking.reuse:
        same = np.zeros(len(cells), bool)
        same[group:] = (cells[group:] == cells[:-group]).all(1) if group < len(cells) else False
        accesses, service = np.where(same, 0, accesses), np.where(same, 1, service)
    return accesses.astype(np.int64), service.astype(np.int64)


def _prime_below(most: int) -> int:
    """The largest prime up to `most`; 1 where there is none."""
    for number in range(most, 1, -1):
        if all(number % factor for factor in range(2, int(number**0.5) + 1)):
            return number
    return 1
