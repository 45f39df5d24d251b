"""The trainer and run folders with a method that they have never seen, whose state grows."""

import dataclasses
import json
import sys
import types

import pytest
import torch
from torch import nn

from lumigraph.core import Frame
from lumigraph.core.errors import CheckpointError, ConfigError, DataError
from lumigraph.training import (
    MessageEvent,
    Model,
    Progress,
    Run,
    StepEvent,
    StepResult,
    evaluate,
    registry,
    resume,
    train,
    train_config,
)
from lumigraph.training.checkpoint import load_checkpoint
from lumigraph.training.files import newest_checkpoint, read_lines
from lumigraph.training.nerf import NerfMethod
from lumigraph.training.report import write_report

CPU = torch.device("cpu")


class Rows(nn.Module):
    """A field of numbers that become more."""

    def __init__(self, values):
        super().__init__()
        self.values = nn.Parameter(values)


class FlatRenderer:
    """A frame of one color: the mean of the field."""

    def render(self, field, cameras, *, normals=False):
        width, height = cameras.size(0)
        gray = field.values.detach().mean().expand(height, width)
        return Frame(torch.stack([gray] * 3, dim=-1), torch.ones_like(gray), gray)


class GrowingMethod:
    """Obeys `Method`; appends a random row a step."""

    def __init__(self, scene, config, device):
        if scene.images is None:
            raise DataError("no images")
        self.config, self.device = config, device
        self.field, self.renderer = Rows(torch.zeros(2, device=device)), FlatRenderer()
        self.generator = torch.Generator().manual_seed(config.seed)
        self.seen: list[Progress] = []
        self.count = 0

    def notes(self):
        return ["needs 1 KiB of memory"]

    def step(self, progress):
        self.seen.append(progress)
        self.count += 1
        row = torch.rand(1, generator=self.generator) * progress.rate
        self.field = Rows(torch.cat([self.field.values.detach(), row]))
        loss = row[0]
        return StepResult(loss, loss**2, 576, extras={"gaussians": len(self.field.values)})

    def state(self):
        return {"field.values": self.field.values}

    def random_state(self):
        return {"random.rows": self.generator.get_state()}

    def small_state(self):
        return {}

    def header(self):
        return {"count": self.count}

    def restore(self, tensors, header, path):
        if "field.values" not in tensors:
            raise CheckpointError(f"{path}: holds no 'field.values'; it belongs to another model")
        self.field = Rows(tensors["field.values"])
        self.generator.set_state(tensors["random.rows"])
        self.count = header["count"]

    def bad_gradients(self):
        return 0


def load_growing_model(scene, config, tensors, header, path, device):
    assert header["count"] == header["step"] and path.is_file()
    return Model(Rows(tensors["field.values"].to(device)), FlatRenderer(), device)


@pytest.fixture(autouse=True)
def growing(monkeypatch):
    """The stand-in as method `gaussians`."""
    module = types.ModuleType("lumigraph_test_growing")
    made = []

    def build(scene, config, device):
        made.append(GrowingMethod(scene, config, device))
        return made[-1]

    module.Build, module.load = build, load_growing_model
    monkeypatch.setitem(sys.modules, module.__name__, module)
    entry = registry.MethodEntry(module.__name__, "Build", "load")
    monkeypatch.setitem(registry.METHODS, "gaussians", entry)
    return made


@pytest.fixture
def config():
    return train_config("gaussians", "tiny", steps=20, log_every=5, device="cpu")


def test_table_names_what_exists_for_every_method_with_settings():
    from lumigraph.training.config import CONFIGS

    assert set(registry.METHODS) == set(CONFIGS)
    entry = registry.METHODS["nerf"]
    assert registry._named(entry.module, entry.method) is NerfMethod
    assert callable(registry._named(entry.module, entry.loader))


def test_unknown_methods_are_named(config):
    odd = dataclasses.replace(config)
    object.__setattr__(odd, "method", "splats")
    with pytest.raises(ConfigError, match="method = 'splats': unknown, use one of nerf, gaussians"):
        registry.build_method(None, odd, CPU)


def test_counts_reach_events_log_summary_and_report(scene_folder, config, tmp_path):
    events = []
    config = dataclasses.replace(config, means_rate=1.6e-4)
    run = train(scene_folder, config, out=tmp_path / "run", on_event=events.append)
    assert events[0] == MessageEvent("needs 1 KiB of memory")
    steps = [event for event in events if isinstance(event, StepEvent)]
    assert [event.extras["gaussians"] for event in steps] == [7, 12, 17, 22]
    assert all(event.samples_per_ray is None for event in steps)
    rows = read_lines(run.path / "metrics.jsonl")
    assert [row["gaussians"] for row in rows] == [7, 12, 17, 22]
    assert "samples_per_ray" not in rows[0]
    # 1.6e-6 must not be rounded to 2e-6
    assert rows[-1]["learning_rate"] == pytest.approx(1.6e-6, rel=1e-5)
    summary = json.loads((run.path / "train.json").read_text())
    assert summary["gaussians"] == 22 and summary["method"] == "gaussians"
    page = write_report(run).read_text()
    assert ">Gaussians<" in page and "<b>22 <small>" in page


def test_growing_state_resumes_exactly(scene_folder, config, tmp_path):
    whole = train(scene_folder, config, out=tmp_path / "whole")

    def stop(event):
        if isinstance(event, StepEvent) and event.step >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(scene_folder, config, out=tmp_path / "parts", on_event=stop)
    parts = resume(tmp_path / "parts")
    first, header = load_checkpoint(newest_checkpoint(whole.path))
    second, other = load_checkpoint(newest_checkpoint(parts.path))
    assert header["count"] == other["count"] == 20 and len(first["field.values"]) == 22
    assert torch.equal(first["field.values"], second["field.values"])


def test_steps_are_told_where_the_run_stands(scene_folder, config, tmp_path, growing):
    train(scene_folder, config, out=tmp_path / "run")
    seen = growing[0].seen
    assert [progress.step for progress in seen] == list(range(20))
    assert {progress.planned_steps for progress in seen} == {20}
    assert seen[10].fraction == 0.5 and seen[10].rate == pytest.approx(0.1)


def test_a_time_budget_forecasts_its_steps(scene_folder, config, tmp_path, growing):
    timed = dataclasses.replace(config, steps=None, seconds=0.2, log_every=1000)
    train(scene_folder, timed, out=tmp_path / "run")
    seen = growing[0].seen
    assert seen[0].planned_steps == timed.default_steps
    late = seen[-1]
    assert late.fraction > 0.5 and late.planned_steps == round(late.step / late.fraction)


def test_run_folder_opens_through_the_table(scene_folder, config, tmp_path):
    train(scene_folder, config, out=tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert run.config == config
    model = run.model("cpu")
    frame = model.render(run.scene().cameras[0])
    assert torch.allclose(frame.color, model.field.values.detach().mean().expand(24, 24, 3))
    assert evaluate(run)["views"] == 2


def test_checkpoint_of_another_method_is_refused(scene_folder, config, tiny, tmp_path):
    run = train(scene_folder, tiny, out=tmp_path / "run")
    other = dataclasses.replace(run, config=config)
    tensors, header = load_checkpoint(newest_checkpoint(run.path))
    method = registry.build_method(run.scene(), other.config, CPU)
    with pytest.raises(CheckpointError, match="holds no 'field.values'"):
        method.restore(tensors, header, newest_checkpoint(run.path))
    nerf = registry.build_method(run.scene(), tiny, CPU)
    before = {name: value.clone() for name, value in nerf.state().items()}
    with pytest.raises(CheckpointError, match="belongs to another model"):
        nerf.restore({"field.values": torch.zeros(3)}, header, newest_checkpoint(run.path))
    assert all(torch.equal(value, nerf.state()[name]) for name, value in before.items())
