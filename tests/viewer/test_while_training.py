"""A run is looked at while it trains; training does not need anybody to look."""

import io
import threading

import imageio.v3 as iio
import numpy as np
import pytest

from lumigraph import training
from lumigraph.training import StepEvent, TrainingControl
from lumigraph.viewer import serve_training
from lumigraph.viewer.history import MOST_POINTS, History
from lumigraph.viewer.panel_training import state_line

pytest.importorskip("viser")


def step_event(step: int, **changes) -> StepEvent:
    numbers = {"loss": 0.01, "psnr": 20.0, "rays_per_second": 1.0, "samples_per_ray": None}
    numbers |= {"learning_rate": 0.1, "elapsed": 1.0, "budget_fraction": 0.5}
    return StepEvent(step, 100, **{**numbers, **changes})


def test_curves_are_thinned_finite_and_end_with_the_last_step():
    history = History()
    for step in range(5000):
        history.add(step_event(step, psnr=float("nan") if step == 2500 else 20.0 + step))
    steps, loss, psnr = history.curves()
    assert len(steps) == len(loss) == len(psnr) <= MOST_POINTS
    assert steps[0] == 0 and steps[-1] == 4999 and np.isfinite(psnr).all()
    assert np.allclose(loss, -2)


def test_a_run_that_goes_back_forgets_what_came_after():
    history = History()
    for step in (10, 20, 30, 20, 40):
        history.add(step_event(step))
    assert history.curves()[0].tolist() == [10, 20, 40]


def test_before_the_first_step_there_is_an_empty_curve():
    steps, loss, psnr = History().curves()
    assert len(steps) == len(loss) == len(psnr) == 0
    assert state_line(TrainingControl(), None) == "**new** · step 0"


def test_the_state_in_a_line():
    line = state_line(TrainingControl(), step_event(7, extras={"gaussians": 48000.0}))
    assert "of 100" in line and "20.00 dB" in line and "48,000 gaussians" in line


def x_of(session) -> float | None:
    """Where the camera of the newest picture stands."""
    return None if session.last is None else float(session.last.wish.shot.camera_to_world[0, 3])


def train_beside(control, listener, scene, out, steps=400):
    config = training.train_config("nerf", "tiny", steps=steps, device="cpu", log_every=20)
    options = {"out": out, "control": control, "on_event": listener}
    thread = threading.Thread(target=training.train, args=(scene, config), kwargs=options)
    thread.start()
    return thread


def test_pictures_follow_the_training_and_it_goes_on_when_all_have_left(
    nerf_run, tmp_path, raw_client, until, monkeypatch
):
    from lumigraph.viewer import render_loop

    monkeypatch.setattr(render_loop, "REFRESH_SECONDS", 0.1)
    monkeypatch.setattr(render_loop, "REFRESH_SHARE", 0.9)
    control = TrainingControl()
    scene = nerf_run.scene()
    with serve_training(control, scene, port=0) as viewer:
        clients = [raw_client(viewer.port) for _ in range(3)]
        for client in clients:
            client.look(size=(64, 48))
        told = []

        def listen(event) -> None:
            told.append(getattr(event, "text", ""))
            viewer.on_event(event)

        thread = train_beside(control, listen, scene, tmp_path / "run")
        try:
            until(lambda: all(client.pictures for client in clients))
            first = viewer.sessions[0].last.job.version
            until(lambda: viewer.sessions[0].last.job.version > first)
            control.pause()
            until(lambda: f"paused at step {control.step}" in told)
            halted = control.step
            clients[0].look(x=0.5)
            until(lambda: any(x_of(session) == 0.5 for session in viewer.sessions))
            assert control.step == halted, "a paused run can be looked at and does not move"
            control.resume()
            for client in clients:
                client.close()
            until(lambda: viewer.loop.view_count == 0)
            left_at = control.step
            until(lambda: control.step > left_at)
        finally:
            control.resume()
            control.stop()
            thread.join(timeout=60)
        assert control.state == "finished"
        assert len(viewer.history.curves()[0]) >= 1


def test_where_nobody_looks_the_trainer_is_asked_for_nothing(nerf_run, tmp_path):
    control = TrainingControl()
    scene = nerf_run.scene()
    asked = []
    with serve_training(control, scene, port=0) as viewer:
        plain = control.between_steps
        control.between_steps = lambda **o: (asked.append(o), plain(**o))[1]  # type: ignore
        train_beside(control, viewer.on_event, scene, tmp_path / "run", steps=40).join(timeout=60)
    assert control.state == "finished" and control.step == 40
    assert asked == []


def test_a_run_that_fails_leaves_the_server_up(nerf_run, tmp_path, raw_client, until):
    control = TrainingControl()
    scene = nerf_run.scene()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("taken")
    with serve_training(control, scene, port=0) as viewer:
        client = raw_client(viewer.port)
        client.look()
        with pytest.raises(Exception, match="already holds a run"):
            training.train(scene, None, out=tmp_path / "run", control=control)
        until(lambda: viewer.sessions)
        config = training.train_config("nerf", "tiny", steps=2, device="cpu")
        training.train(scene, config, out=tmp_path / "other", control=control)
        until(lambda: client.pictures)
    assert iio.imread(io.BytesIO(client.bytes), extension=".jpg").shape[2] == 3
