"""Meshes of moving surfaces: one moment or all of them, where the scene has them; commands."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lumigraph.cli import main
from lumigraph.core import Similarity
from lumigraph.core.errors import InputError
from lumigraph.core.transforms import rotation_exp
from lumigraph.export import MeshOptions, mesh, mesh_sequence
from lumigraph.training import Run, train, train_config

trimesh = pytest.importorskip("trimesh")
pytest.importorskip("skimage")

COARSE = MeshOptions(resolution=48, components=1)
CAPTURE = Similarity(0.5, rotation_exp(torch.tensor([0.3, 0.1, 0.2])), torch.tensor([1.0, 2, 3]))


@pytest.fixture(scope="module")
def run(moving, tmp_path_factory) -> Run:
    """A ring that was learnt at its first moment, and found again at the others."""
    config = train_config(
        "neus", "tiny", device="cpu", levels=4, log2_table_size=12, base_resolution=8,
        max_resolution=32, grid_resolution=32, march_steps=96, batch_samples=2048,
        occupancy_samples=2048, level_base_step=10, warmup_steps=10, initial_radius=0.2,
        first_steps=250, later_steps=90, motion_steps=60,
    )  # fmt: skip
    scene = dataclasses.replace(moving.scene, normalization=CAPTURE)
    return train(scene, config, out=tmp_path_factory.mktemp("moving") / "run")


def middle(path: Path) -> torch.Tensor:
    """(3,) centre of the volume of a mesh, in the scene frame."""
    found = trimesh.load(path, process=False)
    assert found.is_watertight and found.volume > 0
    return CAPTURE.apply(torch.from_numpy(np.asarray(found.center_mass)))


def test_every_moment_is_a_mesh_where_the_scene_has_it(run, moving, tmp_path):
    told = []
    report = mesh_sequence(
        run, out=tmp_path / "m", options=COARSE, on_progress=lambda *done: told.append(done)
    )
    assert report.times == (0.0, 0.5, 1.0) and len(report.meshes) == 3
    assert told == [(f"{k} of 3: distance", 1, 1) for k in (1, 2, 3)]
    assert "3 meshes" in report.line() and report.to_dict()["meshes"][1]["time"] == 0.5
    listed = json.loads((tmp_path / "m" / "meshes.json").read_text())
    assert listed["frame"] == "capture"
    assert [row["file"] for row in listed["meshes"]] == [f"mesh-000{k}.ply" for k in range(3)]
    assert [row["time"] for row in listed["meshes"]] == [0.0, 0.5, 1.0]
    for k, move in enumerate(moving.motions):
        away = middle(tmp_path / "m" / f"mesh-000{k}.ply") - move.translation
        assert float(away.norm()) < 0.06  # the ring moves by 0.25
    with pytest.raises(InputError, match=r"mesh-0000.ply: exists already"):
        mesh_sequence(run, out=tmp_path / "m", options=COARSE)
    again = dataclasses.replace(COARSE, overwrite=True)
    assert mesh_sequence(run, out=tmp_path / "m", options=again).meshes[2].triangles > 100


def test_one_moment_by_its_time(run, moving, tmp_path):
    mesh(run, out=tmp_path / "late.ply", time=0.9, options=COARSE)
    assert float((middle(tmp_path / "late.ply") - moving.motions[2].translation).norm()) < 0.06
    fused = dataclasses.replace(COARSE, depth="expected")
    report = mesh(run, out=tmp_path / "fused.ply", time=0.9, options=fused)
    assert report.source == "fusion" and report.views == 10  # of that moment
    found = trimesh.load(tmp_path / "fused.ply", process=False)
    vertices = torch.from_numpy(np.asarray(found.vertices))
    centre = CAPTURE.apply(vertices).mean(dim=0)
    assert float((centre - moving.motions[2].translation).norm()) < 0.1


def test_what_does_not_fit_is_refused(run, ball_scene, quick, tmp_path):
    with pytest.raises(InputError, match="moves and has 3 moments; give --time T"):
        mesh(run, out=tmp_path / "x.ply", options=COARSE)
    with pytest.raises(InputError, match=r"time must lie in \[0, 1\]; got 2"):
        mesh(run, out=tmp_path / "x.ply", time=2.0, options=COARSE)
    with pytest.raises(InputError, match=r"unknown suffix '.stl'"):
        mesh_sequence(run, out=tmp_path / "m", suffix=".stl", options=COARSE)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: is a file"):
        mesh_sequence(run, out=tmp_path / "file", options=COARSE)
    still = train(ball_scene, dataclasses.replace(quick, steps=3), out=tmp_path / "still")
    with pytest.raises(InputError, match="does not move; leave the time out"):
        mesh(still, out=tmp_path / "x.ply", time=0.5, options=COARSE)
    with pytest.raises(InputError, match="does not move; name a file that ends in .ply"):
        mesh_sequence(still, out=tmp_path / "m", options=COARSE)
    assert not list(tmp_path.glob("*.ply")) and not (tmp_path / "m").exists()


@pytest.fixture
def frames_folder(scene_folder, tmp_path) -> Path:
    """The same pictures at two moments."""
    root = tmp_path / "frames"
    for name in ("frame_000", "frame_001"):
        shutil.copytree(scene_folder, root / name)
    return root


SMALL = (
    "first_steps=6", "later_steps=4", "motion_steps=2", "levels=3", "log2_table_size=10",
    "max_resolution=32", "grid_resolution=16", "march_steps=48", "batch_samples=512",
    "occupancy_samples=256", "initial_radius=0.3", "average_decay=0",
)  # fmt: skip


def command(*words: object) -> int:
    return main([str(word) for word in words])


def test_a_folder_of_frames_becomes_meshes_by_commands(frames_folder, tmp_path, capsys):
    out, settings = tmp_path / "run", [word for each in SMALL for word in ("--set", each)]
    train_words = ("train", frames_folder, "--method", "neus", "--out", out, "--device", "cpu")
    assert command(*train_words, *settings) == 0
    assert len(list((out / "moments").iterdir())) == 2
    assert command("evaluate", out) == 0
    scores = json.loads((out / "evaluate.json").read_text())
    assert [row["views"] for row in scores["per_moment"]] == [2, 2]
    capsys.readouterr()
    few = ("--resolution", 32, "--least-triangles", 1, "--json")
    assert (
        command("export", "mesh", out, "--out", tmp_path / "m", "--mesh-format", "obj", *few) == 0
    )
    printed = json.loads(capsys.readouterr().out)
    assert [each["time"] for each in printed["meshes"]] == [0.0, 1.0]
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        "mesh-0000.obj", "mesh-0001.obj", "meshes.json",
    ]  # fmt: skip
    one = tmp_path / "one.ply"
    assert command("export", "mesh", out, "--out", one, "--time", 1, *few) == 0
    assert one.is_file()
    refused = {
        ("--out", tmp_path / "n", "--time", 1): "--time is for one mesh",
        ("--out", tmp_path / "n.ply", "--mesh-format", "glb"): "--mesh-format is for a folder",
        ("--out", tmp_path / "n.ply"): "give --time T for one of them",
    }
    for words, message in refused.items():
        assert command("export", "mesh", out, *words) == 2
        assert message in capsys.readouterr().err
    (out / "moments" / "moment-0001.safetensors").unlink()
    assert command("evaluate", out) == 2
    error = capsys.readouterr().err
    assert "moment-0001.safetensors: missing, of 2 moments" in error
