"""`lumigraph simulate`: what it writes, what it refuses."""

import json

import pytest

from lumigraph.cli import main

pytest.importorskip("numba")


def test_from_trace_to_report(tmp_path, capsys, json_of):
    trace, out = tmp_path / "image.ngt", tmp_path / "report"
    words = ["simulate", "trace", "synthetic:gia", "--tiles", "4", "--out", str(trace)]
    assert main(words) == 0
    assert "next: lumigraph simulate run" in capsys.readouterr().out
    run = ["simulate", "run", str(trace), "--cluster", "ngpc-16", "--out", str(out)]
    assert main([*run, "--set", "nfp.mlp.lanes=2", "--json"]) == 0
    summary = json_of(capsys.readouterr().out)
    assert summary["result"]["frames"]["honest"]["cluster"]["nfp"]["mlp"]["lanes"] == 2
    assert {"report.html", "report.md", "timeline.json"} <= {f.name for f in out.iterdir()}
    assert main(run) == 2
    assert "holds a report already" in capsys.readouterr().err
    assert main([*run, "--overwrite"]) == 0
    assert main(["simulate", "report", str(out)]) == 0
    assert "## Totals" in capsys.readouterr().out
    assert json.loads((out / "result.json").read_text())["summary"].startswith("16 processors")


def test_sweep(tmp_path, capsys):
    words = "simulate sweep synthetic:gia --tiles 4 --cluster ngpc-8 --axis nfp.count=4,8"
    assert main([*words.split(), "--out", str(tmp_path / "s")]) == 0
    assert "Pareto front" in capsys.readouterr().out
    assert (tmp_path / "s" / "points.csv").is_file()


def test_validate(capsys):
    assert main(["simulate", "validate"]) == 0
    out = capsys.readouterr().out
    assert out.count("  ok ") == 7 and "FAILED" not in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run", "needs a trace or synthetic:nerf"),
        ("run nowhere.ngt", "nowhere.ngt: no such trace"),
        ("run synthetic:cloud", "application 'cloud': use one of nerf"),
        ("run synthetic:gia --cluster ngpc-7", "neither a file nor a preset"),
        ("run synthetic:gia --set nfp.cuont=3", "unknown key 'nfp.cuont'; did you mean nfp.count"),
        ("run synthetic:gia --set nfp.count", "write KEY=VALUE"),
        ("run synthetic:gia --baseline measured", "no measured kernels"),
        ("sweep synthetic:gia --axis nfp.count", "write KEY=VALUE,VALUE"),
        ("sweep synthetic:gia", "name at least one axis"),
        ("trace synthetic:gia", "--out is missing"),
        ("trace synthetic:gia --out t.npz", "a trace ends in .ngt"),
        ("trace nowhere --out t.ngt", "nowhere: no such run folder"),
        ("report nowhere", "not found"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", *words.split()]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
