"""`lumigraph export page`."""

import json

import pytest
import torch

from lumigraph.cli import main
from lumigraph.core import GaussianCloud
from lumigraph.export import write_splats
from lumigraph.training import train_config


@pytest.fixture
def ply(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    sizes = ((40, 3), (40, 4), (40, 3), (40,), (40, 9, 3))
    write_splats(GaussianCloud(*(torch.randn(size) for size in sizes)), "a.ply")
    return tmp_path / "a.ply"


def test_a_page_of_a_file(ply, capsys):
    words = ["export", "page", "a.ply", "--out", "a.html", "--max-gaussians", "30"]
    assert main(words) == 0
    line = capsys.readouterr().out.strip()
    assert line.startswith("a.html: 30 Gaussians, 1 views, 0.0") and "matter least" in line
    assert main([*words, "--overwrite", "--degree", "2", "--title", "x", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["kind"] == "gaussians" and result["gaussians"] == 30
    assert result["bytes"] == (ply.parent / "a.html").stat().st_size


def test_a_page_of_a_volume_run_tells_its_size_first(fake, capsys, monkeypatch):
    assert main(["train", "photos", "--out", "runs/x"]) == 0
    capsys.readouterr()
    run = fake.open("runs/x")
    run.config = train_config()
    monkeypatch.setattr(fake, "open", lambda path: run)
    words = "export page runs/x --out a.html --azimuths 4 --elevations 2 --picture-size 16"
    assert main(words.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("8 pictures of 16 x 12 pixels")
    assert lines[-1].startswith("a.html: 8 pictures, 0.0")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("a.ply --out a.htm.gz", "a page is written as .html"),
        ("a.ply --out a.html --voxel 1", "--voxel is for mesh"),
        ("a.ply --out a.html --frame scene", "--frame is for splats"),
        ("a.ply --out a.html --background red", "expected black, white or #rrggbb"),
        ("a.ply --out a.html --max-gaussians 0", "max_gaussians 0: expected 1 to"),
        ("a.ply --out a.html --page-limit-mib 0.001", "lower --max-gaussians, or raise the limit"),
        ("a.ply --out a.html --azimuths 3", "azimuths 3: has no effect"),
        ("none --out a.html", "none: no such file"),
        (". --out a.html", "config.yaml"),
    ],
)
def test_mistakes_write_nothing(ply, capsys, words, text):
    assert main(["export", "page", *words.split()]) == 2
    message = capsys.readouterr().err
    assert text in message and message.count("\n") == 1
    assert [path.name for path in ply.parent.iterdir()] == ["a.ply"]
