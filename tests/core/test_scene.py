"""Scenes, frames, rays and samples: checks, selection, pictures of channels."""

import math

import pytest
import torch

from lumigraph.core import (
    Cameras,
    DataError,
    Frame,
    ImageSource,
    InputError,
    MemoryImages,
    PointCloud,
    Rays,
    Samples,
    Scene,
    Similarity,
    cube,
)


def make_scene(**changes: object) -> Scene:
    images = [torch.full((4, 6, 3), value, dtype=torch.uint8) for value in range(5)]
    arguments: dict = {
        "name": "five",
        "source": "memory",
        "cameras": Cameras.from_intrinsics(torch.eye(4).repeat(5, 1, 1), 6, 4, 5.0),
        "images": MemoryImages(images),
        "splits": {"train": torch.tensor([0, 2, 4]), "test": torch.tensor([1, 3])},
        "bounds": cube(torch.zeros(3), 2.0),
    }
    return Scene(**(arguments | changes))


def test_split_names_what_is_there() -> None:
    scene = make_scene(splits={"train": torch.tensor([0]), "val": torch.tensor([]).long()})
    with pytest.raises(DataError, match=r"memory: 'test' is no such split; available: train$"):
        scene.split("test")
    with pytest.raises(DataError, match="'val' is an empty split"):
        scene.split("val")


def test_select_keeps_images_and_splits_together() -> None:
    part = make_scene().select([4, 1])
    assert len(part.cameras) == 2
    assert isinstance(part.images, ImageSource)
    assert [int(part.images.load(i)[0, 0, 0]) for i in range(2)] == [4, 1]
    assert (part.images.size(0), part.images.name(0), len(part.images)) == ((6, 4), "0004", 2)
    assert part.split("train").tolist() == [0]
    assert part.split("test").tolist() == [1]


def test_moments_are_the_different_times() -> None:
    poses = torch.eye(4).repeat(5, 1, 1)
    times = torch.tensor([0.5, 0.0, 0.5, 1.0, 0.0])
    scene = make_scene(cameras=Cameras.from_intrinsics(poses, 6, 4, 5.0, times=times))
    assert scene.moments is not None
    assert scene.moments.tolist() == [0.0, 0.5, 1.0]
    part = scene.at_moment(1)
    assert part.images is not None
    assert [part.images.name(i) for i in range(len(part.images))] == ["0000", "0002"]
    assert part.split("train").tolist() == [0, 1]
    with pytest.raises(IndexError, match="moment 3 of 3"):
        scene.at_moment(3)
    assert make_scene().moments is None
    with pytest.raises(DataError, match="has no times"):
        make_scene().at_moment(0)


def test_to_source_undoes_the_normalization() -> None:
    move = Similarity(0.5, torch.eye(3), torch.tensor([1.0, 2.0, 3.0]))
    scene = make_scene(normalization=move)
    points = torch.randn(4, 3)
    torch.testing.assert_close(scene.to_source(move.apply(points)), points)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bounds": torch.zeros(3, 2)}, r"bounds must have shape \(2, 3\)"),
        ({"bounds": torch.zeros(2, 3)}, "positive sides"),
        ({"bounds": torch.tensor([[0.0, 0, 0], [1, 1, 2]])}, "bounds must be a cube"),
        ({"bounds": torch.full((2, 3), math.nan)}, "bounds must be a finite box"),
        ({"aabb_scale": 3}, "aabb_scale must be a power of two"),
        ({"aabb_scale": 256}, "aabb_scale must be a power of two"),
        ({"background": "red"}, "background must be white, black or None"),
        ({"near": -1.0}, "near must be"),
        ({"splits": {"train": torch.tensor([5])}}, "split 'train' names cameras beyond 4"),
        ({"images": MemoryImages([])}, "memory: 0 images for 5 cameras"),
    ],
)
def test_scenes_that_cannot_be(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_scene(**changes)


def test_memory_images_refuse_other_formats() -> None:
    with pytest.raises(InputError, match="image 0 must be uint8"):
        MemoryImages([torch.zeros(2, 2, 3)])
    with pytest.raises(DataError, match="3 or 4 channels; got 2"):
        MemoryImages([torch.zeros(2, 2, 2, dtype=torch.uint8)])


def test_point_cloud_checks() -> None:
    assert len(PointCloud(torch.zeros(4, 3))) == 4
    with pytest.raises(InputError, match="colors must have shape"):
        PointCloud(torch.zeros(4, 3), torch.zeros(3, 3))


def make_frame() -> Frame:
    depth = torch.linspace(1, 3, 20).reshape(4, 5)
    opacity = torch.ones(4, 5)
    opacity[0, 0] = 0
    normal = torch.zeros(4, 5, 3)
    normal[..., 2] = 1
    heat = torch.linspace(0, 7, 20).reshape(4, 5)
    return Frame(torch.rand(4, 5, 3) * 1.2, opacity, depth, normal, {"heat": heat})


@pytest.mark.parametrize("name", ["color", "rgb", "opacity", "depth", "normal", "heat"])
def test_channels_are_pictures(name: str) -> None:
    picture = make_frame().channel(name)
    assert picture.shape == (4, 5, 3)
    assert float(picture.min()) >= 0 and float(picture.max()) <= 1


def test_channel_details() -> None:
    frame = make_frame()
    torch.testing.assert_close(frame.channel("rgb"), frame.color.clamp(0, 1))
    assert frame.channel("depth")[0, 0].tolist() == [0, 0, 0]
    assert frame.channel("normal")[1, 1].tolist() == [0.5, 0.5, 1.0]
    near = frame.channel("depth", depth_range=(1.0, 3.0))
    # Near is warm: more red than blue; far is cold.
    assert float(near[0, 1, 0]) > float(near[0, 1, 2])
    assert float(near[3, 4, 2]) > float(near[3, 4, 1])
    with pytest.raises(
        InputError, match="channel 'albedo' is not in this frame; choose from color"
    ):
        frame.channel("albedo")


def test_empty_and_broken_frames_still_show() -> None:
    nothing = torch.zeros(2, 2)
    frame = Frame(torch.full((2, 2, 3), math.nan), nothing, torch.full((2, 2), math.inf))
    for name in frame.channels:
        assert bool(torch.isfinite(frame.channel(name)).all())
    assert frame.depth_range() == (0.0, 1.0)


def test_frame_sizes_must_agree() -> None:
    with pytest.raises(InputError, match=r"depth must have shape \(H, W\) with H = 4, W = 5"):
        Frame(torch.zeros(4, 5, 3), torch.zeros(4, 5), torch.zeros(5, 4))


def test_rays_select_chunk_and_join() -> None:
    rays = Rays(torch.randn(7, 3), torch.randn(7, 3), camera_indices=torch.arange(7))
    parts = list(rays.chunks(3))
    assert [len(part) for part in parts] == [3, 3, 1]
    again = Rays.concatenate(parts)
    torch.testing.assert_close(again.origins, rays.origins)
    assert again.camera_indices is not None and again.times is None
    assert rays[torch.tensor([5])].camera_indices.tolist() == [5]
    assert rays.points(torch.ones(7, 4)).shape == (7, 4, 3)
    near = torch.zeros(7)
    with pytest.raises(InputError, match="near must be in all batches"):
        Rays.concatenate(
            [rays, Rays(rays.origins, rays.directions, rays.camera_indices, near=near)]
        )
    with pytest.raises(InputError, match=r"directions must have shape \(N, 3\) with N = 7"):
        Rays(rays.origins, torch.zeros(6, 3))


def test_samples_check_their_sizes() -> None:
    with pytest.raises(InputError, match=r"steps must have shape \(M,\) with M = 3"):
        Samples(
            positions=torch.zeros(3, 3),
            ray_indices=torch.zeros(3),
            ray_offsets=torch.zeros(2, 2),
            distances=torch.zeros(3),
            steps=torch.zeros(2),
        )
