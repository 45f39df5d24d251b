"""`bench train` compares whole steps from the same state."""

import json

import pytest
import torch

from lumigraph.bench import bench_train, train
from lumigraph.bench.inputs import benchmark_scene
from lumigraph.bench.train_probes import STAGES, stage_split
from lumigraph.core.errors import BackendError
from lumigraph.cuda.dispatch import backend_override
from lumigraph.training.method import Progress
from lumigraph.training.nerf import NerfMethod

CPU = torch.device("cpu")


def small_method():
    plan = train.make_plan(CPU, quick=True)
    scene = benchmark_scene(size=16, train=4, test=1)
    return NerfMethod(scene, plan.config, CPU), scene, plan


def test_quick_run_writes_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SETTLED", 16)
    content = bench_train("cpu", quick=True, out=tmp_path)
    assert json.loads((tmp_path / "train-cpu.json").read_text()) == content
    assert content["ours"]["steps_of_a_window"] == 16 and content["ratio"] > 0
    assert content["target_ratio"] == 8 and content["public_step_ms"] > 0
    assert set(content["stages_ms"]) == set(STAGES)
    assert [row["step"] for row in content["quality"]] == [16]
    text = (tmp_path / "train-cpu.md").read_text()
    assert ">= 8x" in text and "draw pixels" in text


def test_nothing_to_compare_is_an_error():
    with backend_override("torch"), pytest.raises(BackendError, match="nothing to compare"):
        bench_train("cpu", quick=True)


def test_both_sides_start_alike():
    method, scene, plan = small_method()
    for step in range(8):
        method.step(Progress(step))
    twin = train._copy(method, scene, plan.config)
    for name, value in method.state().items():
        assert torch.equal(value, twin.state()[name]), name
    assert method.rays == twin.rays
    first, second = method.step(Progress(8)), twin.step(Progress(8))
    assert torch.equal(first.loss, second.loss)


def test_stages_are_all_timed_and_nothing_stays_patched():
    method, _, _ = small_method()
    before = dict(vars(method))
    split = stage_split(method, first_step=0, steps=2)
    assert all(value > 0 for value in split.values()) and set(split) == set(STAGES)
    assert set(vars(method)) == set(before)
    assert "sample" not in vars(method.sampler)


def test_gpu_table_shows_targets_and_the_recorded_peer():
    timing = {"median_ms": 4.0, "low_ms": 3.9, "high_ms": 4.2, "windows": 3}
    known = train.peers.recorded_peers()
    content = {
        **train.results.document("train", CPU, "cuda", quick=False),
        "device": "cuda",
        "preset": "full",
        "scene": "s",
        "rays": 1,
        "samples": 2,
        "ours": timing,
        "torch": timing,
        "ratio": 9.0,
        "public_step_ms": 4.5,
        "target_ms": 5.0,
        "meets": True,
        "frame": {**timing, "size": "400x400"},
        "gpu_kernels": {"kernel_ms": 3, "kernels": 40, "longest": [
            {"name": "a|b", "ms": 1.0, "launches": 2.0}]},
        "quality": [{"step": 100, "psnr": 13.0, "seconds": 0.5}],
        "stages_ms": {"optimizer": 1.0},
        "recorded": {**known["train"], "label": known["label"]},
    }  # fmt: skip
    text = train.markdown(content)
    assert "<= 5 ms | yes" in text and "recorded on one H100" in text
    assert "10.2-12.2" in text and "| 100 | 13.00 | 0.50 | 12.8 | 0.6 |" in text
    assert "a/b" in text and "4.3 in 260" in text
