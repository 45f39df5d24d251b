"""Steering a run from other threads: it never changes what is learnt, and nobody waits for ever."""

import contextlib
import dataclasses
import random
import threading
import time

import pytest
import torch

from lumigraph.core.errors import DataError, InputError
from lumigraph.training import (
    CheckpointEvent,
    MessageEvent,
    Run,
    StepEvent,
    TrainingControl,
    resume,
    train,
    train_config,
)
from lumigraph.training import trainer as trainer_module
from lumigraph.training.checkpoint import load_checkpoint
from lumigraph.training.control import ModelUnavailable
from lumigraph.training.files import newest_checkpoint, read_lines

PATIENCE = 60.0  # seconds until a test gives a thread up


@contextlib.contextmanager
def in_thread(work, *arguments, **options):
    """Run `work` beside the block; a list with its result, or its error, once the block is left."""
    results = []

    def body():
        try:
            results.append(work(*arguments, **options))
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    yield results
    thread.join(PATIENCE)
    assert not thread.is_alive(), "the thread hangs"


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def losses(run):
    return [row["loss"] for row in read_lines(run.path / "metrics.jsonl")]


def assert_same_run(one, other):
    first, header = load_checkpoint(newest_checkpoint(one.path))
    second, also = load_checkpoint(newest_checkpoint(other.path))
    assert header["step"] == also["step"] and set(first) == set(second)
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert losses(one) == losses(other)


def look(control, camera, pictures):
    """Render at random moments until the run has ended."""
    moments = random.Random(7)
    while control.state not in ("finished", "failed"):
        with control.between_steps(PATIENCE) as model:
            channels = ("color", "normal") if len(pictures) % 2 else ("color",)
            pictures.append(model.render(camera, channels=channels).color)
        time.sleep(moments.random() * 0.02)


SMALL = {
    "nerf": {"steps": 24, "batch_samples": 2048, "distortion_weight": 0.01},
    "gaussians": {
        "steps": 24,
        "initial_gaussians": 1500,
        "max_gaussians": 3000,
        "harmonics_every": 6,
        "refine_start": 2,
        "refine_every": 4,
    },
}


@pytest.mark.parametrize("method", ["nerf", "gaussians"])
def test_looking_changes_nothing(method, tmp_path):
    config = train_config(method, "tiny", log_every=1, device="cpu", **SMALL[method])
    unseen = train("builtin:object", config, out=tmp_path / "unseen")
    camera = unseen.scene().cameras[3].resized_to(48, 48)
    control, pictures = TrainingControl(), []
    control.pause()
    with in_thread(train, "builtin:object", config, out=tmp_path / "seen", control=control):
        until(lambda: control.state == "paused")
        with control.between_steps(PATIENCE) as model:
            first = model.render(camera).color
        with in_thread(look, control, camera, pictures):
            control.resume()
    seen = Run.open(tmp_path / "seen")
    assert_same_run(unseen, seen)
    assert len(pictures) >= 5 and not torch.equal(first, pictures[-1])
    with control.between_steps() as model:
        last = model.render(camera).color
    assert torch.equal(last, seen.model("cpu").render(camera).color)


def test_a_pause_halts_between_steps_and_is_no_training_time(scene_folder, tiny, tmp_path):
    control, messages = TrainingControl(), []
    config = dataclasses.replace(tiny, steps=None, seconds=1.0, log_every=1)

    def listen(event):
        if isinstance(event, StepEvent) and event.step == 1:
            control.pause()
        if isinstance(event, MessageEvent):
            messages.append(event.text)

    options = {"out": tmp_path / "run", "on_event": listen, "control": control}
    begin = time.monotonic()
    with in_thread(train, scene_folder, config, **options) as results:
        until(lambda: messages)
        time.sleep(0.6)
        assert control.step == 1 and control.paused and control.state == "paused"
        with control.between_steps(PATIENCE) as model:
            weights = model.field.table.detach().clone()
        with control.between_steps(PATIENCE) as model:
            assert torch.equal(model.field.table, weights)
        control.resume()
    assert messages == ["paused at step 1", "resumed at step 1"]
    assert 1.0 <= results[0].train_summary()["seconds"] < time.monotonic() - begin - 0.6
    assert control.state == "finished" and not control.paused


def test_stop_ends_like_a_finished_run_and_resume_is_exact(scene_folder, tiny, tmp_path):
    whole = train(scene_folder, tiny, out=tmp_path / "whole")
    control = TrainingControl()

    def listen(event):
        if isinstance(event, StepEvent) and event.step == 10:
            control.stop()

    options = {"on_event": listen, "control": control}
    parts = train(scene_folder, tiny, out=tmp_path / "parts", **options)
    summary = parts.train_summary()
    assert summary["interrupted"] and summary["steps"] == 10 and control.state == "finished"
    assert_same_run(whole, resume(parts.path, control=control))
    assert control.state == "finished" and control.step == 20


def test_stop_before_the_start_and_while_paused(scene_folder, tiny, tmp_path):
    control = TrainingControl()
    control.stop()
    run = train(scene_folder, tiny, out=tmp_path / "none", control=control)
    assert run.train_summary()["steps"] == 0
    control = TrainingControl()
    control.pause()
    options = {"out": tmp_path / "paused", "control": control}
    with in_thread(train, scene_folder, tiny, **options) as results:
        until(lambda: control.state == "paused")
        control.stop()
    assert results[0].train_summary()["interrupted"]


def test_checkpoint_on_request_also_while_paused(scene_folder, tiny, tmp_path):
    control, saved = TrainingControl(), []

    def listen(event):
        if isinstance(event, StepEvent) and event.step == 5:
            control.request_checkpoint()
        if isinstance(event, StepEvent) and event.step == 10:
            control.pause()
        if isinstance(event, CheckpointEvent):
            saved.append(event.step)

    options = {"out": tmp_path / "run", "on_event": listen, "control": control}
    with in_thread(train, scene_folder, tiny, **options) as results:
        until(lambda: control.state == "paused" and saved == [5])
        control.request_checkpoint()
        until(lambda: saved == [5, 10])
        assert newest_checkpoint(tmp_path / "run").name == "step-00000010.safetensors"
        control.resume()
    assert saved == [5, 10, 20]
    assert_same_run(train(scene_folder, tiny, out=tmp_path / "whole"), results[0])


def test_a_full_disk_at_a_requested_checkpoint_ends_nothing(
    scene_folder, tiny, tmp_path, monkeypatch
):
    control, messages = TrainingControl(), []
    write = trainer_module.save_checkpoint

    def full(path, tensors, header):
        if header["step"] == 5:
            raise DataError(f"{path}: cannot be written (No space left on device)")
        write(path, tensors, header)

    def listen(event):
        if isinstance(event, StepEvent) and event.step == 5:
            control.request_checkpoint()
        if isinstance(event, MessageEvent):
            messages.append(event.text)

    monkeypatch.setattr(trainer_module, "save_checkpoint", full)
    options = {"on_event": listen, "control": control}
    run = train(scene_folder, tiny, out=tmp_path / "run", **options)
    assert run.train_summary()["steps"] == 20
    assert len(messages) == 1 and "no checkpoint" in messages[0] and "No space" in messages[0]


def test_many_who_look_take_turns_and_training_moves_on(scene_folder, tiny, tmp_path):
    control, steps = TrainingControl(), [[] for _ in range(8)]
    crowd, most = [0], [0]
    config = dataclasses.replace(tiny, steps=12, log_every=1)

    def watch(mine):
        while control.state not in ("finished", "failed"):
            with control.between_steps(PATIENCE):
                crowd[0] += 1
                most[0] = max(most[0], crowd[0])
                mine.append(control.step)
                time.sleep(0.002)
                assert control.step == mine[-1]
                crowd[0] -= 1

    control.pause()
    with contextlib.ExitStack() as stack:
        options = {"out": tmp_path / "run", "control": control}
        stack.enter_context(in_thread(train, scene_folder, config, **options))
        ends = [stack.enter_context(in_thread(watch, mine)) for mine in steps]
        until(lambda: all(steps))
        control.resume()
    assert ends == [[None]] * 8 and most[0] == 1 and control.step == 12
    for mine in steps:
        # each gets a turn, and no more than one, in every break
        taken = [mine.count(step) for step in range(1, 12)]
        assert max(taken) == 1 and sum(taken) >= 3


def test_an_error_while_looking_lets_training_go_on(scene_folder, tiny, tmp_path):
    control = TrainingControl()
    control.pause()
    with in_thread(train, scene_folder, tiny, out=tmp_path / "run", control=control) as results:
        with pytest.raises(ZeroDivisionError), control.between_steps(PATIENCE):
            _ = 1 / 0
        with control.between_steps(PATIENCE) as model:
            with control.between_steps(0.0) as again:
                assert again is model
            # it still has the model: nobody else gets it
            with in_thread(control.between_steps(0.05).__enter__) as others:
                pass
            assert isinstance(others[0], TimeoutError)
        control.resume()
    assert results[0].train_summary()["steps"] == 20


def test_waiting_ends_in_time(scene_folder, tiny, tmp_path):
    control = TrainingControl()
    with (
        pytest.raises(TimeoutError, match=r"no turn within 0\.05 s: the run is new"),
        control.between_steps(0.05),
    ):
        pass
    assert not control.asked
    entered, release = threading.Event(), threading.Event()

    def listen(event):
        if isinstance(event, StepEvent) and event.step == 5:
            entered.set()
            assert release.wait(PATIENCE)

    options = {"out": tmp_path / "run", "on_event": listen, "control": control}
    with in_thread(train, scene_folder, tiny, **options) as results:
        assert entered.wait(PATIENCE)
        with pytest.raises(TimeoutError, match="is training"), control.between_steps(0.05):
            pass
        release.set()
    assert results[0].train_summary()["steps"] == 20


def test_a_failure_frees_those_who_wait(scene_folder, tiny, tmp_path):
    control = TrainingControl()

    def wait():
        with control.between_steps(PATIENCE) as model:
            return model

    with in_thread(wait) as results:
        until(lambda: control.asked)
        with pytest.raises(DataError):
            train(tmp_path / "nothing", tiny, out=tmp_path / "run", control=control)
    assert isinstance(results[0], ModelUnavailable) and "nothing" in str(results[0])
    assert control.state == "failed" and "no such" in control.error

    entered = threading.Event()

    def fail(event):
        if isinstance(event, StepEvent):
            entered.set()
            until(lambda: control.asked)
            raise OSError("the listener broke")

    with in_thread(train, scene_folder, tiny, out=tmp_path / "run", on_event=fail, control=control):
        assert entered.wait(PATIENCE)
        with control.between_steps(PATIENCE) as model:
            assert isinstance(model.field, torch.nn.Module)
    assert control.state == "failed" and control.error == "the listener broke"


def test_ctrl_c_leaves_the_model_to_look_at(scene_folder, tiny, tmp_path):
    control = TrainingControl()

    def listen(event):
        if isinstance(event, StepEvent):
            with control.between_steps(0.0) as model:  # the trainer's own thread
                assert isinstance(model.field, torch.nn.Module)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(scene_folder, tiny, out=tmp_path / "run", on_event=listen, control=control)
    assert control.state == "finished" and control.error is None
    with control.between_steps(0.0) as model:
        assert model.device.type == "cpu"


def test_one_control_steers_one_run_at_a_time(scene_folder, tiny, tmp_path):
    control = TrainingControl()
    control.pause()
    with in_thread(train, scene_folder, tiny, out=tmp_path / "one", control=control) as results:
        until(lambda: control.state == "paused")
        with pytest.raises(InputError, match="steers a run already"):
            train(scene_folder, tiny, out=tmp_path / "two", control=control)
        control.resume()
    assert results[0].train_summary()["steps"] == 20
    assert not (tmp_path / "two").exists()


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["nerf", "gaussians"])
def test_gpu_pictures_between_steps_are_whole(method, tmp_path):
    config = train_config(method, "tiny", log_every=1, device="cuda", **SMALL[method])
    control, pictures = TrainingControl(), []
    options = {"out": tmp_path / "run", "control": control}
    camera = trainer_module.load_scene("builtin:object", config).cameras[3]
    control.pause()
    with in_thread(train, "builtin:object", config, **options) as results:
        until(lambda: control.state == "paused")
        with torch.cuda.stream(torch.cuda.Stream()):
            control.resume()
            look(control, camera.resized_to(48, 48), pictures)
    run = results[0]
    assert run.train_summary()["steps"] == 24
    assert pictures and all(bool(picture.isfinite().all()) for picture in pictures)
    with control.between_steps() as model:
        last = model.render(camera.resized_to(48, 48)).color
    torch.testing.assert_close(last, run.model("cuda").render(camera.resized_to(48, 48)).color)
