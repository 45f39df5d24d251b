"""`lumigraph evaluate --mesh`: what it says, writes and refuses."""

import imageio.v3 as imageio
import pytest
import trimesh

from lumigraph import viewer
from lumigraph.cli import main
from lumigraph.core.errors import MissingExtraError
from lumigraph.training.files import read_json
from lumigraph.viewer.pictures.window import drawing


@pytest.fixture
def run(fake, tmp_path, monkeypatch):
    """A run in runs/x that knows its evaluation, with a mesh of its own and a truth beside it."""
    main(["train", "x"])
    for name, radius in (("truth.ply", 1.0), ("own.ply", 1.02), ("far.ply", 1.0)):
        shape = trimesh.creation.icosphere(subdivisions=3, radius=radius)
        shape.vertices += 90 if name == "far.ply" else 0
        shape.export(tmp_path / name)
    trimesh.PointCloud(trimesh.creation.icosphere(subdivisions=1).vertices).export("points.ply")
    opened = type(fake.open("x"))
    file = tmp_path / "runs/x/evaluate.json"
    monkeypatch.setattr(
        opened,
        "evaluation",
        lambda self: read_json(file) if file.is_file() else None,
        raising=False,
    )
    return fake


WORDS = ["evaluate", "runs/x", "--mesh", "truth.ply", "--mesh-file", "own.ply"]


def without_drawing(*args, **options):
    raise MissingExtraError("pyvista is not installed")


def test_a_mesh_is_scored_beside_the_views(run, capsys, json_of, tmp_path, monkeypatch):
    monkeypatch.setattr("lumigraph.viewer.pictures.errors.picture_of_errors", without_drawing)
    capsys.readouterr()
    assert main([*WORDS, "--threshold", "0.1", "--cap", "5", "--json"]) == 0
    captured = capsys.readouterr()
    scores = json_of(captured.out)
    assert scores["psnr"] == 31 and scores["mesh"]["chamfer"] == pytest.approx(0.02, abs=2e-3)
    assert scores["mesh"]["f_score"] == 1 and scores["mesh"]["threshold"] == 0.1
    assert scores["mesh"]["cap"] == 5 and scores["mesh"]["picture"] is None
    assert "no picture: pyvista is not installed" in captured.err
    assert "F-score" in captured.err and "own.ply" in captured.err
    kept = read_json(tmp_path / "runs/x/evaluate.json")
    assert kept["psnr"] == 31 and kept["mesh"]["completeness"] == scores["mesh"]["completeness"]
    assert "Mesh against the truth" in (tmp_path / "runs/x/report.html").read_text()


def test_the_picture_lies_in_the_run(run, capsys, json_of, tmp_path):
    try:
        with drawing():
            pass
    except viewer.CANNOT_DRAW as error:
        pytest.skip(str(error))
    capsys.readouterr()
    assert main([*WORDS, "--mesh-only", "--error-limit", "0.05", "--json"]) == 0
    scores = json_of(capsys.readouterr().out)
    assert "psnr" not in scores and "evaluate" not in {call[0] for call in run.calls}
    assert scores["mesh"]["picture"] == "runs/x/renders/mesh_error.png"
    picture = imageio.imread(scores["mesh"]["picture"])
    assert picture.shape == (800, 2200, 3) and picture.std() > 5
    points = "--mesh points.ply --mesh-file own.ply --mesh-only --threshold 0.05 --json"
    assert main(["evaluate", "runs/x", *points.split()]) == 0
    mesh = json_of(capsys.readouterr().out)["mesh"]
    assert mesh["sparse"] and mesh["accuracy"] is None
    assert mesh["completeness_median"] == pytest.approx(0.02, abs=3e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--mesh-only", "--mesh-only needs --mesh"),
        ("--cap 3", "--cap needs --mesh"),
        ("--mesh gone.ply", "gone.ply: no such file"),
        ("--mesh far.ply", "far.ply: does not lie on the bounds of the scene"),
        ("--mesh truth.ply --mesh-file gone.ply", "gone.ply: no such file"),
        ("--mesh truth.ply --cap 0", "cap 0"),
        ("--mesh truth.ply --seen-by -2", "seen_by -2"),
        ("--mesh truth.ply --mesh-file own.ply --seen-by 7", "there are 6 training cameras"),
        ("--mesh truth.ply --mesh-file own.ply --plane gone.mat", "gone.mat: no such file"),
        ("--mesh truth.ply --mesh-file own.ply --resolution 64", "--resolution is for the mesh"),
        ("--mesh truth.ply --trim-hull 4", "no alpha and no masks to trim a mesh to"),
    ],
)
def test_what_cannot_be_scored(run, capsys, words, said):
    capsys.readouterr()
    assert main(["evaluate", "runs/x", *words.split()]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert said in lines[-1] and lines[-1].startswith("lumigraph")
