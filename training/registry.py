"""Name of a method -> what trains it and what opens it. Modules load on use, so that a method's
needs burden nobody else."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lumigraph.core.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lumigraph.core import Scene

    from .config import RunConfig
    from .events import Listener
    from .method import Method, Model


class Scorer(Protocol):
    """Scores a run by something else than held-out views."""

    def __call__(
        self, scene: Scene, model: Model, *, folder: Path, on_event: Listener | None
    ) -> dict[str, Any]: ...


@dataclass(frozen=True)
class MethodEntry:
    """Where a method's code lies."""

    module: str
    method: str
    """Callable (scene, config, device) -> Method."""
    loader: str
    """Callable (scene, config, tensors, header, path, device) -> Model."""
    scene: str | None = None
    """Callable (scene, config) -> Scene: the data as the method sees it, which once done changes
    nothing more; None: as it is."""
    steps: str | None = None
    """Callable (scene, config) -> int: steps of a run that is given neither steps nor time; None:
    those of the settings."""
    data: str | None = None
    """Callable (source, config) -> Scene: reads what is no set of posed pictures; None:
    `datasets.load`."""
    scores: str | None = None
    """Callable (scene, model, *, folder, on_event) -> protocol and scores by name (`scores.py`),
    which writes its pictures into the folder; None: PSNR, SSIM and LPIPS of held-out views."""


METHODS: dict[str, MethodEntry] = {
    "nerf": MethodEntry("lumigraph.training.nerf", "NerfMethod", "load_nerf_model"),
    "gaussians": MethodEntry(
        "lumigraph.training.gaussians.method", "GaussiansMethod", "load_gaussians_model"
    ),
    "gaussians4d": MethodEntry(
        "lumigraph.training.gaussians4d.method", "Gaussians4DMethod", "load_gaussians4d_model"
    ),
    "neus": MethodEntry(
        "lumigraph.training.neus_playback",
        "build_neus",
        "load_neus",
        "scene_of_surface",
        "neus_steps",
    ),
    "image": MethodEntry(
        "lumigraph.training.fitting.image",
        "ImageMethod",
        "load_image_model",
        data="image_scene",
        scores="score_image",
    ),
    "sdf": MethodEntry(
        "lumigraph.training.fitting.sdf",
        "SdfMethod",
        "load_sdf_model",
        data="solid_scene",
        scores="score_sdf",
    ),
    "volume": MethodEntry(
        "lumigraph.training.fitting.volume",
        "VolumeMethod",
        "load_volume_model",
        data="medium_scene",
        scores="score_volume",
    ),
}


def read_data(source: str | Path, config: RunConfig) -> Scene | None:
    """What a method with data of its own kind reads; None where it takes posed pictures.

    Raises:
        ConfigError: unknown method. DataError: the data cannot be read.
    """
    entry = _entry(config.method)
    if entry.data is None:
        return None
    scene: Scene = _named(entry.module, entry.data)(source, config)
    return scene


def scorer(config: RunConfig) -> Scorer | None:
    """How runs of a method are scored that has no held-out views; None where it has.

    Raises:
        ConfigError: unknown method.
    """
    entry = _entry(config.method)
    if entry.scores is None:
        return None
    score: Scorer = _named(entry.module, entry.scores)
    return score


def prepared_scene(scene: Scene, config: RunConfig) -> Scene:
    """The data as a method trains on it and is judged by.

    Raises:
        ConfigError: unknown method. DataError: the scene lacks what the method needs.
    """
    entry = _entry(config.method)
    if entry.scene is None:
        return scene
    prepared: Scene = _named(entry.module, entry.scene)(scene, config)
    return prepared


def planned_steps(scene: Scene, config: RunConfig) -> int | None:
    """Steps of a run on a scene; None when time decides."""
    entry = _entry(config.method)
    if config.steps is not None or config.seconds is not None or entry.steps is None:
        return config.planned_steps
    return int(_named(entry.module, entry.steps)(scene, config))


def build_method(scene: Scene, config: RunConfig, device: torch.device) -> Method:
    """A method with initial values, ready to train.

    Raises:
        ConfigError: unknown method. DataError: the scene lacks what it trains on.
    """
    entry = _entry(config.method)
    scene = prepared_scene(scene, config)
    method: Method = _named(entry.module, entry.method)(scene, config, device)
    return method


def build_model(
    scene: Scene,
    config: RunConfig,
    tensors: dict[str, Tensor],
    header: dict[str, Any],
    path: Path,
    device: torch.device,
) -> Model:
    """The model of a checkpoint, ready to render.

    Args:
        tensors: content of the checkpoint, on the CPU.
        header: its header.
        path: where it lies, for messages.

    Raises:
        ConfigError: unknown method. CheckpointError: the checkpoint does not fit.
    """
    entry = _entry(config.method)
    load = _named(entry.module, entry.loader)
    model: Model = load(scene, config, tensors, header, path, device)
    return model


def _entry(name: str) -> MethodEntry:
    if name not in METHODS:
        raise ConfigError(f"method = {name!r}: unknown, use one of {', '.join(METHODS)}")
    return METHODS[name]


def _named(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)
