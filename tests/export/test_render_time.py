"""Moving models along camera paths: where the one Gaussian is seen tells the time of a frame."""

import json
from dataclasses import replace

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from lumigraph.cli import main
from lumigraph.core import CameraPath, Cameras, InputError, Keyframe, Scene, cube
from lumigraph.core.transforms import look_at
from lumigraph.export import PathOptions, comparison, video
from lumigraph.export.path_time import time_span


class FakeRun:
    """What `video` needs of a run."""

    def __init__(self, scene: Scene, model) -> None:
        self._scene, self._model = scene, model

    def scene(self) -> Scene:
        return self._scene

    def model(self, device=None):
        return self._model


@pytest.fixture
def run(drifting_model) -> FakeRun:
    """Four cameras in a row that look at the Gaussian's way, each at its own time."""
    eyes = torch.tensor([[0.1 * i, -4.0, 0.0] for i in range(4)])
    poses = torch.stack([look_at(eye, torch.zeros(3), up=[0.0, 0.0, 1.0]) for eye in eyes])
    times = torch.tensor([0.0, 1.0, 0.5, 0.25])
    cameras = Cameras.from_intrinsics(poses, 64, 32, 60.0, times=times)
    scene = Scene("row", "memory", cameras, {"train": torch.arange(4)}, cube(torch.zeros(3), 3.0))
    return FakeRun(scene, drifting_model)


def moments(folder) -> list[float]:
    """The time that each picture shows: the column of the red spot, from the camera (0, -4, 0)."""
    found = []
    for path in sorted(folder.iterdir()):
        red = imageio.imread(path)[..., 0].astype(float)
        column = (red.sum(axis=0) * (np.arange(64) + 0.5)).sum() / red.sum()
        found.append(((column - 32) / 60 * 4 + 1) / 2)
    return found


CLOSE = {"abs": 0.01}  # of a pixel that is 0.033 of the time wide; the spot has many


def test_time_runs_once_over_a_standing_camera(run, tmp_path):
    video(run, path="camera:0", out=tmp_path / "f", frames=5)
    assert moments(tmp_path / "f") == pytest.approx([0, 0.25, 0.5, 0.75, 1], **CLOSE)


@pytest.mark.parametrize(
    ("span", "shown"), [((0.3, 0.3), [0.3] * 3), ((0.8, 0.2), [0.8, 0.5, 0.2])]
)
def test_time_as_asked(run, tmp_path, span, shown):
    video(run, path="camera:0", out=tmp_path / "f", frames=3, options=PathOptions(time_span=span))
    assert moments(tmp_path / "f") == pytest.approx(shown, **CLOSE)


def test_captured_cameras_keep_their_times_unless_frozen(run, tmp_path):
    video(run, path="captured", out=tmp_path / "own")
    seen = np.array(moments(tmp_path / "own"))
    assert seen == pytest.approx([0.0, 1.0, 0.5, 0.25], abs=0.06)  # cameras stand up to 0.3 aside
    options = PathOptions(time_span=(0.5, 0.5))
    video(run, path="captured", out=tmp_path / "frozen", options=options)
    assert moments(tmp_path / "frozen") == pytest.approx([0.5] * 4, abs=0.01)


def test_paths_without_time_let_it_run_and_others_keep_theirs(run, tmp_path):
    pose = run.scene().cameras.camera_to_world[0]
    still = CameraPath([Keyframe(0.0, pose, 29.9), Keyframe(1.0, pose, 29.9)], duration=1.0)
    video(run, path=still, out=tmp_path / "runs", frames=3)
    assert moments(tmp_path / "runs") == pytest.approx([0, 0.5, 1], **CLOSE)
    kept = replace(still, keyframes=[replace(k, time=0.75) for k in still.keyframes])
    video(run, path=kept, out=tmp_path / "kept", frames=2)
    assert moments(tmp_path / "kept") == pytest.approx([0.75] * 2, **CLOSE)


def test_a_loop_shows_each_time_once(run, tmp_path):
    seen = []
    render = run.model().renderer.render
    run.model().renderer.render = lambda field, cameras, **more: (
        seen.append(float(cameras.times[0])) or render(field, cameras, **more)
    )
    for name in ("orbit", "turntable", "spiral", "interpolate"):
        seen.clear()
        video(run, path=name, out=tmp_path / name, size=(16, 8), frames=6)
        assert seen == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])


@pytest.mark.parametrize("text", ["0.3.1", "fast", "0.2:", "0:0.5:1", ""])
def test_words_that_are_no_time(text):
    with pytest.raises(InputError, match=r"give a time in \[0, 1\], two of them as 0.2:0.8, or"):
        time_span(text)


@pytest.mark.parametrize("text", ["1.5", "-0.1", "nan", "0:2"])
def test_times_out_of_range(text):
    with pytest.raises(InputError, match=r"time must lie in \[0, 1\]; got"):
        time_span(text)


def test_unknown_camera(run, tmp_path):
    with pytest.raises(InputError, match="has no camera 4; cameras are 0 to 3"):
        video(run, path="camera:4", out=tmp_path / "f")


def test_time_of_what_does_not_move(random_cloud, tmp_path, capsys):
    from lumigraph.export import write_splats

    write_splats(random_cloud(20), tmp_path / "still.ply")
    words = ["render", str(tmp_path / "still.ply"), "--time", "0.3", "--out", str(tmp_path / "f")]
    assert main(words) == 2
    error = capsys.readouterr().err.strip()
    assert error.endswith("still.ply: nothing moves in it; leave the time away")
    assert not (tmp_path / "f").exists()
    assert main([*words[:2], "--time", "noon", "--json"]) == 2
    assert "time 'noon'" in json.loads(capsys.readouterr().out)["error"]


def test_comparisons_have_the_times_of_the_photographs(run, tmp_path):
    from lumigraph.core import MemoryImages

    images = MemoryImages([torch.zeros(32, 64, 3, dtype=torch.uint8)] * 4)
    run._scene = replace(run.scene(), images=images)
    comparison(run, views="all", out=tmp_path / "both")
    shown = imageio.imread(tmp_path / "both" / "00001.png")[:, 64:]
    assert shown[..., 0].sum(axis=0)[40:].sum() > 0.9 * shown[..., 0].sum()  # time 1: at the right
