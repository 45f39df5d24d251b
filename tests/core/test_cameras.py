"""Cameras: projection and rays are inverses for every model; resizing and cropping keep rays."""

import math

import pytest
import torch

from lumigraph.core import CameraModel, Cameras, InputError
from lumigraph.core.transforms import look_at

# The lens of the fox capture (a phone held upright), the strongest real distortion of our data.
FOX = [0.0578421, -0.0805099, -0.000980296, 0.00015575]

LENSES = {
    "pinhole": (CameraModel.PINHOLE, None),
    "fox": (CameraModel.OPENCV, FOX),
    "no distortion": (CameraModel.OPENCV, None),
    "barrel": (CameraModel.OPENCV, [-0.3, 0.1, 0.001, -0.002, -0.02]),
    "pincushion": (CameraModel.OPENCV, [0.3, 0.1]),
    "rational": (CameraModel.OPENCV, [8.0, 5.0, 0.001, 0.001, 0.3, 8.2, 6.5, 1.0]),
    "fisheye": (CameraModel.FISHEYE, [-0.04, 0.01, -0.005, 0.001]),
    "equirectangular": (CameraModel.EQUIRECTANGULAR, None),
    "orthographic": (CameraModel.ORTHOGRAPHIC, None),
}


def make_cameras(lens: str, *, count: int = 3, dtype: torch.dtype = torch.float64) -> Cameras:
    model, distortion = LENSES[lens]
    generator = torch.Generator().manual_seed(5)
    positions = torch.randn(count, 3, generator=generator, dtype=torch.float64) + 2
    poses = look_at(positions, torch.zeros(3, dtype=torch.float64), up=[0.0, 0.0, 1.0])
    cameras = Cameras.from_intrinsics(
        poses, 1080, 1920, 1375.52, 1374.49, 554.558, 965.268, model=model, distortion=distortion
    )
    return cameras.to(dtype=dtype)


def random_pixels(count: int, *, seed: int = 1, margin: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    size = torch.tensor([1080.0, 1920.0], dtype=torch.float64)
    pixels = margin + unit * (size - 2 * margin)
    # The corners are the hardest; `margin` keeps off the poles, where longitude is arbitrary.
    corners = torch.tensor(
        [[margin, margin], [1080 - margin, margin], [margin, 1920 - margin], [540, 960]]
    )
    pixels[:4] = corners[:count]
    return pixels


def round_trip_error(cameras: Cameras, *, margin: float = 0.5) -> float:
    pixels = random_pixels(4000, margin=margin)
    indices = torch.arange(4000) % len(cameras)
    rays = cameras.rays(indices, pixels)
    distances = torch.linspace(0.3, 4, 4000, dtype=cameras.dtype)
    back, _ = cameras.project(rays.points(distances), indices)
    return float((back - pixels).abs().max())


@pytest.mark.parametrize("lens", LENSES)
def test_pixels_come_back_through_rays(lens: str) -> None:
    assert round_trip_error(make_cameras(lens)) < 1e-4


@pytest.mark.parametrize("lens", LENSES)
def test_pixels_come_back_in_float32(lens: str) -> None:
    # At 1920 pixels one float32 step is 1.2e-4 pixels, and about ten roundings add up. Near the
    # poles of a sphere a column is narrower than that, so its first and last rows stay out.
    margin = 100 if lens == "equirectangular" else 0.5
    assert round_trip_error(make_cameras(lens, dtype=torch.float32), margin=margin) < 2e-3


@pytest.mark.parametrize("lens", LENSES)
def test_points_come_back_through_pixels(lens: str) -> None:
    cameras = make_cameras(lens, count=1)
    rays = cameras.rays(torch.zeros(500, dtype=torch.int64), random_pixels(500, margin=0.5))
    points = rays.points(torch.linspace(1, 5, 500, dtype=torch.float64))
    pixels, _ = cameras.project(points, 0)
    again = cameras.rays(torch.zeros(500, dtype=torch.int64), pixels)
    offset = points - again.origins
    off_ray = torch.linalg.cross(offset, again.directions).norm(dim=-1)
    assert float(off_ray.max()) < 1e-6


def test_mixed_models_equal_each_alone() -> None:
    parts = [make_cameras(lens, count=1) for lens in LENSES]
    mixed = Cameras.concatenate(parts)
    assert round_trip_error(mixed) < 1e-4
    pixels = random_pixels(900)
    indices = torch.arange(900) % len(mixed)
    rays = mixed.rays(indices, pixels)
    for index, part in enumerate(parts):
        chosen = indices == index
        alone = part.rays(torch.zeros(int(chosen.sum()), dtype=torch.int64), pixels[chosen])
        torch.testing.assert_close(rays.directions[chosen], alone.directions)
        torch.testing.assert_close(rays.origins[chosen], alone.origins)


def test_one_camera_of_a_mixed_batch() -> None:
    mixed = Cameras.concatenate([make_cameras(lens, count=1) for lens in LENSES])
    for index in range(len(mixed)):
        rays = mixed.image_rays(index, step=240)
        pixels, _ = mixed.project(rays.points(torch.full((len(rays),), 2.0).double()), index)
        alone = mixed[index].image_rays(0, step=240)
        torch.testing.assert_close(rays.directions, alone.directions)
        torch.testing.assert_close(pixels[0], torch.tensor([120.0, 120.0]).double())
        assert bool(mixed.in_view(rays.points(torch.ones(len(rays)).double()), index).all())


def test_poses_rounded_in_a_file_still_come_back() -> None:
    # Six digits, as files often have: such rotations are off by 1e-6, a thousandth of a pixel.
    exact = make_cameras("fox")
    rounded = Cameras.from_intrinsics(
        (exact.camera_to_world * 1e6).round() / 1e6,
        *exact.size(0),
        *exact.intrinsics[0].tolist(),
        model=CameraModel.OPENCV,
        distortion=FOX,
    )
    assert round_trip_error(rounded) < 1e-4


@pytest.mark.parametrize("lens", LENSES)
def test_resize_keeps_rays(lens: str) -> None:
    cameras = make_cameras(lens)
    indices = torch.arange(300) % 3
    pixels = random_pixels(300)
    before = cameras.rays(indices, pixels)
    smaller = cameras.resized(0.25)
    after = smaller.rays(indices, pixels * 0.25)
    torch.testing.assert_close(before.directions, after.directions)
    torch.testing.assert_close(before.origins, after.origins)
    uneven = cameras.resized_to(100, 77)
    after = uneven.rays(indices, pixels * torch.tensor([100 / 1080, 77 / 1920]).double())
    torch.testing.assert_close(before.directions, after.directions, atol=1e-6, rtol=0)


@pytest.mark.parametrize("lens", LENSES)
def test_crop_keeps_rays(lens: str) -> None:
    cameras = make_cameras(lens)
    window = cameras.cropped(100, 200, 640, 480)
    assert window.size(2) == (640, 480)
    indices = torch.arange(300) % 3
    pixels = random_pixels(300)
    before = cameras.rays(indices, pixels)
    after = window.rays(indices, pixels - torch.tensor([100.0, 200.0]))
    torch.testing.assert_close(before.directions, after.directions)


def test_crop_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="must lie inside the image of 1080 x 1920"):
        make_cameras("pinhole").cropped(1000, 0, 100, 10)


def test_opencv_distortion_against_the_formula() -> None:
    # One point by hand: the order of coefficients and the two tangential terms.
    k1, k2, p1, p2, k3, k4, k5, k6 = 0.1, -0.05, 0.01, -0.02, 0.03, 0.04, -0.01, 0.02
    x, y = 0.3, -0.2
    r2 = x * x + y * y
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    expected_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    expected_y = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    cameras = Cameras.from_intrinsics(
        torch.eye(4, dtype=torch.float64),
        100,
        100,
        100.0,
        model=CameraModel.OPENCV,
        distortion=[k1, k2, p1, p2, k3, k4, k5, k6],
    )
    pixels, depth = cameras.project(torch.tensor([[2 * x, 2 * y, 2.0]], dtype=torch.float64), 0)
    assert pixels[0].tolist() == pytest.approx([100 * expected_x + 50, 100 * expected_y + 50])
    assert depth.tolist() == [2.0]


def test_fisheye_against_the_formula() -> None:
    k = [0.02, -0.01, 0.003, -0.001]
    cameras = Cameras.from_intrinsics(
        torch.eye(4, dtype=torch.float64), 200, 200, 50.0, model=CameraModel.FISHEYE, distortion=k
    )
    theta = 1.2
    point = torch.tensor([[math.sin(theta), 0.0, math.cos(theta)]], dtype=torch.float64)
    expected = theta * (1 + sum(k[i] * theta ** (2 * i + 2) for i in range(4)))
    pixels, _ = cameras.project(point, 0)
    assert pixels[0].tolist() == pytest.approx([100 + 50 * expected, 100.0])


def test_equirectangular_layout() -> None:
    cameras = Cameras.from_intrinsics(torch.eye(4), 400, 200, model=CameraModel.EQUIRECTANGULAR)
    directions = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0], [-1, 0, 0]])
    pixels, depth = cameras.project(directions * 3, 0)
    torch.testing.assert_close(pixels[0], torch.tensor([200.0, 100.0]))
    torch.testing.assert_close(pixels[1], torch.tensor([300.0, 100.0]))
    assert float(pixels[2, 1]) == pytest.approx(200.0)
    torch.testing.assert_close(pixels[3], torch.tensor([100.0, 100.0]))
    torch.testing.assert_close(depth, torch.full((4,), 3.0))


def test_orthographic_rays_are_parallel() -> None:
    cameras = make_cameras("orthographic", count=1)
    rays = cameras.image_rays(0, step=120)
    torch.testing.assert_close(rays.directions, cameras.forwards.expand_as(rays.directions))
    assert rays.origins.unique(dim=0).shape[0] == len(rays)


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_outside_stays_finite(lens: str, dtype: torch.dtype) -> None:
    cameras = make_cameras(lens, dtype=dtype)
    pixels = (random_pixels(3000) - 500) * torch.logspace(0, 5, 3000)[:, None]
    indices = torch.arange(3000) % 3
    rays = cameras.rays(indices, pixels)
    assert bool(torch.isfinite(rays.directions).all())
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(3000, dtype=dtype))
    points = torch.randn(3000, 3, dtype=dtype) * torch.logspace(-3, 3, 3000, dtype=dtype)[:, None]
    found, depth = cameras.project(points, indices)
    assert bool(torch.isfinite(found).all() and torch.isfinite(depth).all())


def test_lens_that_folds_shows_nothing_from_the_side() -> None:
    # Beyond 53 degrees the fox polynomial shrinks again and would show the side in the middle.
    cameras = make_cameras("fox", count=1)
    angles = torch.linspace(math.radians(55), math.radians(89), 50, dtype=torch.float64)
    local = torch.stack([angles.sin(), torch.zeros(50).double(), angles.cos()], dim=-1)
    points = local @ cameras.camera_to_world[0, :3, :3].T + cameras.positions[0]
    assert not bool(cameras.in_view(points, 0).any())


def test_in_view() -> None:
    cameras = Cameras.from_intrinsics(torch.eye(4), 4, 4, 4.0)
    points = torch.tensor([[0.0, 0, 1], [0, 0, -1], [0.6, 0, 1], [0.49, 0.49, 1]])
    assert cameras.in_view(points, 0).tolist() == [True, False, False, True]
    assert cameras.in_view(points, torch.zeros(4, dtype=torch.int64)).tolist() == [
        True,
        False,
        False,
        True,
    ]


def test_image_rays_are_row_major_pixel_centres() -> None:
    cameras = make_cameras("fox").resized_to(7, 5)
    rays = cameras.image_rays(1)
    x, y = torch.meshgrid(torch.arange(7) + 0.5, torch.arange(5) + 0.5, indexing="xy")
    pixels = torch.stack([x, y], dim=-1).reshape(-1, 2)
    expected = cameras.rays(torch.ones(35, dtype=torch.int64), pixels)
    torch.testing.assert_close(rays.directions, expected.directions)
    assert rays.camera_indices is not None
    assert rays.camera_indices.tolist() == [1] * 35
    assert len(cameras.image_rays(-1, step=2)) == 3 * 2
    assert len(cameras.image_rays(0, step=100)) == 1


def test_depth_factor_turns_distance_into_depth() -> None:
    cameras = make_cameras("fox")
    indices = torch.arange(60) % 3
    rays = cameras.rays(indices, random_pixels(60))
    distances = torch.linspace(1, 4, 60, dtype=torch.float64)
    _, depth = cameras.project(rays.points(distances), indices)
    torch.testing.assert_close(distances * cameras.depth_factors(rays), depth)


@pytest.mark.parametrize("lens", ["pinhole", "fox", "fisheye", "orthographic"])
def test_gradients_reach_poses_and_points(lens: str) -> None:
    cameras = make_cameras(lens, count=2)
    indices = torch.tensor([0, 1, 1])
    pixels = random_pixels(3)

    def directions(poses: torch.Tensor) -> torch.Tensor:
        rays = cameras.with_poses(poses).rays(indices, pixels)
        return torch.cat([rays.directions, rays.origins])

    poses = cameras.camera_to_world.clone().requires_grad_()
    assert torch.autograd.gradcheck(directions, (poses,))
    points = cameras.rays(indices, pixels).points(torch.ones(3).double()).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: cameras.project(p, indices), (points,))


def test_select_slice_and_iterate() -> None:
    cameras = make_cameras("pinhole", count=5)
    torch.testing.assert_close(cameras[-1].positions, cameras.positions[4:])
    torch.testing.assert_close(cameras[1:3].positions, cameras.positions[1:3])
    torch.testing.assert_close(cameras.select([4, 0]).positions, cameras.positions[[4, 0]])
    torch.testing.assert_close(cameras[torch.tensor([3])].positions, cameras.positions[3:4])
    assert [len(camera) for camera in cameras] == [1] * 5
    with pytest.raises(IndexError, match="camera 5 of 5"):
        cameras[5]


def test_times_follow_the_rays() -> None:
    poses = torch.eye(4).expand(2, 4, 4)
    cameras = Cameras.from_intrinsics(poses, 4, 4, 4.0, times=[0.25, 0.75])
    rays = cameras.rays(torch.tensor([1, 0]), torch.ones(2, 2))
    assert rays.times is not None
    assert rays.times.tolist() == [0.75, 0.25]


def test_the_same_cameras_at_another_time() -> None:
    cameras = Cameras.from_intrinsics(torch.eye(4).expand(2, 4, 4), 4, 4, 4.0)
    later = cameras.at_time(0.25)
    assert later.times is not None
    assert later.times.tolist() == [0.25, 0.25]
    assert later.at_time(None).times is None
    with pytest.raises(InputError, match=r"time must lie in \[0, 1\]; got 2"):
        cameras.at_time(2.0)


def test_no_rays_is_legal() -> None:
    for lens in LENSES:
        rays = make_cameras(lens).rays(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2))
        assert len(rays) == 0
