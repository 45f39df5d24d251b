"""A trainer that takes no time: the commands are tested for what they say and leave behind."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from lumigraph import training
from lumigraph.core import Cameras, Frame, MemoryImages, Scene, cube
from lumigraph.core.transforms import look_at
from lumigraph.training.config import train_config
from lumigraph.training.events import MessageEvent, StepEvent, ViewEvent
from lumigraph.training.files import read_json, write_json, write_yaml


def ring_scene() -> Scene:
    angles = torch.linspace(0, 5.5, 8)
    eyes = [torch.tensor([4 * a.cos(), 4 * a.sin(), 1.0]) for a in angles]
    poses = torch.stack([look_at(eye, torch.zeros(3), up=(0.0, 0.0, 1.0)) for eye in eyes])
    images = MemoryImages([torch.zeros(12, 16, 3, dtype=torch.uint8)] * 8)
    splits = {"train": torch.arange(6), "test": torch.tensor([6, 7])}
    cameras = Cameras.from_intrinsics(poses, 16, 12, 16.0)
    return Scene("ring", "memory", cameras, splits, cube(torch.zeros(3), 3.0), images=images)


class GrayModel:
    def render(self, cameras, *, channels=()):
        width, height = cameras.size(0)
        gray = torch.full((height, width), 0.5)
        return Frame(torch.stack([gray] * 3, dim=-1), gray * 2, gray)


@dataclass
class FakeRun:
    path: Path
    config = train_config()

    def scene(self):
        return ring_scene()

    def model(self, device=None):
        return GrayModel()

    def train_summary(self):
        return read_json(self.path / "train.json")

    def add_timing(self, stage, seconds):
        self.timed = stage


class FakeTraining:
    """Stands in for `training.train`, `resume`, `evaluate` and `Run.open`; keeps its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []
        self.raises: BaseException | None = None
        self.raises_after_saving: BaseException | None = None

    def train(self, data, config, *, out, on_event, control=None):
        self.calls.append(("train", data, config, Path(out)))
        if self.raises is not None:
            raise self.raises
        sys.stdout.write("a stray line of another library\n")
        for step in (1, 2):
            numbers = (0.01, 20.0, 185_000.0, 4.0, 1e-2, 1.0 * step, step / 2)
            on_event(StepEvent(step, 2, *numbers, extras=self._counts(config)))
        on_event(MessageEvent("odd [images] were skipped"))
        return self._saved(Path(out), config, 2)

    def resume(self, path, *, steps, seconds, on_event, control=None):
        self.calls.append(("resume", Path(path), steps, seconds))
        return self._saved(Path(path), train_config(), steps)

    def evaluate(self, run, *, split, device, on_event):
        self.calls.append(("evaluate", run.path, split, device))
        on_event(ViewEvent(0, 1, 31.0))
        scores = {"run": str(run.path), "protocol": f"{split} split", "views": 1, "psnr": 31.0}
        scores |= {"psnr_masked": None, "ssim": 0.95, "lpips": None, "seconds": 0.5}
        scores["per_view"] = [{"psnr": 31.0}]
        write_json(run.path / "evaluate.json", scores)
        return scores

    def open(self, path):
        return FakeRun(Path(path))

    def _counts(self, config):
        return {"gaussians": 48_000} if config.method == "gaussians" else {}

    def _saved(self, out, config, steps):
        (out / "checkpoints").mkdir(parents=True, exist_ok=True)
        (out / "checkpoints" / "step-00000002.safetensors").write_bytes(b"")
        write_yaml(out / "config.yaml", config.to_dict())
        summary = {"run": str(out), "method": config.method, "preset": config.preset}
        summary |= {"steps": steps, "seconds": 2.0, "train_psnr": 20.0, "backend": "cpu"}
        summary |= {"device": "cpu", **self._counts(config)}
        write_json(out / "train.json", {**summary, "interrupted": False})
        if self.raises_after_saving is not None:
            raise self.raises_after_saving
        return FakeRun(out)


@pytest.fixture
def fake(monkeypatch, tmp_path) -> FakeTraining:
    """The stand-in, installed, with a fresh folder as the current one."""
    stand_in = FakeTraining()
    for name in ("train", "resume", "evaluate"):
        monkeypatch.setitem(vars(training), name, getattr(stand_in, name))
    monkeypatch.setitem(vars(training), "Run", stand_in)
    monkeypatch.chdir(tmp_path)
    return stand_in


def only_object(text: str) -> dict:
    """The one JSON object that a text consists of."""
    assert text.count("\n") == 1 and text.endswith("\n")
    return json.loads(text)


@pytest.fixture
def json_of():
    return only_object
