"""Sphere tracing against closed forms."""

import torch

from lumigraph.core import Cameras
from lumigraph.core.transforms import look_at
from lumigraph.fields import DistanceField
from lumigraph.renderers import SolidLight, SphereTracer
from lumigraph.renderers.sphere_tracing import TOLERANCE, unit_cube_crossing

RADIUS = 0.25


class Ball:
    """A ball in the middle of the cube of side 2 about the origin."""

    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])

    def sdf(self, positions):
        return (positions - 0.5).norm(dim=1) - RADIUS


def tracer(**options):
    light = SolidLight.from_up(torch.tensor([0.0, 0.0, 1.0]))
    return SphereTracer(background=torch.tensor([0.1, 0.2, 0.3]), light=light, **options)


def test_a_ball_has_its_depth_its_normals_and_its_outline():
    assert isinstance(Ball(), DistanceField)
    pose = look_at(torch.tensor([0.0, -3.0, 0.0]), torch.zeros(3), up=[0.0, 0.0, 1.0])
    camera = Cameras.from_intrinsics(pose, 41, 31, 60.0)
    frame = tracer().render(Ball(), camera, normals=True)
    # seen from 3 units, a ball of half a unit stands in front of the middle at 2.5
    assert abs(float(frame.depth[15, 20]) - 2.5) < 4 * TOLERANCE
    assert torch.allclose(frame.normal[15, 20], torch.tensor([0.0, -1.0, 0.0]), atol=0.02)
    rays = camera.image_rays(0)
    away = torch.linalg.cross(rays.origins, rays.directions).norm(dim=1).reshape(31, 41)
    clear = (away - 2 * RADIUS).abs() > 0.01
    assert torch.equal((frame.opacity > 0.5)[clear], (away < 2 * RADIUS)[clear])
    hit = (frame.opacity > 0.5).flatten()
    points = rays.origins + rays.directions * (
        frame.depth.flatten() / camera.depth_factors(rays)
    ).unsqueeze(1)
    assert float((points[hit].norm(dim=1) - 2 * RADIUS).abs().max()) < 4 * TOLERANCE
    facing = (frame.normal.reshape(-1, 3)[hit] * points[hit] / (2 * RADIUS)).sum(1)
    assert float(facing.min()) > 0.99
    assert torch.allclose(frame.color[0, 0], torch.tensor([0.1, 0.2, 0.3]))
    assert float(frame.depth[0, 0]) == 0 and float(frame.extras["samples"].max()) > 1
    assert 0.05 < float(frame.color[15, 20].mean()) < 1


def test_rays_from_within_and_with_few_steps():
    origins = torch.tensor([[0.5, 0.5, 0.99], [0.9, 0.9, 0.9]])
    directions = torch.tensor([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
    hits = tracer().trace(Ball(), origins, directions)
    assert abs(float(hits.distance[0]) - 0.24) < 2 * TOLERANCE
    assert float(hits.distance[1]) == torch.inf
    assert float(tracer(most_steps=1).trace(Ball(), origins, directions).distance[0]) == torch.inf


def test_the_crossing_of_the_cube_survives_rays_along_its_walls():
    origins = torch.tensor([[0.0, -1.0, 0.5], [2.0, 2.0, 2.0], [0.5, 0.5, 0.5]])
    directions = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
    entry, leave = unit_cube_crossing(origins, directions)
    assert bool(torch.isfinite(entry[[0, 2]]).all()) and bool(torch.isfinite(leave).all())
    assert float(entry[1]) > float(leave[1])
    assert (float(entry[2]), float(leave[2])) == (0.0, 0.5)
