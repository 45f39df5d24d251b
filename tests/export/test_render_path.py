"""Camera paths rendered with a model whose pictures are known in closed form."""

import dataclasses

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from lumigraph.core import Cameras, Frame, InputError, MemoryImages, Scene, cube
from lumigraph.core.camera_path import CameraPath
from lumigraph.core.transforms import look_at
from lumigraph.export import PathOptions, camera_path, render_cameras, video


class Gradient:
    """Red tells the camera's height, green and blue the column and row; depth is a ramp whose
    far end differs from frame to frame."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[int, int], tuple[str, ...]]] = []

    def render(self, cameras: Cameras, *, channels=("color",)) -> Frame:
        assert len(cameras) == 1
        width, height = cameras.size(0)
        self.calls.append(((width, height), tuple(channels)))
        column = torch.linspace(0, 1, width).expand(height, width)
        row = torch.linspace(0, 1, height)[:, None].expand(height, width)
        lift = float(cameras.positions[0, 2])
        red = torch.full_like(row, 0.5 + 0.1 * lift)
        normal = torch.zeros(height, width, 3)
        normal[..., 2] = 1.0
        depth = 2.0 + column * (1.0 if len(self.calls) % 2 else 3.0)
        return Frame(
            color=torch.stack([red, column, row], dim=-1),
            opacity=(row < 0.5).float(),
            depth=depth,
            normal=normal if "normal" in channels else None,
        )


class FakeRun:
    """What `video` needs of a run."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.gradient = Gradient()

    def scene(self) -> Scene:
        return self._scene

    def model(self, device=None) -> Gradient:
        self.device = device
        return self.gradient


@pytest.fixture
def scene() -> Scene:
    angles = torch.linspace(0, 6.0, 12)
    eyes = [torch.tensor([4 * a.cos(), 4 * a.sin(), 1.0]) for a in angles]
    up = torch.tensor([0.0, 0.0, 1.0])
    poses = torch.stack([look_at(eye, torch.zeros(3), up=up) for eye in eyes])
    cameras = Cameras.from_intrinsics(poses, 40, 30, 40.0)
    images = MemoryImages([torch.zeros(30, 40, 3, dtype=torch.uint8)] * 12)
    splits = {"train": torch.arange(12)}
    bounds = cube(torch.zeros(3), 3.0)
    return Scene("ring", "memory", cameras, splits, bounds, images=images)


def pictures(folder) -> np.ndarray:
    return np.stack([imageio.imread(path) for path in sorted(folder.iterdir())])


def test_color_frames_are_what_the_model_says(scene, tmp_path):
    cameras = CameraPath.orbit(scene).cameras(20, 10, 4)
    seen = []
    rendered = render_cameras(
        Gradient(), cameras, tmp_path / "frames", on_frame=lambda *place: seen.append(place)
    )
    assert rendered.frames == 4 and rendered.paths == (tmp_path / "frames",)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    stack = pictures(tmp_path / "frames")
    assert stack.shape == (4, 10, 20, 3)
    assert stack[0, 0, 0, 1] == 0 and stack[0, 0, -1, 1] == 255 and stack[0, -1, 0, 2] == 255


def test_channels_side_by_side(scene, tmp_path):
    cameras = CameraPath.orbit(scene).cameras(20, 10, 2)
    options = PathOptions(channels=("opacity", "rgb", "normal"))
    render_cameras(Gradient(), cameras, tmp_path / "frames", options=options)
    stack = pictures(tmp_path / "frames")
    assert stack.shape == (2, 10, 60, 3)
    assert (stack[:, :5, :20] == 255).all() and (stack[:, 5:, :20] == 0).all()
    assert (stack[:, :5, 40:] == (128, 128, 255)).all()


def test_depth_colors_do_not_flicker(scene, tmp_path):
    """The near edge has the same depth in every frame and must have the same color, although the
    range of single frames changes threefold."""
    cameras = CameraPath.orbit(scene).cameras(20, 10, 6)
    options = PathOptions(channels=("depth",))
    render_cameras(Gradient(), cameras, tmp_path / "frames", options=options)
    stack = pictures(tmp_path / "frames")
    assert (stack[:, 0, 0] == stack[0, 0, 0]).all()
    assert stack[0, 0, 0].sum() > 0


def test_first_look_is_small(scene, tmp_path):
    model = Gradient()
    cameras = CameraPath.orbit(scene).cameras(400, 200, 8)
    render_cameras(model, cameras, tmp_path / "v.mp4", options=PathOptions(channels=("depth",)))
    looks = [call for call in model.calls if call[0] != (400, 200)]
    assert len(looks) == 5 and all(size == (96, 48) for size, _ in looks)


@pytest.mark.parametrize("suffix", [".mp4", ""])
def test_separate_files_render_each_view_once(scene, tmp_path, suffix):
    model = Gradient()
    cameras = CameraPath.orbit(scene).cameras(20, 10, 3)
    options = PathOptions(channels=("rgb", "opacity"), layout="separate")
    rendered = render_cameras(model, cameras, tmp_path / f"out{suffix}", options=options)
    assert len(model.calls) == 3
    names = [str(path.relative_to(tmp_path)) for path in rendered.paths]
    expected = ["out-rgb.mp4", "out-opacity.mp4"] if suffix else ["out/rgb", "out/opacity"]
    assert names == expected and all(path.exists() for path in rendered.paths)


def test_video_of_a_run(scene, tmp_path):
    run = FakeRun(scene)
    rendered = video(run, path="orbit", out=tmp_path / "v.mp4", size=(80, None), frames=5)
    assert rendered.frames == 5
    assert {size for size, _ in run.gradient.calls} == {(80, 60)}
    metadata = imageio.immeta(tmp_path / "v.mp4", plugin="FFMPEG")
    assert metadata["size"] == (80, 60) and metadata["fps"] == 30


def test_frames_follow_from_rate_and_duration(scene, tmp_path):
    path = dataclasses.replace(CameraPath.orbit(scene), duration=6.0)
    options = PathOptions(fps=2.0)
    rendered = video(FakeRun(scene), path=path, out=tmp_path / "v.mp4", options=options)
    assert rendered.frames == 12


@pytest.mark.parametrize("name", ["orbit", "turntable", "spiral", "captured", "interpolate"])
def test_paths_by_name(scene, tmp_path, name):
    rendered = video(FakeRun(scene), path=name, out=tmp_path / "frames", size=(8, 6), frames=3)
    assert rendered.frames == 3


def test_path_from_a_file(scene, tmp_path):
    CameraPath.captured(scene).to_file(tmp_path / "tour.json")
    read = camera_path(scene, tmp_path / "tour.json")
    assert len(read.keyframes) == 12


@pytest.mark.parametrize(
    ("name", "message"),
    [("circle", "orbit, turntable, spiral"), ("missing.json", "missing.json")],
)
def test_unknown_paths(scene, name, message):
    with pytest.raises(InputError, match=message):
        camera_path(scene, name)


@pytest.mark.parametrize(
    ("channels", "message"),
    [((), "empty"), (("rgb", "heat"), "'heat' is unknown"), (("rgb", "rgb"), "once")],
)
def test_bad_channels(channels, message):
    with pytest.raises(InputError, match=message):
        PathOptions(channels=channels)


@pytest.mark.parametrize("size", [(0, 10), (10, -1), (10**6, 10)])
def test_bad_sizes(scene, tmp_path, size):
    with pytest.raises(InputError, match="expected 1 to 16384"):
        video(FakeRun(scene), path="orbit", out=tmp_path / "v.mp4", size=size)


def test_existing_target_is_refused_before_rendering(scene, tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"earlier")
    run = FakeRun(scene)
    with pytest.raises(InputError, match="--overwrite"):
        video(run, path="orbit", out=tmp_path / "v.mp4")
    assert run.gradient.calls == []
