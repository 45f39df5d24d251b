"""`lumigraph inspect` of files and of scenes in three dimensions. Plans: test_commands.py."""

import json
import sys

import pytest
import trimesh

from lumigraph.cli import main
from lumigraph.viewer.pictures.window import CANNOT_DRAW, drawing


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trimesh.creation.icosphere(subdivisions=2).export(tmp_path / "ball.ply")
    return tmp_path


@pytest.fixture
def can_draw():
    try:
        with drawing():
            pass
    except CANNOT_DRAW as error:
        pytest.skip(str(error))


def test_a_mesh_and_its_errors(here, capsys, can_draw):
    assert main(["inspect", "ball.ply", "--truth", "ball.ply", "--size", "200x150", "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["kind"] == "mesh" and found["scores"]["f_score"] == 1
    assert found["picture"] == "inspect-ball.png" and (here / "inspect-ball.png").is_file()
    assert "completeness" in captured.err
    words = "inspect ball.ply --cameras builtin:object --camera 3 --up -y --size 200x150"
    assert main(words.split()) == 0


def test_a_scene_in_three_dimensions(here, capsys, can_draw):
    words = "inspect builtin:object --style 3d --size 200x150 --background dark --json"
    assert main(words.split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "scene" and found["splits"]["train"] == 100
    assert (here / "inspect-object.png").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("ball.ply --format llff", "--format is not for ball.ply, a file"),
        ("ball.ply --camera 2", "--camera needs --cameras"),
        ("ball.ply --threshold 0.1", "need --truth"),
        ("ball.ply --size 3", "expected WIDTHxHEIGHT"),
        ("ball.ply --size 3x9", "size = (3, 9)"),
        ("ball.ply --out x.txt", "x.txt: expected a picture name"),
        ("notes.md", "notes.md: cannot be inspected"),
        ("builtin:object --up y", "add --style 3d"),
        ("nothing.glb", "nothing.glb: no such file"),
    ],
)
def test_inspect_refuses(here, capsys, words, said):
    (here / "notes.md").write_text("# notes")
    assert main(["inspect", *words.split()]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not list(here.glob("*.png"))


def test_plans_need_no_pyvista(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyvista", None)
    assert main(["inspect", "builtin:object"]) == 0
    assert main(["inspect", "ball.ply"]) == 2
    assert "lumigraph[geometry]" in capsys.readouterr().err
