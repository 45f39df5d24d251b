"""Method `gaussians4d` as the trainer drives it: resume, learning, scores by moment, rest,
pruning, where it starts."""

import dataclasses

import pytest
import torch

from lumigraph.core import ConfigError, DataError
from lumigraph.core.errors import CheckpointError
from lumigraph.core.gaussian_cloud4d import GaussianCloud4D
from lumigraph.fields import Gaussians4D
from lumigraph.training import Run, evaluate, train, train_config
from lumigraph.training.checkpoint import load_checkpoint
from lumigraph.training.files import newest_checkpoint
from lumigraph.training.gaussians4d.method import Gaussians4DMethod, load_gaussians4d_model
from lumigraph.training.method import Progress
from lumigraph.training.registry import build_model

CPU = torch.device("cpu")


def run_steps(method: Gaussians4DMethod, count: int, *, start: int = 0, total: int = 20):
    config, results = method.config, []
    for step in range(start, start + count):
        fraction = step / total
        rate = config.learning_rate_factor(step, fraction)
        results.append(method.step(Progress(step, fraction, total, rate)))
    return results


def whole_state(method: Gaussians4DMethod) -> dict[str, torch.Tensor]:
    state = {**method.state(), **method.random_state(), **method.small_state()}
    return {name: tensor.clone() for name, tensor in state.items()}


CASES = {
    "mcmc": {"consistency_weight": 0.1, "entropy_weight": 0.01},
    "default": {"strategy": "default", "grow_gradient": 1e-6, "opacity_reset_every": 7},
    "still": {"still_start": 0.0, "still_every": 3, "still_travel": 50.0, "still_fade": 0.9},
    "flat": {"plateaus": True, "prune_share": 0.3, "refine_stop": 0.7},
    "tables": {"exposure": True, "pose_refinement": True, "background": "sky", "batch_views": 3},
}


@pytest.mark.parametrize("name", CASES)
def test_ten_and_ten_steps_equal_twenty_bit_for_bit(name, make_scene, small_config, tmp_path):
    scene, config = make_scene(), small_config(**CASES[name])
    first, second = (Gaussians4DMethod(scene, config, CPU) for _ in range(2))
    run_steps(first, 10)
    tensors, header = whole_state(first), first.header()
    run_steps(first, 10, start=10)
    second.restore(tensors, header, tmp_path)
    run_steps(second, 10, start=10)
    wanted, found = whole_state(first), whole_state(second)
    assert set(wanted) == set(found)
    for key, tensor in wanted.items():
        assert torch.equal(tensor, found[key]), key
    if name == "still":
        assert len(first.still) > 0
    assert len(first.moving) + len(first.still) != 40 or name == "tables"


def test_training_learns_and_is_scored_by_moment(make_scene, small_config, tmp_path):
    scene = make_scene()
    config = small_config(
        steps=220, max_gaussians=300, initial_gaussians=200, background="black", refine_start=50,
        refine_every=25,
    )  # fmt: skip
    run = train(scene, config, out=tmp_path / "run")
    pictures = [scene.images.load(i) / 255 for i in scene.split("test").tolist()]
    mean = torch.stack(pictures).mean(dim=0)
    still = -10 * torch.stack([(p - mean).square().mean() for p in pictures]).mean().log10()
    scores = evaluate(run)
    assert scores["psnr"] > float(still) + 2.5, "no better than one picture for all moments"
    assert [row["time"] for row in scores["per_moment"]] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert scores["worst_moment"]["psnr"] == min(row["psnr"] for row in scores["per_moment"])
    summary = run.train_summary()
    assert summary["gaussians"] <= 300 and 0 <= summary["still_share"] <= 1
    model = run.model()
    assert isinstance(model.field, Gaussians4D) and not model.field.training
    assert torch.equal(model.moments, scene.moments)
    frames = [model.render(scene.cameras[1].at_time(time)).color for time in (0.0, 1.0)]
    assert float((frames[0] - frames[1]).abs().max()) > 0.1


def test_what_rests_moves_to_the_still_part_and_looks_the_same(make_scene, small_config, balls):
    scene = make_scene()
    config = small_config(still_start=0.0, still_every=1, refine_start=1000, means_rate=0.0)
    method = Gaussians4DMethod(scene, config, CPU, initial=balls)
    before = [method.renderer.render(method.field, scene.cameras[i]).color for i in (0, 7, 19)]
    method._bring_to_rest()
    assert len(method.moving) == 1 and len(method.still) == 1
    assert float(method.field.means[0, 1].detach()) > 0, "the moving ball moves on"
    for index, color in zip((0, 7, 19), before, strict=True):
        shown = method.renderer.render(method.field, scene.cameras[index]).color
        assert torch.allclose(shown, color, atol=2e-3)
    first, second = method.still.moments[0]
    assert first.shape == second.shape == method.field.still.means.shape


def test_nothing_comes_to_rest_where_that_is_switched_off(make_scene, small_config, balls):
    config = small_config(still=False, still_start=0.0, still_every=1)
    method = Gaussians4DMethod(make_scene(), config, CPU, initial=balls)
    run_steps(method, 3)
    assert len(method.still) == 0


def test_pruning_takes_what_is_hidden_first(make_scene, small_config, balls):
    hidden = balls.select(torch.tensor([1]))
    hidden.log_scales[:, :3] -= 3.0  # within the ball that rests
    cloud = GaussianCloud4D.concatenate([hidden, balls])
    config = small_config(prune_share=0.34, still=False)
    method = Gaussians4DMethod(make_scene(), config, CPU, initial=cloud)
    method._prune()
    assert torch.equal(method.field.means.detach(), balls.means)


def test_the_cap_holds_for_both_parts_together(make_scene, small_config):
    config = small_config(
        max_gaussians=50, refine_every=1, refine_start=0, still_start=0.0, still_every=2,
        still_travel=50.0, still_fade=0.9,
    )  # fmt: skip
    method = Gaussians4DMethod(make_scene(), config, CPU)
    counts = [result.extras["gaussians"] for result in run_steps(method, 20)]
    assert max(counts) == 50


def test_a_static_run_is_a_start(make_scene, small_config, tmp_path):
    scene = make_scene()
    static = train_config(
        "gaussians", "tiny", steps=3, device="cpu", initial_gaussians=30, max_gaussians=30
    )
    run = train("builtin:object", static, out=tmp_path / "static")
    cloud = run.model().field.cloud()
    config = small_config(start_run=str(run.path), max_gaussians=60, initial_gaussians=20)
    method = Gaussians4DMethod(scene, config, CPU)
    assert len(method.still) == len(cloud) and len(method.moving) > 0
    shift = scene.normalization.compose(run.scene().normalization.inverse())
    assert torch.allclose(
        method.field.still.means.detach(), cloud.transformed(shift).means, atol=1e-5
    )
    assert f"{len(cloud)} Gaussians of" in method.notes()[0]
    moving = Gaussians4DMethod(scene, dataclasses.replace(config, still=False), CPU)
    assert len(moving.still) == 0 and len(moving.moving) == len(method.moving) + len(cloud)


def test_places_that_are_never_empty_may_start_still(make_scene, small_config):
    scene = make_scene(alpha=True)
    moving = Gaussians4DMethod(scene, small_config(), CPU)
    method = Gaussians4DMethod(scene, small_config(still_places=True), CPU)
    assert len(moving.still) == 0 < len(method.still)
    assert len(method) == len(moving)
    result = run_steps(method, 2)[-1]
    assert result.extras["still_share"] == pytest.approx(len(method.still) / len(method), abs=1e-3)


def test_starts_that_cannot_be_are_refused(make_scene, small_config, tmp_path):
    scene = make_scene()
    timeless = dataclasses.replace(scene, cameras=dataclasses.replace(scene.cameras, times=None))
    with pytest.raises(DataError, match="has no times"):
        Gaussians4DMethod(timeless, small_config(), CPU)
    with pytest.raises(DataError, match="initialization=random"):
        Gaussians4DMethod(scene, small_config(initialization="points"), CPU)
    with pytest.raises(DataError, match="no such run folder"):
        Gaussians4DMethod(scene, small_config(start_run=str(tmp_path / "none")), CPU)
    with pytest.raises(ConfigError, match="lower max_gaussians"):
        Gaussians4DMethod(scene, small_config(max_gaussians=10**8), CPU)


def test_a_checkpoint_of_another_method_is_refused(make_scene, small_config, tmp_path):
    scene, config = make_scene(), small_config(steps=2)
    run = train(scene, config, out=tmp_path / "run")
    path = newest_checkpoint(run.path)
    tensors, header = load_checkpoint(path)
    assert isinstance(build_model(scene, config, tensors, header, path, CPU).field, Gaussians4D)
    del tensors["field.rotors"]
    with pytest.raises(CheckpointError, match="belongs to another model"):
        load_gaussians4d_model(scene, config, tensors, header, path, CPU)
    assert Run.open(run.path).config == config
