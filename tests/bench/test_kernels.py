"""`bench kernels` measures every case, compares what it measured, and reports what fails."""

import json
import math

import pytest
import torch

from lumigraph.bench import bench_kernels, cases, kernels, peers
from lumigraph.bench.timing import Effort, measure, summary
from lumigraph.core.errors import BackendError, LumigraphError
from lumigraph.cuda.dispatch import backend_override, requested_backend

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    lines = []
    content = bench_kernels("cpu", quick=True, out=folder, on_message=lines.append)
    return content, folder, lines


def test_every_case_runs_and_agrees_with_its_twin(quick):
    content, _, _ = quick
    assert len(content["rows"]) == len(cases.all_cases(CPU, quick=True)) > 20
    for row in content["rows"]:
        assert row["difference"] < 1e-4, row["name"]
        assert row["ours"]["median_ms"] > 0 and row["ratio"] > 0
        assert row["ours"]["low_ms"] <= row["ours"]["median_ms"] <= row["ours"]["high_ms"]
    assert content["failures"] == []


def test_files_hold_the_result_and_its_circumstances(quick):
    content, folder, lines = quick
    assert json.loads((folder / "kernels-cpu.json").read_text()) == content
    assert {"format", "date", "machine", "protocol", "seed", "backend", "threads"} <= set(content)
    text = (folder / "kernels-cpu.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(content["rows"])
    assert len({line.count("|") for line in rows}) == 1
    assert "not to be quoted" in text and len(lines) == len(content["rows"]) + 1


def test_a_case_that_fails_is_reported_and_the_rest_is_kept(monkeypatch, tmp_path):
    def broken(device):
        raise RuntimeError("no\nroom")

    good = next(c for c in cases.all_cases(CPU, quick=True) if c.name.startswith("harmonics"))
    bad = cases.Case("broken", "forward", "none", 1, broken)
    monkeypatch.setattr(kernels, "all_cases", lambda device, quick: [bad, good])
    with pytest.raises(LumigraphError, match="1 of 2 cases failed.*broken.*no room"):
        bench_kernels("cpu", quick=True, out=tmp_path)
    rows = json.loads((tmp_path / "kernels-cpu.json").read_text())["rows"]
    assert rows[0]["error"] == "RuntimeError: no room" and rows[1]["ratio"] > 0
    assert "RuntimeError: no room" in (tmp_path / "kernels-cpu.md").read_text()


def test_results_that_differ_are_a_failure(monkeypatch, tmp_path):
    def unlike(device):
        return lambda turn: (torch.full((2,), 2.0 if requested_backend() else 1.0),)

    def unfinished(device):
        return lambda turn: (torch.full((2,), math.nan),)

    both = [cases.Case("unlike", "p", "i", 1, unlike), cases.Case("nan", "p", "i", 2, unfinished)]
    monkeypatch.setattr(kernels, "all_cases", lambda device, quick: both)
    with pytest.raises(LumigraphError, match="2 of 2 cases failed.*differ by 5.0e-01"):
        bench_kernels("cpu", quick=True, out=tmp_path)
    text = (tmp_path / "kernels-cpu.json").read_text()
    assert json.loads(text)["rows"][1]["difference"] is None and "NaN" not in text
    assert "not comparable" in (tmp_path / "kernels-cpu.md").read_text()


def test_nothing_to_compare_is_an_error():
    with backend_override("torch"), pytest.raises(BackendError, match="LUMIGRAPH_BACKEND"):
        bench_kernels("cpu", quick=True)


def test_only_selects_by_name():
    names = {row["name"] for row in bench_kernels("cpu", quick=True, only="Adam")["rows"]}
    assert names == {"Adam"}


def test_the_twin_runs_on_torch_and_ours_does_not():
    seen = []
    twin = kernels.under_torch(lambda turn: seen.append(requested_backend()))
    twin(0)
    seen.append(requested_backend())
    assert seen == ["torch", None]


def test_recorded_rows_belong_to_cases():
    """A renamed case would silently lose its recorded figure."""
    found = {
        (case.name, case.passes, case.inputs, case.size)
        for case in cases.all_cases(torch.device("cuda"), quick=False)
        if peers.recorded(case) is not None
    }
    rows = peers.recorded_peers()["kernels"]
    assert found == {(r["case"], r["passes"], r["inputs"], r["size"]) for r in rows}
    assert len(found) == len(rows)


def test_every_target_of_a_gpu_and_a_cpu_has_a_case():
    gpu = cases.all_cases(torch.device("cuda"), quick=False)
    cpu = cases.all_cases(CPU, quick=False)
    assert {(c.name, c.gpu_ms) for c in gpu if c.gpu_ms} == {
        ("grid 16x2", 3.0),
        ("network 32-64-64-16", 0.15),
        ("surface 14x2 + network 31-64-16", 4.0),
        ("surface 14x2 + network 31-64-16, softplus", 4.0),
    }
    assert {(c.name, c.cpu_ratio) for c in cpu if c.cpu_ratio} == {
        ("grid 16x2", 12.0),
        ("network 32-64-64-16", 4.0),
        ("surface 14x2 + network 31-64-16", 10.0),
        ("surface 14x2 + network 31-64-16, softplus", 10.0),
    }


def test_markdown_of_a_gpu_row_names_the_recorded_card(quick):
    content, _, _ = quick
    timing = {"median_ms": 1.0, "low_ms": 0.9, "high_ms": 1.1, "calls": 9, "peak_mib": 64.0}
    row = {
        **content["rows"][0],
        "ours": timing,
        "torch": {**timing, "median_ms": 9.0},
        "peers": {"tinycudann": {**timing, "ratio": 1.5}},
        "recorded": {"peer": "tiny-cuda-nn", "ms": 1.22, "ratio": 1.22},
        "target_ms": 3.0,
        "meets": True,
    }
    known = peers.recorded_peers()
    gpu = {**content, "device": "cuda", "rows": [row, content["rows"][1]]}
    gpu["recorded"] = {key: known[key] for key in ("source", "label", "notes")}
    text = kernels.markdown(gpu)
    assert "recorded on one H100" in text and "tiny-cuda-nn 1.22 | 1.22" in text
    assert "<= 3 ms | yes" in text and "tinycudann ms" in text
    assert "as recorded 1.22x" in kernels.line(row)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1


def test_cpu_calls_alternate():
    order = []
    calls = {name: lambda turn, name=name: order.append((name, turn)) for name in "ab"}
    found = measure(calls, CPU, Effort(seconds=0, fewest=3, most=3))
    assert order == [(name, turn) for turn in range(3) for name in "ab"]
    assert found["a"].calls == 3


def test_summary_gives_median_and_spread():
    timing = summary([float(i) for i in range(11)])
    assert (timing.low_ms, timing.median_ms, timing.high_ms) == (1.0, 5.0, 9.0)


def test_difference_sees_wrong_shapes_and_values():
    one = (torch.ones(3),)
    assert kernels.difference(one, one) == 0
    assert kernels.difference(one, (torch.ones(4),)) == math.inf
    assert math.isnan(kernels.difference((torch.full((3,), math.nan),), one))
    assert kernels.difference((torch.ones(3) * 1.01,), one) == pytest.approx(0.01, rel=1e-3)
