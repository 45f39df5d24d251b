"""The weights of NeuS: exact formula, no bias, occlusion, gradients."""

import math

import pytest
import torch

from lumigraph.cuda.compositing import composite
from lumigraph.renderers.surface_alpha import (
    EPSILON,
    MOST_THICKNESS,
    falling_rate,
    logistic_density,
    surface_distances,
    surface_thickness,
)


def alpha_of_the_paper(distance, cosine, step, sharpness, annealing=1.0):
    """Equation by equation, in float64."""
    relu = torch.relu
    rate = -(relu(0.5 - 0.5 * cosine) * (1 - annealing) + relu(-cosine) * annealing)
    before = torch.sigmoid(sharpness * (distance - rate * step / 2))
    after = torch.sigmoid(sharpness * (distance + rate * step / 2))
    return ((before - after + EPSILON) / (before + EPSILON)).clamp(0, 1)


@pytest.mark.parametrize("annealing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("sharpness", [20.0, 300.0, 5000.0])
def test_opacities_are_those_of_the_formula(sharpness, annealing):
    generator = torch.Generator().manual_seed(0)
    distance = torch.randn(4000, generator=generator, dtype=torch.float64) * 3 / sharpness
    cosine = torch.rand(4000, generator=generator, dtype=torch.float64) * 2.4 - 1.2
    step = torch.rand(4000, generator=generator, dtype=torch.float64) * 0.01
    wanted = alpha_of_the_paper(distance, cosine, step, sharpness, annealing)
    s = torch.tensor(sharpness, dtype=torch.float64)
    thickness = surface_thickness(distance, cosine, step, s, annealing=annealing)
    assert torch.allclose(-torch.expm1(-thickness), wanted, atol=2e-7)
    single = surface_thickness(
        distance.float(), cosine.float(), step.float(), s.float(), annealing=annealing
    )
    assert torch.allclose(-torch.expm1(-single).double(), wanted, atol=2e-5)


def along_a_ray(distance, cosine, sharpness, step):
    """Weights of samples on one ray (M,) with this distance and cosine."""
    step = torch.full_like(distance, step)
    thickness = surface_thickness(distance, cosine, step, torch.tensor(sharpness).to(distance))
    middles = (torch.arange(len(distance)) + 0.5) * step
    offsets = torch.tensor([[0, len(distance)]])
    color = torch.zeros(len(distance), 3, dtype=distance.dtype)
    out = composite(thickness, color, middles, torch.ones_like(step), offsets, early_stop=0.0)
    return out.weights, middles


@pytest.mark.parametrize("angle", [0.0, 30.0, 60.0, 80.0])
@pytest.mark.parametrize("sharpness", [50.0, 400.0, 3000.0])
def test_weights_of_a_slanted_plane_peak_where_the_ray_meets_it(angle, sharpness):
    step, met = 1e-3, 0.5  # e takes 1e-5 at each step, half a percent on the way
    middles = (torch.arange(1000, dtype=torch.float64) + 0.5) * step
    slope = math.cos(math.radians(angle))
    distance = (met - middles) * slope
    weights, _ = along_a_ray(distance, torch.full_like(distance, -slope), sharpness, step)
    peak = float(middles[weights.argmax()])
    # the density of naive volume rendering would peak in front of it by about 1 / (s slope)
    assert abs(peak - met) <= step
    behind = middles > met
    # half of the light is gone at the surface: unbiased; the part that starts behind P(0) is tiny
    start = 1 / (1 + math.exp(-sharpness * met * slope))
    assert float(weights[~behind].sum()) == pytest.approx(1 - 0.5 / start, abs=1e-2)


def test_the_nearer_of_two_surfaces_hides_the_farther():
    # two walls of thickness 0.1, whose distances along the ray are alike
    step = 1e-3
    middles = (torch.arange(1000, dtype=torch.float64) + 0.5) * step
    first, second = (middles - 0.25).abs() - 0.05, (middles - 0.75).abs() - 0.05
    distance = torch.minimum(first, second)
    cosine = torch.where(first < second, (middles - 0.25).sign(), (middles - 0.75).sign())
    weights, _ = along_a_ray(distance, cosine, 500.0, step)
    assert float(weights[middles < 0.5].sum()) > 0.99
    assert float(weights[middles > 0.5].sum()) < 0.01
    assert abs(float(middles[weights.argmax()]) - 0.2) <= step


def test_surfaces_seen_from_behind_have_no_weight():
    distance = torch.linspace(-0.2, 0.2, 400, dtype=torch.float64)
    # leaving a solid: distance grows along the ray; outside of it nothing is opaque
    weights, _ = along_a_ray(distance[200:], torch.ones(200, dtype=torch.float64), 300.0, 1e-3)
    assert float(weights.sum()) < 5e-3
    assert float(falling_rate(torch.tensor(0.5), 1.0)) == 0
    assert float(falling_rate(torch.tensor(0.5), 0.0)) == -0.25


def test_gradients_against_finite_differences():
    generator = torch.Generator().manual_seed(2)
    options = {"generator": generator, "dtype": torch.float64}
    distance = (torch.rand(40, **options) * 0.1 - 0.05).requires_grad_()
    cosine = (torch.rand(40, **options) * -0.9 - 0.05).requires_grad_()
    steps = torch.rand(40, **options) * 0.02 + 0.005
    sharpness = torch.tensor(60.0, dtype=torch.float64, requires_grad=True)
    for annealing in (1.0, 0.4):
        assert torch.autograd.gradcheck(
            lambda f, c, s, rho=annealing: surface_thickness(f, c, steps, s, annealing=rho),
            (distance, cosine, sharpness),
        )


def test_extreme_sharpness_stays_finite():
    distance = torch.tensor([-0.5, -1e-4, 0.0, 1e-4, 0.5], requires_grad=True)
    cosine = torch.tensor([-1.0] * 5, requires_grad=True)
    sharpness = torch.tensor(1.6e5, requires_grad=True)
    thickness = surface_thickness(distance, cosine, torch.full((5,), 1e-3), sharpness)
    thickness.sum().backward()
    for tensor in (distance, cosine, sharpness):
        assert bool(tensor.grad.isfinite().all())
    found = thickness.detach()
    assert float(found.max()) == MOST_THICKNESS and float(found.min()) >= 0


def test_where_rays_enter_is_found_between_samples():
    step = 0.01
    middles = ((torch.arange(100) + 0.5) * step).repeat(2)
    met = torch.tensor([0.4567, 5.0]).repeat_interleave(100)  # the second ray meets nothing
    distance, cosine = met - middles, -torch.ones(200)
    steps, rays = torch.full((200,), step), torch.arange(2).repeat_interleave(100)
    offsets = torch.tensor([[0, 100], [100, 100]])
    thickness = surface_thickness(distance, cosine, steps, torch.tensor(800.0))
    color = torch.zeros(200, 3)
    weights = composite(thickness, color, middles, torch.ones(200), offsets).weights
    found = surface_distances(
        weights,
        offsets,
        rays,
        distance=distance,
        cosine=cosine,
        middles=middles,
        steps=steps,
    )
    assert float(found[0]) == pytest.approx(0.4567, abs=1e-5) and math.isinf(float(found[1]))


def test_logistic_density_is_a_density():
    place = torch.linspace(-1, 1, 20_001, dtype=torch.float64)
    found = logistic_density(place, 80.0)
    assert float(torch.trapezoid(found, place)) == pytest.approx(1, abs=1e-6)
    assert float(found.max()) == pytest.approx(20.0)
