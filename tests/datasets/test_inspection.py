"""Inspection reports and the picture of cameras and points."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lumigraph.core.cameras import CameraModel, Cameras
from lumigraph.core.errors import DataError
from lumigraph.core.scene import MemoryImages, PointCloud, Scene, cube
from lumigraph.core.transforms import Similarity, look_at
from lumigraph.datasets import inspection, scene_picture


def ring_scene(count=24, *, radius=4.0, **changes):
    """Cameras on a circle that look at the origin."""
    angle = 2 * math.pi * torch.arange(count) / count
    positions = torch.stack([radius * angle.cos(), radius * angle.sin(), torch.ones(count)], -1)
    poses = look_at(positions, torch.zeros(3), up=[0.0, 0.0, 1.0])
    images = MemoryImages([torch.zeros(6, 8, 3, dtype=torch.uint8)] * count)
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(500, 3, generator=generator) * 1.6 - 0.8
    base = Scene(
        name="ring",
        source="memory",
        cameras=Cameras.from_intrinsics(poses, 8, 6, 8.0),
        splits={"train": torch.arange(0, count, 2), "test": torch.arange(1, count, 2)},
        bounds=cube(torch.zeros(3), 2.0),
        images=images,
        points=PointCloud(points, (points * 100 + 100).to(torch.uint8)),
        normalization=Similarity(0.5, torch.eye(3), torch.zeros(3)),
    )
    return replace(base, **changes)


def test_a_sound_scene_has_true_numbers_and_no_problems():
    report = inspection.inspect(ring_scene())
    assert report.problems == []
    assert (report.images, report.sizes, report.camera_models) == (24, {"8x6": 24}, {"pinhole": 24})
    assert report.splits == {"train": 12, "test": 12}
    assert report.points == 500
    assert report.points_in_bounds == report.points_in_surroundings == 1.0
    assert report.source_scale == pytest.approx(2.0)
    assert report.camera_distance == pytest.approx((math.sqrt(17), math.sqrt(17)), abs=1e-5)
    assert report.field_of_view == pytest.approx([2 * math.degrees(math.atan(0.5))] * 2, abs=1e-2)
    gaps = report.baselines
    assert gaps.nearest_median == pytest.approx(2 * 4 * math.sin(math.pi / 24), abs=1e-5)
    assert gaps.arrangement == "inward"
    chord = math.sin(math.pi / 24) * 4 / math.sqrt(17)
    assert gaps.angle_median == pytest.approx(2 * math.degrees(math.asin(chord)), abs=1e-2)


def test_the_report_is_text_and_json():
    report = inspection.inspect(ring_scene(notes=["one image was skipped"]))
    assert json.loads(json.dumps(report.to_dict()))["baselines"]["arrangement"] == "inward"
    lines = report.lines()
    text = "\n".join(lines)
    assert all("\n" not in line for line in lines)
    assert lines[-1] == f"{'problem':<15}  one image was skipped"
    for piece in ("8x6 (24)", "train (12), test (12)", "pinhole", "500, 100% in the bounds"):
        assert piece in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"splits": {"train": torch.arange(3)}}, "3 training images are few"),
        ({"bounds": cube(torch.tensor([50.0, 0, 0]), 2.0)}, "21 cameras see neither"),
        ({"points": PointCloud(torch.full((40, 3), 1.5))}, "only 0% of the points"),
        ({"points": PointCloud(torch.full((40, 3), 9.0))}, "larger aabb_scale"),
        ({"images": None}, "no images"),
        (
            {"images": MemoryImages([torch.zeros(5, 8, 3, dtype=torch.uint8)] * 24)},
            r"24 images differ in size from their camera, first 0000 \(8x5\)",
        ),
    ],
)
def test_problems_are_named(changes, words):
    problems = inspection.inspect(ring_scene(**changes)).problems
    with pytest.raises(AssertionError, match=words):
        raise AssertionError("; ".join(problems))


def test_twins_and_far_test_cameras_are_named():
    scene = ring_scene()
    poses = scene.cameras.camera_to_world.clone()
    poses[2] = poses[0]
    poses[3, :3, 3] *= 5
    problems = inspection.inspect(replace(scene, cameras=scene.cameras.with_poses(poses))).problems
    assert problems == [
        "2 cameras share their pose with another one",
        "1 test cameras are far from every training camera",
    ]


def test_moving_scenes_may_repeat_their_cameras():
    scene = ring_scene()
    poses = scene.cameras.camera_to_world.clone()
    poses[1] = poses[0]
    cameras = replace(scene.cameras.with_poses(poses), times=torch.linspace(0, 1, 24))
    report = inspection.inspect(replace(scene, cameras=cameras))
    assert report.times and report.problems == []


def test_forward_free_and_single_cameras():
    poses = torch.eye(4).repeat(12, 1, 1)
    poses[:, 0, 3] = torch.linspace(-0.5, 0.5, 12)
    poses[:, 2, 3] = -4
    splits = {"train": torch.arange(12)}
    row = ring_scene(12, splits=splits, cameras=Cameras.from_intrinsics(poses, 8, 6, 8.0))
    assert inspection.inspect(row).baselines.arrangement == "forward"
    outward = ring_scene(12).cameras.camera_to_world.clone()
    outward[:, :3, 0] *= -1
    outward[:, :3, 2] *= -1
    free = ring_scene(12, cameras=Cameras.from_intrinsics(outward, 8, 6, 8.0))
    assert inspection.inspect(free).baselines.arrangement == "free"
    alone = inspection.inspect(ring_scene().select([0]))
    assert alone.baselines is None and alone.lines()


def test_other_camera_models_have_no_field_of_view():
    poses = ring_scene().cameras.camera_to_world
    cameras = Cameras.from_intrinsics(poses, 8, 6, 3.0, model=CameraModel.ORTHOGRAPHIC)
    report = inspection.inspect(ring_scene(cameras=cameras))
    assert report.field_of_view == (0.0, 0.0)
    assert not any(line.startswith("field of view") for line in report.lines())


def test_the_picture_shows_cameras_points_and_bounds(tmp_path):
    path = inspection.save_picture(ring_scene(), tmp_path / "ring.png")
    assert [item.name for item in tmp_path.iterdir()] == ["ring.png"]
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    red, green, blue = picture[..., 0], picture[..., 1], picture[..., 2]
    assert ((blue > red + 100) & (blue > green + 60)).sum() > 500, "training cameras"
    assert ((red > blue + 100) & (red > green + 40)).sum() > 500, "test cameras"
    assert (picture.min(axis=-1) > 250).mean() > 0.7, "mostly white"


def test_pictures_of_bare_scenes_and_odd_cameras(tmp_path):
    poses = ring_scene().cameras.camera_to_world
    models = [CameraModel(index % 5) for index in range(24)]
    cameras = Cameras.from_intrinsics(poses, 8, 6, 8.0, model=models)
    bare = ring_scene(cameras=cameras, points=None, images=None, splits={})
    assert inspection.save_picture(bare, tmp_path / "bare.svg").stat().st_size > 1000


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"expected a picture name"):
        inspection.save_picture(ring_scene(), tmp_path / "x.txt")
    with pytest.raises(DataError, match=r"cannot write the picture"):
        inspection.save_picture(ring_scene(), tmp_path / "nowhere" / "x.png")


def test_upright_turns_any_direction_to_z():
    generator = np.random.default_rng(0)
    for direction in [*generator.normal(size=(5, 3)), np.zeros(3), np.array([0.0, 0, -1])]:
        rotation = scene_picture._upright(direction)
        assert np.allclose(rotation @ rotation.T, np.eye(3))
        assert np.linalg.det(rotation) == pytest.approx(1)
        if direction.any():
            unit = direction / np.linalg.norm(direction)
            assert np.allclose(rotation @ unit, [0, 0, 1])
