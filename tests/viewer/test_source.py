"""What can be viewed, and what is said of the rest."""

import shutil
import time

import pytest
import torch

from lumigraph import export, training
from lumigraph.core.errors import CheckpointError, ConfigError, DataError, InputError
from lumigraph.training import TrainingControl
from lumigraph.viewer import MeshSource, RunSource, SplatFileSource, TrainingSource, open_source
from lumigraph.viewer.browser_gaussians import browser_gaussians
from lumigraph.viewer.places import focus_distance, start_view


def test_a_run_is_shown_in_its_scene(nerf_run):
    source = open_source(nerf_run.path)
    assert isinstance(source, RunSource) and source.kind == "nerf" and source.device == "cpu"
    assert torch.allclose(source.up, torch.tensor([0.0, 0.0, 1.0]), atol=0.05)
    assert source.renders and not source.splats and source.cloud() is None
    pose, target, _ = start_view(source)
    camera = source.scene.cameras[int(source.scene.split("train")[0])]
    assert torch.equal(pose, camera.camera_to_world[0])
    distance = focus_distance(source.scene, pose)
    assert torch.allclose(pose[:3, 3] + distance * pose[:3, 2], target)
    assert distance == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize("suffix", [".ply", ".splat", ".spz"])
def test_files_of_gaussians(splat_run, tmp_path, suffix):
    file = tmp_path / f"cloud{suffix}"
    export.splats(splat_run, out=file)
    source = open_source(file, up="-y")
    assert isinstance(source, SplatFileSource) and source.splats
    assert source.up.tolist() == [0.0, -1.0, 0.0]
    pose, _, _ = start_view(source)
    assert float(-pose[:3, 1] @ source.up) > 0.7, "up is up"
    with source.session() as model:
        from lumigraph.viewer.views import Shot

        cameras = Shot(pose, 0.9, 64, 48).cameras(64, 48)
        assert float(model.render(cameras).opacity.mean()) > 0.05, "the start shows something"


def test_gaussians_for_the_browser_are_the_same_shapes(splat_run):
    cloud = RunSource(splat_run, device="cpu").cloud()
    arrays = browser_gaussians(cloud)
    count = len(cloud)
    assert arrays["centers"].shape == (count, 3) and arrays["opacities"].shape == (count, 1)
    covariance = torch.from_numpy(arrays["covariances"])
    volume = torch.linalg.det(covariance.double())
    assert torch.allclose(volume.log(), 2 * cloud.log_scales.double().sum(dim=1), atol=1e-2)
    assert arrays["rgbs"].min() >= 0 and arrays["rgbs"].max() <= 1


def test_a_mesh(quad_glb):
    source = open_source(quad_glb)
    assert isinstance(source, MeshSource) and not source.renders
    assert source.bounds.tolist() == [[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("nothing", None, DataError, "no such run folder or file"),
        (
            "notes.txt",
            b"hello",
            InputError,
            "cannot be viewed.*.ply, .splat, .spz, .lg4d, .glb, .obj",
        ),
        ("cut.glb", b"glTF\x02", DataError, "not a GLB file, or cut short"),
        ("wrong.ply", b"not a ply", DataError, "no PLY, SPZ or .splat file"),
        ("gone.spz", None, DataError, "no such"),
    ],
)
def test_what_cannot_be_viewed(tmp_path, name, content, kind, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(kind, match=message) as caught:
        open_source(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(ConfigError, match="run folder"):
        open_source(tmp_path)


def without_checkpoints(run, folder):
    shutil.copytree(run.path, folder)
    shutil.rmtree(folder / "checkpoints")
    return folder


def test_a_run_that_has_no_checkpoint_yet(nerf_run, tmp_path):
    folder = without_checkpoints(nerf_run, tmp_path / "run")
    (folder / "metrics.jsonl").touch()
    with pytest.raises(CheckpointError, match="a training writes here .* train with --viewer"):
        open_source(folder)
    (folder / "metrics.jsonl").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint inside; train it first"):
        open_source(folder)


def test_a_newer_checkpoint_is_taken_up(nerf_run, tmp_path):
    shutil.copytree(nerf_run.path, tmp_path / "run")
    source = RunSource(tmp_path / "run", device="cpu")
    assert not source.refresh()
    with source.session() as before:
        pass
    old = next((tmp_path / "run" / "checkpoints").iterdir())
    newer = old.with_name("step-00009999.safetensors")
    newer.write_bytes(b"not whole yet")
    assert not source.refresh()
    shutil.copyfile(old, newer)
    assert source.refresh() and source.version == 1
    with source.session() as after:
        assert after is not before


def test_a_training_that_has_not_begun_shows_nothing_and_does_not_hang(nerf_run):
    source = TrainingSource(TrainingControl(), nerf_run.scene())
    source.WAIT = 0.05
    began = time.monotonic()
    with source.session() as model:
        assert model is None
    assert time.monotonic() - began < 2


def test_a_training_that_has_ended_is_still_shown(tmp_path, nerf_run):
    control = TrainingControl()
    config = training.train_config("nerf", "tiny", steps=3, device="cpu")
    training.train(nerf_run.scene(), config, out=tmp_path / "run", control=control)
    with TrainingSource(control, nerf_run.scene()).session() as model:
        camera = nerf_run.scene().cameras[0].resized_to(8, 8)
        assert model.render(camera).width == 8
