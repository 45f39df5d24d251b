"""Pictures to be fitted: what is read, and what is refused in one line."""

import numpy as np
import pytest
import torch
from PIL import Image

from lumigraph.core.errors import DataError
from lumigraph.datasets.targets import Picture, load_picture
from lumigraph.datasets.targets.picture import camera_before


def gradient(width=7, height=5, channels=3):
    values = np.arange(width * height * channels) * 3 % 256
    return values.reshape(height, width, channels).astype(np.uint8)


def saved(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


def saved_exr(path, **planes):
    library = pytest.importorskip("OpenEXR")
    header = {"compression": library.ZIP_COMPRESSION, "type": library.scanlineimage}
    library.File(header, planes).write(str(path))
    return path


def test_bytes_are_kept_as_bytes(tmp_path):
    scene = load_picture(saved(tmp_path / "a.png", gradient()))
    picture = scene.target
    assert picture.size == (7, 5) and not picture.is_linear and scene.name == "a"
    assert torch.equal(picture.pixels, torch.from_numpy(gradient()))
    assert picture.values(slice(0, 1), slice(0, 1)).tolist()[0][0] == pytest.approx(
        [0, 3 / 255, 6 / 255]
    )


def test_alpha_is_put_over_black_and_told(tmp_path):
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (200, 100, 40, 255)
    pixels[0, 1] = (200, 100, 40, 128)
    scene = load_picture(saved(tmp_path / "a.png", pixels))
    assert scene.target.pixels[0, :, 0].tolist() == [200, 100]
    assert "over black" in scene.notes[0]


def test_linear_light_keeps_its_range(tmp_path):
    values = np.random.default_rng(0).random((4, 6, 3)).astype(np.float32) * 9
    picture = load_picture(saved_exr(tmp_path / "a.exr", RGB=values)).target
    assert picture.is_linear and torch.equal(picture.pixels, torch.from_numpy(values))
    gray = load_picture(saved_exr(tmp_path / "b.exr", Y=values[..., 0].copy())).target
    assert torch.equal(gray.pixels[..., 2], torch.from_numpy(values[..., 0]))
    half = load_picture(tmp_path / "a.exr", image_scale=0.5).target
    assert half.size == (3, 2)
    assert half.pixels[0, 0].tolist() == pytest.approx(values[:2, :2].mean((0, 1)).tolist())
    assert float(picture.shown(picture.pixels).max()) == pytest.approx(1.0)


@pytest.mark.parametrize("size", [(7, 5), (1000, 700), (3000, 30)])
def test_the_camera_sees_the_whole_picture_upright(size):
    camera = camera_before(size)
    width, height = size
    corner = torch.tensor([[-width, -height, 0.0], [width, height, 0.0]]) / 2 / max(size)
    pixels, _ = camera.project(corner, 0)
    seen = torch.tensor([[0.0, 0.0], list(map(float, camera.size(0)))])
    assert torch.allclose(pixels, seen, atol=1e-3)


def test_what_cannot_be_fitted_is_refused_in_one_line(tmp_path):
    flat = saved(tmp_path / "flat.png", np.full((4, 4, 3), 9, np.uint8))
    thin = saved(tmp_path / "thin.png", gradient(9, 1))
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(saved(tmp_path / "whole.png", gradient(64, 64)).read_bytes()[:100])
    (tmp_path / "notes.txt").write_text("text")
    for path, reason in (
        (flat, "every pixel has the same color"),
        (thin, "is 9 x 1"),
        (damaged, "cannot be decoded"),
        (tmp_path / "none.png", "no such picture"),
        (tmp_path, "is a folder"),
        (tmp_path / "notes.txt", "no picture that can be read"),
    ):
        with pytest.raises(DataError, match=reason) as caught:
            load_picture(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    with pytest.raises(DataError, match="more than the budget.*raise image_budget_gib"):
        load_picture(tmp_path / "whole.png", budget_bytes=1000)
    with pytest.raises(DataError, match="leaves no pixel"):
        load_picture(tmp_path / "whole.png", image_scale=0.001)


def test_broken_linear_light_is_refused(tmp_path):
    values = np.ones((4, 6, 3), np.float32)
    values[1, 2, 0], values[0, 0, 0] = np.nan, 2.0
    with pytest.raises(DataError, match="1 of 24 pixels are not finite"):
        load_picture(saved_exr(tmp_path / "a.exr", RGB=values))
    with pytest.raises(DataError, match="has no channels R, G, B or Y, but depth"):
        load_picture(saved_exr(tmp_path / "b.exr", depth=values[..., 0].copy()))
    (tmp_path / "c.exr").write_bytes(b"no picture")
    with pytest.raises(DataError, match="not a readable OpenEXR file"):
        load_picture(tmp_path / "c.exr")
    cut = (tmp_path / "a.exr").read_bytes()
    (tmp_path / "d.exr").write_bytes(cut[: len(cut) - 40])
    with pytest.raises(DataError, match=r"d\.exr: (damaged|not a readable)"):
        load_picture(tmp_path / "d.exr")


def test_pictures_larger_than_pillows_limit_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path = tmp_path / "a.png"
    Image.fromarray(gradient(9, 9)).save(path)
    assert load_picture(path).target.size == (9, 9)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_a_picture_checks_its_pixels():
    with pytest.raises(ValueError, match="pixels"):
        Picture(torch.zeros(3, 3, 4, dtype=torch.uint8))
