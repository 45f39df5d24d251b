"""Choices that every dataset reader understands, checked once at the border."""

import math
from dataclasses import dataclass

from lumigraph.core.errors import DataError

DEFAULT_IMAGE_BUDGET_BYTES = 1 << 30


@dataclass(frozen=True)
class LoadOptions:
    """How a folder becomes a scene; the same object goes to every reader.

    Example:
        >>> LoadOptions(split_every=8, image_scale=0.25).image_scale
        0.25
    """

    split_every: int | None = None
    """Every n-th image by sorted name is a test image, starting with the first; 0 keeps all
    images for training. None follows the split the files give, else every 8th."""

    image_scale: float = 1.0
    """Factor on width and height of every image, in (0, 1]; 0.25 is a quarter of the side."""

    image_budget_bytes: int = DEFAULT_IMAGE_BUDGET_BYTES
    """Decoded 8-bit images kept in memory at most, in bytes."""

    image_folder: str | None = None
    """Name of the image folder inside the scene (COLMAP, LLFF, NeuS); None chooses one."""

    frames: str | None = None
    """Which moments of a moving scene, as START:STOP:STEP, counted from 0 without STOP; parts may
    be left out. None takes all. Times run from 0 to 1 over those chosen."""

    def __post_init__(self) -> None:
        if self.split_every is not None and self.split_every < 0:
            raise DataError(
                f"split_every is {self.split_every}: expected 0 (no test images) or a positive"
                " step such as 8"
            )
        if not (math.isfinite(self.image_scale) and 0.0 < self.image_scale <= 1.0):
            raise DataError(
                f"image_scale is {self.image_scale}: expected a factor above 0 and up to 1, such"
                " as 0.25; zero would leave images without pixels"
            )
        if self.image_budget_bytes < 0:
            raise DataError(
                f"image_budget_bytes is {self.image_budget_bytes}: expected zero (keep nothing)"
                " or more"
            )
        if self.frames is not None:
            self._slice()

    def chosen(self, count: int, source: object) -> range:
        """Which of `count` moments `frames` asks for.

        Args:
            count: moments that the data has.
            source: file or folder for the message.

        Raises:
            DataError: none of them.

        Example:
            >>> list(LoadOptions(frames="2::3").chosen(10, "clip"))
            [2, 5, 8]
        """
        found = range(count)[self._slice()]
        if not found:
            raise DataError(f"{source}: frames {self.frames} leaves none of {count} moments")
        return found

    def _slice(self) -> slice:
        words = [] if self.frames is None else self.frames.split(":")
        numeric = all(word == "" or word.isdecimal() for word in words)
        if not numeric or len(words) == 1 or len(words) > 3 or words[2:] == ["0"]:
            raise DataError(
                f"frames is {self.frames}: expected START:STOP or START:STOP:STEP, such as 0:60 or"
                " ::5"
            )
        return slice(*(int(word) if word else None for word in words)) if words else slice(None)
