"""Frames of surfaces known in closed form, gradients of a whole rendering, and its limits."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from lumigraph.core import Cameras
from lumigraph.core.transforms import look_at
from lumigraph.cuda.dispatch import backend_override
from lumigraph.cuda.grid import GridLayout
from lumigraph.cuda.surface import SurfaceSamples
from lumigraph.fields import NeuralSurface, SurfaceField
from lumigraph.renderers import Cancelled, OccupancyGrid, SurfaceRenderer

CENTER, SIDE = torch.tensor([1.0, -2.0, 0.5]), 4.0
BOUNDS = torch.stack([CENTER - SIDE / 2, CENTER + SIDE / 2])  # anything but the unit cube
COLOR = torch.tensor([0.8, 0.3, 0.1])
RADIUS = 0.25


@dataclass
class Ball:
    """A ball about the middle of grid space, of one color."""

    sharpness: Tensor = field(default_factory=lambda: torch.tensor(2000.0))
    radius: float = RADIUS
    bounds: Tensor = field(default_factory=lambda: BOUNDS)
    asked: int = 0

    def sdf(self, positions: Tensor) -> Tensor:
        return (positions - 0.5).norm(dim=1) - self.radius

    def sdf_and_gradient(self, positions: Tensor) -> SurfaceSamples:
        offset = positions - 0.5
        length = offset.norm(dim=1)
        feature = positions.new_zeros(len(positions), 16)
        return SurfaceSamples(length - self.radius, feature, offset / length[:, None])

    def color(self, samples: SurfaceSamples, positions: Tensor, directions: Tensor) -> Tensor:
        self.asked += len(positions)
        return COLOR.expand_as(positions)


def renderer(*, steps: int = 512, resolution: int = 16, background: float = 1.0, **options):
    occupancy = OccupancyGrid(resolution=resolution, cascades=1, march_steps=steps)
    return SurfaceRenderer(occupancy, background=torch.full((3,), background), **options)


def camera(pixels: int = 33, *, away: bool = False) -> Cameras:
    eye = CENTER + torch.tensor([0.0, 0.0, -6.0])
    target = eye + torch.tensor([0.0, 0.0, -1.0 if away else 1.0])
    pose = look_at(eye, target, up=(0.0, -1.0, 0.0))
    return Cameras.from_intrinsics(pose, pixels, pixels, 2.0 * pixels)


def closed_form(cameras: Cameras) -> tuple[Tensor, Tensor, Tensor]:
    """Depth (H, W), 0 beside the ball, unit normals, and how far rays pass from its middle."""
    rays = cameras.image_rays(0)
    offset = rays.origins - CENTER
    along = (offset * rays.directions).sum(1)
    nearest = (offset.square().sum(1) - along**2).clamp_min(0).sqrt()
    radius = RADIUS * SIDE
    distance = -along - (radius**2 - nearest**2).clamp_min(0).sqrt()
    normal = (offset + distance[:, None] * rays.directions) / radius
    hit = nearest < radius
    depth = torch.where(hit, distance * cameras.depth_factors(rays), 0.0)
    size = cameras.size(0)[::-1]
    normal = torch.where(hit[:, None], normal, 0.0)
    return depth.reshape(size), normal.reshape(*size, 3), nearest.reshape(size)


def test_a_ball_has_its_depth_normals_color_and_outline():
    cameras, ball = camera(), Ball()
    frame = renderer().render(ball, cameras)
    depth, normal, nearest = closed_form(cameras)
    inside, outside = nearest < 0.95 * RADIUS * SIDE, nearest > 1.05 * RADIUS * SIDE
    step = SIDE * 3**0.5 / 512
    assert inside.sum() > 50 and outside.sum() > 50
    # between samples the surface is found on a straight line; the mean depth is that of samples
    surface = frame.extras["median_depth"]
    assert float((surface - depth)[inside].abs().max()) < 0.02 * step
    assert float((frame.depth - depth)[inside].abs().max()) < step
    assert float((frame.depth - depth)[inside].abs().mean()) < 0.3 * step
    cosine = (frame.normal * normal).sum(2)[inside]
    assert float(cosine.min()) > 0.9998  # about a degree, at slanted rays over whole steps
    assert torch.allclose(frame.color[inside], COLOR.expand(int(inside.sum()), 3), atol=2e-3)
    assert torch.allclose(frame.color[outside], torch.ones(3), atol=1e-2)
    assert float(frame.opacity[inside].min()) > 0.998
    assert float(frame.opacity[outside].max()) < 1e-2
    assert float(surface[outside].max()) == 0 and float(frame.normal[outside].abs().max()) == 0
    assert isinstance(ball, SurfaceField)


def test_only_samples_that_light_reaches_are_colored():
    ball = Ball()
    frame = renderer().render(ball, camera(9))
    colored = ball.asked
    assert colored == int(frame.extras["samples"].sum())
    everything = renderer(early_stop=0.0)
    again = Ball()
    same = everything.render(again, camera(9))
    assert again.asked > 1.2 * colored
    assert torch.allclose(frame.color, same.color, atol=2e-4)


def test_the_grid_keeps_the_cells_of_the_surface_and_little_else():
    ball, made = Ball(), renderer(resolution=32)
    occupancy = made.occupancy
    generator = torch.Generator().manual_seed(0)
    before = made.render(ball, camera())
    for k in range(20):
        occupancy.update(
            made.density(ball),
            count=occupancy.cell_count,
            decay=0.6,
            generator=generator,
            every_cell=k == 0,
        )
    # a shell of area 4 pi r^2 that is about two cells thick
    assert 0.01 < occupancy.occupied_fraction() < 4 * torch.pi * RADIUS**2 * 4 / 32
    after = made.render(ball, camera())
    assert torch.allclose(after.color, before.color, atol=1e-2)
    assert float((after.extras["median_depth"] - before.extras["median_depth"]).abs().max()) < 1e-4
    assert float(after.extras["samples"].sum()) < 0.2 * float(before.extras["samples"].sum())


def test_annealing_lets_surfaces_be_seen_from_behind():
    made, ball = renderer(), Ball(sharpness=torch.tensor(20.0))
    # just inside the ball, going out of it at a low angle
    origins, outward = torch.tensor([[0.5, 0.5, 0.72]]), torch.tensor([[1.0, 0.0, 0.0]])
    plain = made.render_rays(ball, origins, outward).opacity
    annealed = made.render_rays(ball, origins, outward, annealing=0.0).opacity
    assert float(annealed) > float(plain) + 0.2


def test_rays_without_room_are_left_out_and_the_others_are_the_same():
    made, ball = renderer(), Ball()
    rays = camera(9).image_rays(0)
    origins = (rays.origins - BOUNDS[0]) / SIDE
    whole = made.render_rays(ball, origins, rays.directions)
    assert len(whole.color) == 81
    part = made.render_rays(ball, origins, rays.directions, max_samples=4096)
    count = len(part.color)
    assert 0 < count < 81 and part.marched == whole.marched > 4096
    assert torch.equal(part.color, whole.color[:count])
    assert int(part.counts.sum()) == len(part.positions) == len(part.weights)


def test_nothing_in_sight_is_background():
    frame = renderer(background=0.25).render(Ball(), camera(away=True))
    assert torch.all(frame.color == 0.25) and float(frame.opacity.max()) == 0
    assert float(frame.depth.max()) == float(frame.extras["median_depth"].max()) == 0
    empty = renderer()
    empty.occupancy.bits.zero_()
    empty.occupancy.coarse.zero_()
    frame = empty.render(Ball(), camera(9))
    assert torch.all(frame.color == 1)


def test_a_frame_can_be_given_up():
    told = []

    def stop(fraction: float) -> bool:
        told.append(fraction)
        return len(told) > 1

    with pytest.raises(Cancelled):
        renderer(steps=64).render(Ball(), camera(120), on_chunk=stop)
    assert len(told) == 2 and told[0] == 0 and 0 < told[1] < 1


def test_not_a_number_spoils_nothing_but_its_ray():
    class Broken(Ball):
        def color(self, samples, positions, directions):
            color = super().color(samples, positions, directions).clone()
            return torch.where(positions[:, :1] < 0.4, torch.nan, color)

    frame = renderer().render(Broken(), camera(9))
    assert bool(frame.color.isnan().any()) and bool(frame.color.isfinite().any())
    assert bool(frame.depth.isfinite().all())


class Doubled(NeuralSurface):
    """A neural surface in float64, asked at float32 samples."""

    def sdf_and_gradient(self, positions: Tensor) -> SurfaceSamples:
        return super().sdf_and_gradient(positions.double())

    def color(self, samples, positions, directions):
        return super().color(samples, positions.double(), directions.double())


def test_gradients_of_a_whole_rendering_against_finite_differences():
    layout = GridLayout(levels=3, log2_table_size=8, base_resolution=4, growth=1.6)
    surface = Doubled(BOUNDS, layout, hidden_width=32, activation="softplus", radius=0.25, seed=3)
    surface = surface.double()
    generator = torch.Generator().manual_seed(5)
    noise = {"generator": generator, "dtype": torch.float64}
    with torch.no_grad():
        surface.table.copy_(torch.randn(surface.table.shape, **noise) * 0.05)
        surface.surface_weights.add_(torch.randn(surface.surface_weights.shape, **noise) * 0.03)
    made = renderer(steps=48, early_stop=0.0)
    rays = camera(5).image_rays(0)
    origins = (rays.origins - BOUNDS[0]) / SIDE
    background = torch.rand(25, 3, **noise)
    by_color = torch.randn(25, 3, **noise)

    def loss() -> Tensor:
        out = made.render_rays(
            surface, origins, rays.directions, background=background, annealing=0.7
        )
        eikonal = (out.samples.gradient.norm(dim=1) - 1).square().mean()
        extra = out.opacity.sum() + out.distance.sum() + out.normal.square().sum()
        return (out.color * by_color).sum() + eikonal + 0.1 * extra

    with backend_override("torch"):  # the plain twins keep float64
        loss().backward()
        for parameter in surface.trained_parameters():
            tensor = parameter.tensor
            step = 1e-6
            along = torch.randn(tensor.shape, **noise)
            with torch.no_grad():
                tensor.add_(step * along)
                above = float(loss())
                tensor.sub_(2 * step * along)
                below = float(loss())
                tensor.add_(step * along)
            found = (above - below) / (2 * step)
            wanted = float((tensor.grad * along).sum())
            assert abs(wanted) > 1e-4
            assert found == pytest.approx(wanted, rel=2e-5, abs=1e-7)


def test_rays_pass_gradients_to_their_origin():
    made, ball = renderer(), Ball(sharpness=torch.tensor(300.0))
    rays = camera(9).image_rays(0)
    origins = ((rays.origins - BOUNDS[0]) / SIDE).requires_grad_()
    out = made.render_rays(ball, origins, rays.directions)
    out.distance[40].backward()  # the middle ray: going back along it lengthens the distance
    assert float(origins.grad[40, 2]) == pytest.approx(-1, abs=0.05)
