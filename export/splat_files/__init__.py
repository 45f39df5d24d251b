"""Files of Gaussians: one module a format, found by content when read and by suffix when written.

`.ply` in the layout of the first 3D Gaussian splatting code, `.splat`, `.spz`; compressed PLY is
read only; `.lg4d` for Gaussians that move. Names load on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lumigraph.export.splat_files.loss import Loss
    from lumigraph.export.splat_files.moving_file import (
        MovingFile,
        is_moving_file,
        read_moving,
        write_moving,
    )
    from lumigraph.export.splat_files.moving_splats import MovingSplats
    from lumigraph.export.splat_files.reading import (
        FILE_UP,
        MOVING_SUFFIX,
        SPLAT_SUFFIXES,
        ReadReport,
        SplatFile,
        read_splats,
    )
    from lumigraph.export.splat_files.writing import WriteOptions, WriteReport, write_splats

_MODULE_OF = {
    "FILE_UP": "reading",
    "Loss": "loss",
    "MOVING_SUFFIX": "reading",
    "MovingFile": "moving_file",
    "MovingSplats": "moving_splats",
    "ReadReport": "reading",
    "SPLAT_SUFFIXES": "reading",
    "SplatFile": "reading",
    "WriteOptions": "writing",
    "WriteReport": "writing",
    "is_moving_file": "moving_file",
    "read_moving": "moving_file",
    "read_splats": "reading",
    "write_moving": "moving_file",
    "write_splats": "writing",
}

__all__ = [
    "FILE_UP",
    "MOVING_SUFFIX",
    "SPLAT_SUFFIXES",
    "Loss",
    "MovingFile",
    "MovingSplats",
    "ReadReport",
    "SplatFile",
    "WriteOptions",
    "WriteReport",
    "is_moving_file",
    "read_moving",
    "read_splats",
    "write_moving",
    "write_splats",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
