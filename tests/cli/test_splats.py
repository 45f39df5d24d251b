"""`lumigraph convert` for files of Gaussians, and `lumigraph export`."""

import json

import pytest
import torch

from lumigraph.cli import main
from lumigraph.core import GaussianCloud
from lumigraph.export import read_splats, write_splats


@pytest.fixture
def ply(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    sizes = ((40, 3), (40, 4), (40, 3), (40,), (40, 9, 3))
    write_splats(GaussianCloud(*(torch.randn(size) for size in sizes)), "a.ply")
    return tmp_path / "a.ply"


def test_convert_says_on_one_line_what_was_lost(ply, capsys):
    assert main(["convert", "a.ply", "b.spz"]) == 0
    read, written = capsys.readouterr().out.splitlines()
    assert read == "a.ply: PLY, 40 Gaussians, degree 2"
    assert written.startswith("b.spz: SPZ 3, 40 Gaussians, 0.00 MiB; lost: position ")
    assert main(["convert", "b.spz", "--out", "c.splat"]) == 0
    assert "dropped: harmonics of degree 1 to 2" in capsys.readouterr().out
    assert len(read_splats("c.splat").cloud) == 40


def test_convert_as_json(ply, capsys, json_of):
    assert main(["convert", "a.ply", "b.spz", "--spz-version", "2", "--json"]) == 0
    result = json_of(capsys.readouterr().out)
    assert result["format"] == "SPZ 2" and result["gaussians"] == result["read"] == 40
    assert result["loss"]["opacity"] < 0.002 and result["dropped"] == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["convert", "a.ply"], "--out is missing"),
        (["convert", "a.ply", "b.spz", "--out", "c.spz"], "the target is named twice"),
        (["convert", "a.ply", "a.ply"], "a.ply: exists already; replace it with --overwrite"),
        (["convert", "a.ply", "b.obj"], "unknown suffix '.obj'"),
        (["convert", "none.spz", "b.ply"], "none.spz: no such file"),
        (["convert", "a.ply", "b.spz", "--max-gaussians", "39"], "allow them with --max-gaussians"),
        (["convert", "a.ply", "b.ply", "--degree", "5"], "degree 5: expected 0 to 3"),
        (
            ["export", "cloud", "a.ply", "--out", "b.ply"],
            "use one of splats, points, mesh",
        ),
        (["export", "mesh", "a.ply", "--out", "b.ply"], "a.ply: no such run folder"),
        (["export", "splats", "a.ply", "--out", "b.ply", "--voxel", "1"], "--voxel is for mesh,"),
        (["export", "points", "a.ply", "--out", "b.spz"], "points are written as .ply"),
        (["export", "splats", "a.ply", "--out", "b.ply", "--frame", "scene"], "is for runs"),
        (["export", "splats", "a.ply"], "--out is missing"),
        (["export", "splats", ".", "--out", "b.ply"], "config.yaml"),
    ],
)
def test_mistakes_change_nothing(ply, capsys, words, text):
    before = ply.read_bytes()
    assert main(words) == 2
    message = capsys.readouterr().err
    assert text in message and message.count("\n") == 1
    assert [path.name for path in ply.parent.iterdir()] == ["a.ply"]
    assert ply.read_bytes() == before


def test_export_from_a_file(ply, capsys):
    assert main(["export", "splats", "a.ply", "--out", "b.ply", "--degree", "0"]) == 0
    assert "dropped: harmonics of degree 1 to 2" in capsys.readouterr().out
    words = ["export", "points", "a.ply", "--out", "p.ply", "--least-opacity", "0", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["points"] == 40
    assert main(["export", "splats", "a.ply", "--out", "a.ply", "--overwrite"]) == 0
