"""Rays (where pixels look) and packed samples (points along rays).

Letters: N rays, M packed samples. Directions have unit length, so the parameter along a ray is a
distance in scene units. Packed samples of ray n are the rows ``start : start + count`` with
``start, count = ray_offsets[n]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.core.shapes import check_shapes


@dataclass(frozen=True, eq=False)
class Rays:
    """A batch of rays in the scene frame.

    >>> rays = Rays(torch.zeros(2, 3), torch.tensor([[0.0, 0, 1], [1, 0, 0]]))
    >>> rays.points(torch.tensor([2.0, 3.0])).tolist()
    [[0.0, 0.0, 2.0], [3.0, 0.0, 0.0]]
    """

    origins: Tensor
    """(N, 3) start points."""
    directions: Tensor
    """(N, 3) unit directions."""
    camera_indices: Tensor | None = None
    """(N,) int64, the camera each ray comes from."""
    times: Tensor | None = None
    """(N,) capture times in [0, 1]."""
    near: Tensor | None = None
    """(N,) distance at which the ray starts to count."""
    far: Tensor | None = None
    """(N,) distance at which the ray ends."""

    def __post_init__(self) -> None:
        check_shapes(
            ("origins", self.origins, "N 3"),
            ("directions", self.directions, "N 3"),
            ("camera_indices", self.camera_indices, "N"),
            ("times", self.times, "N"),
            ("near", self.near, "N"),
            ("far", self.far, "N"),
        )

    def __len__(self) -> int:
        return self.origins.shape[0]

    def __getitem__(self, index: slice | Tensor | Sequence[int]) -> Rays:
        """Some of the rays, by a slice, an index tensor or a boolean mask."""
        return self._each(lambda value: value[index])

    def to(self, device: torch.device | str) -> Rays:
        """The same rays on another device."""
        return self._each(lambda value: value.to(device))

    def points(self, distances: Tensor) -> Tensor:
        """Points at `distances` (N,) or (N, S) along the rays: (N, 3) or (N, S, 3)."""
        if distances.dim() == 1:
            return torch.addcmul(self.origins, self.directions, distances[:, None])
        return torch.addcmul(self.origins[:, None], self.directions[:, None], distances[..., None])

    def chunks(self, size: int) -> Iterator[Rays]:
        """Consecutive parts of at most `size` rays."""
        if size < 1:
            raise InputError(f"size must be at least 1 ray; got {size}")
        for start in range(0, len(self), size):
            yield self[start : start + size]

    @staticmethod
    def concatenate(parts: Sequence[Rays]) -> Rays:
        """One batch of all rays of `parts`; an optional field must be in all parts or in none."""
        if not parts:
            raise InputError("parts must hold at least one batch of rays; got none")
        values: list[Any] = []
        for field in fields(Rays):
            column = [getattr(part, field.name) for part in parts]
            present = [value for value in column if value is not None]
            if present and len(present) < len(column):
                raise InputError(f"{field.name} must be in all batches of rays or in none")
            values.append(torch.cat(present) if present else None)
        return Rays(*values)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Rays:
        values: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            values[field.name] = None if value is None else change(value)
        return Rays(**values)


@dataclass(frozen=True, eq=False)
class Samples:
    """Points along rays, packed: only those that count, ray by ray.

    >>> samples = Samples(
    ...     positions=torch.zeros(3, 3),
    ...     ray_indices=torch.tensor([0, 0, 2]),
    ...     ray_offsets=torch.tensor([[0, 2], [2, 0], [2, 1]]),
    ...     distances=torch.tensor([1.0, 2.0, 1.5]),
    ...     steps=torch.ones(3),
    ... )
    >>> len(samples), samples.ray_count
    (3, 3)
    """

    positions: Tensor
    """(M, 3) points."""
    ray_indices: Tensor
    """(M,) int, the ray of each sample."""
    ray_offsets: Tensor
    """(N, 2) int, first sample and number of samples of each ray."""
    distances: Tensor
    """(M,) distance along the ray."""
    steps: Tensor
    """(M,) length of ray that the sample stands for."""

    def __post_init__(self) -> None:
        check_shapes(
            ("positions", self.positions, "M 3"),
            ("ray_indices", self.ray_indices, "M"),
            ("ray_offsets", self.ray_offsets, "N 2"),
            ("distances", self.distances, "M"),
            ("steps", self.steps, "M"),
        )

    def __len__(self) -> int:
        return self.positions.shape[0]

    @property
    def ray_count(self) -> int:
        """Number of rays, those without samples included."""
        return self.ray_offsets.shape[0]
