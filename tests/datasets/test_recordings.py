"""Videos of several cameras and time-stamped images: frames, times, cache, and what is refused."""

import json
import os
import shutil
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

from lumigraph import datasets
from lumigraph.core.errors import DataError
from lumigraph.datasets import images, video_cache, views
from lumigraph.datasets.inspection import inspect

WIDTH, HEIGHT, FOCAL = 64, 48, 70.0
CAMERAS, FRAMES = 3, 6


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LUMIGRAPH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "videos"


def grey(camera: int, frame: int) -> int:
    """The one brightness of a frame, by which it is known again."""
    return 40 + 60 * camera + 8 * frame


def write_video(path: Path, camera: int, *, frames: int = FRAMES, rate: float = 30.0) -> None:
    writer = imageio_ffmpeg.write_frames(
        str(path), (WIDTH, HEIGHT), fps=rate, quality=9, macro_block_size=2
    )
    writer.send(None)
    for frame in range(frames):
        writer.send(np.full((HEIGHT, WIDTH, 3), grey(camera, frame), np.uint8).tobytes())
    writer.close()


def write_poses(folder: Path, capture, count: int = CAMERAS) -> None:
    rows = []
    for pose in capture.poses[:count]:
        right, down, forward, position = pose[:3].T
        hwf = np.array([HEIGHT, WIDTH, FOCAL])
        matrix = np.stack([down, right, -forward, position, hwf], axis=1)
        rows.append(np.concatenate([matrix.ravel(), [2.0, 6.0]]))
    np.save(folder / "poses_bounds.npy", np.stack(rows))


@pytest.fixture
def videos(tmp_path, capture) -> Path:
    folder = tmp_path / "n3v"
    folder.mkdir()
    for camera in range(CAMERAS):
        write_video(folder / f"cam{camera:02d}.mp4", camera)
    write_poses(folder, capture)
    return folder


@pytest.fixture
def stamped(tmp_path, capture) -> Path:
    """Images of each camera in a folder, unevenly spaced in time."""
    folder = tmp_path / "rig"
    for camera in range(CAMERAS):
        (folder / f"cam{camera:02d}").mkdir(parents=True)
        for frame, stamp in enumerate(("100.0", "101.5", "103.0", "110.0")):
            image = Image.new("RGB", (WIDTH, HEIGHT), (grey(camera, frame),) * 3)
            image.save(folder / f"cam{camera:02d}" / f"{stamp}.png")
    write_poses(folder, capture)
    return folder


def refused(path: Path, *parts: str, **options) -> None:
    with pytest.raises(DataError) as caught:
        datasets.load(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def shown(scene, index: int) -> float:
    return float(scene.images.load(index).float().mean())


def test_videos_become_frames_with_times(videos) -> None:
    scene = datasets.load(videos)
    assert len(scene.cameras) == CAMERAS * FRAMES and not scene.notes
    assert scene.moments.tolist() == pytest.approx(np.linspace(0, 1, FRAMES).tolist())
    for index in range(len(scene.cameras)):
        frame, camera = divmod(index, CAMERAS)
        assert shown(scene, index) == pytest.approx(grey(camera, frame), abs=2.5)
        assert scene.images.size(index) == (WIDTH, HEIGHT)
        assert float(scene.cameras.times[index]) == pytest.approx(frame / (FRAMES - 1))
    assert scene.split("test").tolist() == list(range(0, CAMERAS * FRAMES, CAMERAS))
    assert scene.cameras.intrinsics[0].tolist() == [FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2]
    names = [scene.images.name(index) for index in range(len(scene.images))]
    assert names[:4] == ["cam00/000000", "cam01/000000", "cam02/000000", "cam00/000001"]
    assert len(set(names)) == len(names)
    report = inspect(scene)
    assert report.moments.cameras == CAMERAS and report.moments.missing == []


def test_frames_and_reduction_are_made_while_decoding(videos, cache) -> None:
    scene = datasets.load(videos, frames="1::2", image_scale=0.5)
    assert scene.moments.tolist() == [0.0, 0.5, 1.0]
    assert scene.images.size(4) == (32, 24)
    assert scene.cameras.intrinsics[4].tolist() == [FOCAL / 2, FOCAL / 2, 16.0, 12.0]
    assert shown(scene, 4) == pytest.approx(grey(1, 3), abs=2.5)
    folders = sorted(path.parent.name[:5] for path in cache.glob("*/32x24"))
    assert folders == ["cam00", "cam01", "cam02"]
    (folder,) = cache.glob("cam00-*/32x24")
    assert sorted(path.name for path in folder.iterdir()) == [
        "000001.jpg",
        "000003.jpg",
        "000005.jpg",
    ]


def test_what_is_there_is_not_decoded_again(videos, cache, monkeypatch) -> None:
    datasets.load(videos)
    (lost,) = cache.glob("cam01-*/64x48/000004.jpg")
    lost.unlink()
    kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*.jpg")}
    calls = []
    real = video_cache.decoded
    monkeypatch.setattr(
        video_cache, "decoded", lambda path, *words: calls.append(path.name) or real(path, *words)
    )
    scene = datasets.load(videos)
    assert calls == ["cam01.mp4"] and shown(scene, 13) == pytest.approx(grey(1, 4), abs=2.5)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    # Another file of the same name is another video.
    write_video(videos / "cam02.mp4", 0)
    os.utime(videos / "cam02.mp4", ns=(1, 1))
    assert shown(datasets.load(videos), 2) == pytest.approx(grey(0, 0), abs=2.5)


def test_a_cache_that_cannot_be_written(videos, tmp_path, monkeypatch) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    monkeypatch.setenv("LUMIGRAPH_CACHE", str(blocker))
    refused(videos, "cannot be kept there", "LUMIGRAPH_CACHE")


def test_uneven_videos_are_refused(videos) -> None:
    write_video(videos / "cam01.mp4", 1, frames=4)
    refused(videos, "cam01.mp4: 4 frames, cam00.mp4 has 6", "frames 0:4")
    assert len(datasets.load(videos, frames="0:4").moments) == 4
    write_video(videos / "cam01.mp4", 1, rate=25.0)
    refused(videos, "cam01.mp4: 25 frames a second, cam00.mp4 has 30", "one rate")


def test_unreadable_and_missing_videos(videos) -> None:
    (videos / "cam02.mp4").write_bytes(b"no video at all" * 50)
    refused(videos, "cam02.mp4: ffmpeg cannot read this video")
    (videos / "cam02.mp4").unlink()
    refused(videos, "poses_bounds.npy: it has 3 poses", "2 cameras (cam00.mp4 to cam01.mp4)")


def test_a_video_that_breaks_off(videos, monkeypatch) -> None:
    real = video_cache.decoded

    def cut(path, *words):
        yield from list(real(path, *words))[:2]

    monkeypatch.setattr(video_cache, "decoded", cut)
    refused(videos, ".mp4: the video breaks off after 2 of 6 frames", "frames 0:2")


@pytest.mark.parametrize("frames", ["", "3", "a:b", "-1:2", "0:4:0", "0:1:2:3"])
def test_frames_must_be_a_range(videos, frames) -> None:
    refused(videos, "frames is", "START:STOP", frames=frames)


def test_frames_beyond_the_end(videos) -> None:
    refused(videos, "cam00.mp4: frames 10:20 leaves none of 6 moments", frames="10:20")


def test_stamped_images_keep_their_spacing(stamped) -> None:
    scene = datasets.load(stamped)
    assert scene.moments.tolist() == pytest.approx([0.0, 0.15, 0.3, 1.0])
    assert shown(scene, 5) == grey(2, 1) and len(scene.split("test")) == 4
    part = datasets.load(stamped, frames="1:3", image_scale=0.5)
    assert part.moments.tolist() == [0.0, 1.0] and part.images.size(0) == (32, 24)
    assert shown(part, 4) == grey(1, 2)


def test_broken_stamps(stamped) -> None:
    folder = stamped / "cam01"
    shutil.copy(folder / "103.0.png", folder / "103.00.png")
    refused(stamped, "cam01/103.0", ".png: the same time as 103.0")
    (folder / "103.00.png").unlink()
    (folder / "103.0.png").rename(folder / "103.5.png")
    refused(stamped, "cam01/103.5.png: time 103.5, where cam00 has 103", "the same times")
    (folder / "103.5.png").unlink()
    refused(stamped, "cam01: 3 images, cam00 has 4")
    (folder / "110.0.png").rename(folder / "last.png")
    refused(stamped, "cam01/last.png: the name has no number", "000000.jpg")


def test_cameras_in_json(stamped, capture) -> None:
    (stamped / "poses_bounds.npy").unlink()
    frames = [
        {
            "file_path": f"cam{camera:02d}",
            "transform_matrix": capture.opengl[camera].tolist(),
            "fl_x": FOCAL + camera,
            "split": "test" if camera == 1 else "train",
        }
        for camera in range(CAMERAS)
    ]
    file = stamped / "cameras.json"
    file.write_text(json.dumps({"frames": frames}))
    scene = datasets.load(stamped)
    assert scene.cameras.intrinsics[:3, 0].tolist() == [FOCAL, FOCAL + 1, FOCAL + 2]
    assert scene.split("test").tolist() == [1, 4, 7, 10]
    expected = torch.from_numpy(capture.poses[:3, :3, 3])
    positions = scene.to_source(scene.cameras.positions[:3].double())
    assert torch.allclose(positions, expected, atol=1e-4)
    file.write_text(json.dumps({"frames": frames[:2]}))
    refused(stamped, "cameras.json: no entry has cam02", "add one")
    file.write_text(json.dumps({"frames": [*frames, {**frames[0], "file_path": "cam07"}]}))
    refused(stamped, "cameras.json: cam07 is listed", "remove its entry")


def test_images_of_its_own_make_a_folder_llff(videos, capture) -> None:
    (videos / "images").mkdir()
    for camera in range(CAMERAS):
        Image.new("RGB", (WIDTH, HEIGHT)).save(videos / "images" / f"{camera}.png")
    scene = datasets.load(videos)
    assert len(scene.cameras) == CAMERAS and scene.cameras.times is None and not scene.notes


def test_frames_choose_among_the_times_of_any_format(capture) -> None:
    scene = datasets.load("builtin:moving", frames="4:9:2", image_scale=0.125)
    assert scene.moments.tolist() == pytest.approx([0.0, 0.5, 1.0]) and len(scene.cameras) == 42
    assert scene.images.name(0) == "c00_t04"
    refused(capture.transforms(), "has no times", frames="0:2")
    refused("builtin:object", "has no times", frames="0:2")


def test_loading_decodes_nothing_and_reading_stays_under_the_budget(stamped, monkeypatch) -> None:
    """300 frames of 20 cameras must not pass through memory, so a small set must not either."""
    decoded = []
    real = images.decode_image
    monkeypatch.setattr(
        images, "decode_image", lambda path, channels: decoded.append(path) or real(path, channels)
    )
    one = WIDTH * HEIGHT * 3
    scene = datasets.load(stamped, image_budget_bytes=2 * one)
    inspect(scene)
    assert decoded == []
    for index in (5, 0, 11, 5, 7, 2):
        scene.images.load(index)
        assert scene.images.cached_bytes <= 2 * one
    assert len(decoded) >= 6


def test_headers_of_decoded_frames_are_not_read(videos, monkeypatch) -> None:
    monkeypatch.setattr(views, "image_header", None)
    assert len(datasets.load(videos).cameras) == CAMERAS * FRAMES
