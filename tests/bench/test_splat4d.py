"""`bench splat4d`: lives are those that its docstring states, and rows and files hold what was
measured."""

import json

import pytest
import torch

from lumigraph.bench import bench_splat4d, inputs_splat4d, splat4d
from lumigraph.core.errors import LumigraphError
from lumigraph.fields import Gaussians4D


def test_lives_are_as_stated():
    cloud = inputs_splat4d.moving_scene(4000)
    again = inputs_splat4d.moving_scene(4000)
    pairs = zip(cloud.tensors()[:6], again.tensors()[:6], strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    field = Gaussians4D(cloud).requires_grad_(False)
    still = ~cloud.rotors[:, 4:].any(1)
    assert float(still.float().mean()) == pytest.approx(0.5, abs=0.03)
    found = field.sliced_at(0.5)
    assert float(found.velocities[still].abs().amax()) < 1e-6
    speed = found.velocities[~still].square().mean(1).sqrt()
    # a third of what moves is slow
    assert float((speed < 0.5).float().mean()) == pytest.approx(0.35, abs=0.08)
    there = [int((field.sliced_at(t).opacities > 1 / 255).sum()) / 4000 for t in (0.2, 0.5, 0.8)]
    assert all(0.6 < share < 0.72 for share in there)


def test_what_is_sheared_keeps_shape_duration_and_velocity():
    inputs = inputs_splat4d.gaussian_blob(300)
    cloud = inputs_splat4d.moving_blob(300)
    static = inputs_splat4d._living(inputs, torch.Generator().manual_seed(1), endless=True)
    wanted = Gaussians4D(inputs_splat4d.GaussianCloud4D.from_static(
        inputs_splat4d.GaussianCloud(*inputs.raw())
    )).sliced_at(0.0).covariances.detach()  # fmt: skip
    for tried in (cloud, static):
        found = Gaussians4D(tried).sliced_at(0.3).covariances.detach()
        assert float((found - wanted).norm() / wanted.norm()) < 1e-4


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    folder, lines = tmp_path_factory.mktemp("bench"), []
    return bench_splat4d("cpu", quick=True, out=folder, on_message=lines.append), folder, lines


def test_rows_and_files(quick):
    content, folder, lines = quick
    assert json.loads((folder / "splat4d-cpu.json").read_text()) == content
    assert {"format", "date", "machine", "protocol", "backend", "threads"} <= set(content)
    assert content["failures"] == [] and len(content["scenes"]) == 2
    passes = [row["passes"] for row in content["rows"]]
    assert passes == 2 * [splat4d.STATIC, splat4d.INFERENCE, splat4d.FORWARD, splat4d.BACKWARD]
    for row in content["rows"]:
        assert row["ours"]["low_ms"] <= row["ours"]["median_ms"] <= row["ours"]["high_ms"]
        assert ("over_static" in row) == (row["passes"] != splat4d.STATIC)
    assert all(scene["prepared_differ_by"] < 1e-5 for scene in content["scenes"])
    text = (folder / "splat4d-cpu.md").read_text()
    assert "| blob | forward |" in text and "Quick run" in text
    assert any(line.startswith("wrote") for line in lines)


def test_static_pictures_are_the_same_ones():
    for endless in (True, False):
        workload = splat4d.Workload(splat4d.cpu_scene(400, 40, 5, endless=endless))
        calls = splat4d._at_one_time(workload)
        wanted = calls[splat4d.FORWARD](0)[0]
        assert float((calls[splat4d.STATIC](0)[0] - wanted).abs().amax()) < 1e-3
        assert float((calls[splat4d.INFERENCE](0)[0] - wanted).abs().amax()) < 1e-5
        assert len(calls[splat4d.BACKWARD](0)) == 6
        assert workload.frames_per_second() > 0


def test_a_difference_is_a_failure(monkeypatch, tmp_path):
    monkeypatch.setattr(splat4d.Workload, "apart", lambda self, turn: 0.1)
    with pytest.raises(LumigraphError, match="prepared pictures of blob, endless lives differ"):
        bench_splat4d("cpu", quick=True, out=tmp_path)
    assert (tmp_path / "splat4d-cpu.json").is_file()


def test_targets_are_judged():
    row = {"name": "capture", "passes": splat4d.INFERENCE, "image": "8x8", "size": 1_000_000}
    row |= {"ours": {"median_ms": 1.0, "low_ms": 1.0, "high_ms": 1.0, "peak_mib": 3.0}}
    row |= splat4d._speed(500.0, 600.0)
    assert row["meets"] is False and "MISSED" in splat4d.row_line(row)
    assert splat4d._cells(row)[-2:] == [">= 600 frames/s", "no"]
    assert splat4d._held(1.2, 1.5) == {"target_over_static": 1.5, "meets": True}
    assert splat4d._held(1.2, None) == {}


@pytest.mark.gpu
def test_on_a_gpu(tmp_path):
    content = bench_splat4d("cuda", quick=True, out=tmp_path)
    assert [row["passes"] for row in content["rows"]] == [
        splat4d.INFERENCE, splat4d.FORWARD, splat4d.BACKWARD,
    ]  # fmt: skip
    assert content["rows"][0]["frames_per_second"] > 0
