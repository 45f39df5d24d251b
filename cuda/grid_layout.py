"""Sizes of multiresolution grids: how many vertices and table entries each level has."""

from __future__ import annotations

import functools
import math
import struct
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lumigraph.core.errors import InputError

MOST_LEVELS = 32
MOST_ENTRIES = 2**31 - 1
MOST_RESOLUTION = 2**20


@dataclass(frozen=True)
class GridLayout:
    """Sizes of a multiresolution grid.

    Level l has N_l = ceil(base_resolution * growth^l - 1) + 1 vertices along an axis and
    min(N_l^D rounded up to 8, 2^log2_table_size) entries of `features` numbers. Levels that fit
    are dense, the others hashed; with `dense` all are dense, whatever their size. A single dense
    grid is `GridLayout(levels=1, base_resolution=128, dense=True)`.

    Example:
        >>> GridLayout(levels=2, base_resolution=4, growth=2.0).resolutions
        (4, 8)
    """

    dimensions: int = 3  # D: 2, 3 or 4
    levels: int = 16  # L: 1 to 32
    features: int = 2  # F: 1, 2, 4 or 8 for each entry
    log2_table_size: int = 19  # most entries of a hashed level
    base_resolution: int = 16  # vertices along an axis of the coarsest level
    growth: float = 1.4472692012786865  # factor between levels: 16 to 4096 in 16 levels
    smooth: bool = False  # smooth-step instead of linear interpolation
    dense: bool = False

    def __post_init__(self) -> None:
        _require("dimensions", self.dimensions, self.dimensions in (2, 3, 4), "2, 3 or 4")
        _require("levels", self.levels, 1 <= self.levels <= MOST_LEVELS, f"1 to {MOST_LEVELS}")
        _require("features", self.features, self.features in (1, 2, 4, 8), "1, 2, 4 or 8")
        _require(
            "log2_table_size", self.log2_table_size, 3 <= self.log2_table_size <= 28, "3 to 28"
        )
        _require("base_resolution", self.base_resolution, self.base_resolution >= 2, "2 or more")
        _require("growth", self.growth, 1 <= self.growth < math.inf, "1 or more")
        finest = self.resolutions[-1]
        if finest > MOST_RESOLUTION:
            raise InputError(
                f"GridLayout: the finest level has {finest} vertices along an axis, most is 2^20; "
                "lower growth or levels"
            )
        if self.entries > MOST_ENTRIES:
            raise InputError(
                f"GridLayout: the grid has {self.entries} entries, most is 2^31 - 1; "
                "lower the resolutions or the table size"
            )

    @classmethod
    def from_resolutions(
        cls, base_resolution: int, max_resolution: int, *, levels: int = 16, **options: Any
    ) -> GridLayout:
        """Layout whose coarsest and finest level have the given resolutions.

        Example:
            >>> GridLayout.from_resolutions(16, 64, levels=3).resolutions
            (16, 32, 64)
        """
        _require("max_resolution", max_resolution, max_resolution >= base_resolution, "no less")
        growth = (max_resolution / base_resolution) ** (1 / (levels - 1)) if levels > 1 else 1.0
        return cls(levels=levels, base_resolution=base_resolution, growth=growth, **options)

    @functools.cached_property
    def scales(self) -> tuple[float, ...]:
        """What positions in [0, 1] are multiplied with, as float32 numbers."""
        exact = [self.base_resolution * self.growth**level - 1 for level in range(self.levels)]
        return struct.unpack(f"{self.levels}f", struct.pack(f"{self.levels}f", *exact))

    @functools.cached_property
    def resolutions(self) -> tuple[int, ...]:
        """Vertices along an axis of each level."""
        return tuple(math.ceil(scale) + 1 for scale in self.scales)

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        """Entries of each level, a multiple of 8."""
        whole = tuple(-(-(n**self.dimensions) // 8) * 8 for n in self.resolutions)
        return whole if self.dense else tuple(min(n, 1 << self.log2_table_size) for n in whole)

    @property
    def entries(self) -> int:
        """Rows of the table."""
        return sum(self.sizes)

    @property
    def output_width(self) -> int:
        """Features of a position."""
        return self.levels * self.features

    @functools.cached_property
    def levels_tensor(self) -> Tensor:
        """(L, 4) int32 on the CPU: bits of the float32 scale, resolution, size, offset."""
        rows = []
        offset = 0
        for scale, resolution, size in zip(self.scales, self.resolutions, self.sizes, strict=True):
            bits = struct.unpack("i", struct.pack("f", scale))[0]
            rows.append((bits, resolution, size, offset))
            offset += size
        return torch.tensor(rows, dtype=torch.int32)


def _require(name: str, value: object, good: bool, wanted: str) -> None:
    if not good:
        raise InputError(f"GridLayout: {name} must be {wanted}; got {value}")
