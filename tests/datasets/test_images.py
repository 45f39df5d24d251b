"""Image files: decoding, reduction by area, cache budget, decode-ahead, threads, broken files."""

import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from lumigraph.core.errors import DataError
from lumigraph.core.scene import ImageSource, MapSource
from lumigraph.datasets import ImageFiles, MaskFiles, images


@pytest.fixture
def pictures(tmp_path):
    """Twelve random 10x8 colour pictures and their files."""
    random = np.random.default_rng(5)
    pixels = random.integers(0, 256, (12, 8, 10, 3), dtype=np.uint8)
    paths = [tmp_path / f"{index:02d}.png" for index in range(12)]
    for path, picture in zip(paths, pixels, strict=True):
        Image.fromarray(picture).save(path)
    return pixels, paths


def wait_until(condition) -> bool:
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_protocols(pictures) -> None:
    files = ImageFiles(pictures[1])
    assert isinstance(files, ImageSource)
    assert isinstance(MaskFiles(files), MapSource)


def test_loads_what_was_written(pictures) -> None:
    pixels, paths = pictures
    files = ImageFiles(paths)
    assert len(files) == 12 and files.size(3) == (10, 8) and files.name(3).endswith("/03.png")
    for index in (3, 0, 11, -1):
        np.testing.assert_array_equal(files.load(index), pixels[index])
    with pytest.raises(IndexError):
        files.load(12)


def test_area_average_is_the_mean_of_blocks(pictures) -> None:
    pixels, paths = pictures
    files = ImageFiles(paths, scale=0.5)
    means = pixels[4].reshape(4, 2, 5, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(files.load(4).numpy(), means, atol=0.5 + 1e-3)
    assert files.size(4) == (5, 4)


def test_area_average_of_uneven_factors_counts_shares() -> None:
    """Against the mean of an enlarged picture whose blocks divide evenly."""
    pixels = np.random.default_rng(1).integers(0, 256, (7, 10, 3), dtype=np.uint8)
    enlarged = pixels.repeat(3, axis=0).repeat(4, axis=1).astype(float)
    expected = enlarged.reshape(3, 7, 4, 10, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(images.area_average(pixels, 4, 3), expected, atol=0.5 + 1e-6)


def test_area_average_weighs_colours_by_alpha() -> None:
    """Averaging then compositing equals compositing then averaging, over black and over white."""
    random = np.random.default_rng(2)
    pixels = random.integers(0, 256, (12, 16, 4), dtype=np.uint8)
    pixels[:, 4:8, 3] = 0
    reduced = images.area_average(pixels, 4, 3).astype(float)
    for background in (0.0, 255.0):
        full = pixels.astype(float)
        full = background + (full[..., :3] - background) * full[..., 3:] / 255.0
        expected = full.reshape(3, 4, 4, 4, 3).mean(axis=(1, 3))
        got = background + (reduced[..., :3] - background) * reduced[..., 3:] / 255.0
        np.testing.assert_allclose(got, expected, atol=1.01)
    assert (reduced[:, 1] == 0).all()


def test_alpha_and_grey_come_in_the_channels_asked_for(tmp_path) -> None:
    Image.fromarray(np.full((4, 4), 77, np.uint8)).save(tmp_path / "grey.png")
    assert ImageFiles([tmp_path / "grey.png"]).load(0)[0, 0].tolist() == [77, 77, 77]
    rgba = ImageFiles([tmp_path / "grey.png"], channels=4).load(0)
    assert rgba[0, 0].tolist() == [77, 77, 77, 255]
    Image.fromarray(np.full((4, 4), 0x8080, np.uint16)).save(tmp_path / "deep.png")
    assert ImageFiles([tmp_path / "deep.png"]).load(0)[0, 0].tolist() == [128, 128, 128]


def test_budget_drops_the_least_recently_used(pictures) -> None:
    pixels, paths = pictures
    files = ImageFiles(paths, budget_bytes=3 * 240, ahead=0)
    for index in (0, 1, 2, 0, 3):
        files.load(index)
    assert files.cached_bytes == 3 * 240
    paths[0].unlink()
    np.testing.assert_array_equal(files.load(0), pixels[0])
    paths[1].unlink()
    with pytest.raises(DataError, match=r"01\.png: image not found"):
        files.load(1)


def test_budget_of_zero_keeps_nothing(pictures) -> None:
    pixels, paths = pictures
    files = ImageFiles(paths, budget_bytes=0)
    for index in range(12):
        np.testing.assert_array_equal(files.load(index), pixels[index])
    assert files.cached_bytes == 0


def test_reading_in_order_decodes_ahead(pictures) -> None:
    pixels, paths = pictures
    files = ImageFiles(paths, ahead=2)
    files.load(0)
    assert wait_until(lambda: files.cached_bytes == 3 * 240)
    for path in paths[:3]:
        path.unlink()
    np.testing.assert_array_equal(files.load(2), pixels[2])
    files.close()
    assert files.cached_bytes == 0
    np.testing.assert_array_equal(files.load(5), pixels[5])


def test_prefetch_stays_within_the_budget(pictures) -> None:
    files = ImageFiles(pictures[1], budget_bytes=5 * 240)
    files.prefetch(range(12))
    assert wait_until(lambda: files.cached_bytes == 5 * 240)
    files.close()


def test_many_threads_get_the_right_pictures(pictures) -> None:
    pixels, paths = pictures
    files = ImageFiles(paths, budget_bytes=4 * 240)
    wrong: list[int] = []

    def read(seed: int) -> None:
        for index in np.random.default_rng(seed).integers(0, 12, 60).tolist():
            if not np.array_equal(files.load(index), pixels[index]):
                wrong.append(index)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong
    assert files.cached_bytes <= 4 * 240
    files.close()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_image_names_the_file(tmp_path, suffix) -> None:
    path = tmp_path / f"cut.{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    files = ImageFiles([path])
    with pytest.raises(DataError, match=rf"cut\.{suffix}: cannot be decoded .* again"):
        files.load(0)
    assert files.cached_bytes == 0


def test_broken_image_ahead_is_reported_when_asked_for(pictures) -> None:
    _, paths = pictures
    paths[1].write_bytes(paths[1].read_bytes()[:60])
    files = ImageFiles(paths, sizes=[(10, 8)] * 12)
    files.load(0)
    with pytest.raises(DataError, match=r"01\.png: cannot be decoded"):
        files.load(1)
    files.load(2)
    files.close()


def test_not_an_image(tmp_path) -> None:
    path = tmp_path / "text.png"
    path.write_text("not a picture")
    with pytest.raises(DataError, match=r"text\.png: cannot be decoded"):
        ImageFiles([path])


def test_scale_that_leaves_nothing(pictures) -> None:
    with pytest.raises(DataError, match=r"image_scale 0\.01 leaves 0x0 pixels"):
        ImageFiles(pictures[1], scale=0.01)


def test_masks_are_true_where_bright(tmp_path) -> None:
    Image.fromarray(np.array([[0, 127, 128, 255]], np.uint8)).save(tmp_path / "mask.png")
    masks = MaskFiles(ImageFiles([tmp_path / "mask.png"], channels=1))
    assert len(masks) == 1
    assert torch.equal(masks.load(0), torch.tensor([[False, False, True, True]]))
