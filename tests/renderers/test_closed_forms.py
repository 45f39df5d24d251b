"""Frames of analytic fields against their closed forms. The bounds follow from the step length h:
sums over steps miss an integral by at most h at a hard edge, and hardly at all where it is smooth.
"""

import math

import pytest
import torch

from lumigraph.core import CameraModel, Cameras
from lumigraph.core.transforms import look_at

SIDE, DISTANCE = 4.0, 6.0  # of the bounds in scene units; camera to their middle
COLOR = torch.tensor([0.8, 0.3, 0.1])
STEP = math.sqrt(3) / 1024  # grid units


def middle(image: torch.Tensor) -> torch.Tensor:
    return image[image.shape[0] // 2, image.shape[1] // 2]


@pytest.mark.parametrize("density", [0.5, 3.0, 20.0])
@pytest.mark.parametrize("background", [0.0, 1.0])
def test_a_box_of_constant_density(analytic, make_renderer, make_camera, density, background):
    half = 0.2
    field = analytic("box", density, half)
    frame = make_renderer(background=background).render(field, make_camera())
    through = math.exp(-density * 2 * half)
    opacity = 1 - through
    tolerance = density * STEP * through + 1e-4
    assert float(middle(frame.opacity)) == pytest.approx(opacity, abs=tolerance)
    color = COLOR * opacity + background * through
    assert torch.allclose(middle(frame.color), color, atol=tolerance + 1e-4)
    # mean of the exponential distribution cut at the far side
    inside = 1 / density - 2 * half * through / opacity
    depth = DISTANCE + (inside - half) * SIDE
    assert float(middle(frame.depth)) == pytest.approx(depth, abs=STEP * SIDE)
    corner = frame.opacity[0, 0]
    assert float(corner) == 0 and float(frame.depth[0, 0]) == 0
    assert torch.equal(frame.color[0, 0], torch.full((3,), background))


def test_a_gaussian_ball_everywhere_in_the_picture(analytic, make_renderer, make_camera):
    density, size, pixels = 9.0, 0.1, 15
    camera = make_camera(pixels, focal=40.0)
    frame = make_renderer().render(analytic("gaussian", density, size), camera)
    rays = camera.image_rays(0)
    toward = (torch.tensor([1.0, -2.0, 0.5]) - rays.origins) / SIDE
    along = (toward * rays.directions).sum(dim=1)
    square = toward.square().sum(dim=1) - along**2
    thickness = density * size * math.sqrt(2 * math.pi) * torch.exp(-square / (2 * size**2))
    opacity = (1 - torch.exp(-thickness)).reshape(pixels, pixels)
    assert float(opacity.max()) > 0.85 and float(opacity.min()) < 0.2
    assert torch.allclose(frame.opacity, opacity, atol=2e-4)
    assert torch.allclose(frame.color, opacity[..., None] * COLOR, atol=2e-4)


def test_a_thin_ball_has_the_depth_of_its_middle(analytic, make_renderer, make_camera):
    # where next to nothing is absorbed the mean distance is that of the closest point
    frame = make_renderer().render(analytic("gaussian", 0.05, 0.05), make_camera())
    assert float(middle(frame.depth)) == pytest.approx(DISTANCE, abs=0.01)


def test_depth_is_along_the_axis_not_along_the_ray(analytic, make_renderer, make_camera):
    frame = make_renderer().render(analytic("box", 3000.0, 0.25), make_camera(21, focal=40.0))
    face = DISTANCE - 0.25 * SIDE
    opaque = frame.opacity > 0.99
    assert int(opaque.sum()) > 200
    assert float((frame.depth[opaque] - face).abs().max()) < 2 * STEP * SIDE


def test_an_opaque_surface_hides_the_background(analytic, make_renderer, make_camera):
    frame = make_renderer(background=1.0).render(analytic("box", 3000.0, 0.2), make_camera())
    assert torch.allclose(middle(frame.color), COLOR, atol=1e-4)  # the early stop leaves 1e-4


def test_surroundings_in_cascades(analytic, make_renderer, make_camera):
    """A box that is larger than the bounds, seen from inside the outer cascades. Steps grow with
    the distance, to 1/256 of it."""
    field = analytic("box", 0.2, 1.2, cascades=3)
    frame = make_renderer(cascades=3).render(field, make_camera())
    # the camera is inside: from 1.5 in front of the middle to the far side
    thickness = 0.2 * (1.2 + min(1.2, DISTANCE / SIDE))
    assert float(middle(frame.opacity)) == pytest.approx(1 - math.exp(-thickness), abs=3e-3)


def test_near_is_in_grid_units(analytic, make_renderer, make_camera):
    field = analytic("box", 2.0, 0.25)
    whole = make_renderer().render(field, make_camera())
    half = make_renderer(near=DISTANCE / SIDE).render(field, make_camera())
    assert float(middle(whole.opacity)) == pytest.approx(1 - math.exp(-1.0), abs=2e-3)
    assert float(middle(half.opacity)) == pytest.approx(1 - math.exp(-0.5), abs=3e-3)


def test_normals_of_a_ball_point_outward(analytic, make_renderer, make_camera):
    radius, pixels = 0.3, 31
    camera = make_camera(pixels, focal=70.0)
    frame = make_renderer().render(analytic("ball", 2000.0, radius), camera, normals=True)
    rays = camera.image_rays(0)
    distance = frame.depth.reshape(-1) / camera.depth_factors(rays)
    points = rays.points(distance) - torch.tensor([1.0, -2.0, 0.5])
    normal = torch.nn.functional.normalize(points, dim=1)
    slope = -(normal * rays.directions).sum(dim=1)
    facing = (frame.opacity.reshape(-1) > 0.99) & (slope > 0.5)  # within 60 degrees
    assert int(facing.sum()) > 200
    assert float((points[facing].norm(dim=1) / SIDE - radius).abs().max()) < 0.01
    found = frame.normal.reshape(-1, 3)
    cosine = (found * normal).sum(dim=1)[facing]
    assert float(torch.rad2deg(torch.acos(cosine.clamp(max=1))).max()) < 1.0
    length = found.norm(dim=1)
    assert torch.allclose(length[facing], torch.ones_like(length[facing]), atol=1e-5)
    assert float(frame.opacity[0, 0]) < 1e-6 and float(length[0]) == 0


def test_an_orthographic_camera(analytic, make_renderer, make_camera):
    pixels, per_unit, half = 20, 5.0, 0.25
    camera = make_camera(pixels, focal=per_unit, model=CameraModel.ORTHOGRAPHIC)
    frame = make_renderer().render(analytic("box", 3000.0, half), camera)
    side = 2 * half * SIDE * per_unit  # 10 pixels
    opaque = frame.opacity > 0.5
    assert int(opaque.sum()) == int(side) ** 2
    assert float((frame.depth[opaque] - (DISTANCE - half * SIDE)).abs().max()) < 2 * STEP * SIDE


def test_a_fisheye_camera(analytic, make_renderer, make_camera):
    radius, focal = 0.35, 60.0
    camera = make_camera(41, focal=focal, model=CameraModel.FISHEYE)
    frame = make_renderer().render(analytic("ball", 3000.0, radius, edge=2e-4), camera)
    # an equidistant lens shows a ball in front of it as a disc
    edge = focal * math.asin(radius * SIDE / DISTANCE)
    opaque = int((frame.opacity > 0.5).sum())
    assert opaque == pytest.approx(math.pi * edge**2, rel=0.03)


def test_an_equirectangular_camera_sees_all_around(analytic, make_renderer):
    field = analytic("box", 1.0, 0.4)
    pose = look_at(
        torch.tensor([1.0, -2.0, 0.5]), torch.tensor([1.0, -2.0, 9.0]), up=(0.0, -1.0, 0.0)
    )
    camera = Cameras.from_intrinsics(pose, 16, 8, model=CameraModel.EQUIRECTANGULAR)
    frame = make_renderer().render(field, camera)
    # from the middle of the box a ray leaves it where its longest component reaches a face
    reach = 0.4 / camera.image_rays(0).directions.abs().amax(dim=1)
    expected = (1 - torch.exp(-reach)).reshape(8, 16)
    assert torch.allclose(frame.opacity, expected, atol=2 * STEP)
