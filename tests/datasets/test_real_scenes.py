"""Real and rendered scenes: conventions checked by numbers, not by eye.

The scenes are found by the fixture `real_data`; without them every test here is skipped.
"""

import json

import numpy as np
import pytest
import torch

from lumigraph import datasets
from lumigraph.core.cameras import CameraModel
from lumigraph.datasets.formats.colmap_model import read_model
from lumigraph.datasets.formats.ply import read_points
from lumigraph.datasets.images import decode_image


def axes_of(scene) -> tuple[np.ndarray, np.ndarray]:
    poses = scene.cameras.camera_to_world.double().numpy()
    return poses[:, :3, 3], poses[:, :3, 2]


def to_scene(scene, points: np.ndarray) -> torch.Tensor:
    return scene.normalization.apply(torch.from_numpy(points))


def double(scene):
    return scene.cameras.to(dtype=torch.float64)


def test_fox(real_data) -> None:
    scene = datasets.load(real_data("nerf_fox"))
    assert len(scene.cameras) == 50 and "17 of 67 images" in scene.notes[0]
    assert len(scene.split("test")) == 7 and len(scene.split("train")) == 43
    assert set(scene.cameras.models.tolist()) == {CameraModel.OPENCV}
    np.testing.assert_allclose(
        scene.cameras.distortion[0, :4], [0.0578421, -0.0805099, -0.000980296, 0.00015575]
    )
    assert scene.aabb_scale == 4 and scene.side == pytest.approx(1 / 0.33)
    centers, forward = axes_of(scene)
    radius = np.linalg.norm(centers, axis=1)
    assert radius.min() > 3.5 and radius.max() < 6.5
    assert (np.einsum("ci,ci->c", -centers / radius[:, None], forward) > 0.9).all()
    assert np.abs(centers).max() < 0.5 * scene.side * scene.aabb_scale


def test_fox_at_a_quarter(real_data) -> None:
    scene = datasets.load(real_data("nerf_fox"), image_scale=0.25, split_every=8)
    assert scene.cameras.sizes[0].tolist() == [270, 480]
    assert float(scene.cameras.intrinsics[0, 0]) == pytest.approx(1375.52 / 4)
    full = decode_image(real_data("nerf_fox") / "images" / "0001.jpg", 3).astype(float)
    means = full.reshape(480, 4, 270, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(scene.images.load(0).numpy(), means, atol=0.51)


def test_lego_axes_meet_at_the_origin(real_data) -> None:
    scene = datasets.load(real_data("nerf_synthetic_lego"))
    assert {name: len(split) for name, split in scene.splits.items()} == {
        "train": 100,
        "val": 25,
        "test": 100,
    }
    assert scene.background == "white" and scene.has_alpha and scene.aabb_scale == 1
    assert scene.bounds.tolist() == [[-1.5] * 3, [1.5] * 3]
    centers, forward = axes_of(scene)
    closest = centers - np.einsum("ci,ci->c", centers, forward)[:, None] * forward
    np.testing.assert_allclose(np.linalg.norm(closest, axis=1), 0.0, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(centers, axis=1), 4.031, atol=2e-3)
    pixels, depth = scene.cameras.project(torch.zeros(225, 3), torch.arange(225))
    np.testing.assert_allclose(pixels, 200.0, atol=0.2)
    assert float(depth.min()) > 4.0


def test_lego_objects_lie_within_the_bounds(real_data) -> None:
    """No opaque pixel of twelve views has a ray that misses the cube."""
    scene = datasets.load(real_data("nerf_synthetic_lego"))
    for index in range(0, 100, 9):
        rays = scene.cameras.image_rays(index)
        opaque = scene.images.load(index)[..., 3].reshape(-1) > 0
        crossing = torch.sort(
            (scene.bounds[:, None] - rays.origins) / rays.directions, dim=0
        ).values
        hits = crossing[0].amax(dim=1) < crossing[1].amin(dim=1)
        assert bool(hits[opaque].all())


@pytest.mark.parametrize(("name", "height"), [("dnerf_collision", 0.5), ("dnerf_texture", 0.8)])
def test_dynamic_scenes(real_data, name, height) -> None:
    scene = datasets.load(real_data(name))
    times = scene.cameras.times[scene.split("train")]
    assert float(times.min()) == 0.0 and float(times.max()) == 1.0
    assert bool((times.diff() > 0).all())
    np.testing.assert_allclose(scene.center, [0, 0, height], atol=1e-3)
    assert len(scene.cameras.intrinsics[:, 0].unique()) == 3
    frames = json.loads((real_data(name) / "transforms_test.json").read_text())["frames"]
    focal = scene.cameras.intrinsics[scene.split("test"), 0]
    np.testing.assert_allclose(focal, [frame["fl_x"] for frame in frames], rtol=1e-6)


def test_colmap_points_project_onto_their_observations(real_data) -> None:
    path = real_data("colmap_can")
    scene = datasets.load(path)
    model = read_model(path / "sparse" / "0")
    place = {int(number): row for row, number in enumerate(model.point_ids)}
    cameras = double(scene)
    points = to_scene(scene, model.positions)
    errors = []
    for index, image in enumerate(sorted(model.images, key=lambda image: image.name)):
        assert scene.images.name(index) == f"images/{image.name}"
        seen = image.point_ids >= 0
        rows = [place[int(number)] for number in image.point_ids[seen]]
        pixels, depth = cameras.project(points[rows], index)
        assert bool((depth > scene.near).all())
        errors.append(np.linalg.norm(pixels.numpy() - image.keypoints[seen], axis=1))
    error = np.concatenate(errors)
    assert len(error) == 30_839
    assert np.median(error) < 0.7 and np.quantile(error, 0.95) < 3.0
    inside = (scene.points.positions.abs().amax(dim=1) <= scene.aabb_scale).float().mean()
    assert float(inside) >= 0.99


def test_colmap_folder_read_as_llff_has_the_same_centres(real_data) -> None:
    path = real_data("colmap_can")
    first, second = datasets.load(path), datasets.load(path, format="llff")
    centers = [
        scene.to_source(scene.cameras.camera_to_world[:, :3, 3].double())
        for scene in (first, second)
    ]
    np.testing.assert_allclose(centers[0], centers[1], atol=1e-5)


def test_fern_points_lie_between_near_and_far(real_data) -> None:
    path = real_data("llff_fern")
    scene = datasets.load(path)
    assert scene.cameras.sizes[0].tolist() == [504, 378]
    assert scene.split("test").tolist() == [0, 8, 16]
    bounds = np.load(path / "poses_bounds.npy")[:, 15:]
    cameras, points = double(scene), to_scene(scene, read_points(path / "points3d.ply")[0])
    scale = scene.normalization.scale
    assert scene.near == pytest.approx(0.9 * bounds[:, 0].min() * scale)
    for index in range(len(cameras)):
        pixels, depth = cameras.project(points, index)
        size = cameras.sizes[index]
        seen = (depth > 0) & ((pixels > 0) & (pixels < size)).all(dim=1)
        near, far = bounds[index] * scale
        within = ((depth[seen] >= 0.999 * near) & (depth[seen] <= 1.001 * far)).double().mean()
        assert float(within) > 0.99
        assert float(seen.double().mean()) > 0.5
    centers, forward = axes_of(scene)
    assert np.abs(centers).max() < scene.aabb_scale, "cameras are within the outermost cascade"
    assert (np.einsum("ci,ci->c", scene.center.numpy() - centers, forward) > 1.0).all()
    assert float((points.abs().amax(dim=1) < 1.0).double().mean()) > 0.7


def test_dtu_points_lie_in_the_sphere_and_on_the_masks(real_data) -> None:
    scene = datasets.load(real_data("dtu_scan24"))
    assert scene.bounds.tolist() == [[-1.0] * 3, [1.0] * 3]
    radius = np.linalg.norm(axes_of(scene)[0], axis=1)
    assert radius.min() > 2.7 and radius.max() < 3.0
    inside = scene.points.positions[scene.points.positions.norm(dim=1) < 0.9]
    for index in (0, 20, 40):
        pixels, _ = scene.cameras.project(inside, index)
        mask = scene.masks.load(index)
        column, row = pixels.floor().long().unbind(dim=1)
        seen = (column >= 0) & (column < 800) & (row >= 0) & (row < 600)
        assert float(mask[row[seen], column[seen]].float().mean()) > 0.7
        middle = scene.masks.load(index)[200:400, 300:500].float().mean()
        assert float(middle) > 0.5


def test_object_reads_alike_as_blender_and_as_neus(real_data) -> None:
    path = real_data("synth_object")
    blender, neus = datasets.load(path), datasets.load(path, format="neus")
    assert len(blender.split("train")) == len(neus.cameras) == 80
    points = np.random.default_rng(0).uniform(-1, 1, (50, 3))
    for index in range(80):
        assert blender.images.name(index) == neus.images.name(index)
        first, _ = double(blender).project(to_scene(blender, points), index)
        second, _ = double(neus).project(to_scene(neus, points), index)
        np.testing.assert_allclose(first, second, atol=1e-3)


def test_object_mesh_fills_the_silhouette(real_data) -> None:
    path = real_data("synth_object")
    scene = datasets.load(path)
    vertices, _ = read_points(path / "mesh.ply")
    index = int(scene.split("test")[4])
    pixels, _ = scene.cameras.project(to_scene(scene, vertices).float(), index)
    column, row = pixels.floor().long().clamp(0, 271).unbind(dim=1)
    assert float((scene.images.load(index)[row, column, 3] > 0).float().mean()) > 0.999


def test_street_splits_and_lidar(real_data) -> None:
    path = real_data("synth_street")
    scene = datasets.load(path)
    assert len(scene.split("train")) == 90 and len(scene.split("test")) == 10
    index = int(scene.split("test")[4])
    assert scene.images.name(index) == "image_0/0025.png"
    # Inverse depth is linear in the pixel on a plane, so it may be interpolated.
    inverse = 1.0 / torch.from_numpy(_sixteen_bits(path / "depth_0" / "0025.png") / 256.0)
    size = torch.tensor([448.0, 136.0])
    pixels, depth = scene.cameras.project(scene.points.positions, index)
    seen = (depth > 0) & ((pixels > 1) & (pixels < size - 1)).all(dim=1)
    metres = depth[seen] / scene.normalization.scale
    grid = (2.0 * pixels[seen] / size - 1.0)[None, None]
    truth = 1.0 / torch.nn.functional.grid_sample(inverse[None, None], grid, align_corners=False)
    truth = truth.flatten()
    visible = torch.isfinite(truth) & (metres < 1.05 * truth) & (metres < 40.0)
    error = (metres - truth)[visible].abs()
    assert int(visible.sum()) > 3000
    assert float(error.median()) < 0.05
    centers, _ = axes_of(scene)
    assert np.abs(centers).max() < 1.0


def _sixteen_bits(path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image).astype(np.float32)
