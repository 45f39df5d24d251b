"""Training: configuration, trainer, run folders, evaluation. Names load on first use, so that
settings and events can be read without torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import (
        PRESETS,
        FittingConfig,
        Gaussians4DConfig,
        GaussiansConfig,
        ImageConfig,
        NerfConfig,
        NeusConfig,
        RunConfig,
        SdfConfig,
        VolumeConfig,
        config_from_dict,
        train_config,
    )
    from .control import TrainingControl
    from .evaluation import evaluate
    from .events import (
        CheckpointEvent,
        Event,
        FinishedEvent,
        Listener,
        MessageEvent,
        StepEvent,
        ViewEvent,
    )
    from .method import Method, Model, Progress, StepResult
    from .run import Run
    from .trainer import resume, train

_PLACES = {
    "config": (
        "PRESETS",
        "FittingConfig",
        "Gaussians4DConfig",
        "GaussiansConfig",
        "ImageConfig",
        "NerfConfig",
        "NeusConfig",
        "RunConfig",
        "SdfConfig",
        "VolumeConfig",
        "config_from_dict",
        "train_config",
    ),
    "control": ("TrainingControl",),
    "events": (
        "CheckpointEvent",
        "Event",
        "FinishedEvent",
        "Listener",
        "MessageEvent",
        "StepEvent",
        "ViewEvent",
    ),
    "evaluation": ("evaluate",),
    "method": ("Method", "Model", "Progress", "StepResult"),
    "run": ("Run",),
    "trainer": ("resume", "train"),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "PRESETS",
    "CheckpointEvent",
    "Event",
    "FinishedEvent",
    "FittingConfig",
    "Gaussians4DConfig",
    "GaussiansConfig",
    "ImageConfig",
    "Listener",
    "MessageEvent",
    "Method",
    "Model",
    "NerfConfig",
    "NeusConfig",
    "Progress",
    "Run",
    "RunConfig",
    "SdfConfig",
    "StepEvent",
    "StepResult",
    "TrainingControl",
    "ViewEvent",
    "VolumeConfig",
    "config_from_dict",
    "evaluate",
    "resume",
    "train",
    "train_config",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
