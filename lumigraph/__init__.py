"""lumigraph: posed photographs in, a scene that can be looked at from anywhere out.

The rooms are sub-packages and load on first use, so that importing `lumigraph` costs nothing:

    import lumigraph as lg

    scene = lg.datasets.load("captures/courtyard")
    run = lg.training.train(scene, lg.training.train_config("nerf", "tiny"), out="runs/courtyard")
    lg.export.video(run, path="orbit", out="orbit.mp4")
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import core, cuda, datasets, export, fields, hardware, renderers, training, viewer

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "core",
    "cuda",
    "datasets",
    "export",
    "fields",
    "hardware",
    "renderers",
    "training",
    "viewer",
]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module 'lumigraph' has no attribute {name!r}")
    return importlib.import_module(f"lumigraph.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
