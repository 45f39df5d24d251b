"""Structure from motion: rendered blocks with known cameras, a video, bad input."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from lumigraph import datasets
from lumigraph.core.errors import ConfigError, DataError, MissingExtraError
from lumigraph.core.transforms import look_at
from lumigraph.datasets import distances, sfm, video_frames
from lumigraph.datasets.object_pictures import render_pictures
from lumigraph.datasets.sphere_tracing import Part, PinholeView

VIEWS = 8
FOCAL = 440.0


def mosaic(points):
    """Albedo of random patches at two scales: plenty of corners to find again."""
    patches = np.zeros(points.shape[1])
    for size, weight in ((0.05, 0.6), (0.16, 0.4)):
        # Shifted, so that no face of a block lies on the border of two cells.
        cell = np.floor(points / size + 0.37).astype(np.int64)
        mixed = cell[0] * 73856093 ^ cell[1] * 19349663 ^ cell[2] * 83492791
        patches += weight * ((mixed * 2654435761) % 1009) / 1008
    return np.stack([patches, patches**2, 1 - patches]).astype(np.float32)


def block(half, place):
    """A block with that look."""
    return Part(
        "block",
        lambda points: distances.rounded_box(points, half, 0.02),
        mosaic,
        (tuple(-value for value in half), half),
        place,
        np.eye(3, dtype=np.float32),
        0.0,
        convex=True,
    )


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Photographs on an arc around textured blocks, and the true camera positions."""
    folder = tmp_path_factory.mktemp("photographs")
    parts = [
        block((0.3, 0.3, 0.5), (0.3, 0.2, 0.2)),
        block((0.25, 0.35, 0.25), (-0.5, -0.3, -0.05)),
        block((1.6, 1.6, 0.1), (0.0, 0.0, -0.4)),
    ]
    azimuth = np.radians(-110 + 12 * np.arange(VIEWS))
    across, height = 3.4 * math.cos(math.radians(38)), 3.4 * math.sin(math.radians(38))
    heights = height + 0.5 * np.sin(2.0 * np.arange(VIEWS))
    arc = [across * np.cos(azimuth), across * np.sin(azimuth), heights]
    positions = torch.from_numpy(np.stack(arc, axis=-1))
    poses = look_at(positions, torch.zeros(3, dtype=torch.float64), up=[0.0, 0.0, 1.0])
    views = [PinholeView(pose, 320, 320, FOCAL) for pose in poses.numpy()]
    for index, picture in enumerate(render_pictures(parts, views)):
        # Numbered so that the order of names is not the order of numbers.
        Image.fromarray(picture[..., :3]).save(folder / f"{index + 5}.png")
    return folder, positions.numpy()


def misfit(found, truth):
    """Largest distance after the best similarity, as a share of the extent of the truth."""
    found, truth = found - found.mean(axis=0), truth - truth.mean(axis=0)
    u, sizes, v = np.linalg.svd(truth.T @ found)
    signs = np.diag([1, 1, np.sign(np.linalg.det(u @ v))])
    scale = (sizes * np.diag(signs)).sum() / (found**2).sum()
    moved = scale * found @ (u @ signs @ v).T
    return np.linalg.norm(moved - truth, axis=1).max() / np.ptp(truth, axis=0).max()


def test_photographs_become_a_scene_with_the_true_cameras(photographs, tmp_path):
    pytest.importorskip("pycolmap")
    folder, positions = photographs
    stages: list[tuple[str, int, int]] = []
    messages: list[str] = []
    result = sfm.convert(
        folder,
        tmp_path / "deep" / "scene",
        on_message=messages.append,
        on_progress=lambda stage, done, total: stages.append((stage, done, total)),
    )
    assert result["registered"] == result["images"] == VIEWS and result["unplaced"] == []
    assert result["points"] > 100 and result["reprojection_error"] < 1.5
    assert {stage for stage, _, _ in stages} == {"pictures", "features", "cameras"}
    assert stages[-1] == ("cameras", VIEWS, VIEWS)
    assert any("each with each" in message for message in messages)
    scene = datasets.load(tmp_path / "deep" / "scene", split_every=0)
    assert len(scene.cameras) == VIEWS and len(scene.points) > 100
    assert torch.equal(scene.cameras.intrinsics[0], scene.cameras.intrinsics[-1])
    assert abs(float(scene.cameras.intrinsics[0, 0]) / FOCAL - 1) < 0.1
    names = [scene.images.name(index) for index in range(VIEWS)]
    order = np.argsort([int(name.rpartition("/")[2].split(".")[0]) for name in names])
    assert misfit(scene.cameras.positions.double().numpy()[order], positions) < 0.05
    kept = json.loads((tmp_path / "deep" / "scene" / "convert.json").read_text())
    assert kept["registered"] == VIEWS and kept["options"]["shared_camera"] is True
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["scene"]


def test_a_video_becomes_a_scene(photographs, tmp_path):
    pytest.importorskip("pycolmap")
    folder, _ = photographs
    pictures = [np.asarray(Image.open(folder / f"{index + 5}.png")) for index in range(VIEWS)]
    video = write_video(tmp_path / "walk.mp4", [each for each in pictures for _ in range(5)])
    options = sfm.ConvertOptions(frames=VIEWS, max_side=320)
    result = sfm.convert(video, tmp_path / "scene", options=options)
    assert result["images"] == VIEWS and result["registered"] >= 0.8 * VIEWS
    assert (tmp_path / "scene" / "images" / "frame_0003.jpg").is_file()


@pytest.mark.slow
def test_fox_photographs_find_their_places(real_data, tmp_path):
    """At least 80 % of 50 real photographs; two minutes on two cores."""
    pytest.importorskip("pycolmap")
    options = sfm.ConvertOptions(max_side=800)
    result = sfm.convert(real_data("nerf_fox") / "images", tmp_path / "fox", options=options)
    assert result["images"] == 50
    assert result["registered"] >= 40
    assert result["reprojection_error"] < 1.0


def write_video(path, frames, rate=10):
    """An H.264 file of (H, W, 3) uint8 frames."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    height, width = frames[0].shape[:2]
    writer = ffmpeg.write_frames(str(path), (width, height), fps=rate, quality=9)
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()
    return path


def test_the_sharpest_frames_of_a_video_are_taken(tmp_path):
    generator = np.random.default_rng(0)
    blocks = generator.integers(0, 255, (6, 32, 40, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    frames = []
    for number, sharp in enumerate(blocks):
        blurred = np.asarray(Image.fromarray(sharp).reduce(8).resize((160, 128)))
        frames += [sharp if place == number % 5 else blurred for place in range(5)]
    video = write_video(tmp_path / "blink.mp4", frames)
    folder = tmp_path / "frames"
    folder.mkdir()
    seen: list[int] = []
    written = video_frames.extract_frames(
        video, folder, count=6, max_side=100, on_frame=seen.append
    )
    assert [path.name for path in written] == [f"frame_{number:04d}.jpg" for number in range(6)]
    assert seen == [1, 2, 3, 4, 5]
    for path, sharp in zip(written, blocks, strict=True):
        picture = Image.open(path)
        assert max(picture.size) == 100 and picture.size == (100, 80)
        expected = np.asarray(Image.fromarray(sharp).resize(picture.size, Image.Resampling.BOX))
        difference = np.asarray(picture).astype(float) - expected
        # The blurred frames of a window differ by about 50.
        assert np.abs(difference).mean() < 25
    count = len(video_frames.extract_frames(video, folder, count=500, max_side=64))
    assert 25 <= count <= 31, "a short video gives what it has"


def test_turned_and_large_photographs_are_written_upright_and_small(tmp_path):
    source, folder = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    folder.mkdir()
    picture = np.zeros((40, 120, 3), np.uint8)
    picture[:, :60] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Maker"
    Image.fromarray(picture).save(source / "turned.jpg", exif=exif, quality=95)
    Image.fromarray(picture).save(source / "plain.png")
    assert sfm._copy_picture(source / "turned.jpg", folder, 60) == "turned.jpg"
    turned = Image.open(folder / "turned.jpg")
    assert turned.size == (20, 60)
    # Orientation 6 is shown turned clockwise: the white left half comes to the top.
    assert np.asarray(turned)[5].mean() > 240 and np.asarray(turned)[-5].mean() < 15
    assert turned.getexif().get(0x0112, 1) == 1 and turned.getexif()[0x010F] == "Maker"
    sfm._copy_picture(source / "plain.png", folder, 120)
    assert (folder / "plain.png").read_bytes() == (source / "plain.png").read_bytes()


def test_names_are_ordered_as_people_count():
    names = ["10.jpg", "9.jpg", "b2.jpg", "b10.jpg", "B1.jpg"]
    assert sorted(names, key=sfm._natural_order) == [
        "9.jpg",
        "10.jpg",
        "B1.jpg",
        "b2.jpg",
        "b10.jpg",
    ]


def fails(source, out, match, **options):
    """Convert, expect one line that matches, and nothing left behind."""
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(DataError, match=match) as caught:
        sfm.convert(source, out, options=sfm.ConvertOptions(**options))
    assert "\n" not in str(caught.value)
    assert sorted(out.parent.rglob("*")) == before


def test_bad_input_gives_one_line_and_leaves_nothing(photographs, tmp_path):
    pytest.importorskip("pycolmap")
    folder, _ = photographs
    fails(tmp_path / "nowhere", tmp_path / "o", "no such folder or video")
    (tmp_path / "notes.txt").write_text("x")
    fails(tmp_path / "notes.txt", tmp_path / "o", "nor a video")
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", tmp_path / "o", "holds no photographs")
    (tmp_path / "two").mkdir()
    for name in ("5.png", "6.png"):
        shutil.copy(folder / name, tmp_path / "two" / name)
    fails(tmp_path / "two", tmp_path / "o", "2 pictures, at least 3")
    (tmp_path / "two" / "7.png").write_bytes((folder / "7.png").read_bytes()[:3000])
    fails(tmp_path / "two", tmp_path / "o", r"7\.png: cannot be read as a picture")
    fails(folder, tmp_path / "two", "exists already")
    (tmp_path / "noise.mp4").write_bytes(b"not a video at all" * 50)
    fails(tmp_path / "noise.mp4", tmp_path / "o", "ffmpeg cannot read this video")


def test_too_few_placed_is_an_error_that_says_how_many(photographs, tmp_path):
    pytest.importorskip("pycolmap")
    folder, _ = photographs
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for index in range(4):
        shutil.copy(folder / f"{index + 5}.png", mixed)
    for index in range(4):
        Image.new("RGB", (320, 320), (40 * index, 90, 20)).save(mixed / f"blank{index}.png")
    fails(mixed, tmp_path / "o", "of 8 pictures could be placed", least_share=0.9)
    blank = tmp_path / "blank"
    blank.mkdir()
    for index in range(4):
        shutil.copy(mixed / f"blank{index}.png", blank)
    fails(blank, tmp_path / "o", "none of the 4 pictures could be placed")
    result = sfm.convert(mixed, tmp_path / "o", options=sfm.ConvertOptions(least_share=0.3))
    assert result["registered"] == 4
    assert sorted(result["unplaced"]) == [f"blank{index}.png" for index in range(4)]
    assert not (tmp_path / "o" / "images" / "blank0.png").exists()


def test_pictures_of_several_sizes_get_cameras_of_their_own(photographs, tmp_path):
    pytest.importorskip("pycolmap")
    folder, _ = photographs
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for index in range(5):
        picture = Image.open(folder / f"{index + 5}.png")
        (picture if index else picture.resize((300, 300))).save(mixed / f"{index}.png")
    messages: list[str] = []
    sfm.convert(mixed, tmp_path / "scene", on_message=messages.append)
    assert any("differ in size" in message for message in messages)
    sizes = datasets.load(tmp_path / "scene", split_every=0).cameras.sizes.tolist()
    assert [300, 300] in sizes and [320, 320] in sizes


@pytest.mark.parametrize(
    "wrong",
    [
        {"matching": "all"},
        {"frames": 1},
        {"max_side": 10},
        {"max_features": 5},
        {"least_share": 0.0},
        {"threads": 0},
    ],
)
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        sfm.ConvertOptions(**wrong)


def test_without_pycolmap_the_message_names_the_extra(photographs, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycolmap", None)
    with pytest.raises(MissingExtraError, match=r"lumigraph\[sfm\]"):
        sfm.convert(photographs[0], tmp_path / "o")
