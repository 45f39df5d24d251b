"""Exact mean service times of memory banks, by enumeration: what the analytic model starts from and
the simulated banks are held against.

With a power of two of banks B, the bank of a vertex under `low_bits` depends on its coordinates
modulo B alone, so that B^D cells are all there is to see.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from .workloads import HASH_FACTORS

Distribution = dict[int, Fraction]
"""Cycles of a sample -> probability."""


def hashed_service(dimensions: int, banks: int) -> Distribution:
    """One look-up of a hashed level, low bits, one port a bank.

    >>> {cycles: str(share) for cycles, share in hashed_service(3, 8).items()}
    {1: '7/16', 2: '17/32', 4: '1/32'}
    """
    return _enumerated(dimensions, banks, lambda axis: HASH_FACTORS[axis], hashed=True)


def dense_service(dimensions: int, banks: int, resolution: int) -> Distribution:
    """The same of a level stored row by row with so many vertices along an axis."""
    return _enumerated(dimensions, banks, lambda axis: resolution**axis, hashed=False)


def parity_service(dimensions: int, banks: int) -> Distribution:
    """The map parity: the corners of a cell never meet."""
    if banks < 1 << dimensions:
        raise ValueError(f"parity needs {1 << dimensions} banks; got {banks}")
    return {1: Fraction(1)}


def random_service(accesses: int, banks: int) -> Distribution:
    """So many independent uniform accesses: distribution of the fullest bank."""

    def at_most(limit: int) -> Fraction:
        # number of ways by exponential generating functions: accesses! [z^a] (sum z^k / k!)^banks
        row = [Fraction(1)] + [Fraction(0)] * accesses
        factorial = [1]
        for k in range(1, accesses + 1):
            factorial.append(factorial[-1] * k)
        for _ in range(banks):
            row = [
                sum(
                    (row[a - k] / factorial[k] for k in range(min(a, limit) + 1)),
                    Fraction(0),
                )
                for a in range(accesses + 1)
            ]
        return row[accesses] * factorial[accesses] / Fraction(banks) ** accesses

    limits = [Fraction(0), *(at_most(limit) for limit in range(1, accesses + 1))]
    steps = {k: limits[k] - limits[k - 1] for k in range(1, accesses + 1)}
    return {k: share for k, share in steps.items() if share}


def mean(distribution: Distribution) -> Fraction:
    """Expected cycles.

    >>> mean(hashed_service(3, 16))
    Fraction(45, 32)
    """
    return sum((cycles * share for cycles, share in distribution.items()), Fraction(0))


def mean_of_slowest(distribution: Distribution, levels: int) -> Fraction:
    """Expected cycles of the slowest of independent levels: lock step."""
    below, total, before = Fraction(0), Fraction(0), Fraction(0)
    for cycles in sorted(distribution):
        below += distribution[cycles]
        total += cycles * (below**levels - before)
        before = below**levels
    return total


def _enumerated(
    dimensions: int, banks: int, factor: Callable[[int], int], *, hashed: bool
) -> Distribution:
    axes = np.meshgrid(*[np.arange(banks)] * dimensions, indexing="ij")
    cells = [axis.ravel() for axis in axes]
    columns = []
    for corner in itertools.product((0, 1), repeat=dimensions):
        index = np.zeros_like(cells[0])
        for axis, step in enumerate(corner):
            term = (cells[axis] + step) * (factor(axis) % banks)
            index = index ^ term if hashed else index + term
        columns.append(index % banks)
    bank = np.stack(columns, 1)
    fullest = np.stack([(bank == b).sum(1) for b in range(banks)]).max(0)
    cycles, counts = np.unique(fullest, return_counts=True)
    return {int(c): Fraction(int(k), len(fullest)) for c, k in zip(cycles, counts, strict=True)}
