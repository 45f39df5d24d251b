"""Lifetimes, neighbors that move alike, blending weights, strategies and places, each against what
is worked out by hand or by brute force."""

import dataclasses
import math

import pytest
import torch

from lumigraph.core.gaussian_cloud4d import GaussianCloud4D
from lumigraph.core.rotors import rotation_from_rotor
from lumigraph.cuda.reference.gaussian_slicing import slice_constants, slice_gaussians
from lumigraph.cuda.splatting import SplatCamera
from lumigraph.fields import Gaussian4DTensors, Gaussians4D
from lumigraph.training.gaussians.schedule import Clock
from lumigraph.training.gaussians.strategy import GaussianState, ViewGradients
from lumigraph.training.gaussians4d.consistency import Consistency, nearest_rows
from lumigraph.training.gaussians4d.default_strategy import Default4DStrategy
from lumigraph.training.gaussians4d.initialization import random_places
from lumigraph.training.gaussians4d.lifetimes import (
    Clip,
    at_rest,
    durations,
    peak_opacities,
    unchanging,
)
from lumigraph.training.gaussians4d.mcmc_strategy import Mcmc4DStrategy
from lumigraph.training.gaussians4d.pruning import blended_weights, scores

CPU, SHORTEST = torch.device("cpu"), 1e-3
CLIP = Clip(1.0, 0.1, SHORTEST)


def random_cloud(count: int = 40, *, plateaus: bool = False) -> GaussianCloud4D:
    generator = torch.Generator().manual_seed(2)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator)

    return GaussianCloud4D(
        draw(count, 3), draw(count), draw(count, 8), draw(count, 4) - 1.5, draw(count),
        draw(count, 1, 3), draw(count) - 2 if plateaus else None,
    )  # fmt: skip


def tensors_of(cloud: GaussianCloud4D) -> Gaussian4DTensors:
    return Gaussian4DTensors(*cloud.tensors())


@pytest.mark.parametrize("plateaus", [False, True])
def test_the_peak_is_the_highest_opacity_of_the_clip(plateaus):
    cloud = random_cloud(plateaus=plateaus)
    *rest, log_plateaus = cloud.tensors()
    seen = [
        slice_gaussians(
            *rest[:5], float(time), log_plateaus=log_plateaus, shortest=SHORTEST
        ).opacities
        for time in torch.linspace(0, 1, 401)
    ]
    found = peak_opacities(tensors_of(cloud), CLIP)
    highest = torch.stack(seen).amax(dim=0)
    assert bool((found >= highest - 1e-6).all())
    long = durations(tensors_of(cloud), CLIP) > 0.1  # others may peak between two looks
    assert torch.allclose(found[long], highest[long], atol=1e-2)


def test_durations_are_those_of_boxes_as_large():
    cloud = dataclasses.replace(
        random_cloud(2), rotors=torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0]]).repeat(2, 1)
    )
    cloud.log_scales[:, 3] = torch.tensor([0.1, 9.0]).log()
    found = durations(tensors_of(cloud), CLIP)
    assert found.tolist() == pytest.approx([0.1 * math.sqrt(2 * math.pi), 1.0], rel=1e-4)


def test_only_what_neither_moves_nor_fades_is_unchanging(balls):
    faded = balls.select(torch.tensor([1]))
    faded.log_scales[:, 3] = 0.0
    cloud = GaussianCloud4D.concatenate([balls, faded])
    options = {"travel": 0.5, "fade": 0.1}
    assert unchanging(tensors_of(cloud), CLIP, **options).tolist() == [False, True, False]
    assert unchanging(tensors_of(cloud), CLIP, travel=0.5, fade=0.2).tolist() == [
        False,
        True,
        True,
    ]
    rest = at_rest(tensors_of(cloud), CLIP)
    sliced = slice_gaussians(*cloud.tensors()[:5], 0.5, shortest=SHORTEST)
    assert torch.allclose(rest.means, sliced.means, atol=1e-6)
    assert torch.allclose(rest.opacity_logits.sigmoid(), sliced.opacities, atol=1e-6)
    volumes = torch.linalg.det(sliced.covariances).sqrt()
    assert torch.allclose(rest.log_scales.exp().prod(dim=1), volumes, rtol=1e-3)


def test_nearest_rows_are_others_and_the_nearest():
    points = torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    points[7] = points[8] = points[9]
    rows = torch.tensor([0, 7, 30])
    found, distances = nearest_rows(points, rows, 5)
    wanted = torch.cdist(points[rows], points)
    wanted[torch.arange(3), rows] = torch.inf
    assert torch.allclose(distances, wanted.topk(5, largest=False).values, atol=1e-6)
    assert not bool((found == rows[:, None]).any())
    copies = torch.zeros(20, 4)  # the point itself may not be among the nearest then
    found, distances = nearest_rows(copies, torch.arange(20), 3)
    assert found.shape == (20, 3) and float(distances.max()) == 0


def test_consistency_is_the_mean_difference_to_neighbors(small_config):
    state = GaussianState(Gaussians4D(random_cloud(12)), ())
    config = small_config(consistency_weight=0.7, consistency_neighbors=3, consistency_rows=12)
    loss = Consistency(config, device=CPU, seed=0, clip=CLIP)
    for tensor in state.parameters():
        tensor.grad = torch.zeros_like(tensor)
    loss.add_gradients(state, Clock(0, 1, 20))
    rotors, scales = (
        tensor.detach().clone().requires_grad_()
        for tensor in (state.field.rotors, state.field.log_scales)
    )
    speed = slice_constants(rotors, scales, SHORTEST).velocities
    points = torch.cat([state.field.means, 5 * state.field.times[:, None]], dim=1).detach()
    apart = torch.cdist(points, points).fill_diagonal_(torch.inf)
    near = apart.topk(3, largest=False).indices
    (0.7 * (speed - speed[near].mean(dim=1)).abs().sum(dim=1).mean()).backward()
    assert torch.allclose(state.field.rotors.grad, rotors.grad, rtol=1e-3, atol=1e-6)
    assert torch.allclose(state.field.log_scales.grad, scales.grad, rtol=1e-3, atol=1e-6)
    assert not bool(state.field.means.grad.any())


def camera(scene, index: int) -> tuple[float, SplatCamera]:
    one = scene.cameras[index]
    return float(one.times[0]), SplatCamera.from_cameras(one)


def test_blending_weights_of_all_add_up_to_the_opacity(make_scene, balls):
    scene, field = make_scene(), Gaussians4D(balls)
    views = [camera(scene, index) for index in (1, 8)]
    weights = blended_weights(field, views)
    opacity = sum(float(field.render(*view).opacity.detach().sum()) for view in views)
    assert float(weights.sum()) == pytest.approx(opacity, rel=1e-4)
    brief = field.cloud()
    brief.log_scales[1, 3] = math.log(0.05)
    found = scores(Gaussians4D(brief), torch.ones(2), CLIP)
    assert float(found[0]) == pytest.approx(1.0) and float(found[1]) < 0.3


def test_parts_of_a_split_are_samples_in_space_and_time(small_config):
    one = random_cloud(1)
    strategy = default_strategy(small_config(strategy="default"))
    twice = Gaussian4DTensors(
        *(None if t is None else t.repeat(4000, *[1] * (t.dim() - 1)) for t in one.tensors())
    )
    parts = strategy.parts(twice)
    moved = torch.cat([parts.means, parts.times[:, None]], 1) - torch.cat(
        [one.means, one.times[None]], 1
    )
    root = rotation_from_rotor(one.rotors)[0] * one.log_scales.exp()
    wanted = root @ root.T
    assert torch.allclose(torch.cov(moved.T), wanted, atol=0.08 * float(wanted.diagonal().max()))
    assert torch.allclose(parts.log_scales, one.log_scales - math.log(1.6))


def default_strategy(config) -> Default4DStrategy:
    return Default4DStrategy(config, extent=1.0, device=CPU, seed=0, clip=CLIP)


def test_pulls_by_time_clone_the_brief_and_split_the_long(small_config):
    cloud = random_cloud(4)
    cloud.rotors[:] = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0])
    cloud.times[:] = torch.tensor([0.5, 0.5, 0.5, 3.0])
    cloud.opacity_logits[:] = 2.0
    cloud.log_scales[:, 3] = torch.tensor([0.01, 0.5, 0.5, 0.01]).log()
    cloud.log_scales[:, :3] = -4.0
    config = small_config(strategy="default", grow_time_gradient=1e-3, grow_gradient=1.0)
    strategy = default_strategy(config)
    state = GaussianState(Gaussians4D(cloud), strategy.statistics)
    state.field.times.grad = torch.tensor([0.1, -0.1, 0.0, 0.0])
    seen = ViewGradients(torch.zeros(4, 2), torch.ones(4, dtype=torch.bool), 8, 8)
    strategy.after_backward(state, seen)
    counts = strategy.after_step(state, Clock(3, 4, 20), means_rate=1e-4)
    # row 0 is cloned, row 1 split, row 2 left alone, row 3 never seen in the clip
    assert (counts.cloned, counts.split, counts.pruned) == (1, 1, 1)
    assert len(state) == 5


def test_mcmc_moves_what_is_never_seen_and_noise_moves_faint_ones(small_config):
    cloud = random_cloud(3)
    cloud.rotors[:] = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0])
    cloud.log_scales[:, 3] = math.log(0.1)
    cloud.times[:] = torch.tensor([0.5, 5.0, 0.5])
    cloud.opacity_logits[:] = torch.tensor([2.0, 2.0, 2.0])
    config = small_config(max_gaussians=3, refine_every=4)
    strategy = Mcmc4DStrategy(config, device=CPU, seed=0, clip=CLIP)
    state = GaussianState(Gaussians4D(cloud), ())
    counts = strategy.after_step(state, Clock(3, 4, 20), means_rate=0.0)
    assert counts.relocated == 1 and counts.added == 0
    assert float(state.field.times[1].detach()) == 0.5
    # durations stay when one becomes two
    assert torch.allclose(state.field.log_scales[:, 3].detach(), torch.full((3,), math.log(0.1)))
    before = [state.field.means.detach().clone(), state.field.times.detach().clone()]
    state.field.opacity_logits.data[0] = -8.0
    late = small_config(max_gaussians=3, refine_start=1000)
    strategy = Mcmc4DStrategy(late, device=CPU, seed=0, clip=CLIP)
    strategy.after_step(state, Clock(7, 8, 20), means_rate=1e-4)
    moved = (state.field.means.detach() - before[0]).norm(dim=1)
    later = (state.field.times.detach() - before[1]).abs()
    assert float(moved[0]) > 1e-3 and float(later[0]) > 1e-4
    assert float(moved[1:].max()) < 1e-6 and float(later[1:].max()) < 1e-6


def shown_there(scene, index: int, points: torch.Tensor) -> list[bool]:
    """Whether a view shows something within two pixels of points, or does not see them."""
    pixels, depth = scene.cameras.project(points, index)
    image, found = scene.images.load(index), []
    for (x, y), z in zip(pixels.tolist(), depth.tolist(), strict=True):
        if not (z > 0 and 0 <= x < image.shape[1] and 0 <= y < image.shape[0]):
            found.append(True)
            continue
        column, row = int(x), int(y)
        near = image[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
        found.append(bool((near[..., -1:] if near.shape[2] == 4 else near).amax() > 0))
    return found


@pytest.mark.parametrize("plain", [False, True])
def test_random_places_lie_where_their_moment_shows_something(make_scene, small_config, plain):
    scene = make_scene(alpha=not plain)
    config = small_config(background="black" if plain else "auto")
    always, passing = random_places(scene, config, 120, torch.Generator().manual_seed(0))
    assert len(always.times) and set(passing.times.tolist()) == set(scene.moments.tolist())
    train = scene.split("train")
    for index in train.tolist():
        now = passing.times == scene.cameras.times[index]
        assert all(shown_there(scene, index, passing.positions[now]))
        assert all(shown_there(scene, index, always.positions))
    moved = [
        all(shown_there(scene, index, passing.positions[passing.times != 0]))
        for index in train.tolist()
        if float(scene.cameras.times[index]) == 0
    ]
    assert not all(moved), "places of other moments are not those of the first"
    assert float(passing.durations[0]) == pytest.approx(2 / 3, rel=0.01)


def test_random_places_move_as_what_they_show_does(make_scene, small_config):
    scene = make_scene(alpha=True)
    _, passing = random_places(scene, small_config(), 400, torch.Generator().manual_seed(1))
    moving = torch.stack(
        [0.8 * (passing.times - 0.5), torch.full_like(passing.times, 0.3), 0 * passing.times], 1
    )
    resting = torch.tensor([0.0, -0.5, 0.0])
    for place, low, high in ((moving, 0.15, 1.5), (resting, -0.15, 0.15)):
        near = (passing.positions - place).norm(dim=1) < 0.25
        assert int(near.sum()) > 10
        assert low < float(passing.velocities[near, 0].mean()) < high
        assert float(passing.velocities[near, 1:].mean(dim=0).abs().max()) < 0.4
