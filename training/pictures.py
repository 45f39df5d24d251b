"""Pictures on disk: (H, W, 3) float in [0, 1] to 8-bit PNG, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as iio
import torch
from torch import Tensor

from .files import write_atomic


def to_bytes(picture: Tensor) -> Tensor:
    """(H, W, 3) in [0, 1] -> uint8 on the same device, rounded; NaN becomes black."""
    clean = torch.nan_to_num(picture.detach().float(), nan=0.0).clamp(0, 1)
    return (clean * 255 + 0.5).to(torch.uint8)


def write_image(path: Path, picture: Tensor) -> None:
    """Write a PNG.

    Raises:
        DataError: the file cannot be written.
    """
    pixels = to_bytes(picture).cpu().numpy()
    write_atomic(path, lambda file: iio.imwrite(file, pixels, extension=".png"))
