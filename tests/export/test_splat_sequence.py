"""Gaussians that move, to files of one time: alone and as a folder of them."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lumigraph import export
from lumigraph.cli import main
from lumigraph.core import InputError, Similarity
from lumigraph.core.transforms import rotation_exp
from lumigraph.export.sequence_export import sequence_times

MOVE = Similarity(0.5, rotation_exp(torch.tensor([0.0, 0.0, torch.pi / 2])), torch.zeros(3))


@pytest.fixture
def run(drifting_model):
    """The Gaussian goes along x in the scene, and along -y by twice as much in the capture."""
    return SimpleNamespace(
        path=Path("runs/drift"),
        config=SimpleNamespace(method="gaussians4d", antialiased=True),
        model=lambda device: drifting_model,
        scene=lambda: SimpleNamespace(normalization=MOVE),
    )


def test_one_time_in_the_frame_of_the_capture(run, tmp_path):
    report = export.splats(run, out=tmp_path / "a.ply", time=0.75)
    assert report.count == 1
    found = export.read_splats(tmp_path / "a.ply").cloud
    torch.testing.assert_close(found.means, torch.tensor([[0.0, -1.0, 0.0]]), atol=1e-6, rtol=0)
    export.splats(run, out=tmp_path / "b.ply", time=0.75, frame="scene")
    found = export.read_splats(tmp_path / "b.ply").cloud
    torch.testing.assert_close(found.means, torch.tensor([[0.5, 0.0, 0.0]]))
    export.points(run, out=tmp_path / "c.ply", time=0.0)
    assert (tmp_path / "c.ply").stat().st_size > 100


@pytest.mark.parametrize("kind", ["ply", "splat", "spz"])
def test_a_file_for_every_moment(run, tmp_path, kind):
    seen = []
    report = export.splat_sequence(
        run, out=tmp_path / "f", kind=kind, on_file=lambda *place: seen.append(place)
    )
    names = [f"{i:05}.{kind}" for i in range(5)]
    assert sorted(p.name for p in (tmp_path / "f").iterdir()) == [*names, "times.json"]
    content = json.loads((tmp_path / "f" / "times.json").read_text())
    assert [entry["file"] for entry in content["files"]] == names
    assert [entry["time"] for entry in content["files"]] == [0, 0.25, 0.5, 0.75, 1]
    for entry in content["files"]:
        found = export.read_splats(tmp_path / "f" / entry["file"])
        assert float(found.cloud.means[0, 1]) == pytest.approx(2 - 4 * entry["time"], abs=1e-5)
        assert found.report.antialiased == (kind == "spz")
    assert seen[-1] == (5, 5)
    assert "5 files of" in report.line() and report.to_dict()["times"] == [0, 0.25, 0.5, 0.75, 1]


def test_so_many_times(run, tmp_path):
    report = export.splat_sequence(run, out=tmp_path / "f", times="3")
    assert report.times == (0.0, 0.5, 1.0)
    assert sequence_times(1, torch.tensor([0.2, 0.4])) == pytest.approx([0.2])


@pytest.mark.parametrize("text", ["0", "-1", "some", "1.5", ""])
def test_bad_numbers_of_times(text):
    with pytest.raises(InputError, match="give all, or a number of times"):
        sequence_times(text, torch.tensor([0.0, 1.0]))


def test_a_folder_is_replaced_only_when_asked_and_only_a_sequence(run, tmp_path):
    export.splat_sequence(run, out=tmp_path / "f", times=4)
    with pytest.raises(InputError, match="exists already; replace it with --overwrite"):
        export.splat_sequence(run, out=tmp_path / "f")
    again = export.WriteOptions(overwrite=True)
    export.splat_sequence(run, out=tmp_path / "f", times=2, options=again)
    assert len(list((tmp_path / "f").iterdir())) == 3
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds other files than a sequence"):
        export.splat_sequence(run, out=tmp_path / "g", options=again)
    for name in ("f.ply", "g/letter.txt"):
        with pytest.raises(InputError, match="written to a folder"):
            export.splat_sequence(run, out=tmp_path / name, options=again)


def test_a_failure_leaves_the_folder_as_it_was(run, tmp_path):
    export.splat_sequence(run, out=tmp_path / "f", times=2)

    def fail(done, total):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError):
        export.splat_sequence(
            run, out=tmp_path / "f", options=export.WriteOptions(overwrite=True), on_file=fail
        )
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert len(list((tmp_path / "f").iterdir())) == 3


def test_what_moves_needs_a_time(run, tmp_path):
    for call in (export.splats, export.points):
        with pytest.raises(InputError, match=r"drift: moves, .* name it with --time 0.5"):
            call(run, out=tmp_path / "a.ply")
        with pytest.raises(InputError, match=r"time must lie in \[0, 1\]; got 1.5"):
            call(run, out=tmp_path / "a.ply", time=1.5)
    assert list(tmp_path.iterdir()) == []


def test_what_stands_still_has_no_times(random_cloud, tmp_path, capsys):
    export.write_splats(random_cloud(9), tmp_path / "a.ply")
    for option in (["--time", "0.5"], ["--times", "all"]):
        out = str(tmp_path / ("b.ply" if option[0] == "--time" else "f"))
        assert main(["export", "splats", str(tmp_path / "a.ply"), "--out", out, *option]) == 2
        assert "a.ply: nothing moves in it; leave the time" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.ply"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--time", "0.5", "--times", "all"], "--time and --times contradict"),
        (["--sequence-format", "spz"], "--sequence-format is for --times"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, capsys, words, message):
    assert main(["export", "splats", "runs/x", "--out", str(tmp_path / "a.ply"), *words]) == 2
    assert message in capsys.readouterr().err
