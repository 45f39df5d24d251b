"""Method `gaussians` as the trainer drives it: resume, exposures, poses, masks, bad numbers."""

import dataclasses
import math

import pytest
import torch

from lumigraph.core import Cameras, ConfigError, DataError, MemoryImages, Scene
from lumigraph.core.errors import CheckpointError
from lumigraph.core.gaussian_cloud import GaussianCloud
from lumigraph.core.scene import cube
from lumigraph.core.transforms import look_at, se3_exp
from lumigraph.fields import Gaussians
from lumigraph.renderers import SplatRenderer
from lumigraph.training import Run, StepEvent, evaluate, resume, train, train_config
from lumigraph.training.checkpoint import load_checkpoint
from lumigraph.training.files import newest_checkpoint
from lumigraph.training.gaussians.image_tables import RowAdam, corrected_pose
from lumigraph.training.gaussians.method import GaussiansMethod
from lumigraph.training.gaussians.splat_method import scene_extent
from lumigraph.training.image_tables import PoseTable, refined_cameras
from lumigraph.training.method import Progress

CPU = torch.device("cpu")
PIXELS, VIEWS = 32, 10


def ball_cloud() -> GaussianCloud:
    """Colored Gaussians that a few views fix well."""
    generator = torch.Generator().manual_seed(4)
    count = 60
    return GaussianCloud(
        torch.rand(count, 3, generator=generator) * 1.2 - 0.6,
        torch.randn(count, 4, generator=generator),
        torch.full((count, 3), math.log(0.09)),
        torch.full((count,), 2.0),
        (torch.rand(count, 1, 3, generator=generator) - 0.5) * 3,
    )


def true_cameras() -> Cameras:
    poses = []
    for i in range(VIEWS):
        angle, height = 2 * math.pi * i / VIEWS, 1.2 * math.sin(2.5 * i)
        eye = torch.tensor([2.2 * math.cos(angle), 2.2 * math.sin(angle), height])
        poses.append(look_at(eye, torch.zeros(3), up=(0.0, 0.0, 1.0)))
    return Cameras.from_intrinsics(torch.stack(poses), PIXELS, PIXELS, PIXELS)


def true_scene(*, known: Cameras | None = None, gains: torch.Tensor | None = None) -> Scene:
    """Pictures of `ball_cloud` before black; `known` is what the scene says of the cameras."""
    truth, field = true_cameras(), Gaussians(ball_cloud())
    renderer = SplatRenderer(background=torch.zeros(3))
    images = []
    for i in range(VIEWS):
        color = renderer.render(field, truth[i]).color
        color = color if gains is None else color * gains[i]
        images.append((color.clamp(0, 1) * 255).round().to(torch.uint8))
    return Scene(
        name="balls",
        source="memory",
        cameras=known or truth,
        images=MemoryImages(images),
        splits={"train": torch.arange(VIEWS)},
        bounds=cube(torch.zeros(3), 2.0),
        background="black",
    )


def run_steps(method: GaussiansMethod, count: int, *, start: int = 0, total: int = 200):
    results = []
    for step in range(start, start + count):
        fraction = step / total
        results.append(method.step(Progress(step, fraction, total, 0.01**fraction)))
    return results


def stop_after(step, scene, config, out):
    def listener(event):
        if isinstance(event, StepEvent) and event.step >= step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(scene, config, out=out, on_event=listener)


CASES = {
    "mcmc": {},
    "default": {"strategy": "default", "grow_gradient": 1e-6, "opacity_reset_every": 7},
    "absgrad": {"strategy": "default", "absgrad": True, "grow_gradient": 1e-6},
    "tables": {"exposure": True, "pose_refinement": True, "background": "sky"},
    "selective": {"selective_adam": True, "antialiased": True, "background": "random"},
}


@pytest.mark.parametrize("name", CASES)
def test_ten_and_ten_steps_equal_twenty_bit_for_bit(name, make_scene, small_config, tmp_path):
    scene, config = make_scene(), small_config(**CASES[name])
    whole = train(scene, config, out=tmp_path / "whole")
    stop_after(10, scene, config, tmp_path / "parts")
    parts = dataclasses.replace(Run.open(tmp_path / "parts"), given=scene)
    first, _ = load_checkpoint(newest_checkpoint(whole.path))
    # a run whose scene is in memory is gone on with by hand, as `resume` does
    tensors, header = load_checkpoint(newest_checkpoint(parts.path))
    method = GaussiansMethod(scene, config, CPU)
    method.restore(tensors, header, parts.path)
    for step in range(10, 20):
        fraction = step / 20
        method.step(Progress(step, fraction, 20, config.learning_rate_factor(step, fraction)))
    second = {**method.state(), **method.random_state(), **method.small_state()}
    assert set(first) == set(second)
    changed = name == "tables" or len(first["field.means"]) != 40
    assert changed, "the rows must have changed for this test to mean something"
    for key, tensor in first.items():
        assert torch.equal(tensor, second[key]), key


def test_resume_reads_its_scene_again(small_config, tmp_path):
    config = small_config(initial_gaussians=60, resolution_start=0.1)
    stop_after(5, "builtin:object", config, tmp_path / "run")
    run = resume(tmp_path / "run")
    assert run.train_summary()["steps"] == 20 and run.train_summary()["gaussians"] > 60
    model = run.model()
    assert model.field.active_degree == 1
    assert model.render(run.scene().cameras[0], channels=("normal",)).normal is not None


def test_training_learns_and_is_scored(small_config, tmp_path):
    scene = true_scene()
    scene = dataclasses.replace(
        scene, splits={"train": torch.arange(8), "test": torch.arange(8, 10)}
    )
    options = {"steps": 300, "max_gaussians": 400, "initial_gaussians": 300, "background": "black"}
    config = small_config(**options, refine_start=50, refine_every=25, resolution_start=1.0)
    run = train(scene, config, out=tmp_path / "run")
    nothing = -10 * math.log10(
        sum(float((scene.images.load(i) / 255).square().mean()) for i in (8, 9)) / 2
    )
    assert evaluate(run)["psnr"] > nothing + 6
    assert run.train_summary()["gaussians"] <= 400


@pytest.mark.parametrize("strategy", ["mcmc", "default"])
def test_the_cap_holds_throughout(strategy, make_scene, small_config):
    config = small_config(
        strategy=strategy, max_gaussians=50, refine_every=1, refine_start=0, grow_gradient=0.0
    )
    method = GaussiansMethod(make_scene(), config, CPU)
    counts = [result.extras["gaussians"] for result in run_steps(method, 12)]
    assert max(counts) == 50
    for (first, second), parameter in zip(
        method.gaussians.moments, method.field.tensors, strict=True
    ):
        assert first.shape == second.shape == parameter.shape


def test_ignored_pixels_have_no_influence(make_scene, small_config):
    class Left:
        def __len__(self):
            return 6

        def load(self, index):
            return torch.arange(24)[None].expand(24, 24) < 12

    def trained(color: int):
        scene = make_scene(masks=Left())
        images = [scene.images.load(i).clone() for i in range(6)]
        for image in images:
            image[:, 12:] = color
        scene = dataclasses.replace(scene, images=MemoryImages(images))
        config = small_config(resolution_start=1.0, ssim_weight=0.0, background="black")
        # colors of random points are asked of the pictures: start from the same for both
        method = GaussiansMethod(scene, config, CPU, initial=ball_cloud())
        run_steps(method, 5)
        return method.field.means.detach()

    assert torch.equal(trained(0), trained(250))


def test_empty_pixels_must_become_the_background(make_scene, small_config):
    config = small_config(resolution_start=1.0, background="random", steps=150, refine_start=1000)
    method = GaussiansMethod(make_scene(alpha=True), config, CPU, initial=ball_cloud())
    run_steps(method, 150)
    frame = method.renderer.render(method.field, method.views._cameras[0])
    assert float(frame.opacity[:4].mean()) < 0.1
    assert float(frame.opacity[10:14, 10:14].mean()) > 0.6


def test_exposures_are_found_up_to_a_common_gain(small_config):
    gains = torch.exp(0.3 * torch.sin(torch.arange(VIEWS) * 2.1))
    config = small_config(
        exposure=True, background="black", resolution_start=1.0, refine_start=10**6, steps=400
    )
    method = GaussiansMethod(true_scene(gains=gains), config, CPU, initial=ball_cloud())
    run_steps(method, 400, total=400)
    found = method.comparison.exposure.log_gain.detach()
    wanted = gains.log() - gains.log().mean()
    assert float(found.mean().abs()) < 1e-6
    # bright pixels are cut off at 1, so that large gains look smaller than they are
    assert float(torch.corrcoef(torch.stack([found.mean(dim=1), wanted]))[0, 1]) > 0.95


def test_pose_refinement_finds_the_cameras_again(small_config):
    truth = true_cameras()
    generator = torch.Generator().manual_seed(0)
    twist = torch.randn(VIEWS, 6, generator=generator) * 0.02
    twist -= twist.mean(dim=0)
    known = truth.with_poses(se3_exp(twist) @ truth.camera_to_world)
    config = small_config(
        pose_refinement=True, background="black", resolution_start=1.0, refine_start=0, steps=400,
        refine_stop=0.0, noise_rate=0.0, harmonics_degree=0,
    )  # fmt: skip
    method = GaussiansMethod(true_scene(known=known), config, CPU, initial=ball_cloud())
    run_steps(method, 400, total=400)
    found = refined_cameras(method.comparison.poses, known, method.views._scene.bounds)
    before = (known.positions - truth.positions).norm(dim=1).mean()
    after = (found.positions - truth.positions).norm(dim=1).mean()
    assert float(after) < 0.4 * float(before)


def test_a_corrected_pose_is_that_of_the_refined_camera():
    cameras = true_cameras()
    poses = PoseTable(VIEWS)
    with torch.no_grad():
        poses.motion.copy_(torch.randn(VIEWS, 6, generator=torch.Generator().manual_seed(1)) * 0.1)
    bounds = cube(torch.tensor([0.3, -0.2, 0.1]), 3.0)
    refined = refined_cameras(poses, cameras, bounds)
    for place in range(3):
        world_to_camera = torch.linalg.inv(cameras.camera_to_world[place])[:3]
        found = corrected_pose(
            poses.motion[place], world_to_camera, center=bounds.mean(dim=0), side=3.0
        )
        wanted = torch.linalg.inv(refined.camera_to_world[place])[:3]
        assert torch.allclose(found, wanted, atol=1e-5)


def test_rows_of_a_table_move_by_their_own_step_count():
    table = torch.nn.Parameter(torch.zeros(3, 2))
    adam = RowAdam(table)
    for row in (0, 2, 2):
        table.grad = torch.zeros(3, 2)
        table.grad[row] = torch.tensor([5.0, torch.nan])
        adam.step([row], 0.1)
    # with a constant gradient each step of Adam is the rate, the first one too
    assert table.detach()[:, 0].tolist() == pytest.approx([-0.1, 0.0, -0.2])
    assert not table.detach()[:, 1].any() and table.grad is None


def test_depth_supervision_pulls_depths_to_what_is_known(small_config):
    class Far:
        def __len__(self):
            return VIEWS

        def load(self, index):
            return torch.full((PIXELS, PIXELS), 2.2)

    scene = dataclasses.replace(true_scene(), depths=Far())
    errors = []
    for weight in (0.0, 20.0):
        config = small_config(
            depth_weight=weight, background="black", resolution_start=1.0, refine_start=10**6
        )
        method = GaussiansMethod(scene, config, CPU, initial=ball_cloud())
        run_steps(method, 150)
        frame = method.renderer.render(method.field, scene.cameras[0])
        errors.append(float((frame.depth - 2.2).abs()[frame.opacity > 0.5].mean()))
    assert errors[1] < 0.8 * errors[0]


def test_a_loss_that_is_not_finite_skips_the_step_and_is_counted(make_scene, small_config):
    method = GaussiansMethod(make_scene(), small_config(), CPU, initial=ball_cloud())
    with torch.no_grad():
        method.comparison.background.table.fill_(torch.nan)
    before = method.field.means.detach().clone()
    result = run_steps(method, 1)[0]
    assert not math.isfinite(float(result.loss)) and method.bad_gradients() == 1
    assert torch.equal(method.field.means, before) and method.field.means.grad is None


def test_a_checkpoint_of_another_method_is_refused(make_scene, small_config, tmp_path):
    run = train(make_scene(), small_config(steps=5), out=tmp_path / "run")
    path = newest_checkpoint(run.path)
    tensors, header = load_checkpoint(path)
    del tensors["field.rotations"]
    method = GaussiansMethod(make_scene(), small_config(), CPU)
    with pytest.raises(CheckpointError, match=r"holds no 'field.rotations'; it belongs to another"):
        method.restore(tensors, header, path)


def test_mistakes_are_told_before_training(make_scene, small_config, tmp_path):
    with pytest.raises(DataError, match="memory: has no points to start from"):
        train(make_scene(), small_config(initialization="points"), out=tmp_path / "a")
    config = small_config(memory_budget_gib=0.001, max_gaussians=10**6)
    with pytest.raises(ConfigError, match="lower max_gaussians"):
        train(make_scene(), config, out=tmp_path / "b")
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_extent_is_that_of_the_cameras(make_scene):
    assert scene_extent(true_scene()) == pytest.approx(1.1 * 2.5, rel=0.1)
    scene = true_scene()
    assert scene_extent(scene.select([0])) == pytest.approx(0.5)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_gpu_training_learns_and_opens_on_a_cpu(name, small_config, tmp_path):
    scene = true_scene()
    scene = dataclasses.replace(scene, splits={"train": torch.arange(8), "test": torch.arange(2)})
    options = {"background": "black", **CASES[name], "device": "cuda", "steps": 200}
    config = small_config(**options, max_gaussians=300, initial_gaussians=200, refine_every=20)
    events = []
    run = train(scene, config, out=tmp_path / "run", on_event=events.append)
    steps = [event for event in events if isinstance(event, StepEvent)]
    assert steps[-1].psnr > steps[0].psnr + 3
    assert max(event.extras["gaussians"] for event in steps) <= 300
    frame = run.model("cpu").render(scene.cameras[0])
    there = run.model("cuda").render(scene.cameras[0])
    assert float((frame.color - there.color).abs().mean()) < 1e-3


def test_frames_while_training_have_the_learned_background(make_scene, some_points):
    config = train_config("gaussians", "tiny", max_gaussians=200, device="cpu")
    method = GaussiansMethod(make_scene(points=some_points()), config, torch.device("cpu"))
    for step in range(5):
        method.step(Progress(step, step / 5, 5))
    learned = (0.5 + method.comparison.background.table.detach()[0]).clamp(0, 1)
    assert not torch.equal(learned, torch.full((3,), 0.5))
    assert torch.equal(method.renderer.background, learned)
    assert method.renderer is method.renderer
