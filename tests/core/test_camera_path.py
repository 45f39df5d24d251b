"""Camera paths: files, smoothness, and shapes that fit a capture."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from lumigraph.core import CameraPath, Cameras, DataError, InputError, Keyframe, Scene, cube
from lumigraph.core.path_shapes import fields_of_view, focus, spread_tour
from lumigraph.core.transforms import look_at


def ring_scene(*, arc: float = 2 * math.pi, count: int = 24, target: float = 0.2) -> Scene:
    """Cameras on a ring of radius 4, one unit above their target, world up = z."""
    angles = torch.arange(count) * (arc / count)
    middle = torch.tensor([target, 0.0, 0.0])
    positions = torch.stack([4 * angles.cos(), 4 * angles.sin(), torch.ones(count)], dim=-1)
    poses = look_at(positions + middle, middle, up=[0.0, 0.0, 1.0])
    return Scene(
        name="ring",
        source="memory",
        cameras=Cameras.from_intrinsics(poses, 300, 400, 350.0),
        splits={"train": torch.arange(count)},
        bounds=cube(torch.zeros(3), 3.0),
    )


def facing_scene() -> Scene:
    """Cameras on a small plane that all look along z."""
    poses = torch.eye(4).repeat(9, 1, 1)
    poses[:, 0, 3] = torch.arange(9) % 3 - 1.0
    poses[:, 1, 3] = torch.div(torch.arange(9), 3, rounding_mode="floor") - 1.0
    return Scene(
        name="facing",
        source="memory",
        cameras=Cameras.from_intrinsics(poses, 400, 300, 350.0, times=torch.arange(9) / 8),
        splits={"train": torch.arange(9)},
        bounds=cube(torch.tensor([0.0, 0.0, 6.0]), 6.0),
    )


def path_of(count: int, *, loop: bool = False) -> CameraPath:
    angles = torch.arange(count) * (2 * math.pi / count)
    positions = torch.stack([angles.cos(), angles.sin(), torch.zeros(count)], dim=-1)
    poses = look_at(2 * positions, torch.zeros(3), up=[0.0, 0.0, 1.0])
    frames = [Keyframe(float(i), pose, 40.0 + i, i / count) for i, pose in enumerate(poses)]
    return CameraPath(frames, duration=count if loop else count - 1, fps=10, loop=loop)


@pytest.mark.parametrize("loop", [False, True])
def test_file_round_trip(tmp_path: Path, loop: bool) -> None:
    path = path_of(5, loop=loop)
    path.to_file(tmp_path / "path.json")
    assert [file.name for file in tmp_path.iterdir()] == ["path.json"]
    again = CameraPath.from_file(tmp_path / "path.json")
    assert (again.fps, again.duration, again.loop) == (path.fps, path.duration, path.loop)
    ours, theirs = path.cameras(32, 24), again.cameras(32, 24)
    torch.testing.assert_close(ours.camera_to_world, theirs.camera_to_world)
    torch.testing.assert_close(ours.intrinsics, theirs.intrinsics)
    assert ours.times is not None and theirs.times is not None
    torch.testing.assert_close(ours.times, theirs.times)


def test_keyframes_are_met_and_motion_is_smooth() -> None:
    path = path_of(8, loop=True)
    cameras = path.cameras(64, 48)
    assert len(cameras) == path.frame_count == 80
    keyed = torch.stack([frame.camera_to_world for frame in path.keyframes])
    torch.testing.assert_close(cameras.camera_to_world[::10], keyed, atol=1e-6, rtol=0)
    steps = (cameras.positions - cameras.positions.roll(1, dims=0)).norm(dim=-1)
    # A circle by 8 keyframes: even speed, no jump at the seam, within 2% of the radius.
    assert float(steps.max() / steps.min()) < 1.3
    assert float((cameras.positions.norm(dim=-1) - 2).abs().max()) < 0.06
    turns = (cameras.forwards * cameras.forwards.roll(1, dims=0)).sum(dim=-1)
    assert float(turns.min()) > math.cos(math.radians(7))


def test_open_path_ends_at_the_last_keyframe() -> None:
    path = path_of(4)
    cameras = path.cameras(8, 8, frames=5)
    torch.testing.assert_close(cameras.positions[-1], path.keyframes[-1].camera_to_world[:3, 3])
    assert len(path.cameras(8, 8)) == 31
    assert len(path.cameras(8, 8, frames=1)) == 1


@pytest.mark.parametrize("loop", [False, True])
def test_a_moment_is_that_of_the_frames(loop: bool) -> None:
    path = path_of(4, loop=loop)
    cameras = path.cameras(40, 30)
    assert cameras.times is not None
    for index in (0, 7, 25):
        pose, angle, time = path.view_at(index / path.fps)
        torch.testing.assert_close(pose, cameras.camera_to_world[index])
        focal = 15 / math.tan(math.radians(angle) / 2)
        assert float(cameras.intrinsics[index, 0]) == pytest.approx(focal, rel=1e-5)
        assert time == pytest.approx(float(cameras.times[index]), abs=1e-6)
    ends = (path.view_at(-1.0), path.view_at(path.duration + 1.0))
    wanted = (3.0, 1.0) if loop else (0.0, 3.0)
    for (pose, _, _), seconds in zip(ends, wanted, strict=True):
        torch.testing.assert_close(pose, path.view_at(seconds)[0])


@pytest.mark.parametrize("loop", [False, True])
def test_time_runs_once_and_never_back(loop: bool, tmp_path: Path) -> None:
    path = path_of(4, loop=loop).following_time(0.2, 0.8)
    times = path.cameras(8, 6).times
    assert times is not None
    torch.testing.assert_close(times, torch.linspace(0.2, 0.8, path.frame_count))
    assert path.view_at(path.duration / 2)[2] == pytest.approx(0.5)
    if loop:  # a player goes round
        assert path.view_at(1.5 * path.duration)[2] == pytest.approx(0.5)
    path.to_file(tmp_path / "path.json")
    again = CameraPath.from_file(tmp_path / "path.json")
    torch.testing.assert_close(again.cameras(8, 6).times, times)
    assert [frame.time for frame in again.keyframes] == [0.0, 0.25, 0.5, 0.75]


def test_time_stands_still_while_the_camera_moves() -> None:
    path = path_of(4, loop=True)
    frozen = path.with_time(0.3)
    torch.testing.assert_close(frozen.cameras(8, 6).times, torch.full((40,), 0.3))
    assert torch.equal(frozen.cameras(8, 6).positions, path.cameras(8, 6).positions)
    assert frozen.view_at(1.234)[2] == pytest.approx(0.3)
    single = CameraPath([Keyframe(0.0, torch.eye(4), 60.0)], duration=0.0).with_time(0.4)
    assert single.view_at(0.0)[2] == pytest.approx(0.4)
    assert single.cameras(8, 6).times.tolist() == pytest.approx([0.4])


@pytest.mark.parametrize("change", [lambda p: p.with_time(1.5), lambda p: p.following_time(-1, 1)])
def test_times_out_of_range_are_refused(change) -> None:
    with pytest.raises(InputError, match=r"time must lie in \[0, 1\]; got"):
        change(path_of(4))


def test_field_of_view_is_across_the_shorter_side() -> None:
    frame = Keyframe(0.0, torch.eye(4), 90.0)
    path = CameraPath([frame], duration=0.0)
    for width, height in ((200, 100), (100, 200)):
        camera = path.cameras(width, height)
        assert camera.intrinsics[0, :2].tolist() == pytest.approx([50.0, 50.0])
    captured = ring_scene().cameras
    assert float(fields_of_view(captured)[0]) == pytest.approx(
        math.degrees(2 * math.atan(150 / 350)), rel=1e-6
    )


def test_orbit_of_a_full_capture() -> None:
    scene = ring_scene()
    torch.testing.assert_close(
        focus(scene).float(), torch.tensor([0.2, 0.0, 0.0]), atol=1e-5, rtol=0
    )
    cameras = CameraPath.orbit(scene, seconds=2.0, fps=24).cameras(30, 40)
    assert len(cameras) == 48
    offsets = cameras.positions - torch.tensor([0.2, 0.0, 0.0])
    torch.testing.assert_close(offsets[:, 2], torch.ones(48), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        offsets[:, :2].norm(dim=-1), torch.full((48,), 4.0), atol=0.01, rtol=0
    )
    toward = -offsets / offsets.norm(dim=-1, keepdim=True)
    assert float((toward * cameras.forwards).sum(dim=-1).min()) > 0.9999
    angles = torch.atan2(offsets[:, 1], offsets[:, 0]).sort().values
    assert float(torch.diff(angles).max()) < math.radians(10)
    assert float(cameras.intrinsics[0, 0]) == pytest.approx(35.0, rel=1e-4)


def test_orbit_stays_in_the_captured_arc() -> None:
    scene = ring_scene(arc=math.pi / 2)
    cameras = CameraPath.orbit(scene, seconds=2.0).cameras(30, 40)
    offsets = cameras.positions - torch.tensor([0.2, 0.0, 0.0])
    angles = torch.rad2deg(torch.atan2(offsets[:, 1], offsets[:, 0]))
    assert float(angles.min()) > -1
    assert float(angles.max()) < 91
    assert float(angles.max() - angles.min()) > 80


def test_spiral_stays_near_the_mean_view() -> None:
    scene = facing_scene()
    cameras = CameraPath.spiral(scene, seconds=2.0).cameras(40, 30)
    assert float(cameras.positions[:, :2].abs().max()) < 1.2
    assert float(cameras.forwards[:, 2].min()) > 0.95
    torch.testing.assert_close(cameras.times, torch.linspace(0, 1, 60))  # the scene has times


def test_captured_shows_every_camera() -> None:
    scene = facing_scene()
    cameras = CameraPath.captured(scene).cameras(400, 300)
    torch.testing.assert_close(cameras.camera_to_world, scene.cameras.camera_to_world)
    torch.testing.assert_close(cameras.intrinsics, scene.cameras.intrinsics)
    torch.testing.assert_close(cameras.times, scene.cameras.times)


def test_a_standing_camera_sees_time_pass() -> None:
    scene = facing_scene()
    cameras = CameraPath.standing(scene, 4, seconds=1.0, fps=8).cameras(400, 300)
    poses = scene.cameras.camera_to_world[4].expand(9, 4, 4)
    torch.testing.assert_close(cameras.camera_to_world, poses)
    torch.testing.assert_close(cameras.times, torch.linspace(0, 1, 9))
    assert CameraPath.standing(ring_scene(), 0).cameras(4, 3).times is None
    with pytest.raises(InputError, match="has no camera 9; cameras are 0 to 8"):
        CameraPath.standing(scene, 9)


def test_interpolate_passes_through_spread_cameras() -> None:
    scene = ring_scene()
    order = spread_tour(scene.cameras, 6)
    assert len(set(order)) == 6
    path = CameraPath.interpolate(scene, views=6, seconds=1.0)
    assert len(path.keyframes) == 6
    assert len(CameraPath.interpolate(scene, views=99).keyframes) == 24


def write(tmp_path: Path, **changes: object) -> Path:
    keyframe = {"seconds": 0, "camera_to_world": torch.eye(4).tolist(), "field_of_view": 40}
    content: dict = {
        "format": "lumigraph-camera-path",
        "version": 1,
        "fps": 30,
        "duration": 1,
        "loop": False,
        "keyframes": [keyframe, keyframe | {"seconds": 1}],
    }
    file = tmp_path / "path.json"
    content.update(changes)
    file.write_text(json.dumps({key: value for key, value in content.items() if value != "drop"}))
    return file


def entry(**changes: object) -> list[dict]:
    """Two keyframes, the first of them changed."""
    keyframe: dict = {"seconds": 0, "camera_to_world": torch.eye(4).tolist(), "field_of_view": 40}
    changed = {key: value for key, value in (keyframe | changes).items() if value != "drop"}
    return [changed, keyframe | {"seconds": 1}]


def at_seconds(*seconds: float) -> list[dict]:
    return [entry(seconds=value)[0] for value in seconds]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "is not a camera path"),
        ({"version": 2}, '"version" must be 1; got 2'),
        ({"fps": "drop"}, "lacks the key 'fps'"),
        ({"fps": 0}, "fps must be a positive number"),
        ({"fps": "30"}, "fps must be a number; got '30'"),
        ({"speed": 3}, "unknown key 'speed'"),
        ({"loop": 1}, '"loop" must be true or false'),
        ({"loop": True}, "duration of a loop must go beyond"),
        ({"duration": 0.5}, "duration must reach the last keyframe"),
        ({"keyframes": []}, "needs at least two keyframes; got 0"),
        ({"keyframes": at_seconds(0)}, "needs at least two keyframes; got 1: add another view"),
        ({"keyframes": {}}, '"keyframes" must be a list'),
        ({"keyframes": [3, 4]}, "keyframe 0 must be an object"),
        ({"keyframes": entry(field_of_view="drop")}, "keyframe 0 lacks the key 'field_of_view'"),
        ({"keyframes": entry(field_of_view=180)}, "keyframe 0: field_of_view must be between"),
        ({"keyframes": entry(camera_to_world=[[1, 0], [0, 1]])}, "keyframe 0: .*must be 4x4"),
        ({"keyframes": entry(camera_to_world=[[1, 0], [0]])}, "keyframe 0: .*4 rows of 4 numbers"),
        ({"keyframes": entry(camera_to_world=[[math.nan] * 4] * 4)}, "keyframe 0: .*NaN"),
        ({"keyframes": entry(time=2)}, r"keyframe 0: time must lie in \[0, 1\]"),
        ({"time_span": [0, 2]}, r"path.json: time must lie in \[0, 1\]; got 2"),
        ({"time_span": 0.5}, '"time_span" must be two times'),
        ({"keyframes": at_seconds(0.5, 1)}, "keyframe 0 is at 0.5 s; seconds must start at 0"),
        (
            {"keyframes": at_seconds(0, 2, 1)},
            "keyframe 2 at 1 s does not come after keyframe 1 at 2 s; list keyframes in the order",
        ),
        ({"keyframes": at_seconds(0, 0)}, "keyframe 1 at 0 s does not come after keyframe 0"),
    ],
)
def test_wrong_files_name_the_file_and_the_fault(
    tmp_path: Path, changes: dict, message: str
) -> None:
    file = write(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as caught:
        CameraPath.from_file(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_file_that_is_missing_or_no_json(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: cannot be read"):
        CameraPath.from_file(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("hello")
    with pytest.raises(DataError, match=r"text\.json: is not JSON"):
        CameraPath.from_file(tmp_path / "text.json")
    with pytest.raises(InputError, match="needs at least two keyframes; got 1"):
        path_of(1).to_file(tmp_path / "still.json")
    assert not (tmp_path / "still.json").exists()
    with pytest.raises(DataError, match="cannot be written"):
        path_of(3).to_file(tmp_path / "missing" / "path.json")


def test_wishes_that_cannot_be_met() -> None:
    with pytest.raises(InputError, match="width and height must be at least 1"):
        path_of(3).cameras(0, 4)
    with pytest.raises(InputError, match="frames must be at least 1"):
        path_of(3).cameras(4, 4, frames=0)
    with pytest.raises(InputError, match="at most 1,000,000; got 100000001"):
        dataclasses.replace(path_of(3), duration=1e7).cameras(4, 4)
    with pytest.raises(InputError, match="seconds must be a finite number"):
        path_of(3).view_at(math.nan)
    with pytest.raises(InputError, match="seconds must be a positive number"):
        CameraPath.orbit(ring_scene(), seconds=0)
    with pytest.raises(InputError, match="views must be at least 2"):
        CameraPath.interpolate(ring_scene(), views=1)


def test_turntable_goes_all_around_at_its_elevation():
    scene = ring_scene(arc=math.pi)
    path = CameraPath.turntable(scene, elevation=30.0, up=(0.0, 0.0, 1.0))
    assert path.loop
    positions = path.cameras(8, 8, frames=12).positions - scene.center
    radius = positions.norm(dim=1)
    torch.testing.assert_close(radius, radius[:1].expand(12), rtol=1e-3, atol=0)
    torch.testing.assert_close(positions[:, 2] / radius, torch.full((12,), 0.5), rtol=1e-3, atol=0)
    assert positions.mean(dim=0)[:2].abs().max() < 1e-3 * radius[0]
    far = (scene.cameras.positions - scene.center).norm(dim=1).median()
    assert float(radius[0]) == pytest.approx(float(far), rel=1e-3)
    low = CameraPath.turntable(ring_scene(), elevation=-5.0).keyframes[0].camera_to_world[2, 3]
    assert low < 0  # what is up in the images is up


def test_turntable_without_cameras_and_with_another_up():
    scene = ring_scene()
    empty = dataclasses.replace(scene, cameras=scene.cameras[:0], splits={})
    cameras = CameraPath.turntable(empty, elevation=-10.0, up=(0.0, -2.0, 0.0)).cameras(8, 8, 6)
    offsets = cameras.positions - empty.center
    slope = offsets[:, 1] / offsets.norm(dim=1)
    torch.testing.assert_close(slope, torch.full((6,), 0.17365), atol=1e-3, rtol=0)
    assert (cameras.camera_to_world[:, 1, 1] > 0.9).all()  # y of the image is y of the scene
    for bad in ({"elevation": 90.0}, {"elevation": math.nan}, {"up": (0.0, 0.0, 0.0)}):
        with pytest.raises(InputError, match="elevation|up"):
            CameraPath.turntable(empty, **bad)
