"""How large a picture may be while the camera moves, and how finely a still one is cut.

The time of a picture grows with its pixels in a way that depends on machine, field and view; the
last pictures tell the cost of a pixel, and the next size follows from it.
"""

from __future__ import annotations

import math

MOVING_SECONDS = 1 / 12
"""Aim for a picture while moving: 12 a second leave room above the promised 8."""
TILE_SECONDS = 0.08
"""Aim for a piece of a still picture: how long a move may have to wait."""
FIRST_PIXELS = 96 * 72
"""Of the first picture, before any cost is known."""
LEAST_PIXELS = 64 * 48
"""A smaller picture shows nothing."""
TRUST = 0.5
"""Weight of the newest measurement."""


class Pace:
    """The cost of pixels, as lately measured.

    >>> pace = Pace()
    >>> pace.note(10_000, 0.1)
    >>> pace.moving_size(640, 480)
    (105, 79)
    """

    def __init__(self) -> None:
        self._log_cost: float | None = None

    @property
    def seconds_per_pixel(self) -> float | None:
        """None before the first picture."""
        return None if self._log_cost is None else math.exp(self._log_cost)

    def note(self, pixels: int, seconds: float) -> None:
        """A picture, or a piece of one, took this long."""
        cost = math.log(max(seconds, 1e-6) / max(pixels, 1))
        old = self._log_cost
        self._log_cost = cost if old is None else old + TRUST * (cost - old)

    def moving_size(self, width: int, height: int, *, sharers: int = 1) -> tuple[int, int]:
        """Size of a picture while moving, of the same shape, at most width x height.

        Args:
            sharers: viewers that move at the same time and take turns.
        """
        affordable = float(FIRST_PIXELS)
        if self._log_cost is not None:
            affordable = MOVING_SECONDS / max(sharers, 1) / math.exp(self._log_cost)
        scale = math.sqrt(max(affordable, LEAST_PIXELS) / (width * height))
        if scale >= 0.9:  # nearly whole is no gain over whole
            return width, height
        return max(1, round(width * scale)), max(1, round(height * scale))

    def tile_rows(self, width: int, height: int) -> int:
        """Rows of a still picture that are rendered at a time."""
        if self._log_cost is None:
            return max(1, min(height, FIRST_PIXELS // width))
        rows = TILE_SECONDS / (math.exp(self._log_cost) * width)
        return max(1, min(height, int(max(rows, 8))))
