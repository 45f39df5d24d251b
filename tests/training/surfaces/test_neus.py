"""Method `neus`: exact resume, schedules, every loss, what it refuses."""

import dataclasses
import math

import pytest
import torch

from lumigraph.core import MemoryImages, PointCloud, cube
from lumigraph.core.errors import ConfigError, DataError
from lumigraph.cuda.dispatch import backend_override
from lumigraph.training import StepEvent, evaluate, resume, train, train_config
from lumigraph.training.checkpoint import load_checkpoint
from lumigraph.training.files import newest_checkpoint, read_lines
from lumigraph.training.method import Progress
from lumigraph.training.metrics import psnr
from lumigraph.training.neus import NeusMethod
from lumigraph.training.registry import prepared_scene
from lumigraph.training.report import write_report
from lumigraph.training.silhouettes import CutOutImages

CPU = torch.device("cpu")


def method(scene, config) -> NeusMethod:
    return NeusMethod(prepared_scene(scene, config), config, CPU)


def mean(losses) -> float:
    return sum(losses) / len(losses)


def stop_after_ten(event):
    if isinstance(event, StepEvent) and event.step >= 10:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "changes",
    [
        {"exposure": True, "pose_refinement": True, "average_decay": 0.0},
        {"background": "model", "background_samples": 8},
        {"mask_weight": 0.1, "curvature_weight": 1e-3, "depth_weight": 0.1, "point_weight": 0.1},
    ],
)
def test_a_checkpoint_goes_on_bit_for_bit(shapes, quick, tmp_path, changes):
    shape = shapes["ball"]
    scene = dataclasses.replace(shape.scene, points=shape.points)
    config = dataclasses.replace(quick, **changes)
    whole = train(scene, config, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(scene, config, out=tmp_path / "parts", on_event=stop_after_ten)
    trained = method(scene, config)
    checkpoint = newest_checkpoint(tmp_path / "parts")
    trained.restore(*load_checkpoint(checkpoint), checkpoint)
    for step in range(10, 20):
        rate = config.learning_rate_factor(step, step / 20)
        trained.step(Progress(step, step / 20, 20, rate))
    found = {**trained.state(), **trained.random_state(), **trained.small_state()}
    wanted, header = load_checkpoint(newest_checkpoint(whole.path))
    assert set(found) == set(wanted)
    for name, tensor in wanted.items():
        assert torch.equal(tensor, found[name].detach()), name
    for name, value in trained.header().items():
        assert header[name] == value


def test_ten_and_ten_steps_of_a_folder_equal_twenty(scene_folder, quick, tmp_path):
    whole = train(scene_folder, quick, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(scene_folder, quick, out=tmp_path / "parts", on_event=stop_after_ten)
    parts = resume(tmp_path / "parts")
    wanted, _ = load_checkpoint(newest_checkpoint(whole.path))
    found, _ = load_checkpoint(newest_checkpoint(parts.path))
    assert set(found) == set(wanted)
    for name, tensor in wanted.items():
        assert torch.equal(tensor, found[name]), name
    losses = [row["loss"] for row in read_lines(whole.path / "metrics.jsonl")]
    assert [row["loss"] for row in read_lines(parts.path / "metrics.jsonl")] == losses


def test_a_run_is_scored_and_rendered(ball_scene, quick, tmp_path):
    run = train(ball_scene, dataclasses.replace(quick, steps=15), out=tmp_path / "run")
    assert read_lines(run.path / "metrics.jsonl")[-1]["sharpness"] > 15
    assert run.train_summary()["sharpness"] > 15
    scores = evaluate(run)
    assert scores["views"] == 2 and math.isfinite(scores["psnr"])
    assert scores["protocol"].startswith("test split, over white")
    write_report(run.path)
    assert "sharpness of the surface" in (run.path / "report.html").read_text()
    frame = run.model("cpu").render(ball_scene.cameras[0], channels=("color", "normal"))
    assert frame.channels == ("color", "opacity", "depth", "normal", "median_depth", "samples")


def test_models_come_from_the_running_mean(ball_scene, quick, tmp_path):
    config = dataclasses.replace(quick, average_decay=0.9, level_rate=0.1)
    run = train(ball_scene, config, out=tmp_path / "run")
    tensors, _ = load_checkpoint(newest_checkpoint(run.path))
    field = run.model("cpu").field
    assert torch.equal(field.surface_weights, tensors["average.1"])
    assert not torch.equal(field.surface_weights, tensors["field.surface_weights"])
    assert field.active_levels == 3  # of 4: two, and one more from step 13 on
    plain = dataclasses.replace(quick, average_decay=0.0)
    run = train(ball_scene, plain, out=tmp_path / "plain")
    tensors, _ = load_checkpoint(newest_checkpoint(run.path))
    assert torch.equal(run.model("cpu").field.table, tensors["field.table"])


def test_levels_and_sharpness_follow_their_schedules(ball_scene, quick):
    config = dataclasses.replace(quick, level_base_step=2, level_rate=0.5)
    trained = method(ball_scene, config)
    levels = []
    for step in range(8):
        trained.step(Progress(step, step / 8, 8, 1.0))
        levels.append(trained.field.active_levels)
    assert levels[:3] == [2, 2, 2] and sorted(levels) == levels and levels[-1] == 4
    fixed = method(ball_scene, dataclasses.replace(quick, sharpness_rate=0.0))
    fixed.step(Progress(0))
    assert float(fixed.field.sharpness.detach()) == pytest.approx(20.0855, rel=1e-4)


def test_rays_follow_the_samples_that_light_reaches(ball_scene, quick):
    trained = method(ball_scene, quick)
    samples = [int(trained.step(Progress(k, k / 30, 30, 1.0)).samples) for k in range(30)]
    late = mean(samples[10:])
    assert 0.6 * quick.batch_samples < late < 1.3 * quick.batch_samples


OPTIONS = {
    "plain": {},
    "l1": {"color_loss": "l1"},
    "masks": {"mask_weight": 0.1},
    "curvature": {"curvature_weight": 1e-4},
    "points": {"point_weight": 0.1},
    "depths": {"depth_weight": 0.5},
    "annealed": {"annealing_steps": 40},
    "softplus": {"activation": "softplus"},
    "smooth": {"interpolation": "smooth"},
    "deep": {"surface_layers": 2, "color_layers": 2, "hidden_width": 64},
    "all pixels": {"empty_pixels": 1.0},
    "white": {"background": "white"},
    "model": {"background": "model"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_learns(name, shapes, quick):
    shape = shapes["ball"]
    scene = dataclasses.replace(shape.scene, points=shape.points)
    trained = method(scene, dataclasses.replace(quick, **OPTIONS[name]))
    errors = []
    for step in range(60):
        result = trained.step(Progress(step, step / 60, 60, min(1.0, (step + 1) / 10)))
        assert math.isfinite(float(result.loss))
        errors.append(float(result.squared_error))
    assert mean(errors[-10:]) < 0.5 * mean(errors[:5])
    assert trained.bad_gradients() == 0


@pytest.mark.parametrize(("term", "strong"), [("point_weight", 2.0), ("depth_weight", 0.5)])
def test_points_and_depths_pull_the_surface(term, strong, shapes, quick):
    shape = shapes["ball"]
    scene = dataclasses.replace(shape.scene, points=shape.points)
    found = {}
    for weight in (0.0, strong):
        config = dataclasses.replace(quick, **{term: weight})
        trained = method(scene, config)
        for step in range(130):
            trained.step(Progress(step, step / 130, 130, min(1.0, (step + 1) / 10)))
        inside = (shape.points.positions - scene.bounds[0]) / scene.side
        found[weight] = float(trained.field.sdf(inside).abs().mean())
    assert found[strong] < 0.7 * found[0.0]


def test_masks_become_the_outline(masked_scene, ball_scene, quick):
    prepared = prepared_scene(masked_scene, quick)
    assert isinstance(prepared.images, CutOutImages) and prepared.masks is None
    explicit = dataclasses.replace(quick, silhouette="masks")
    once = prepared_scene(masked_scene, explicit)
    assert prepared_scene(once, explicit) is once
    rgba = prepared.images.load(0)
    assert rgba.shape[2] == 4 and prepared.has_alpha
    assert torch.equal(rgba[..., 3] > 0, ball_scene.images.load(0)[..., 3] > 0)
    trained = method(masked_scene, quick)
    batch = trained.sampler.sample(500, 0)
    assert 0 < float(batch.alpha.mean()) < 1
    outside = batch.alpha == 0
    assert torch.equal(batch.target[outside], batch.background[outside])


def test_surroundings_are_left_out(masked_scene, quick):
    scene = dataclasses.replace(masked_scene, aabb_scale=4)
    assert prepared_scene(scene, quick).aabb_scale == 1
    assert method(scene, quick).renderer.occupancy.cascades == 1


def test_pictures_before_a_plain_wall_need_no_outline(masked_scene, quick):
    plain = dataclasses.replace(masked_scene, masks=None)
    config = dataclasses.replace(quick, background="white", silhouette="none")
    trained = method(plain, config)
    assert bool((trained.sampler.sample(10, 0).background == 1).all())
    known = dataclasses.replace(plain, background="black")
    config = dataclasses.replace(quick, background="scene")
    trained = method(known, config)
    assert bool((trained.sampler.sample(10, 0).background == 0).all())
    assert bool((trained.renderer.background == 0).all())


@pytest.mark.parametrize("part", [0.0, 1.0])
def test_pictures_of_nothing_leave_nothing(part, ball_scene, quick):
    clear = [torch.zeros(48, 48, 4, dtype=torch.uint8)] * len(ball_scene.cameras)
    scene = dataclasses.replace(ball_scene, images=MemoryImages(clear))
    changes = {"empty_pixels": part, "mask_weight": 0.1, "curvature_weight": 1e-3}
    trained = method(scene, dataclasses.replace(quick, **changes))
    for step in range(40):
        result = trained.step(Progress(step))
        assert math.isfinite(float(result.loss)) and math.isfinite(float(result.squared_error))
    frame = trained.renderer.render(trained.field, scene.cameras[0])
    assert bool(frame.color.isfinite().all())
    assert part == 0 or float(frame.opacity.mean()) < 0.01


def refused(scene, config) -> str:
    with pytest.raises(DataError) as caught:
        method(scene, config)
    message = str(caught.value)
    assert "\n" not in message and message.startswith("memory: ")
    return message


def test_data_that_lacks_something_is_refused_in_one_line(masked_scene, ball_scene, quick):
    plain = dataclasses.replace(masked_scene, masks=None)
    change = dataclasses.replace
    assert "give images with alpha or a folder of masks" in refused(plain, quick)
    assert "the data does not say" in refused(plain, change(quick, background="scene"))
    assert "it has masks" in refused(masked_scene, change(quick, silhouette="alpha"))
    assert "it has alpha" in refused(ball_scene, change(quick, silhouette="masks"))
    assert "has no images" in refused(change(plain, images=None), quick)
    white = change(quick, background="white", mask_weight=0.1)
    assert "no alpha or masks" in refused(plain, white)
    assert "has no points" in refused(ball_scene, change(quick, point_weight=1.0))
    bare = change(ball_scene, depths=None)
    assert "has no depth images" in refused(bare, change(quick, depth_weight=1.0))
    far = change(ball_scene, points=PointCloud(torch.full((5, 3), 9.0)))
    assert "none of the 5 points" in refused(far, change(quick, point_weight=1.0))


def test_cameras_and_spheres_that_cannot_work_are_refused(ball_scene, quick):
    change = dataclasses.replace
    turned = ball_scene.cameras.camera_to_world.clone()
    turned[:, :3, [0, 2]] *= -1  # about their own vertical: everybody looks away
    away = change(ball_scene, cameras=ball_scene.cameras.with_poses(turned))
    assert "look at no common region" in refused(away, quick)
    far = change(ball_scene, bounds=cube(torch.full((3,), 500.0), 1.0))
    assert "look at no common region" in refused(far, quick)
    tiny = change(ball_scene, bounds=cube(torch.zeros(3), 1e-7))
    assert "bounding sphere has a radius of 5e-08" in refused(tiny, quick)
    one = change(ball_scene, splits={"train": torch.tensor([0]), "test": torch.tensor([1])})
    assert "1 training view; a surface needs several" in refused(one, quick)


def test_masks_of_another_size_are_named(masked_scene, quick):
    small = [masked_scene.images.load(k)[:40] for k in range(len(masked_scene.cameras))]
    scene = dataclasses.replace(masked_scene, images=MemoryImages(small))
    with pytest.raises(DataError, match="0000: 48 x 40 pixels, but its mask has 48 x 48"):
        method(scene, quick)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"hidden_width": 48}, "must be 32 or 64"),
        ({"features": 3}, "must be 1, 2, 4 or 8"),
        ({"grid_resolution": 20}, "multiple of 8"),
        ({"initial_radius": 0.6}, r"must lie in \[0.001, 0.49\]"),
        ({"activation": "sine"}, "use one of relu, softplus"),
        ({"silhouette": "none"}, "needs another background"),
        ({"strategy": "mcmc"}, "a setting of method gaussians and gaussians4d, not of neus"),
    ],
)
def test_impossible_settings(setting, message):
    with pytest.raises(ConfigError, match=message):
        train_config("neus", "tiny", **setting)


def test_presets_and_schedule():
    full = train_config("neus", "full")
    assert (full.levels, full.max_resolution, full.batch_samples) == (14, 2048, 2**18)
    tiny = train_config("neus", "tiny", warmup_steps=10, decay_start=0.5, learning_rate_final=0.1)
    assert tiny.learning_rate_factor(0, 0.0) == pytest.approx(0.1)
    assert tiny.learning_rate_factor(50, 0.4) == 1.0
    assert tiny.learning_rate_factor(50, 0.75) == pytest.approx(0.1**0.5)
    assert tiny.learning_rate_factor(50, 1.0) == pytest.approx(0.1)


def test_surroundings_are_learnt_where_there_is_no_outline(shapes, quick, tmp_path):
    """A ball before a far wall of colors, all opaque."""
    shape = shapes["ball"]
    scene, images = shape.scene, []
    for k in range(len(scene.cameras)):
        toward = scene.cameras.image_rays(k).directions.reshape(48, 48, 3)
        wall = ((0.5 + 0.5 * torch.sin(3.0 * toward)) * 255).round().to(torch.uint8)
        rgba = scene.images.load(k)
        images.append(torch.where(rgba[..., 3:] > 0, rgba[..., :3], wall))
    opaque = dataclasses.replace(
        scene, images=MemoryImages(images), has_alpha=False, masks=None, aabb_scale=4
    )
    config = dataclasses.replace(quick, background="model", steps=300, background_samples=8)
    run = train(opaque, config, out=tmp_path / "run")
    model = run.model("cpu")
    seen = model.render(scene.cameras[3]).color
    assert psnr(seen, opaque.images.load(3) / 255) > 18
    # the ball is told from the wall in a view of its own
    frame, truth = model.render(scene.cameras[16]), scene.images.load(16)[..., 3] > 0
    assert float(((frame.opacity > 0.5) == truth).float().mean()) > 0.97


def test_runs_with_masks_are_judged_by_what_lies_inside(masked_scene, quick, tmp_path):
    config = dataclasses.replace(quick, silhouette="masks")
    run = train(masked_scene, config, out=tmp_path / "run")
    assert run.scene().has_alpha
    assert evaluate(run)["protocol"].startswith("test split, over white")


def test_a_step_by_emulated_cuda_is_that_of_the_cpu(ball_scene, quick):
    small = dataclasses.replace(quick, march_steps=48, grid_resolution=16, occupancy_samples=256)
    found = {}
    for backend in ("cpu", "emu"):
        with backend_override(backend):
            trained = method(ball_scene, small)
            trained._rays = 64
            result = trained.step(Progress(0, rate=0.1))
        found[backend] = (float(result.loss), int(result.samples), result.rays)
    assert found["emu"] == pytest.approx(found["cpu"], rel=2e-3)
