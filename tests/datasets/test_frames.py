"""A folder for each moment, and files whose frames carry a time: one scene with times."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lumigraph import datasets, export
from lumigraph.core.errors import DataError
from lumigraph.datasets.inspection import inspect


def refused(path: Path, *parts: str, **options) -> None:
    with pytest.raises(DataError) as caught:
        datasets.load(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def sequence(capture, write: str, count: int = 3, start: int = 0) -> Path:
    """A folder of frames, each a tiny capture of the same cameras with pictures of its own."""
    root = capture.root
    for number in range(start, start + count):
        capture.root = root / f"frame_{number:03d}"
        capture.root.mkdir(parents=True)
        getattr(capture, write)()
        capture.pixels = 255 - np.roll(capture.pixels, 1, axis=0)
    capture.root = root
    return root


@pytest.mark.parametrize("write", ["neus", "transforms", "llff", "colmap", "blender"])
def test_frames_of_every_format_become_one_scene(capture, write) -> None:
    root = sequence(capture, write, start=1)
    single = datasets.load(root / "frame_001")
    scene = datasets.load(root)
    count = len(single.cameras)
    assert len(scene.cameras) == 3 * count and scene.name == root.name
    assert scene.moments.tolist() == [0.0, 0.5, 1.0]
    assert torch.equal(scene.bounds, single.bounds) and scene.near == single.near
    assert torch.equal(scene.normalization.to_matrix(), single.normalization.to_matrix())
    for moment in range(3):
        there = scene.at_moment(moment)
        alone = datasets.load(root / f"frame_{moment + 1:03d}")
        assert torch.equal(there.cameras.camera_to_world, single.cameras.camera_to_world)
        assert torch.equal(there.cameras.intrinsics, single.cameras.intrinsics)
        for index in range(count):
            assert torch.equal(there.images.load(index), alone.images.load(index))
    names = [scene.images.name(index) for index in range(len(scene.images))]
    assert len(set(names)) == len(names) and names[0].startswith("frame_001/")
    assert list(scene.notes) == []


def test_a_camera_is_for_testing_at_all_moments(capture) -> None:
    scene = datasets.load(sequence(capture, "neus"), split_every=3)
    assert scene.split("test").tolist() == [0, 3, 6, 9, 12, 15]
    labelled = datasets.load(sequence_of_blender(capture))
    assert [len(labelled.split(name)) for name in ("train", "val", "test")] == [12, 3, 3]


def sequence_of_blender(capture) -> Path:
    capture.root = capture.root.parent / "labelled"
    return sequence(capture, "blender")


def test_a_gap_names_the_missing_frame(capture) -> None:
    root = sequence(capture, "neus", count=6)
    shutil.rmtree(root / "frame_002")
    refused(root, "frame_002: this frame is missing between frame_001 and frame_003", "restore it")
    shutil.rmtree(root / "frame_003")
    refused(root, "frame_002: this frame to frame_003 is missing between frame_001 and frame_004")


def test_broken_frames_are_named(capture) -> None:
    root = sequence(capture, "neus")
    shutil.copytree(root / "frame_002", root / "frame_2")
    refused(root, "frame_002", "frame_2", "the same frame")
    shutil.rmtree(root / "frame_2")
    (root / "frame_001" / "cameras_sphere.npz").unlink()
    refused(root, "frame_001: this frame is not of format 'neus'", "cameras_sphere.npz")
    shutil.rmtree(root / "frame_001")
    (root / "frame_001").mkdir()
    refused(root, "frame_001: this frame folder is empty", "put its images")
    shutil.rmtree(root / "frame_000")
    (root / "frame_000").mkdir()
    refused(root, "frame_000: this frame folder is empty")


def test_a_frame_with_fewer_cameras_is_refused(capture) -> None:
    root = sequence(capture, "transforms")
    (root / "frame_001" / "images" / "003.png").unlink()
    refused(root, "frame_001: 5 images, frame_000 has 6", "one image of every camera")


def test_a_frame_with_several_times_is_refused(capture) -> None:
    root = sequence(capture, "transforms", count=1)
    file = root / "frame_000" / "transforms.json"
    table = json.loads(file.read_text())
    for index, frame in enumerate(table["frames"]):
        frame["time"] = index / 5
    file.write_text(json.dumps(table))
    refused(root, "frame_000: its images are of several times", "one folder for each time")


def test_cameras_that_move_are_noted(capture) -> None:
    root = sequence(capture, "transforms")
    file = root / "frame_002" / "transforms.json"
    table = json.loads(file.read_text())
    table["frames"][0]["transform_matrix"][0][3] += 1.0
    file.write_text(json.dumps(table))
    (note,) = datasets.load(root).notes
    assert "in 1 frames (first: frame_002)" in note and "one frame of the world" in note


def timed(capture, *, moments: int = 4) -> Path:
    """A transforms.json in which the six cameras are seen at several times."""
    folder = capture.transforms()
    table = capture.read_transforms()
    table["frames"] = [
        {**frame, "file_path": f"images/{index}_{moment}.png", "time": moment / (moments - 1)}
        for index, frame in enumerate(table["frames"])
        for moment in range(moments)
    ]
    for index in range(6):
        for moment in range(moments):
            shutil.copy(folder / f"images/{index:03d}.png", folder / f"images/{index}_{moment}.png")
    capture.write_transforms(table)
    return folder


def test_a_whole_rig_is_reported_without_problems(capture) -> None:
    report = inspect(datasets.load(timed(capture), split_every=0))
    assert report.moments.count == 4 and report.moments.cameras == 6
    assert (report.moments.images_least, report.moments.images_most) == (6, 6)
    assert report.moments.missing == [] and report.baselines.nearest_least > 1
    (line,) = [line for line in report.lines() if line.startswith("moments")]
    assert line.split(maxsplit=1)[1] == "4 from time 0 to 1, 6 images each, 6 cameras"
    assert report.to_dict()["moments"]["count"] == 4


def test_missing_moments_of_a_camera_are_listed(capture) -> None:
    folder = timed(capture)
    table = capture.read_transforms()
    table["frames"] = [
        frame
        for frame in table["frames"]
        if not frame["file_path"].startswith(("images/2_1", "images/2_2"))
    ]
    capture.write_transforms(table)
    report = inspect(datasets.load(folder))
    assert (report.moments.images_least, report.moments.images_most) == (5, 6)
    expected = "the camera of images/2_0.png lacks 2 of 4 moments (0.3333, 0.6667)"
    assert report.moments.missing == [expected] and expected in report.problems


def test_a_camera_that_wanders_lacks_nothing(capture) -> None:
    folder = capture.transforms()
    table = capture.read_transforms()
    for index, frame in enumerate(table["frames"]):
        frame["time"] = index / 5
    capture.write_transforms(table)
    report = inspect(datasets.load(folder))
    assert report.moments.count == 6 and report.moments.missing == []


def test_every_nth_takes_whole_cameras_where_times_differ(capture) -> None:
    scene = datasets.load(timed(capture), split_every=3)
    assert scene.split("test").tolist() == [0, 1, 2, 3, 12, 13, 14, 15]


def test_one_camera_at_one_time_twice_is_refused(capture) -> None:
    folder = timed(capture)
    table = capture.read_transforms()
    table["frames"][5]["time"] = 0.0
    capture.write_transforms(table)
    refused(folder, "images/1_0.png and images/1_1.png are of one camera at one time, 0.0")


def test_many_cameras_at_one_time_in_blender_files(alpha_capture) -> None:
    """As D-NeRF writes it: times and intrinsics in each frame, splits in files."""
    folder = alpha_capture.blender()
    for split in ("train", "test"):
        file = folder / f"transforms_{split}.json"
        table = json.loads(file.read_text())
        frames = [
            {**frame, "time": moment / 2, "fl_x": 15.0 + camera, "fl_y": 16.0, "w": 12, "h": 10}
            for moment in range(3)
            for camera, frame in enumerate(table["frames"])
        ]
        for moment, frame in enumerate(frames):
            name = f"./all/{split}_{moment:02d}"
            shutil.copy(folder / f"{frame['file_path']}.png", folder / f"{name}.png")
            frame["file_path"] = name
        file.write_text(json.dumps({**table, "frames": frames}))
    (folder / "transforms_val.json").unlink()
    scene = datasets.load(folder)
    assert scene.moments.tolist() == [0.0, 0.5, 1.0]
    assert len(scene.split("train")) == 12 and len(scene.split("test")) == 3
    there = scene.at_moment(1)
    assert there.cameras.intrinsics[:4, 0].tolist() == [15.0, 16.0, 17.0, 18.0]
    assert len({scene.images.name(index) for index in range(15)}) == 15
    assert scene.has_alpha and scene.background == "white"


def test_cameras_of_a_moving_scene_keep_their_times_in_files(capture, tmp_path) -> None:
    scene = datasets.load(sequence(capture, "neus"))
    export.cameras(scene, out=tmp_path / "out" / "transforms.json")
    again = datasets.load(tmp_path / "out")
    assert torch.equal(again.cameras.times, scene.cameras.times)
    assert {name: split.tolist() for name, split in again.splits.items()} == {
        name: split.tolist() for name, split in scene.splits.items()
    }
    assert torch.equal(again.images.load(13), scene.images.load(13))


def test_the_dynamic_data_of_the_project(real_data) -> None:
    scene = datasets.load(real_data("synth_dynamic"))
    report = inspect(scene)
    assert report.moments.count == 24 and report.moments.cameras == 14
    assert (report.moments.images_least, report.moments.images_most) == (14, 14)
    assert report.problems == []
    there = scene.at_moment(5)
    assert len(there.split("train")) == 12 and len(there.split("test")) == 2
    for name in ("dnerf_texture", "dnerf_collision"):
        report = inspect(datasets.load(real_data(name)))
        assert report.moments.count == 150 and report.moments.cameras == 12
        assert report.moments.missing == []
