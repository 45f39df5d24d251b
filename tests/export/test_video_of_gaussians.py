"""Files of Gaussians on a turntable; a video is made of the frames that are written as PNG."""

import json
import stat

import imageio.v3 as imageio
import imageio_ffmpeg
import numpy as np
import pytest
import torch

from lumigraph.cli import main
from lumigraph.core import GaussianCloud, InputError
from lumigraph.core.errors import DataError
from lumigraph.export import SplatSource, open_source, video, write_splats
from lumigraph.export.render_path import PathOptions


@pytest.fixture
def cloud() -> GaussianCloud:
    """Opaque specks in a box about (1, 2, 3), red above and green below; a floater far away."""
    generator = torch.Generator().manual_seed(0)
    count = 300
    means = torch.rand(count, 3, generator=generator) * 2 - 1 + torch.tensor([1.0, 2.0, 3.0])
    means[0] = 500.0
    color = torch.full((count, 1, 3), -1.7)
    color[means[:, 2] > 3, 0, 0] = 1.7
    color[means[:, 2] <= 3, 0, 1] = 1.7
    return GaussianCloud(
        means,
        torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        torch.full((count, 3), -2.0),
        torch.full((count,), 4.0),
        color,
    )


def test_a_file_on_a_turntable(cloud, tmp_path):
    write_splats(cloud, tmp_path / "a.ply")
    options = PathOptions(elevation=10.0, up="z")
    video(
        tmp_path / "a.ply", path="turntable", out=tmp_path / "f", size=(48, 36), frames=4,
        options=options,
    )  # fmt: skip
    for path in sorted((tmp_path / "f").iterdir()):
        frame = imageio.imread(path).astype(int)
        assert frame.shape == (36, 48, 3)
        upper, lower = frame[6:17].mean(axis=(0, 1)), frame[19:30].mean(axis=(0, 1))
        assert upper[0] > 3 * upper[1] and lower[1] > 3 * lower[0]
        assert frame[0].mean() < 20 and frame[:, 0].max() < 5  # black behind, not cut off


def test_upside_down(cloud, tmp_path):
    options = PathOptions(elevation=10.0, up="-z")
    video(cloud, path="turntable", out=tmp_path / "f", size=(48, 36), frames=1, options=options)
    frame = imageio.imread(tmp_path / "f" / "00000.png").astype(int)
    assert frame[6:17, ..., 1].mean() > 3 * frame[6:17, ..., 0].mean()


def test_bounds_hold_what_can_be_seen(cloud):
    scene = SplatSource("x", cloud).scene()
    assert torch.allclose(scene.center, torch.tensor([1.0, 2.0, 3.0]), atol=0.2)
    assert 1.9 < scene.side < 2.6
    cloud.opacity_logits.fill_(-9.0)
    with pytest.raises(DataError, match="x: holds no Gaussian that could be seen"):
        SplatSource("x", cloud).scene()


def test_paths_that_need_a_capture(cloud, tmp_path):
    with pytest.raises(InputError, match="no cameras for the path 'orbit'; use turntable"):
        video(cloud, path="orbit", out=tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
def test_frames_before_compression_are_those_of_pictures(cloud, tmp_path, monkeypatch, suffix):
    program = tmp_path / "ffmpeg"
    program.write_text(
        f"#!/bin/sh\nfor last; do :; done\n[ -s {tmp_path}/raw ] || cat > {tmp_path}/raw\n"
        'echo made > "$last"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(program))
    asked = {"path": "turntable", "size": (64, 48), "frames": 3}
    video(cloud, out=tmp_path / f"a{suffix}", **asked)
    video(cloud, out=tmp_path / "frames", **asked)
    pictures = [imageio.imread(path) for path in sorted((tmp_path / "frames").iterdir())]
    assert np.concatenate(pictures).max() > 100
    assert (tmp_path / "raw").read_bytes() == b"".join(p.tobytes() for p in pictures)


def test_the_command(cloud, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_splats(cloud, "a.splat")
    words = "render a.splat --width 32 --height 24 --frames 2 --background white"
    assert main([*words.split(), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["path"] == "turntable" and result["out"] == ["a-turntable.mp4"]
    frames = imageio.imread("a-turntable.mp4", plugin="FFMPEG")
    assert frames.shape == (2, 24, 32, 3) and frames[:, 0].mean() > 245
    for more, text in (
        ("--compare test", "--compare is for runs"),
        ("--path orbit", "use turntable"),
    ):
        assert main(["render", "a.splat", *more.split()]) == 2
        assert text in capsys.readouterr().err
    assert main(["render", "none.ply"]) == 2
    assert "none.ply: no such file" in capsys.readouterr().err


def test_sources(cloud, tmp_path):
    assert open_source(cloud, background="white").background == "white"
    with pytest.raises(DataError, match="no such run folder"):
        open_source(tmp_path / "none")
