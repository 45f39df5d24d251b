"""Light in media against closed forms; bounds are five standard errors of the mean."""

import math

import pytest
import torch

from lumigraph.core import Cameras
from lumigraph.core.transforms import look_at
from lumigraph.fields import MediumLike
from lumigraph.renderers import MediumLight, MediumRenderer
from lumigraph.renderers.medium import henyey_greenstein, scattered
from lumigraph.renderers.medium_flight import collisions, transmittances
from lumigraph.renderers.medium_march import SunShadows

CUBE = torch.tensor([[-1.0] * 3, [1.0] * 3])
RAYS = 20_000


class Slabs:
    """Density by x: `first` in the left half of the cube, `second` in the right; one albedo."""

    bounds = CUBE

    def __init__(self, first, second, albedo=0.5, loose=1.3):
        self.first, self.second, self.albedo = first, second, albedo
        x = (torch.arange(4) + 0.5) / 4
        values = torch.where(x < 0.5, first, second) * loose  # majorants that do not touch
        self.majorants = values[:, None, None].expand(4, 4, 4).contiguous()

    def density_and_albedo(self, positions):
        density = torch.where(positions[:, 0] < 0.5, self.first, self.second)
        return density, torch.full_like(positions, self.albedo)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rays(direction=(1.0, 0.0, 0.0), origin=(-0.5, 0.3, 0.6)):
    ahead = torch.nn.functional.normalize(torch.tensor(direction), dim=0)
    return torch.tensor(origin).expand(RAYS, 3), ahead.expand(RAYS, 3)


def holds(values, truth):
    error = float(values.mean()) - truth
    return abs(error) < 5 * float(values.std()) / math.sqrt(len(values)) + 1e-6


@pytest.mark.parametrize("direction", [(1.0, 0.0, 0.0), (1.0, 0.13, -0.21)])
def test_light_comes_through_as_the_law_of_beer_says(direction):
    medium = Slabs(1.5, 0.25)
    assert isinstance(medium, MediumLike)
    origins, directions = rays(direction)
    slant = 1 / float(directions[0, 0])  # the ray leaves by the far side of the cube
    truth = math.exp(-(1.5 + 0.25) / 2 * slant)
    through = transmittances(medium, origins, directions, generator=generator())
    assert holds(through, truth)
    distance, albedo = collisions(medium, origins, directions, generator=generator(1))
    assert holds(torch.isinf(distance).float(), truth)
    assert albedo[torch.isfinite(distance)].unique().tolist() == [0.5]
    # up to the middle: collisions before it
    half = torch.isfinite(distance) & (distance < slant)
    assert holds(half.float(), 1 - math.exp(-0.75 * slant))


def test_flights_from_within_along_walls_and_past_the_cube():
    medium = Slabs(3.0, 0.0)
    origins = torch.tensor([[0.25, 0.5, 0.5], [0.0, 0.0, 0.5], [2.0, 2.0, 2.0], [0.75, 0.5, 0.5]])
    directions = torch.tensor([[-1.0, 0, 0], [0, 1.0, 0], [1.0, 0, 0], [1.0, 0, 0]])
    many = [part.repeat(RAYS, 1) for part in (origins, directions)]
    through = transmittances(medium, *many, generator=generator()).reshape(RAYS, 4)
    assert holds(through[:, 0], math.exp(-0.75))
    assert holds(through[:, 1], math.exp(-3.0))
    assert (through[:, 2:] == 1).all()


def test_the_same_seed_gives_the_same_picture():
    camera = camera_at(16, 12)
    pictures = [tracker(2, seed=s).render(Slabs(2.0, 1.0), camera).color for s in (3, 3, 4)]
    assert torch.equal(pictures[0], pictures[1]) and not torch.equal(pictures[0], pictures[2])


def camera_at(width, height):
    pose = look_at(torch.tensor([0.0, -4.0, 0.5]), torch.zeros(3), up=[0.0, 0.0, 1.0])
    return Cameras.from_intrinsics(pose, width, height, 1.1 * width)


def light(sun=0.0, sky=0.5):
    return MediumLight(torch.tensor([0.0, 0.0, 1.0]), torch.full((3,), sun), torch.full((3,), sky))


def tracker(samples, **options):
    return MediumRenderer(light=options.pop("light", light()), samples_per_pixel=samples, **options)


@pytest.mark.parametrize("anisotropy", [0.0, 0.6])
def test_white_fog_before_an_even_sky_cannot_be_seen(anisotropy):
    fog = Slabs(6.0, 2.0, albedo=1.0)
    frame = tracker(4, anisotropy=anisotropy).render(fog, camera_at(12, 9))
    sky = torch.full_like(frame.color, 0.7354)  # 0.5 in sRGB
    assert torch.allclose(frame.color, sky, atol=1e-3)
    assert float(frame.opacity.max()) > 0.5


def test_black_fog_darkens_by_what_it_swallows():
    renderer = tracker(1, light=light(sun=9.0))
    origins, directions = rays()
    found, first = renderer.radiance(
        Slabs(1.0, 1.0, albedo=0.0), origins, directions, generator=generator()
    )
    assert holds(found[:, 0], 0.5 * math.exp(-1.0))
    assert holds(torch.isfinite(first).float(), 1 - math.exp(-1.0))


def test_thin_fog_scatters_the_sun_once():
    thin = 0.02
    renderer = tracker(1, light=light(sun=5.0, sky=0.0))
    origins, directions = rays()
    found, _ = renderer.radiance(Slabs(thin, thin, 0.8), origins, directions, generator=generator())
    once = 5.0 * 0.8 * (1 - math.exp(-thin)) / (4 * math.pi)
    # light that scatters again, and what is lost on the way from the sun, are parts in a hundred
    assert float(found.mean()) == pytest.approx(once, rel=0.15)


def test_the_preview_is_as_opaque_as_the_medium():
    medium, camera = Slabs(2.0, 2.0), camera_at(33, 25)
    marched = tracker(0).render(medium, camera)
    traced = tracker(64).render(medium, camera)
    assert float((marched.opacity - traced.opacity).abs().mean()) < 0.05
    middle = marched.opacity[12, 16]
    assert float(middle) == pytest.approx(1 - math.exp(-2.0), abs=0.03)
    seen = marched.opacity > 0.5
    assert float((marched.depth - traced.depth)[seen].abs().mean()) < 0.1
    assert bool(torch.isfinite(marched.color).all())
    shadows = SunShadows.of(medium, torch.tensor([0.0, 0.0, 1.0]))
    places = torch.tensor([[0.5, 0.5, 0.1], [0.5, 0.5, 0.9]])
    assert shadows.at(places).tolist() == pytest.approx([1.8, 0.2], abs=0.05)


@pytest.mark.parametrize("g", [0.0, 0.5, -0.7])
def test_the_phase_function_is_what_directions_are_drawn_by(g):
    cosine = torch.linspace(-1, 1, 20_001)
    total = torch.trapezoid(henyey_greenstein(cosine, g), cosine) * 2 * math.pi
    assert float(total) == pytest.approx(1.0, abs=1e-3)
    before = torch.nn.functional.normalize(torch.randn(RAYS, 3, generator=generator()), dim=1)
    after = scattered(before, g, generator=generator(1))
    assert torch.allclose(after.norm(dim=1), torch.ones(RAYS), atol=1e-5)
    assert holds((before * after).sum(1), g)
