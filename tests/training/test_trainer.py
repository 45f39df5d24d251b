"""Training runs: exact resume, clean stops, folders that are never lost."""

import dataclasses
import json
import math

import pytest
import torch

from lumigraph.core.errors import CheckpointError, ConfigError, DataError
from lumigraph.training import FinishedEvent, Run, StepEvent, evaluate, resume, train
from lumigraph.training.checkpoint import load_checkpoint
from lumigraph.training.files import newest_checkpoint, read_lines


def test_ten_and_ten_steps_equal_twenty_bit_for_bit(scene_folder, tiny, tmp_path):
    whole = train(scene_folder, tiny, out=tmp_path / "whole")
    # the schedule follows the planned end, so the first half is stopped, not planned short
    stop_after(10, scene_folder, tiny, tmp_path / "parts")
    parts = resume(tmp_path / "parts")
    first, header = load_checkpoint(newest_checkpoint(whole.path))
    second, other = load_checkpoint(newest_checkpoint(parts.path))
    assert header["step"] == other["step"] == 20
    assert set(first) == set(second)
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    wanted = [row["loss"] for row in read_lines(whole.path / "metrics.jsonl")]
    assert [row["loss"] for row in read_lines(parts.path / "metrics.jsonl")] == wanted


def stop_after(step, data, config, out):
    def listener(event):
        if isinstance(event, StepEvent) and event.step >= step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, config, out=out, on_event=listener)


def test_resume_keeps_exposure_and_poses_exactly(scene_folder, tiny, tmp_path):
    # the stop falls between two updates of exposures and poses, which come every 16 steps
    config = dataclasses.replace(tiny, exposure=True, pose_refinement=True, steps=36, log_every=4)
    whole = train(scene_folder, config, out=tmp_path / "whole")
    stop_after(20, scene_folder, config, tmp_path / "parts")
    parts = resume(tmp_path / "parts")
    first, _ = load_checkpoint(newest_checkpoint(whole.path))
    second, _ = load_checkpoint(newest_checkpoint(parts.path))
    assert float(first["exposure.log_gain"].abs().max()) > 0
    assert float(first["poses.motion"].abs().max()) > 0
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_interrupted_run_has_a_checkpoint_and_says_so(scene_folder, tiny, tmp_path):
    stop_after(5, scene_folder, tiny, tmp_path / "run")
    summary = Run.open(tmp_path / "run").train_summary()
    assert summary["interrupted"] and summary["steps"] == 5
    assert newest_checkpoint(tmp_path / "run").name == "step-00000005.safetensors"


def test_events_and_summary(scene_folder, tiny, tmp_path):
    events = []
    run = train(scene_folder, tiny, out=tmp_path / "run", on_event=events.append)
    steps = [event for event in events if isinstance(event, StepEvent)]
    assert [event.step for event in steps] == [5, 10, 15, 20]
    assert all(math.isfinite(event.loss) and event.rays_per_second > 0 for event in steps)
    assert steps[-1].budget_fraction == 1 and steps[0].eta_seconds > 0
    assert isinstance(events[-1], FinishedEvent)
    keys = ["run", "method", "preset", "steps", "seconds", "train_psnr", "backend", "device"]
    assert list(events[-1].summary) == keys
    assert json.loads((run.path / "train.json").read_text())["steps"] == 20


def test_a_time_budget_ends_training(scene_folder, tiny, tmp_path):
    config = dataclasses.replace(tiny, steps=None, seconds=0.5)
    run = train(scene_folder, config, out=tmp_path / "run")
    assert 0.5 <= run.train_summary()["seconds"] < 5


def test_evaluate_writes_scores_and_pictures(scene_folder, tiny, tmp_path):
    run = train(scene_folder, tiny, out=tmp_path / "run")
    result = evaluate(run)
    assert result["views"] == 2 and 0 < result["psnr"] < 60 and result["lpips"] is None
    assert run.evaluation() == result
    names = {file.name for file in (run.path / "renders" / "test").iterdir()}
    assert {"000_prediction.png", "000_truth.png", "000_depth.png"} <= names
    with pytest.raises(ConfigError, match="split 'nope': unknown, the scene has train"):
        evaluate(run, split="nope")


def test_training_learns(scene_folder, tiny, tmp_path):
    config = dataclasses.replace(tiny, steps=150, log_every=10)
    events = []
    train(scene_folder, config, out=tmp_path / "run", on_event=events.append)
    steps = [event for event in events if isinstance(event, StepEvent)]
    assert steps[-1].psnr > steps[0].psnr + 2


def test_an_existing_run_is_not_overwritten(scene_folder, tiny, tmp_path):
    train(scene_folder, tiny, out=tmp_path / "run")
    with pytest.raises(DataError, match="already holds a run; resume it, or choose"):
        train(scene_folder, tiny, out=tmp_path / "run")


def test_resume_of_a_finished_run_says_how_to_go_on(scene_folder, tiny, tmp_path):
    train(scene_folder, tiny, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="finished at step 20; give a later end with --steps"):
        resume(tmp_path / "run")
    run = resume(tmp_path / "run", steps=25)
    assert run.train_summary()["steps"] == 25


def test_moved_data_is_named(scene_folder, tiny, tmp_path):
    run = train(scene_folder, tiny, out=tmp_path / "run")
    scene_folder.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="no such folder"):
        Run.open(run.path).scene()


def test_missing_run_and_missing_checkpoint(tmp_path, scene_folder, tiny):
    with pytest.raises(DataError, match="no such run folder"):
        Run.open(tmp_path / "nothing")
    run = train(scene_folder, tiny, out=tmp_path / "run")
    newest_checkpoint(run.path).unlink()
    with pytest.raises(CheckpointError, match="no checkpoint inside; train it first"):
        run.model("cpu")


def test_learning_rate_schedule(tiny):
    config = dataclasses.replace(tiny, warmup_steps=10, decay_start=0.5, learning_rate_final=0.1)
    assert config.learning_rate_factor(0, 0.0) == pytest.approx(0.1)
    assert config.learning_rate_factor(50, 0.3) == 1.0
    assert config.learning_rate_factor(50, 0.75) == pytest.approx(0.1**0.5)
    assert config.learning_rate_factor(50, 1.0) == pytest.approx(0.1)


def test_long_runs_decay_earlier_and_further(tiny):
    short = dataclasses.replace(tiny, steps=3_000)
    long = dataclasses.replace(tiny, steps=30_000)
    assert short.learning_rate_factor(2_000, 0.7) == 1.0
    assert short.learning_rate_factor(3_000, 1.0) == pytest.approx(0.1)
    assert long.learning_rate_factor(9_000, 0.3) == 1.0
    assert long.learning_rate_factor(19_500, 0.65) == pytest.approx(0.03**0.5)
    assert long.learning_rate_factor(30_000, 1.0) == pytest.approx(0.03)
    # a run with a time budget goes by its pace: 10,000 steps in a third of the time
    timed = dataclasses.replace(tiny, steps=None, seconds=90.0)
    assert timed.learning_rate_factor(10_000, 1 / 3) < 1.0


@pytest.mark.gpu
def test_gpu_training_learns(scene_folder, tiny, tmp_path):
    config = dataclasses.replace(tiny, steps=150, log_every=10, device="cuda")
    events = []
    run = train(scene_folder, config, out=tmp_path / "run", on_event=events.append)
    steps = [event for event in events if isinstance(event, StepEvent)]
    assert steps[-1].psnr > steps[0].psnr + 1.5
    summary = run.train_summary()
    assert summary["backend"] == "cuda" and "NVIDIA" in summary["device"]
    assert evaluate(run)["psnr"] > 10
    # a run trained on a GPU opens on a CPU
    assert run.model("cpu").render(run.scene().cameras[0]).color.shape == (24, 24, 3)
