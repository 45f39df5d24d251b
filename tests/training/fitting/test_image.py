"""Method `image`: training, exact resume, scores, export."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

import lumigraph as lg
from lumigraph.core.errors import CheckpointError, ConfigError, DataError, InputError
from lumigraph.datasets.targets import load_picture
from lumigraph.training import Run, evaluate, train, train_config
from lumigraph.training.report import write_report


@pytest.fixture
def config(small):
    return train_config("image", steps=120, batch_samples=512, max_resolution=24, **small)


@pytest.fixture
def linear_file(tmp_path):
    library = pytest.importorskip("OpenEXR")
    y, x = np.mgrid[0:16, 0:16] / 16
    light = np.exp(2 * np.stack([x, y, x * y], axis=-1)).astype(np.float32)
    path = tmp_path / "light.exr"
    header = {"compression": library.ZIP_COMPRESSION, "type": library.scanlineimage}
    library.File(header, {"RGB": light}).write(str(path))
    return path


def test_a_picture_is_learnt_scored_and_reported(picture_file, config, tmp_path):
    run = train(picture_file, config, out=tmp_path / "run")
    scores = evaluate(run)
    assert list(scores) == ["run", "protocol", "psnr", "ssim", "seconds"]
    assert scores["psnr"] > 32 and scores["ssim"] > 0.95
    assert "all 32 x 24 pixels, sRGB" in scores["protocol"]
    page = write_report(run).read_text()
    assert ">PSNR</span>" in page and page.count("data:image/jpeg") >= 3
    with pytest.raises(ConfigError, match="method image has no splits"):
        evaluate(run, split="train")


@pytest.mark.parametrize("encoding", ["densegrid", "low_res_densegrid"])
def test_dense_encodings_learn_too(picture_file, small, encoding, tmp_path):
    settings = {**small, "levels": None, "base_resolution": 8, "max_resolution": 24}
    config = train_config("image", encoding=encoding, steps=300, batch_samples=512, **settings)
    run = train(picture_file, config, out=tmp_path / "run")
    assert evaluate(run)["psnr"] > 22


def test_a_run_goes_on_exactly(picture_file, config, stopped_and_resumed):
    config = dataclasses.replace(config, steps=20)
    first, second = stopped_and_resumed(picture_file, config)
    assert set(first) == set(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_linear_light_is_learnt_by_relative_error(linear_file, config, tmp_path):
    run = train(
        linear_file,
        dataclasses.replace(config, steps=400, learning_rate=0.03),
        out=tmp_path / "run",
    )
    scores = evaluate(run)
    assert scores["relative_l2"] < 0.05 and "linear light cut off at 1" in scores["protocol"]
    out = tmp_path / "out.exr"
    report = lg.export.picture(run, out=out)
    assert (report.width, report.height, report.cut) == (16, 16, False)
    written, truth = load_picture(out).target.pixels, load_picture(linear_file).target.pixels
    assert float(((written - truth) / truth).abs().mean()) < 0.2
    assert lg.export.picture(run, out=tmp_path / "out.png").cut


def test_what_is_exported_is_what_the_field_holds(picture_file, config, tmp_path, monkeypatch):
    run = train(picture_file, dataclasses.replace(config, steps=5), out=tmp_path / "run")
    monkeypatch.setattr("lumigraph.export.picture_export.STRIP_PIXELS", 32 * 5)
    rows = []
    lg.export.picture(run, out=tmp_path / "a.png", on_row=lambda done, total: rows.append(done))
    assert rows == [5, 10, 15, 20, 24]
    whole = run.model("cpu").field.rows(0, 24).clamp(0, 1)
    pixels = np.asarray(Image.open(tmp_path / "a.png"))
    assert np.abs(pixels / 255 - whole.numpy()).max() < 0.51 / 255
    with pytest.raises(InputError, match="exists already"):
        lg.export.picture(run, out=tmp_path / "a.png")
    with pytest.raises(InputError, match="must end in"):
        lg.export.picture(run, out=tmp_path / "a.gif")
    monkeypatch.setitem(lg.export.picture_export.MOST_SIDE, ".jpg", 30)
    with pytest.raises(InputError, match="ends at 30 pixels along a side"):
        lg.export.picture(run, out=tmp_path / "a.jpg")


def test_it_renders_and_opens_in_the_viewer(picture_file, config, tmp_path):
    from lumigraph.viewer.source import open_source

    run = train(picture_file, dataclasses.replace(config, steps=200), out=tmp_path / "run")
    video = lg.export.video(run, path="spiral", out=tmp_path / "path", frames=2, size=(40, 30))
    assert video.frames == 2
    source = open_source(run.path)
    assert source.up.tolist() == pytest.approx([0, -1, 0], abs=1e-6)
    with source.session() as model:
        frame = model.render(source.scene.cameras[0], channels=("color", "normal"))
    truth = load_picture(picture_file).target.pixels / 255
    assert float((frame.color - truth).abs().mean()) < 0.05


def test_data_and_runs_of_another_kind_are_refused(picture_file, config, tmp_path):
    scene = load_picture(picture_file)
    with pytest.raises(DataError, match="'test' is no such split|has no images"):
        train(scene, train_config("nerf", steps=1, device="cpu"), out=tmp_path / "nerf")
    photographs = lg.datasets.load("builtin:object")
    with pytest.raises(DataError, match="method image needs a picture"):
        train(photographs, config, out=tmp_path / "image")
    run = train(scene, dataclasses.replace(config, steps=1), out=tmp_path / "run")
    with pytest.raises(InputError, match="no photographs to compare with"):
        lg.export.comparison(run, out=tmp_path / "c.mp4", views="train")
    with pytest.raises(InputError, match="no signed distance|no triangles|median"):
        lg.export.mesh(
            run, out=tmp_path / "x.ply", options=lg.export.MeshOptions(source="distance")
        )
    other = dataclasses.replace(run, config=dataclasses.replace(config, hidden_width=32))
    with pytest.raises(CheckpointError, match="config.yaml was changed"):
        other.model("cpu")
    assert Run.open(run.path).config == dataclasses.replace(config, steps=1)
