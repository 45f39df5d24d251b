"""Moving surfaces: moments one after the other, their motions, exact resume, what is refused."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from lumigraph.core import Similarity
from lumigraph.core.errors import CheckpointError, ConfigError, DataError
from lumigraph.cuda.dispatch import backend_override
from lumigraph.fields import MovingField
from lumigraph.training import StepEvent, evaluate, train, train_config
from lumigraph.training.checkpoint import load_checkpoint
from lumigraph.training.files import newest_checkpoint, read_lines
from lumigraph.training.method import Progress
from lumigraph.training.metrics import psnr
from lumigraph.training.moment_files import moment_path
from lumigraph.training.neus import NeusMethod
from lumigraph.training.neus_playback import build_neus
from lumigraph.training.neus_sequence import NeusSequence
from lumigraph.training.sequence_plan import SequencePlan

CPU = torch.device("cpu")
change = dataclasses.replace


def stop_at(step):
    def listener(event):
        if isinstance(event, StepEvent) and event.step == step:
            raise KeyboardInterrupt

    return listener


def steps_of(method, total, first=0, last=None):
    for step in range(first, last or total):
        yield method.step(Progress(step, step / total, total, 1.0))


def error_of(motion: Similarity, wanted: Similarity) -> tuple[float, float]:
    """Degrees and scene units between two rigid motions."""
    between = motion.inverse().compose(wanted)
    cosine = (between.rotation.trace() - 1) / 2
    return math.degrees(math.acos(min(1.0, float(cosine)))), float(between.translation.norm())


@pytest.mark.parametrize("stop", [5, 9, 12, 14, 18])  # in every phase, and where two meet
def test_a_run_that_was_stopped_goes_on_bit_for_bit(moving, sequence, tmp_path, stop):
    whole = train(moving.scene, sequence, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(moving.scene, sequence, out=tmp_path / "parts", on_event=stop_at(stop))
    trained = build_neus(moving.scene, sequence, CPU)
    checkpoint = newest_checkpoint(tmp_path / "parts")
    trained.restore(*load_checkpoint(checkpoint), checkpoint)
    list(steps_of(trained, 20, first=stop))
    found = {**trained.state(), **trained.random_state(), **trained.small_state()}
    wanted, header = load_checkpoint(newest_checkpoint(whole.path))
    assert set(found) == set(wanted)
    for name, tensor in wanted.items():
        assert torch.equal(tensor, found[name].detach()), name
    for name, value in trained.header().items():
        assert header[name] == value, name
    stored, _ = load_checkpoint(moment_path(whole.path, 2))
    assert torch.equal(trained.moment().tensors["motion"], stored["motion"])


def test_the_log_tells_the_moment_and_the_rate_of_its_phase(moving, sequence, tmp_path):
    run = train(moving.scene, sequence, out=tmp_path / "run")
    rows = read_lines(run.path / "metrics.jsonl")
    assert [row["moment"] for row in rows] == [0] * 8 + [1] * 6 + [2] * 6
    assert run.train_summary()["moment"] == 2 and run.train_summary()["steps"] == 20
    # half of the warm-up, full, then falling; the search for the motion is not warmed up
    rates = [row["learning_rate"] / sequence.learning_rate for row in rows]
    assert rates[0] == 0.5 and rates[1] == 1.0 and rates[7] < 0.3
    assert rates[8] == 1.0 and rates[10] == 0.5


def test_moments_share_the_steps_or_the_time_of_a_run(moving, sequence):
    plan = SequencePlan.of(change(sequence, keyframe_every=2), 4)
    assert plan.steps == (8, 6, 8, 6) and plan.total == 28
    longer = change(sequence, steps=40)
    trained = build_neus(moving.scene, longer, CPU)
    moments = [int(result.extras["moment"]) for result in steps_of(trained, 40)]
    assert [moments.count(k) for k in range(3)] == [16, 12, 12]
    timed = build_neus(moving.scene, change(sequence, seconds=1.0), CPU)
    shares = [0.0, 0.39, 0.41, 0.5, 0.69, 0.71, 0.99]
    found = [timed.step(Progress(k, f, 20, 1.0)).extras["moment"] for k, f in enumerate(shares)]
    assert found == [0, 0, 1, 1, 1, 2, 2]
    with pytest.raises(ConfigError, match="3 steps are too few for 3 moments; give at least 4"):
        build_neus(moving.scene, change(sequence, steps=3), CPU)


def test_a_run_that_is_given_more_steps_spends_them_on_what_is_left(moving, sequence, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(moving.scene, sequence, out=tmp_path / "run", on_event=stop_at(10))
    trained = build_neus(moving.scene, change(sequence, steps=32), CPU)
    checkpoint = newest_checkpoint(tmp_path / "run")
    trained.restore(*load_checkpoint(checkpoint), checkpoint)
    moments = [int(result.extras["moment"]) for result in steps_of(trained, 32, first=10)]
    assert [moments.count(k) for k in range(3)] == [0, 10, 12]  # of 8 .. 20 .. 32


def test_a_known_motion_is_found_and_the_surface_follows(moving, sequence, tmp_path):
    steps = {"first_steps": 300, "later_steps": 90, "motion_steps": 60, "log_every": 20}
    config = change(sequence, **steps)
    run = train(moving.scene, config, out=tmp_path / "run")
    model = run.model("cpu")
    assert isinstance(model.field, MovingField) and model.moments.tolist() == [0.0, 0.5, 1.0]
    own = [
        model.field.at_moment(k).motion.compose(move) for k, move in enumerate(moving.motions)
    ]  # from the shape's own frame to the field's: always the same
    for found in own[1:]:
        degrees, shift = error_of(found, own[0])
        assert degrees < 8 and shift < 0.05  # of 14 and 28 degrees, 0.25 and 0.5
    scores = evaluate(run)
    found = [row["psnr"] for row in scores["per_moment"]]
    assert [row["time"] for row in scores["per_moment"]] == [0.0, 0.5, 1.0]
    assert min(found[1:]) > found[0] - 1.5 and found[0] > 21
    assert all("time" in row for row in scores["per_view"])
    # pictures are those of the moment nearest to the camera's time
    camera, truth = moving.scene.cameras[10], moving.scene.images.load(10)
    shown = {t: model.render(camera.at_time(t)).color for t in (0.0, 0.2, 0.3, 1.0)}
    assert torch.equal(shown[0.0], shown[0.2]) and not torch.equal(shown[0.2], shown[0.3])
    assert torch.equal(model.render(camera.at_time(None)).color, shown[0.0])
    inside, white = truth[..., 3:] / 255, torch.ones(3)
    truth = torch.lerp(white.expand(48, 48, 3), truth[..., :3] / 255, inside)
    assert psnr(shown[0.0], truth) > psnr(shown[1.0], truth) + 3


def test_without_the_search_for_the_motion_what_moves_fast_is_lost(fast, sequence, tmp_path):
    steps = {"first_steps": 250, "later_steps": 110, "motion_steps": 80, "log_every": 20}
    found = {}
    for predict in (True, False):
        config = change(sequence, predict_motion=predict, **steps)
        run = train(fast.scene, config, out=tmp_path / str(predict))
        found[predict] = evaluate(run)["per_moment"][1]["psnr"]
    assert found[True] > found[False] + 3, found


def test_normals_and_depths_are_those_of_the_scene(moving, sequence):
    config = change(sequence, first_steps=150)
    trained = build_neus(moving.scene, config, CPU)
    list(steps_of(trained, 162, last=150))
    plain = trained.renderer.render(trained.field, moving.scene.cameras[3])
    turn = Similarity(1.0, moving.motions[2].rotation, moving.motions[2].translation)
    trained.renderer.motion = turn.inverse  # the field's frame is moved by `turn`
    camera = moving.scene.cameras[3]
    there = camera.with_poses(turn.apply_poses(camera.camera_to_world))
    frame = trained.renderer.render(trained.field, there)
    seen = (plain.opacity > 0.9) & (frame.opacity > 0.9)
    assert float(seen.float().mean()) > 0.1
    assert float((frame.color - plain.color).abs().mean()) < 1e-3
    depth = (frame.extras["median_depth"] - plain.extras["median_depth"]).abs()
    assert float(depth[seen].mean()) < 1e-3
    wanted = turn.apply_directions(plain.normal)
    assert float((frame.normal - wanted)[seen].abs().mean()) < 1e-2
    assert float((plain.normal - wanted)[seen].abs().mean()) > 0.1


def test_a_later_moment_begins_softer_and_with_coarse_levels(moving, sequence):
    config = change(sequence, first_steps=40, later_sharpness=0.5, sharpness_rate=5e-3)
    trained = build_neus(moving.scene, config, CPU)
    sharpness, levels = [], []
    for result in steps_of(trained, 52, last=46):
        sharpness.append(result.extras["sharpness"])
        levels.append(trained.field.active_levels)
    assert sharpness[39] > 25 and sharpness[40] == sharpness[41] == sharpness[39]  # frozen
    assert sharpness[42] == pytest.approx(max(0.5 * sharpness[39], math.exp(3)), rel=0.1)
    assert levels[40] == levels[41] == 4 and levels[42] == 2 and levels[45] == 4


@pytest.mark.parametrize("restart", ["network", "scratch"])
def test_key_moments_start_anew(restart, moving, sequence):
    config = change(sequence, keyframe_every=2, keyframe_restart=restart, later_steps=6)
    trained = build_neus(moving.scene, config, CPU)
    kept = []
    for step, _ in enumerate(steps_of(trained, 22)):
        kept.append({name: value.clone() for name, value in trained.state().items()})
        if step == 14:  # the third moment has begun
            assert trained.index == 2 and trained.predicting == (restart == "network")
    assert trained.moment().key == 2
    still = error_of(trained.world_motion(), Similarity.identity())
    assert (still == (0.0, 0.0)) == (restart == "scratch")
    fresh = build_neus(moving.scene, config, CPU).state()
    begin = 16 if restart == "network" else 14  # the step with which the fitting begins

    def away(name: str, other: dict) -> float:
        return float((kept[begin][name] - other[name]).norm())

    network, table = "field.surface_weights", "field.table"
    assert away(network, fresh) < 0.3 * away(network, kept[begin - 1])
    closer = away(table, fresh) < away(table, kept[begin - 1])
    assert closer == (restart == "scratch")


def test_without_times_or_without_sequence_nothing_changes(moving, ball_scene, sequence):
    assert type(build_neus(ball_scene, sequence, CPU)) is NeusMethod
    assert type(build_neus(moving.scene, sequence, CPU)) is NeusSequence
    off = change(sequence, sequence=False)
    assert type(build_neus(moving.scene, off, CPU)) is NeusMethod
    one = moving.scene.at_moment(1)
    assert type(build_neus(one, sequence, CPU)) is NeusMethod


def test_what_cannot_be_a_sequence_is_refused_in_one_line(moving, sequence):
    cases = {
        "exposure = True is for still scenes": {"exposure": True},
        "pose_refinement = True is for still": {"pose_refinement": True},
        "background = 'model' is for still": {"background": "model"},
    }
    for message, setting in cases.items():
        with pytest.raises(ConfigError, match=message) as caught:
            build_neus(moving.scene, change(sequence, **setting), CPU)
        assert "\n" not in str(caught.value) and "sequence=false" in str(caught.value)
    few = change(moving.scene, splits={**moving.scene.splits, "train": torch.arange(12)})
    with pytest.raises(DataError, match=r"moment 1 \(time 0.5\) has 1 training view; a moving"):
        build_neus(few, sequence, CPU)
    with pytest.raises(ConfigError, match="motion_steps = 600: must be fewer than later_steps"):
        train_config("neus", motion_steps=600)
    with pytest.raises(ConfigError, match="must be fewer than first_steps = 60"):
        train_config("neus", first_steps=60, keyframe_every=5)
    with pytest.raises(ConfigError, match="keyframe_restart = 'all': unknown"):
        train_config("neus", keyframe_restart="all")
    still = build_neus(moving.scene, change(sequence, sequence=False), CPU)
    other = build_neus(moving.scene, sequence, CPU)
    with pytest.raises(CheckpointError, match="is not of these 3 moments"):
        other.restore(still.state(), still.header(), Path("step-00000001.safetensors"))


def test_the_motion_is_found_by_emulated_cuda_as_on_the_cpu(moving, sequence):
    config = change(
        sequence, first_steps=1, later_steps=3, motion_steps=2, march_steps=48, grid_resolution=16,
        occupancy_samples=256, batch_samples=512,
    )  # fmt: skip
    found = {}
    for backend in ("cpu", "emu"):
        with backend_override(backend):
            trained = build_neus(moving.scene, config, CPU)
            list(steps_of(trained, 7, last=3))
        assert trained.index == 1 and trained.motion.steps == 2
        found[backend] = trained.motion.values.detach().clone()
    assert float((found["cpu"] - found["emu"]).abs().max()) < 2e-3


@pytest.mark.gpu
def test_moving_surfaces_are_learnt_on_a_gpu(fast, sequence, tmp_path):
    steps = {"first_steps": 300, "later_steps": 110, "motion_steps": 80, "log_every": 20}
    config = change(sequence, device="cuda", **steps)
    run = train(fast.scene, config, out=tmp_path / "run")
    found = [row["psnr"] for row in evaluate(run)["per_moment"]]
    assert found[0] > 21 and found[1] > found[0] - 2
    camera = fast.scene.cameras[-1]
    seen = [run.model(device).render(camera, channels=("color", "normal")) for device in
            ("cuda", "cpu")]  # fmt: skip
    assert float((seen[0].color - seen[1].color).abs().mean()) < 0.02
