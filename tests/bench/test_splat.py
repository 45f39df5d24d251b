"""`bench splat`: its inputs are those of the protocol, its rows agree with the twins, and its
comparison with gsplat finds what is equal and what is not."""

import hashlib
import json
import sys
import types

import pytest
import torch

from lumigraph.bench import bench_splat, inputs_splat, peers, splat, splat_peers, splat_report
from lumigraph.bench.splat_cases import (
    SplatTraining,
    SplatWorkload,
    blob_inputs,
    box_hits,
    capture_inputs,
)
from lumigraph.core.errors import BackendError, LumigraphError
from lumigraph.cuda.dispatch import backend_override
from lumigraph.cuda.splatting import SplatCamera, SplatOptions, render_gaussians

CPU = torch.device("cpu")

# sha256 of the little-endian bytes, computed once from the protocol's own generators; torch rounds
# sines and sums differently with narrower registers
CHECKSUMS = {
    "capture means": "36edb6be7d5d9edd",
    "capture rotations": "9245bc04acb1adb9",
    "capture scales": "0548d4715beb1193",
    "capture opacities": "4ae842cf63cebbe0",
    "capture harmonics": "ce99bf2a0cd7a657",
    "blob means": "67657526db87914e",
    "blob rotations": "aab16e5ef72a1b02",
    "blob scales": "ef1662ea79b466ff",
    "blob opacities": "d66138e51c8f858f",
    "blob harmonics": "7d7e829e6bc4f7ef",
    "orbit": "8aba5353f15d62f3",
}
NARROWER = {
    "AVX512": {},
    "AVX2": {"capture means": "9b2b78fae6adbf77", "capture scales": "958c3948eacc2976"},
    "DEFAULT": {
        "capture means": "7204c0b89e171cf0",
        "capture rotations": "b778ca214dca9063",
        "capture scales": "d1831e7029e10ff9",
        "capture opacities": "53dfc8436eb2bc17",
        "capture harmonics": "dc567d672943bc00",
        "blob means": "ecba15e2c83e1e7c",
        "blob rotations": "633a2b238d07d867",
        "blob harmonics": "c0d4f6fb9b879516",
        "orbit": "dcf8f3576dcbebc7",
    },
}


def checksum(tensor):
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()[:16]


def test_bytes_are_those_of_the_protocol():
    capability = torch.backends.cpu.get_cpu_capability()
    if capability not in NARROWER:
        pytest.skip(f"no checksums were recorded for {capability}")
    found = {"orbit": checksum(inputs_splat.orbit_cameras(4)[0])}
    for name, scene in (
        ("capture", inputs_splat.gaussian_scene(1000, seed=7)),
        ("blob", inputs_splat.gaussian_blob(1000, seed=7)),
    ):
        found |= {
            f"{name} {part}": checksum(tensor)
            for part, tensor in zip(scene._fields, scene, strict=True)
        }
    assert found == {**CHECKSUMS, **NARROWER[capability]}


def test_the_capture_is_what_it_says():
    scene = inputs_splat.gaussian_scene(5000, seed=1)
    assert all(bool(tensor.isfinite().all()) for tensor in scene)
    assert torch.allclose(scene.rotations.norm(dim=1), torch.ones(5000), atol=1e-5)
    assert float(scene.scales.min()) > 0 and float(scene.scales.max()) <= 2
    distance = scene.means.norm(dim=1)
    assert 0.1 < float((distance > 13.9).float().mean()) < 0.13  # the shell
    assert torch.allclose(scene.raw().scales.exp(), scene.scales)
    poses, focal = inputs_splat.orbit_cameras(4, width=200)
    eyes = -(poses[:, :3, :3].transpose(1, 2) @ poses[:, :3, 3:])[..., 0]
    assert torch.allclose(eyes[:, [0, 2]].norm(dim=1), torch.full((4,), 4.5), atol=1e-5)
    assert focal == pytest.approx(142.81, abs=0.01)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    lines = []
    content = bench_splat("cpu", quick=True, out=folder, on_message=lines.append)
    return content, folder, lines


def test_rows_agree_with_their_twins(quick):
    content, _, _ = quick
    assert content["failures"] == []
    names = {(row["name"], row["passes"]) for row in content["rows"]}
    assert {("splatting", splat.FORWARD), ("splatting", splat.SSIM_STEP)} <= names
    for row in content["rows"]:
        assert row["ours"]["low_ms"] <= row["ours"]["median_ms"] <= row["ours"]["high_ms"]
        if "torch" in row:
            assert row["difference"] < 1e-4 and row["ratio"] > 0, row


def test_files_hold_rows_scenes_and_stages(quick):
    content, folder, lines = quick
    assert json.loads((folder / "splat-cpu.json").read_text()) == content
    assert {"format", "date", "machine", "protocol", "backend", "threads"} <= set(content)
    (scene,) = content["scenes"]
    assert scene["tile_hits"] < scene["tile_hits_by_box"] and scene["visible"] <= 300
    assert list(scene["stages"]) == [
        "projection",
        "tile lists",
        "blending",
        "blending, backward",
        "projection, backward",
    ]
    text = (folder / "splat-cpu.md").read_text()
    assert "not to be quoted" in text and "| blending, backward |" in text
    assert any(line.startswith("stages of 300") for line in lines)


def test_rows_of_a_gpu_run_on_the_emulator():
    with backend_override("emu"):
        inputs = capture_inputs(60, 20, 18, CPU)
        plan = splat.make_plan(CPU, quick=True)
        for row in splat.gpu_rows(inputs, plan):
            found = splat._measured(row, CPU, plan.effort)
            assert "error" not in found and found.get("agrees", True), found
        assert set(SplatWorkload(inputs).stages()) > {"blending"}


def test_nothing_to_compare_is_an_error():
    with backend_override("torch"), pytest.raises(BackendError, match="nothing to compare"):
        bench_splat("cpu", quick=True)


def test_a_row_that_fails_is_reported_and_the_rest_is_kept(monkeypatch, tmp_path):
    def broken():
        raise RuntimeError("no\nroom")

    rows = splat.cpu_rows(blob_inputs(20, 20, CPU))
    bad = splat.Row("broken", "forward", 20, broken)
    monkeypatch.setattr(splat, "cpu_rows", lambda inputs: [bad, rows[0]])
    with pytest.raises(LumigraphError, match="1 findings failed.*broken, forward, 20"):
        bench_splat("cpu", quick=True, out=tmp_path)
    content = json.loads((tmp_path / "splat-cpu.json").read_text())
    assert content["rows"][0]["error"] == "RuntimeError: no room"
    assert content["rows"][1]["ratio"] > 0
    assert "RuntimeError: no room" in (tmp_path / "splat-cpu.md").read_text()


def test_every_recorded_row_belongs_to_a_row():
    plan = splat.make_plan(torch.device("cuda"), quick=False)
    found = set()
    for count in plan.counts:
        gaussians = inputs_splat.GaussianInputs(*[torch.empty(count, 0)] * 5)
        inputs = splat.SplatInputs("capture", gaussians, torch.zeros(0, 4, 4), 1.0, 1920, 1080)
        for row in splat.gpu_rows(inputs, plan, peers=False):
            if splat_peers.recorded(row.name, row.passes, row.size):
                found.add((row.name, row.passes, row.size))
    rows = peers.recorded_peers()["splatting"]
    assert found == {(row["case"], row["passes"], row["size"]) for row in rows}
    best = splat_peers.recorded("splatting", splat.BACKWARD, 1_000_000)
    assert best["peer"] == "LiteGS" and best["ms"] == 2.93
    assert "gsplat 1.5.3" in {row["peer"] for row in best["others"]}


def test_targets_belong_to_the_middle_size():
    plan = splat.make_plan(torch.device("cuda"), quick=False)
    gaussians = inputs_splat.GaussianInputs(*[torch.empty(1_000_000, 0)] * 5)
    inputs = splat.SplatInputs("capture", gaussians, torch.zeros(0, 4, 4), 1.0, 1920, 1080)
    targets = {row.passes: dict(row.targets) for row in splat.gpu_rows(inputs, plan, peers=False)}
    assert targets[splat.FORWARD] == {"target_ms": 1.0}
    assert targets[splat.BACKWARD] == {"target_ms": 2.2, "target_peak_mib": 400.0}
    assert targets[splat.STEP] == {"target_ms": 3.0}
    row = splat.Row("splatting", "p", 1, lambda: None, targets=targets[splat.BACKWARD])
    for peak, met in ((399.0, True), (401.0, False)):
        found = splat._targets(row, {"ours": {"median_ms": 2.1, "peak_mib": peak}})
        assert found["meets"] is met


def test_steps_move_parameters_towards_the_pictures():
    training = SplatTraining(blob_inputs(40, 24, CPU), ssim=True)
    before = [parameter.detach().clone() for parameter in training.parameters]
    training.step(0)
    moved = [bool((p != q).any()) for p, q in zip(training.parameters, before, strict=True)]
    assert all(moved) and training.steps == 1


# ---- gsplat, which no machine without a GPU has: its interface, served by the torch twin


def fake_gsplat(factor=1.0):
    def rasterization(means, quats, scales, opacities, colors, viewmats, Ks, width, height, **rest):
        assert rest["packed"] is False and rest["sh_degree"] == 3
        fx, fy, cx, cy = Ks[0, 0, 0], Ks[0, 1, 1], Ks[0, 0, 2], Ks[0, 1, 2]
        lens = tuple(map(float, (fx, fy, cx, cy)))
        camera = SplatCamera(viewmats[0, :3].double(), lens, width, height, near=rest["near_plane"])
        tensors = [t.double() for t in (means, quats, scales, opacities, colors)]
        images = render_gaussians(*tensors, camera, SplatOptions(raw=False))
        return images.color[None].float() * factor, None, {}

    return types.SimpleNamespace(rasterization=rasterization)


@pytest.fixture
def inputs(monkeypatch):
    monkeypatch.setitem(sys.modules, "gsplat", fake_gsplat())
    return capture_inputs(200, 48, 40, CPU)


def test_equal_results_are_found_equal(inputs):
    found = splat_peers.equality(SplatWorkload(inputs), splat_peers.GsplatWorkload(inputs))
    assert found["meets"], found
    assert set(found["gradients"]) == set(inputs_splat.GaussianInputs._fields)
    assert found["pixels"] == 48 * 40 and found["pixels_at_a_threshold"] < 200
    assert found["pixels_beyond_bound_elsewhere"] == 0
    assert "equal within bounds" in splat_report.distance_line(found)


def test_unequal_results_are_found_unequal(monkeypatch, inputs):
    monkeypatch.setitem(sys.modules, "gsplat", fake_gsplat(factor=1.01))
    found = splat_peers.equality(SplatWorkload(inputs), splat_peers.GsplatWorkload(inputs))
    assert not found["meets"]
    assert found["gradients"]["means"] == pytest.approx(0.0099, rel=0.02)
    assert "NOT equal" in splat_report.distance_line(found)


def test_gsplat_is_timed_beside_ours(monkeypatch, inputs):
    monkeypatch.setattr(splat_peers, "installed", lambda: True)
    plan = splat.make_plan(CPU, quick=True)
    rows = {row.passes: row for row in splat.gpu_rows(inputs, plan)}
    for passes in (splat.FORWARD, splat.BACKWARD, splat.STEP):
        found = splat._measured(rows[passes], CPU, plan.effort)
        assert found["peers"]["gsplat"]["ratio"] > 0, found
        assert "gsplat" in splat_report.row_line(found)


def test_a_gsplat_that_does_not_run_is_reported(monkeypatch, inputs):
    monkeypatch.setattr(splat_peers, "installed", lambda: True)
    monkeypatch.setitem(sys.modules, "gsplat", types.SimpleNamespace())
    plan = splat.make_plan(CPU, quick=True)
    row = splat.gpu_rows(inputs, plan)[0]
    found = splat._measured(row, CPU, plan.effort)
    assert "ImportError" in found["peers_failed"]["gsplat"] and found["ours"]["median_ms"] > 0
    content = {"failures": []}
    distance = splat._distance(SplatWorkload(inputs), inputs, content, print)
    assert "ImportError" in distance["error"] and content["failures"] == []


def one_tile(depths, opacity=0.5):
    """Splats of 3 pixels about the middle of a tile, front to back."""
    splats = torch.zeros(len(depths), 12)
    splats[:, :2] = 8.0
    splats[:, 2] = splats[:, 4] = 1 / 9
    splats[:, 5], splats[:, 9] = opacity, torch.tensor(depths)
    y, x = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    return splats, torch.stack([x, y], -1).reshape(-1, 2) + 0.5


def test_pixels_that_hang_on_a_rounding_are_found():
    apart, pixels = one_tile([1.0, 2.0])
    together, _ = one_tile([1.0, 1.0])
    assert int(splat_peers._undecided(apart, pixels).sum()) == 0
    marks = splat_peers._undecided(together, pixels).reshape(16, 16)
    assert bool(marks[8, 8]) and not bool(marks[0, 0])  # the corner sees neither
    exact, pixels = one_tile([1.0], opacity=1.0)
    distance = (pixels - 8).square().sum(1)[0]
    exact[:, 2] = exact[:, 4] = 2 * torch.tensor(255.0).log() / distance  # 1/255 in the corners
    marks = splat_peers._undecided(exact, pixels).reshape(16, 16)
    assert int(marks.sum()) == 4 and bool(marks[0, 0])
    stops, pixels = one_tile([1.0, 2.0], opacity=0.99)
    stops[:, 2:5] = 0
    assert bool(splat_peers._undecided(stops, pixels).all())  # 0.01^2 is where a pixel stops


def test_boxes_touch_more_tiles_than_ellipses():
    workload = SplatWorkload(blob_inputs(500, 64, CPU))
    splats, lists = workload._projected(0)
    by_box = box_hits(splats.detach(), 64, 64)
    assert len(lists.ids) < by_box < 4 * len(lists.ids)


def test_tables_of_a_gpu_name_peers_and_targets(quick):
    content, _, _ = quick
    timing = {"median_ms": 2.0, "low_ms": 1.9, "high_ms": 2.1, "calls": 9, "peak_mib": 350.0}
    row = {
        "name": "splatting",
        "passes": splat.BACKWARD,
        "size": 1_000_000,
        "ours": timing,
        "peers": {"gsplat": {**timing, "median_ms": 4.8, "ratio": 2.4}},
        "recorded": {**splat_peers.recorded("splatting", splat.BACKWARD, 1_000_000), "ratio": 1.5},
        "target_ms": 2.2,
        "target_peak_mib": 400.0,
        "meets": True,
    }
    gradients = dict.fromkeys(inputs_splat.GaussianInputs._fields, 1e-5)
    distance = {
        "pixels": 9,
        "pixels_at_a_threshold": 1,
        "color_largest": 4e-3,
        "color_largest_elsewhere": 1e-5,
        "color_mean": 1e-6,
        "gradients": gradients,
        "gradients_all_pixels": gradients,
        "meets": True,
    }
    profile = {"kernel_ms": 1.8, "kernels": 14, "longest": [
        {"name": "a|b", "ms": 1.0, "launches": 1.0}]}  # fmt: skip
    scene = {**content["scenes"][0], "gpu_kernels": profile, "gsplat": distance}
    known = peers.recorded_peers()
    gpu = {**content, "device": "cuda", "rows": [row, content["rows"][0]], "scenes": [scene]}
    gpu["recorded"] = {key: known[key] for key in ("source", "label", "splatting_notes")}
    text = splat_report.markdown({**gpu, "gsplat": "1.5.3"})
    assert "| LiteGS 2.93 | 1.5 | 350 | 350 | <= 2.2 ms, <= 400 MiB | yes |" in text
    assert "recorded on one H100" in text and "a/b" in text and "gsplat in this run: 1.5.3" in text
    assert "target met" in splat_report.row_line(row)
    assert "1 M: 2 ms, 350 MiB, gsplat 2.4x, LiteGS as recorded 1.5x" in splat_report.row_line(row)
