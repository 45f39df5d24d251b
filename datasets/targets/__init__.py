"""What is not a set of posed photographs and can be fitted all the same: a picture, a solid, a
medium. Each is read from one file and ends in a `TargetScene`. Names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .medium import Medium, load_medium
    from .picture import Picture, load_picture
    from .solid import Solid, load_solid
    from .target_scene import TargetScene, target_of

_MODULE_OF = {
    "Medium": "medium",
    "Picture": "picture",
    "Solid": "solid",
    "TargetScene": "target_scene",
    "load_medium": "medium",
    "load_picture": "picture",
    "load_solid": "solid",
    "target_of": "target_scene",
}

__all__ = [
    "Medium",
    "Picture",
    "Solid",
    "TargetScene",
    "load_medium",
    "load_picture",
    "load_solid",
    "target_of",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
