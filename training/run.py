"""The run folder, the unit that users keep:

config.yaml    settings                    metrics.jsonl   a line each few steps
scene.json     where the data came from    train.json      summary of training
checkpoints/   step-*.safetensors          evaluate.json   scores on the test views
renders/       pictures, a scored mesh     timings.json    seconds per stage
moments/       moment-*.safetensors, where a surface moves
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lumigraph import datasets
from lumigraph.core import Scene
from lumigraph.core.devices import choose_device
from lumigraph.core.errors import DataError

from .checkpoint import load_checkpoint
from .config import RunConfig, config_from_dict
from .files import newest_checkpoint, read_json, read_yaml, write_json
from .method import Model
from .registry import build_model, prepared_scene, read_data

MESH = "renders/mesh.ply"
"""The mesh that was scored against the truth, in the run folder."""
MESH_PICTURE = "renders/mesh_error.png"
"""The picture of its errors."""


@dataclass(frozen=True)
class Run:
    """A run folder that exists. Open with `Run.open`."""

    path: Path
    config: RunConfig
    given: Scene | None = field(default=None, repr=False, compare=False)
    """The scene in hand when the run was trained in this process, which need not lie on disk."""

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Read the settings of a run.

        Raises:
            DataError: no such folder. ConfigError: `config.yaml` is missing or has errors.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise DataError(f"{folder}: no such run folder; train one with: lumigraph train")
        file = folder / "config.yaml"
        return cls(folder, config_from_dict(read_yaml(file), str(file)))

    def scene(self) -> Scene:
        """The data that the run was trained on, as its method sees it; loaded once.

        Raises:
            DataError: the data is not where it was, or was only ever in memory.
        """
        if self.given is not None:
            return prepared_scene(self.given, self.config)
        return _load_scene(self.path, self.config)

    def model(self, device: str | None = None) -> Model:
        """The newest checkpoint, ready to render.

        Args:
            device: "cpu", "cuda" or "auto"; None takes that of the configuration.
        """
        chosen = choose_device(device or self.config.device)
        path = newest_checkpoint(self.path)
        tensors, header = load_checkpoint(path)
        return build_model(self.scene(), self.config, tensors, header, path, chosen)

    def train_summary(self) -> dict[str, Any]:
        """What training reported: `train.json`."""
        return dict(read_json(self.path / "train.json"))

    def evaluation(self) -> dict[str, Any] | None:
        """Scores of the last evaluation, or None."""
        file = self.path / "evaluate.json"
        return dict(read_json(file)) if file.is_file() else None

    def add_timing(self, stage: str, seconds: float) -> None:
        """Note how long a stage took."""
        file = self.path / "timings.json"
        timings = read_json(file) if file.is_file() else {}
        write_json(file, {**timings, stage: round(seconds, 3)})


def scene_record(scene: Scene) -> dict[str, Any]:
    """What `scene.json` keeps: enough to find the data again and to go back to its own frame."""
    source = str(scene.source)
    if not source.startswith("builtin:"):
        source = os.path.abspath(source)
    return {
        "name": scene.name,
        "source": source,
        "bounds": _rows(scene.bounds),
        "aabb_scale": scene.aabb_scale,
        "normalization": _rows(scene.normalization.to_matrix()),
        "splits": _image_splits(scene),
    }


def _image_splits(scene: Scene) -> dict[str, list[int]]:
    """Images by split; without images, as where something else is fitted, there are none."""
    if scene.images is None:
        return {}
    return {name: indices.tolist() for name, indices in scene.splits.items()}


def _rows(tensor: Tensor) -> list[list[float]]:
    return [[float(x) for x in row] for row in tensor]


def load_scene(source: str | Path, config: RunConfig) -> Scene:
    """Load data with the options of a configuration, by the method's own reader if it has one."""
    own = read_data(source, config)
    if own is not None:
        return own
    return datasets.load(
        source,
        split_every=config.split_every,
        image_scale=config.image_scale,
        image_budget_bytes=int(config.image_budget_gib * 2**30),
        frames=config.frames,
        test_views=config.test_views,
    )


@functools.lru_cache(maxsize=2)
def _load_scene(path: Path, config: RunConfig) -> Scene:
    record = read_json(path / "scene.json")
    if not isinstance(record, dict) or "source" not in record:
        raise DataError(f"{path / 'scene.json'}: has no 'source'; train the run again")
    return prepared_scene(load_scene(record["source"], config), config)
