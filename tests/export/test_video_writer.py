"""Video round trips and failures: what is written can be read back, what fails leaves nothing."""

import errno
import os
import shutil
import stat
import subprocess

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from lumigraph.core.errors import InputError
from lumigraph.export import video_encoders
from lumigraph.export.video_writer import check_output, open_video, to_bytes, write_video

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")


def moving_square(count: int, *, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """A red square that moves right over gray."""
    frames = []
    for index in range(count):
        frame = np.full((height, width, 3), 0.5, dtype=np.float32)
        left = 4 * index
        frame[8:24, left : left + 16] = (1.0, 0.1, 0.1)
        frames.append(frame)
    return frames


def read_frames(path) -> np.ndarray:
    return imageio.imread(path, plugin="FFMPEG")


def test_video_round_trip(tmp_path):
    frames = moving_square(10)
    assert write_video(frames, tmp_path / "deep" / "square.mp4", fps=25) == 10
    back = read_frames(tmp_path / "deep" / "square.mp4").astype(np.float32) / 255
    assert back.shape == (10, 48, 64, 3)
    # H.264 at this rate keeps flat areas within one percent or two; edges lose half of the color
    # resolution, so the mean is the fair bound there.
    assert np.abs(back - np.stack(frames)).mean() < 0.012
    assert np.abs(back[:, 40, 8] - 0.5).max() < 0.02
    assert np.abs(back[0, 16, 8] - (1.0, 0.1, 0.1)).max() < 0.06
    metadata = imageio.immeta(tmp_path / "deep" / "square.mp4", plugin="FFMPEG")
    assert metadata["fps"] == 25 and metadata["codec"] == "h264"


def test_tensors_and_bytes_are_frames_too(tmp_path):
    frames = moving_square(3)
    write_video((torch.from_numpy(frame) for frame in frames), tmp_path / "tensors.mp4")
    write_video([to_bytes(frame) for frame in frames], tmp_path / "bytes.mp4")
    a, b = read_frames(tmp_path / "tensors.mp4"), read_frames(tmp_path / "bytes.mp4")
    assert np.array_equal(a, b)


def test_odd_sizes_are_padded_by_one_line(tmp_path):
    write_video(moving_square(2, width=63, height=47), tmp_path / "odd.mp4")
    back = read_frames(tmp_path / "odd.mp4")
    assert back.shape == (2, 48, 64, 3)
    assert np.abs(back[:, 46, 10].astype(int) - back[:, 47, 10]).max() <= 3


def test_folder_of_pictures_is_exact(tmp_path):
    frames = moving_square(3, width=33, height=21)
    assert write_video(iter(frames), tmp_path / "frames") == 3
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == ["00000.png", "00001.png", "00002.png"]
    for index, frame in enumerate(frames):
        back = imageio.imread(tmp_path / "frames" / f"{index:05}.png")
        assert np.array_equal(back, to_bytes(frame))


def test_existing_output_is_kept_or_replaced_whole(tmp_path):
    for target in (tmp_path / "v.mp4", tmp_path / "folder"):
        write_video(moving_square(4), target)
        with pytest.raises(InputError, match="--overwrite"):
            write_video(moving_square(2), target, overwrite=False)
        write_video(moving_square(2), target)
    assert len(read_frames(tmp_path / "v.mp4")) == 2
    assert len(list((tmp_path / "folder").iterdir())) == 2
    assert list(tmp_path.glob(".*")) == []


def test_frames_that_are_not_finite_are_legal():
    frame = np.array([[[np.nan, np.inf, -np.inf], [0.2, 2.0, -1.0]]], dtype=np.float32)
    assert to_bytes(frame).tolist() == [[[0, 255, 0], [51, 255, 0]]]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "no frames"),
        ([np.zeros((4, 4, 3)), np.zeros((4, 6, 3))], "frame 1 is 6x4"),
        ([np.zeros((4, 4))], r"shape \(4, 4\)"),
        ([np.zeros((0, 4, 3))], r"shape \(0, 4, 3\)"),
    ],
)
@pytest.mark.parametrize("name", ["v.mp4", "folder"])
def test_bad_frames_leave_nothing(tmp_path, frames, message, name):
    with pytest.raises(InputError, match=message):
        write_video(frames, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), 1e9])
def test_bad_rate(tmp_path, fps):
    with pytest.raises(InputError, match="fps"):
        write_video(moving_square(1), tmp_path / "v.mp4", fps=fps)


def test_targets_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match=r"use \.mp4, \.webm, \.gif, or a folder"):
        check_output(tmp_path / "v.avi", overwrite=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds other files"):
        check_output(tmp_path / "notes", overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        check_output(tmp_path / "file", overwrite=True)
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        check_output(tmp_path / "folder.mp4", overwrite=True)
    with pytest.raises(InputError, match="cannot be written"):
        write_video(moving_square(1), tmp_path / "file" / "v.mp4")


def fake_ffmpeg(folder, script: str, monkeypatch) -> None:
    program = folder / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(program))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("cat >/dev/null; echo 'av_write: No space left on device' >&2; exit 1", "disk is full"),
        ("echo 'Unknown encoder libx264' >&2; exit 1", "Unknown encoder libx264"),
        ("exit 3", "no reason given"),
    ],
)
def test_failure_of_ffmpeg_keeps_the_earlier_video(tmp_path, monkeypatch, script, message):
    target = tmp_path / "v.mp4"
    target.write_bytes(b"earlier")
    (tmp_path / "bin").mkdir()
    fake_ffmpeg(tmp_path / "bin", script, monkeypatch)
    # Large frames fill the pipe, so that ffmpeg's early end is met while writing.
    frames = [np.zeros((512, 512, 3), dtype=np.uint8)] * 4
    with pytest.raises(InputError, match=message):
        write_video(frames, target)
    assert target.read_bytes() == b"earlier"
    assert list(tmp_path.glob(".*")) == []


def test_full_disk_while_writing_pictures(tmp_path, monkeypatch):
    write_video(moving_square(2), tmp_path / "frames")

    def full(*_args, **_keywords):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(imageio, "imwrite", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_video(moving_square(3), tmp_path / "frames")
    assert len(list((tmp_path / "frames").iterdir())) == 2
    assert list(tmp_path.glob(".*")) == []


def test_an_error_of_the_renderer_stops_ffmpeg(tmp_path):
    def frames():
        yield np.zeros((16, 16, 3))
        raise RuntimeError("renderer broke")

    with pytest.raises(RuntimeError, match="renderer broke"):
        write_video(frames(), tmp_path / "v.mp4")
    assert list(tmp_path.iterdir()) == []
    assert video_encoders.QUALITY <= 23


def test_webm_round_trip(tmp_path):
    frames = moving_square(8)
    assert write_video(frames, tmp_path / "v.webm", fps=20) == 8
    back = read_frames(tmp_path / "v.webm").astype(np.float32) / 255
    assert back.shape == (8, 48, 64, 3) and np.abs(back - np.stack(frames)).mean() < 0.015
    metadata = imageio.immeta(tmp_path / "v.webm", plugin="FFMPEG")
    assert metadata["fps"] == 20 and metadata["codec"].startswith("vp9")


def test_gif_keeps_size_rate_and_few_colors_exactly(tmp_path):
    frames = [to_bytes(frame) for frame in moving_square(5, width=63, height=47)]
    assert write_video(frames, tmp_path / "v.gif", fps=25) == 5
    back = imageio.imread(tmp_path / "v.gif")
    assert back.shape == (5, 47, 63, 3)
    assert np.abs(back.astype(int) - np.stack(frames)).max() <= 2
    metadata = imageio.immeta(tmp_path / "v.gif")
    assert metadata["duration"] == 40 and metadata["loop"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["v.gif"]


def test_gif_is_not_faster_than_players(tmp_path):
    with pytest.raises(InputError, match=r"between 0.1 and 50 frames a second of .gif; set --fps"):
        write_video(moving_square(1), tmp_path / "v.gif", fps=60)


def test_an_open_video_appears_when_the_block_ends_well(tmp_path):
    with open_video(tmp_path / "v.mp4") as write:
        for frame in moving_square(2):
            write(frame)
        assert not (tmp_path / "v.mp4").exists()
    assert len(read_frames(tmp_path / "v.mp4")) == 2
    with pytest.raises(KeyError), open_video(tmp_path / "v.mp4") as write:
        write(moving_square(1)[0])
        raise KeyError
    assert len(read_frames(tmp_path / "v.mp4")) == 2
    assert list(tmp_path.glob(".*")) == []


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 KiB, where the system lets one be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("name", ["v.mp4", "v.webm", "v.gif", "folder"])
def test_a_disk_that_is_really_full(small_disk, name):
    noise = np.random.default_rng(0)
    frames = (noise.integers(0, 256, (128, 128, 3), dtype=np.uint8) for _ in range(40))
    with pytest.raises(InputError, match="disk is full|No space left"):
        write_video(frames, small_disk / name)
    assert list(small_disk.iterdir()) == []
