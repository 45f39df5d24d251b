"""`lumigraph train --viewer`: what is opened, told and closed, with a viewer that draws nothing."""

import sys
import threading
import types
import urllib.request

import pytest

from lumigraph import training
from lumigraph.cli import main
from lumigraph.core.errors import InputError
from lumigraph.training.events import MessageEvent, StepEvent


class FakeViewer:
    url = "http://localhost:8080/"

    def __init__(self, control, scene, *, config, title, port):
        if port == 1:
            raise InputError("port 1 is taken; choose another with --port")
        self.control, self.scene, self.port = control, scene, port
        self.shown = (title, config.method)
        self.events, self.waits, self.closed = [], 0, False

    def on_event(self, event):
        self.events.append(event)
        raise OSError("the network is gone")

    def wait(self, seconds=None):
        self.waits += 1
        raise KeyboardInterrupt

    def close(self):
        self.closed = True


@pytest.fixture
def opened(monkeypatch):
    """The viewers that were opened."""
    viewers = []

    def serve_training(control, scene, **options):
        viewers.append(FakeViewer(control, scene, **options))
        return viewers[-1]

    module = types.ModuleType("lumigraph.viewer")
    module.serve_training = serve_training
    monkeypatch.setitem(sys.modules, "viser", types.ModuleType("viser"))
    monkeypatch.setitem(sys.modules, "lumigraph.viewer", module)
    monkeypatch.setattr("lumigraph.viewer", module, raising=False)
    return viewers


def train(*words):
    return main(["train", "builtin:object", "--steps", "2", *words])


def test_the_viewer_sees_the_run_and_stays_until_ctrl_c(fake, opened, capsys):
    assert train("--viewer", "--method", "gaussians") == 0
    (viewer,) = opened
    assert viewer.shown == ("object", "gaussians")
    assert (viewer.port, viewer.waits, viewer.closed) == (None, 1, True)
    assert fake.calls[0][1] is viewer.scene and len(viewer.scene.cameras) > 10
    assert {type(event) for event in viewer.events} == {StepEvent, MessageEvent}
    captured = capsys.readouterr()
    assert "viewer: http://localhost:8080/" in captured.out
    assert "stays open at http://localhost:8080/; Ctrl-C closes it" in captured.out
    # once, however many events follow
    assert captured.err == "lumigraph: the viewer failed, training goes on: the network is gone\n"


@pytest.mark.parametrize("words", [["--viewer-close"], ["--json"]])
def test_the_viewer_ends_with_training(fake, opened, words):
    assert train("--viewer", "--viewer-port", "0", *words) == 0
    assert (opened[0].port, opened[0].waits, opened[0].closed) == (0, 0, True)


def test_ctrl_c_while_training_closes_the_viewer(fake, opened, capsys):
    fake.raises_after_saving = KeyboardInterrupt()
    assert train("--viewer") == 130
    assert (opened[0].waits, opened[0].closed) == (0, True)
    assert "continue with: lumigraph train --resume" in capsys.readouterr().err


def test_a_run_that_fails_closes_the_viewer(fake, opened, tmp_path):
    fake.raises = InputError("diverged")
    assert train("--viewer") == 2
    assert opened[0].closed and opened[0].waits == 0


def test_resume_with_a_viewer(scene_folder_run, opened, capsys):
    words = ["train", "--resume", "--out", str(scene_folder_run), "--steps", "3"]
    assert main([*words, "--viewer", "--viewer-close"]) == 0
    (viewer,) = opened
    assert viewer.closed and viewer.control.step == 3 and viewer.control.state == "finished"
    with viewer.control.between_steps(1.0) as model:
        assert model.render(viewer.scene.cameras[0].resized_to(8, 8)).color.shape == (8, 8, 3)


@pytest.fixture
def scene_folder_run(tmp_path):
    config = training.train_config("nerf", "tiny", steps=1, batch_samples=512, device="cpu")
    return training.train("builtin:object", config, out=tmp_path / "run").path


def test_a_stop_from_the_viewer_says_how_to_go_on(opened, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(FakeViewer, "on_event", lambda self, event: self.control.stop())
    out = tmp_path / "run"
    words = ["train", "builtin:object", "--steps", "40", "--out", str(out), "--device", "cpu"]
    words += ["--viewer", "--viewer-close", "--set", "log_every=2", "--set", "batch_samples=512"]
    assert main(words) == 0
    assert f"stopped; continue with: lumigraph train --resume --out {out}" in (
        capsys.readouterr().out
    )
    assert training.Run.open(out).train_summary()["steps"] == 2


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--viewer-port", "8000"], "--viewer-port 8000: needs --viewer"),
        (["--viewer-close"], "--viewer-close needs --viewer"),
        (["--viewer", "--viewer-port", "1"], "port 1 is taken; choose another with --viewer-port"),
    ],
)
def test_mistakes_come_before_any_work(fake, opened, capsys, tmp_path, words, text):
    assert train(*words) == 2
    assert text in capsys.readouterr().err
    assert not fake.calls and not (tmp_path / "runs").exists()


def test_without_viser_nothing_is_begun(fake, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    assert train("--viewer") == 2
    error = capsys.readouterr().err
    assert "viser" in error and "pip install 'lumigraph[viewer]'" in error
    assert not fake.calls


def test_a_real_viewer_answers_while_it_trains(monkeypatch, tmp_path, capsys):
    pytest.importorskip("viser")
    from lumigraph import viewer

    pages, serve = [], viewer.serve_training

    def serve_and_ask(control, *rest, **options):
        served = serve(control, *rest, **options)
        control.pause()

        def ask():
            with urllib.request.urlopen(served.url, timeout=60) as answer:
                pages.append((answer.status, control.state))
            control.resume()

        threading.Thread(target=ask, daemon=True).start()
        return served

    monkeypatch.setitem(vars(viewer), "serve_training", serve_and_ask)
    out = tmp_path / "run"
    words = ["train", "builtin:object", "--steps", "10", "--out", str(out), "--device", "cpu"]
    words += ["--set", "batch_samples=512", "--viewer", "--viewer-port", "0", "--viewer-close"]
    assert main(words) == 0
    assert [status for status, _ in pages] == [200] and pages[0][1] != "finished"
    assert training.Run.open(out).train_summary()["steps"] == 10
