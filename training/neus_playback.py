"""Method `neus` for still and for moving scenes, as the table of methods names it: what trains it
and what opens it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumigraph.core import Scene, Similarity
from lumigraph.core.errors import CheckpointError
from lumigraph.fields import MovingSurface, SurfaceMoment
from lumigraph.renderers import MovingSurfaceRenderer, OccupancyGrid

from .checkpoint import copy_state
from .config import NeusConfig
from .method import Method, Model
from .moment_files import check_moments, moment_path, read_moment, unpack_bits
from .neus import NeusMethod, build_field, build_renderer, load_neus_model
from .neus_sequence import NeusSequence, is_sequence
from .sequence_plan import SequencePlan
from .silhouettes import scene_of_surface

__all__ = ["build_neus", "load_neus", "neus_steps", "scene_of_surface", "still_model"]


def build_neus(scene: Scene, config: NeusConfig, device: torch.device) -> Method:
    """What trains a scene; see `NeusMethod` and `NeusSequence`."""
    kind = NeusSequence if is_sequence(scene, config) else NeusMethod
    return kind(scene, config, device)


def neus_steps(scene: Scene, config: NeusConfig) -> int:
    """Steps of a run that is given neither steps nor time."""
    if not is_sequence(scene, config):
        return config.default_steps
    assert scene.moments is not None
    return SequencePlan.of(config, len(scene.moments)).total


def load_neus(
    scene: Scene,
    config: NeusConfig,
    tensors: dict[str, Tensor],
    header: dict[str, Any],
    path: Path,
    device: torch.device,
) -> Model:
    """The model of a checkpoint: of a moving scene, of the moments that it has come to.

    Raises:
        CheckpointError: the checkpoint belongs to another model, or a moment's file is missing.
    """
    if not is_sequence(scene, config):
        return load_neus_model(scene, config, tensors, header, path, device)
    assert scene.moments is not None
    if "moment" not in header:
        raise CheckpointError(f"{path}: is of a still scene; train the run again")
    folder, count = path.parent.parent, int(header["moment"]) + 1
    check_moments(folder, count)

    def read(index: int) -> SurfaceMoment:
        return _moment(folder, index, scene, config, device)

    field = MovingSurface(scene.moments[:count], scene.bounds, read).to(device)
    plain = build_renderer(scene, config, None)
    renderer = MovingSurfaceRenderer(background=plain.background, near=plain.near).to(device)
    return Model(field, renderer, device)


def still_model(model: Model, time: float | None) -> Model:
    """The moment of a moving surface that is nearest to a time, as a model of its own, whose
    renderer has its occupancy grid and its motion; other models as they are."""
    field, renderer = model.field, model.renderer
    if not isinstance(field, MovingSurface) or not isinstance(renderer, MovingSurfaceRenderer):
        return model
    moment = field.at_time(time)
    assert isinstance(moment.field, torch.nn.Module)
    return Model(moment.field, renderer.still(moment), model.device)


def _moment(
    folder: Path, index: int, scene: Scene, config: NeusConfig, device: torch.device
) -> SurfaceMoment:
    path, tensors = moment_path(folder, index), read_moment(folder, index)
    field = build_field(scene, config, torch.device("cpu"))
    occupancy = OccupancyGrid(
        resolution=config.grid_resolution, cascades=1, march_steps=config.march_steps
    )
    motion, active = torch.empty(4, 4, dtype=torch.float64), torch.empty(())
    unseen = torch.empty(-(-occupancy.cell_count // 8), dtype=torch.uint8)
    parameters = {f"field.{name}": p.detach() for name, p in field.named_parameters()}
    others = {
        "occupancy.bits": occupancy.bits,
        "occupancy.coarse": occupancy.coarse,
        "occupancy.unseen": unseen,
        "motion": motion,
        "active_levels": active,
    }
    copy_state(parameters | others, tensors, path)
    occupancy.values.copy_(-unpack_bits(unseen, occupancy.cell_count).float())
    field.active_levels = float(active)
    for parameter in field.parameters():
        parameter.requires_grad_(False)
    return SurfaceMoment(field.to(device), occupancy.to(device), Similarity.from_matrix(motion))
