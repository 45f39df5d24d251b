"""A surface that was learnt at several moments: each a still surface with a rigid motion."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from torch import Tensor, nn

from lumigraph.core.errors import InputError

from .protocols import SurfaceMoment

KEPT_MOMENTS = 4
"""Moments that stay loaded, those asked for last."""


class MovingSurface(nn.Module):
    """Still surfaces along time. A time shows the moment that is nearest to it: surfaces are not
    blended.

    Args:
        moments: (F,) times in [0, 1], ascending.
        bounds: (2, 3) of the scene.
        read: gives a moment by its index, ready to render; asked when it is needed.

    Raises:
        InputError: no moments, or not ascending.
    """

    moments: Tensor
    bounds: Tensor

    def __init__(
        self, moments: Tensor, bounds: Tensor, read: Callable[[int], SurfaceMoment]
    ) -> None:
        super().__init__()
        if moments.dim() != 1 or len(moments) == 0 or bool((moments.diff() <= 0).any()):
            raise InputError(f"moments must be ascending times; got {moments.tolist()}")
        self.register_buffer("moments", moments.float())
        self.register_buffer("bounds", bounds)
        self._read = lru_cache(maxsize=KEPT_MOMENTS)(read)

    def nearest(self, time: float | None) -> int:
        """Index of the moment nearest to a time, the earlier of two; None is the first."""
        if time is None:
            return 0
        away = (self.moments - time).abs()
        return int((away == away.min()).nonzero()[0, 0])

    def at_moment(self, index: int) -> SurfaceMoment:
        """A moment by its index.

        Raises:
            IndexError: there is no such moment.
        """
        if not 0 <= index < len(self.moments):
            raise IndexError(f"moment {index} of {len(self.moments)} does not exist")
        return self._read(index)

    def at_time(self, time: float | None) -> SurfaceMoment:
        """The moment nearest to a time in [0, 1]; None is the first."""
        return self.at_moment(self.nearest(time))
