"""The scripts of `benchmarks/`: linking a bare checkout, and the summary of a GPU run."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_linked(site, *words):
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=environment, cwd=ROOT
    )


def test_a_linked_checkout_is_importable(tmp_path):
    door = script("link_package").link_package(tmp_path)
    assert door == tmp_path / "lumigraph" and (door / "core").is_symlink()
    code = (
        "import lumigraph, lumigraph.cuda.reference.grid, lumigraph.datasets.formats\n"
        "from lumigraph.bench import peers\n"
        "print(lumigraph.__file__, peers.recorded_peers()['label'])"
    )
    done = run_linked(tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{door / '__init__.py'} recorded on one H100\n"
    script("link_package").link_package(tmp_path)  # again: nothing to do


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("words", [["compile_times.py", "--out", "x"], ["small_operations.py"]])
def test_scripts_that_need_a_gpu_say_so(words):
    done = run_linked(ROOT, f"benchmarks/{words[0]}", *words[1:])
    assert done.returncode == 77 and "no GPU here" in done.stdout, done.stderr


def test_on_gpu_goes_on_without_a_gpu_and_without_data(tmp_path):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "LUMIGRAPH_TEST_DATA": ""}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    command = ["bash", "benchmarks/on_gpu.sh", str(tmp_path / "out"), "lego", "sanitizer"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "lego: skipped" in done.stdout and "sanitizer: skipped" in done.stdout
    assert "compile.json | missing" in done.stdout and "tests: skipped" not in done.stdout
    assert len(list((tmp_path / "out").iterdir())) <= 8


def test_summary_shows_targets_and_failures(tmp_path):
    timing = {"median_ms": 2.5}
    row = {"name": "grid 16x2", "passes": "p", "inputs": "rays", "size": 2**21, "ours": timing}
    row |= {"ratio": 50.0, "difference": 1e-3, "target_ms": 3.0, "meets": True}
    row["recorded"] = {"peer": "tiny-cuda-nn", "ms": 5.0, "ratio": 2.0}
    files = {
        "compile.json": {"presets": {"full": {"cold_seconds": 12.0, "warm_seconds": 0.1,
                                              "kernels": 30, "meets": False}}},
        "kernels-cuda.json": {"rows": [row, {"error": "RuntimeError: x"}], "failures": ["odd one"]},
        "lego.json": {"rows": [{"preset": "full", "budget_seconds": 10.0, "psnr": 30.5,
                                "steps": 900, "step_ms": 10.0, "target_psnr": 30.0,
                                "meets": True}]},
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "tests.log").write_text("FAILED tests/a.py::b\n= 1 failed, 20 passed in 3.1s =\n")
    (tmp_path / "sanitizer.log").write_text("========= ERROR SUMMARY: 0 errors\n")
    text = "\n".join(" | ".join(row) for row in script("summarize_gpu").summary(tmp_path))
    for part in (
        "1 failed, 20 passed",
        "FAILED tests/a.py::b",
        "<= 10 s, <= 0.2 s: NO",
        "2.5 ms, torch 50x, tiny-cuda-nn 2x | <= 3 ms: yes",
        "FAILED odd one",
        "train-cuda.json | missing",
        "30.50 dB",
        "ERROR SUMMARY: 0 errors",
    ):
        assert part in text, part


def test_the_cost_of_a_viewer_is_measured(tmp_path):
    pytest.importorskip("viser")
    words = ["--steps", "4", "--repeats", "1", "--device", "cpu", "--out", str(tmp_path / "x.json")]
    result = script("viewer_cost").main(words)
    assert json.loads((tmp_path / "x.json").read_text()) == result
    alone, viewer = result["seconds"]["alone"], result["seconds"]["viewer"]
    assert len(alone) == len(viewer) == 1 and min(*alone, *viewer) > 0
    assert result["ratio"] == pytest.approx(viewer[0] / alone[0], abs=1e-4)
