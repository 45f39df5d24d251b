"""Pictures on a rectangle in space."""

import torch

from lumigraph.core import Cameras
from lumigraph.core.transforms import look_at
from lumigraph.datasets.targets.picture import camera_before
from lumigraph.renderers import PlaneRenderer
from lumigraph.renderers.plane import rays_across


class Ramp:
    """Red grows to the right, green downwards."""

    def __init__(self, size):
        self.size = size

    def colors(self, uv):
        return torch.cat([uv, torch.zeros_like(uv[:, :1])], dim=1)


def test_seen_from_its_camera_every_pixel_has_its_own_color():
    size = (6, 4)
    frame = PlaneRenderer(background=torch.ones(3)).render(Ramp(size), camera_before(size))
    u = (torch.arange(6) + 0.5) / 6
    v = (torch.arange(4) + 0.5) / 4
    assert torch.allclose(frame.color[..., 0], u.expand(4, 6), atol=1e-5)
    assert torch.allclose(frame.color[..., 1], v[:, None].expand(4, 6), atol=1e-5)
    assert bool((frame.opacity == 1).all())
    assert torch.allclose(frame.depth, torch.ones(4, 6), atol=1e-6)


def test_around_the_picture_is_the_background():
    camera = camera_before((4, 4))
    wide = Cameras.from_intrinsics(camera.camera_to_world, 8, 8, 4.0)
    frame = PlaneRenderer(background=torch.tensor([0.2, 0.4, 0.6])).render(
        Ramp((4, 4)), wide, normals=True
    )
    assert torch.allclose(frame.color[0, 0], torch.tensor([0.2, 0.4, 0.6]), atol=1e-5)
    assert float(frame.opacity[0, 0]) == 0 and float(frame.depth[0, 0]) == 0
    assert frame.normal[4, 4].tolist() == [0, 0, -1]


def test_small_views_are_means_and_not_samples():
    class Stripes(Ramp):
        def colors(self, uv):
            on = ((uv[:, :1] * 64).floor() % 2).expand(-1, 3)
            return on

    camera = camera_before((64, 64)).resized_to(32, 32)
    assert rays_across((64, 64), camera) == 2
    frame = PlaneRenderer(background=torch.ones(3)).render(Stripes((64, 64)), camera)
    # half of the light, which is 0.735 in sRGB
    assert torch.allclose(frame.color, torch.full((32, 32, 3), 0.7354), atol=1e-3)


def test_looking_away_or_along_the_plane_sees_nothing():
    renderer = PlaneRenderer(background=torch.zeros(3))
    for target in ([0.0, 0.0, -9.0], [9.0, 0.0, -1.0]):
        eye = torch.tensor([0.0, 0.0, -1.0])
        pose = look_at(eye, torch.tensor(target), up=[0.0, -1.0, 0.0])
        frame = renderer.render(Ramp((4, 4)), Cameras.from_intrinsics(pose, 5, 5, 50.0))
        assert float(frame.opacity.max()) == 0
        assert bool(torch.isfinite(frame.color).all())
