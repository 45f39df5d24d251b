"""Frames of Gaussians against closed forms: depths, normals, backgrounds, lenses."""

import math

import pytest
import torch

from lumigraph.core import CameraModel, Cameras, InputError
from lumigraph.core.gaussian_cloud import GaussianCloud
from lumigraph.core.transforms import look_at, rotation_from_quaternion
from lumigraph.fields import Gaussians
from lumigraph.renderers import Cancelled, SplatRenderer

BLACK = torch.zeros(3)


def sheet(depths: list[float], opacities: list[float], *, side: int = 24) -> Gaussians:
    """Flat layers across the view of a camera at the origin that looks along z."""
    line = torch.linspace(-2.5, 2.5, side)
    x, y = (part.reshape(-1) for part in torch.meshgrid(line, line, indexing="xy"))
    parts = []
    for depth, opacity in zip(depths, opacities, strict=True):
        count = side * side
        parts.append(
            GaussianCloud(
                torch.stack([x, y, torch.full_like(x, depth)], dim=1),
                torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
                torch.tensor([4.5 / side, 4.5 / side, 0.004]).log().repeat(count, 1),
                torch.full((count,), math.log(opacity / (1 - opacity))),
                torch.full((count, 1, 3), 0.5),
            )
        )
    return Gaussians(GaussianCloud.concatenate(parts))


def camera(**options) -> Cameras:
    return Cameras.from_intrinsics(torch.eye(4), 33, 25, 30.0, **options)


def middle(image: torch.Tensor) -> float:
    return float(image[12, 16])


def test_depth_of_one_opaque_sheet_is_its_own():
    frame = SplatRenderer(background=BLACK).render(sheet([2.0], [0.99]), camera())
    assert middle(frame.opacity) > 0.99
    assert middle(frame.depth) == pytest.approx(2.0, abs=1e-3)
    assert middle(frame.extras["median_depth"]) == pytest.approx(2.0, abs=1e-3)
    # along the optical axis: the same at the rim of the picture
    assert float(frame.depth[12, 30]) == pytest.approx(2.0, abs=1e-2)


def test_mean_depth_lies_between_two_sheets_and_the_median_on_one():
    frame = SplatRenderer(background=BLACK).render(sheet([2.0, 3.0], [0.05, 0.99]), camera())
    front = SplatRenderer(background=BLACK).render(sheet([2.0], [0.05]), camera())
    share = middle(front.opacity)
    assert 0.1 < share < 0.9
    assert middle(frame.depth) == pytest.approx(2 * share + 3 * (1 - share), abs=0.01)
    assert middle(frame.extras["median_depth"]) in (
        pytest.approx(2.0, abs=1e-3),
        pytest.approx(3.0, abs=1e-3),
    )


def test_nothing_has_neither_depth_nor_color():
    field = Gaussians(GaussianCloud.empty())
    frame = SplatRenderer(background=torch.tensor([0.1, 0.2, 0.3])).render(field, camera())
    assert frame.color.shape == (25, 33, 3)
    assert torch.allclose(frame.color, torch.tensor([0.1, 0.2, 0.3]).expand(25, 33, 3))
    assert not frame.opacity.any() and not frame.depth.any()
    assert not frame.extras["median_depth"].any() and frame.normal is None


def test_a_sky_is_seen_through_what_is_transparent():
    def sky(directions):
        return directions.abs()

    frame = SplatRenderer(background=sky).render(sheet([2.0], [0.05]), camera())
    seen = camera().image_rays(0).directions.abs().reshape(25, 33, 3)
    alone = SplatRenderer(background=BLACK).render(sheet([2.0], [0.05]), camera())
    wanted = alone.color + (1 - alone.opacity)[..., None] * seen
    assert torch.allclose(frame.color, wanted, atol=1e-5)


def test_normals_are_shortest_axes_turned_to_the_camera():
    field = sheet([2.0], [0.99])
    frame = SplatRenderer(background=BLACK).render(field, camera(), normals=True)
    assert frame.normal is not None
    assert torch.allclose(frame.normal[12, 16], torch.tensor([0.0, 0.0, -1.0]), atol=1e-4)
    # the same sheet from behind shows its other side
    pose = look_at(torch.tensor([0.0, 0, 4]), torch.tensor([0.0, 0, 0]), up=[0.0, -1, 0])
    behind = Cameras.from_intrinsics(pose, 33, 25, 30.0)
    frame = SplatRenderer(background=BLACK).render(field, behind, normals=True)
    assert torch.allclose(frame.normal[12, 16], torch.tensor([0.0, 0.0, 1.0]), atol=1e-4)
    length = frame.normal.norm(dim=2)
    assert bool(((length - 1).abs() < 1e-4).logical_or(length == 0).all())


def test_normals_follow_rotations():
    turn = torch.tensor([math.cos(0.3), math.sin(0.3), 0.0, 0.0])
    cloud = sheet([2.0], [0.99]).cloud()
    rotation = rotation_from_quaternion(turn)
    middle_point = torch.tensor([0.0, 0.0, 2.0])
    turned = GaussianCloud(
        (cloud.means - middle_point) @ rotation.T + middle_point,
        turn.repeat(len(cloud), 1) * 3,  # any length
        *cloud.tensors()[2:],
    )
    frame = SplatRenderer(background=BLACK).render(Gaussians(turned), camera(), normals=True)
    assert torch.allclose(frame.normal[12, 16], -rotation[:, 2], atol=1e-3)


def test_fisheye_depths_are_along_the_axis_too():
    fisheye = camera(model=CameraModel.FISHEYE)
    frame = SplatRenderer(background=BLACK).render(sheet([2.0], [0.99], side=60), fisheye)
    seen = frame.opacity[12] > 0.9
    assert int(seen.sum()) > 20
    # 25 degrees off the axis the distance is a tenth more than the depth
    assert float((frame.depth[12][seen] - 2).abs().max()) < 0.06
    assert float((frame.extras["median_depth"][12][seen] - 2).abs().max()) < 0.08


def test_near_hides_what_is_closer():
    field = sheet([0.5, 2.0], [0.99, 0.99])
    shown = SplatRenderer(background=BLACK, near=1.0).render(field, camera())
    assert middle(shown.depth) == pytest.approx(2.0, abs=1e-3)
    shown = SplatRenderer(background=BLACK, near=0.1).render(field, camera())
    assert middle(shown.depth) == pytest.approx(0.5, abs=5e-3)


def test_colors_stay_in_range_and_time_is_handed_on():
    class Moving:
        def __init__(self):
            self.asked = []

        def gaussians_at(self, time):
            self.asked.append(time)
            tensors = sheet([2.0], [0.99]).tensors
            return tensors._replace(harmonics=torch.full_like(tensors.harmonics, 9.0))

    field = Moving()
    frame = SplatRenderer(background=BLACK).render(field, camera().at_time(0.25))
    assert field.asked == [0.25] and float(frame.color.max()) == 1.0


def test_a_frame_can_be_given_up():
    told = []

    def stop(fraction):
        told.append(fraction)
        return True

    with pytest.raises(Cancelled):
        SplatRenderer(background=BLACK).render(sheet([2.0], [0.9]), camera(), on_chunk=stop)
    assert told == [0.0]


def test_a_camera_that_cannot_be_splatted_is_named():
    sphere = Cameras.from_intrinsics(torch.eye(4), 16, 8, model=CameraModel.EQUIRECTANGULAR)
    with pytest.raises(InputError, match="EQUIRECTANGULAR cannot be splatted"):
        SplatRenderer(background=BLACK).render(sheet([2.0], [0.9]), sphere)


def test_fewer_harmonics_can_be_shown():
    cloud = sheet([2.0], [0.99]).cloud().with_degree(1)
    with torch.no_grad():
        cloud.harmonics[:, 2] = 1.0
    renderer = SplatRenderer(background=BLACK)
    whole = renderer.render(Gaussians(cloud), camera())
    part = renderer.render(Gaussians(cloud, active_degree=0), camera())
    plain = renderer.render(sheet([2.0], [0.99]), camera())
    assert torch.equal(part.color, plain.color) and not torch.allclose(whole.color, plain.color)
