"""Rows with their moments, and the two strategies on cases worked out by hand."""

import math

import pytest
import torch

from lumigraph.core import CheckpointError
from lumigraph.core.gaussian_cloud import GaussianCloud
from lumigraph.fields import Gaussians, GaussianTensors
from lumigraph.training import GaussiansConfig, train_config
from lumigraph.training.gaussians.default_strategy import SPLIT_SHRINK, DefaultStrategy
from lumigraph.training.gaussians.mcmc_strategy import McmcStrategy, split_opacity_and_scale
from lumigraph.training.gaussians.schedule import Clock
from lumigraph.training.gaussians.strategy import GaussianState, ViewGradients, draw_rows

CPU = torch.device("cpu")


def make_cloud(count: int = 6, degree: int = 0) -> GaussianCloud:
    generator = torch.Generator().manual_seed(3)
    sizes = ((count, 3), (count, 4), (count, 3), (count,), (count, (degree + 1) ** 2, 3))
    return GaussianCloud(*(torch.randn(size, generator=generator) for size in sizes))


def small_config(**options) -> GaussiansConfig:
    return train_config("gaussians", "tiny", steps=100, **{"max_gaussians": 80, **options})


def make_state(cloud: GaussianCloud | None = None, statistics=("a", "b")) -> GaussianState:
    """Moments and statistics say which row they belong to."""
    state = GaussianState(Gaussians(cloud or make_cloud()), statistics)
    mark_rows(state)
    return state


def mark_rows(state: GaussianState) -> None:
    number = torch.arange(1.0, len(state) + 1)
    for first, second in state.moments:
        for moment in (first, second):
            moment.copy_(number.reshape(-1, *[1] * (moment.dim() - 1)).expand_as(moment))
    for values in state.statistics.values():
        values.copy_(number)


def marks(state: GaussianState) -> list[list[float]]:
    """Of every moment and statistic, one number a row; a row must hold the same everywhere."""
    found = []
    for first, second in state.moments:
        for moment in (first, second):
            flat = moment.reshape(len(state), -1)
            assert bool((flat == flat[:, :1]).all())
            found.append(flat[:, 0].tolist())
    return found + [values.tolist() for values in state.statistics.values()]


def test_kept_rows_take_moments_and_statistics_along():
    state, before = make_state(), make_cloud()
    state.keep(torch.tensor([True, False, True, True, False, True]))
    assert len(state) == 4
    assert torch.equal(state.field.means, before.means[[0, 2, 3, 5]])
    assert all(row == [1, 3, 4, 6] for row in marks(state))
    state.keep(torch.tensor([3, 0]))
    assert all(row == [6, 1] for row in marks(state))


def test_new_rows_start_with_moments_of_zero():
    state = make_state()
    state.duplicate(torch.tensor([4, 1]))
    assert len(state) == 8
    assert torch.equal(state.field.log_scales[6:], state.field.log_scales[[4, 1]])
    assert all(row == [1, 2, 3, 4, 5, 6, 0, 0] for row in marks(state))
    assert all(parameter.requires_grad for parameter in state.field.parameters())


def test_written_rows_lose_their_moments():
    state = make_state()
    state.write(torch.tensor([1, 5]), state.rows(torch.tensor([0, 2])))
    assert torch.equal(state.field.rotations[[1, 5]], state.field.rotations[[0, 2]])
    assert all(row == [1, 0, 3, 4, 5, 0] for row in marks(state))


def test_moments_of_one_parameter_can_be_reset_alone():
    state = make_state()
    state.reset_moments(names=("opacity_logits",))
    zero = [not first.any() and not second.any() for first, second in state.moments]
    assert zero == [False, False, False, True, False]


def test_moments_grow_with_the_harmonics():
    state = make_state()
    state.grow_harmonics(2)
    first, second = state.moments[4]
    assert first.shape == second.shape == state.field.harmonics.shape == (6, 9, 3)
    assert first[:, 0, 0].tolist() == [1, 2, 3, 4, 5, 6] and not first[:, 1:].any()


def test_a_state_comes_back_with_another_number_of_rows():
    state, other = make_state(make_cloud(6, 1)), make_state(make_cloud(3, 0))
    other.restore({name: tensor.clone() for name, tensor in state.state().items()})
    assert len(other) == 6 and other.field.degree == 1
    for name, tensor in state.state().items():
        assert torch.equal(tensor, other.state()[name]), name


def test_a_damaged_state_is_refused_and_nothing_changes():
    state = make_state()
    tensors = {name: tensor.clone() for name, tensor in state.state().items()}
    tensors["moments.means.1"] = tensors["moments.means.1"][:2]
    means = state.field.means
    with pytest.raises(CheckpointError, match=r"'moments.means.1' has 2 rows, 'field.means' has 6"):
        state.restore(tensors, "step-7")
    del tensors["field.rotations"]
    with pytest.raises(CheckpointError, match=r"step-7: holds no 'field.rotations'"):
        state.restore(tensors, "step-7")
    assert state.field.means is means


def test_rows_are_drawn_by_their_weights():
    generator = torch.Generator().manual_seed(0)
    drawn = draw_rows(torch.tensor([0.0, 1.0, 3.0, 0.0]), 4000, generator)
    counts = torch.bincount(drawn, minlength=4)
    assert counts[0] == counts[3] == 0
    assert abs(float(counts[2]) / 4000 - 0.75) < 0.03  # four standard deviations


# --- default ---------------------------------------------------------------------------------


def flat_cloud(scales: list[float], opacities: list[float]) -> GaussianCloud:
    count = len(scales)
    return GaussianCloud(
        torch.arange(count).float()[:, None].repeat(1, 3),
        torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        torch.tensor(scales).log()[:, None].repeat(1, 3),
        torch.logit(torch.tensor(opacities)),
        torch.arange(3.0 * count).reshape(count, 1, 3),
    )


def default_case(scales, opacities, gradients, **options):
    config = small_config(strategy="default", refine_start=0, refine_every=1, **options)
    strategy = DefaultStrategy(config, extent=1.0, device=CPU, seed=0)
    state = make_state(flat_cloud(scales, opacities), strategy.statistics)
    state.statistics["gradient_sum"].copy_(torch.tensor(gradients))
    state.statistics["view_count"].fill_(1)
    return strategy, state


def test_gradients_are_averaged_over_the_views_that_saw_a_gaussian():
    strategy, state = default_case([0.1] * 3, [0.5] * 3, [0.0] * 3)
    state.reset_statistics()
    first = torch.tensor([[3e-4, 4e-4], [1.0, 0.0], [torch.nan, 0.0]])
    for screen, visible in ((first, [True, False, True]), (torch.zeros(3, 2), [True, True, False])):
        strategy.after_backward(state, ViewGradients(screen, torch.tensor(visible), 200, 200))
    # in half images: 100 times 3-4-5; the second was not visible when it was pulled
    assert state.statistics["gradient_sum"].tolist() == pytest.approx([0.05, 0, 0])
    assert state.statistics["view_count"].tolist() == [2, 1, 1]


def test_small_ones_are_cloned_large_ones_split_transparent_ones_go():
    # grow_scale 0.01 of the extent: 0: cloned, 1: split, 2: stays, 3: pruned though pulled
    strategy, state = default_case(
        [0.005, 0.05, 0.05, 0.05], [0.5, 0.6, 0.7, 0.001], [1.0, 1, 0, 1]
    )
    parent = state.rows(torch.tensor([1]))
    counts = strategy.after_step(state, Clock(0, 1, 100), means_rate=0.0)
    assert (counts.cloned, counts.split, counts.pruned) == (1, 1, 1)
    assert state.field.harmonics[:, 0, 0].tolist() == [0, 6, 0, 3, 3]
    scales = state.field.log_scales.exp()[:, 0].tolist()
    small = 0.05 / SPLIT_SHRINK
    assert scales == pytest.approx([0.005, 0.05, 0.005, small, small])
    assert torch.equal(state.field.means[2], state.field.means[0])
    moved = (state.field.means[3:] - parent.means).detach()
    assert bool((moved.norm(dim=1) > 0).all()) and float(moved.norm(dim=1).max()) < 5 * 0.05
    assert state.moments[0][0][:, 0].tolist() == [1, 3, 0, 0, 0]
    assert not state.statistics["view_count"].any()


def test_parts_of_a_split_are_samples_of_their_parent():
    count = 4000
    cloud = flat_cloud([0.3] * count, [0.5] * count)
    turned = torch.tensor([0.5**0.5, 0, 0, 0.5**0.5])  # a quarter turn about z
    cloud = GaussianCloud(
        torch.zeros(count, 3),
        turned.repeat(count, 1),
        torch.tensor([0.3, 0.1, 0.02]).log().repeat(count, 1),
        cloud.opacity_logits,
        cloud.harmonics,
    )
    strategy, _ = default_case([0.1], [0.5], [0.0])
    twice = GaussianTensors(*(torch.cat([t, t]) for t in cloud.tensors()))
    parts = strategy.parts(twice)
    spread = parts.means.std(dim=0).tolist()
    assert spread == pytest.approx([0.1, 0.3, 0.02], rel=0.05)


def test_large_ones_go_after_the_first_reset_only():
    for time, left in ((5, 2), (30, 1)):
        strategy, state = default_case([0.05, 0.5], [0.5, 0.5], [0.0, 0.0], opacity_reset_every=20)
        strategy.after_step(state, Clock(time, time + 1, 100), means_rate=0.0)
        assert len(state) == left


def test_the_cap_is_never_exceeded_and_the_hardest_pulled_come_first():
    strategy, state = default_case([0.005] * 4, [0.5] * 4, [0.1, 0.4, 0.2, 0.3], max_gaussians=6)
    strategy.after_step(state, Clock(0, 1, 100), means_rate=0.0)
    assert len(state) == 6
    assert sorted(state.field.harmonics[4:, 0, 0].tolist()) == [3, 9]  # rows 1 and 3
    state.statistics["gradient_sum"].fill_(1)
    state.statistics["view_count"].fill_(1)
    strategy.after_step(state, Clock(1, 2, 100), means_rate=0.0)
    assert len(state) == 6


def test_opacities_are_reset_and_recover_by_fresh_moments():
    strategy, state = default_case([0.05] * 2, [0.9, 0.006], [0.0] * 2, opacity_reset_every=10)
    counts = strategy.after_step(state, Clock(9, 10, 100), means_rate=0.0)
    assert counts.reset
    assert state.field.opacity_logits.sigmoid().tolist() == pytest.approx([0.01, 0.006])
    assert not state.moments[3][0].any() and state.moments[0][0].any()


def test_rows_stay_in_the_later_part_of_a_run():
    strategy, state = default_case([0.005], [0.5], [1.0])
    assert not strategy.after_step(state, Clock(50, 51, 100), means_rate=0.0)
    assert not strategy.wants_gradients(Clock(50, 51, 100)) and len(state) == 1


# --- mcmc ------------------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [1, 2, 3, 10, 51])
@pytest.mark.parametrize("opacity", [0.006, 0.3, 0.99])
def test_copies_together_have_the_opacity_of_one(copies, opacity):
    part, _ = split_opacity_and_scale(
        torch.tensor([opacity], dtype=torch.float64), torch.tensor([copies])
    )
    assert 1 - (1 - float(part)) ** copies == pytest.approx(opacity, rel=1e-9)


def test_scale_follows_the_double_sum_of_the_paper():
    for opacity, n in ((0.3, 2), (0.9, 5), (0.7, 11), (0.5, 1)):
        part = 1 - (1 - opacity) ** (1 / n)
        total = sum(
            math.comb(i - 1, k) * (-1) ** k * part ** (k + 1) / math.sqrt(k + 1)
            for i in range(1, n + 1)
            for k in range(i)
        )
        _, factor = split_opacity_and_scale(
            torch.tensor([opacity], dtype=torch.float64), torch.tensor([n])
        )
        assert float(factor) == pytest.approx(opacity / total, rel=1e-9)


def test_splats_of_copies_keep_their_brightness():
    """The integral over a line through the middle, which the formula preserves to first order."""
    opacity, n = 0.8, 4
    part, factor = split_opacity_and_scale(
        torch.tensor([opacity], dtype=torch.float64), torch.tensor([n])
    )
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    one = opacity * torch.exp(-(x**2) / 2)
    many = 1 - (1 - part * torch.exp(-((x / factor) ** 2) / 2)) ** n
    assert float(many.sum()) == pytest.approx(float(one.sum()), rel=1e-6)


def mcmc_case(opacities, **options):
    config = small_config(
        strategy="mcmc", refine_start=0, refine_every=1, noise_rate=0.0, **options
    )
    strategy = McmcStrategy(config, device=CPU, seed=0)
    return strategy, make_state(flat_cloud([0.1] * len(opacities), opacities), strategy.statistics)


def test_dead_gaussians_move_to_opaque_ones():
    strategy, state = mcmc_case([0.9, 0.001, 0.002], max_gaussians=3)
    counts = strategy.after_step(state, Clock(0, 1, 100), means_rate=1.0)
    assert (counts.relocated, counts.added) == (2, 0) and len(state) == 3
    # all three are copies of the first, each with a third of it
    assert bool((state.field.means == state.field.means[:1]).all())
    part = 1 - 0.1 ** (1 / 3)
    assert state.field.opacity_logits.sigmoid().tolist() == pytest.approx([part] * 3, rel=1e-4)
    assert float(state.values().log_scales[0, 0].exp()) != pytest.approx(0.1, rel=1e-3)
    assert all(not first.any() and not second.any() for first, second in state.moments)


def test_the_number_grows_by_five_percent_up_to_the_cap():
    strategy, state = mcmc_case([0.5] * 40, max_gaussians=47)
    sizes = []
    for step in range(6):
        strategy.after_step(state, Clock(step, step + 1, 100), means_rate=0.0)
        sizes.append(len(state))
    assert sizes == [43, 46, 47, 47, 47, 47]
    light = -torch.log1p(-state.values().opacity_logits.sigmoid().double()).sum()
    assert float(light) == pytest.approx(40 * math.log(2), rel=1e-4)


def test_nothing_alive_is_left_alone():
    strategy, state = mcmc_case([0.001, 0.002])
    assert not strategy.after_step(state, Clock(0, 1, 100), means_rate=0.0)
    assert len(state) == 2


def test_noise_moves_transparent_gaussians_only():
    config = small_config(strategy="mcmc", refine_start=10)
    strategy = McmcStrategy(config, device=CPU, seed=0)
    state = make_state(flat_cloud([0.1, 0.1], [0.001, 0.99]), ())
    before = state.field.means.detach().clone()
    strategy.after_step(state, Clock(0, 1, 100), means_rate=1e-4)
    moved = (state.field.means - before).norm(dim=1).tolist()
    assert moved[0] > 1e-3 and moved[1] < 1e-9
    again = McmcStrategy(config, device=CPU, seed=0)
    again.restore(strategy.state())
    assert torch.equal(again.state(), strategy.state())
