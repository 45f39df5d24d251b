"""Time in the viewer: the clock, trained moments, photographs and paths of a moving model."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from lumigraph.core import Cameras, MemoryImages, PathEditor, Scene, cube
from lumigraph.core.transforms import look_at
from lumigraph.viewer import ModelSource, TrainingSource, Viewer
from lumigraph.viewer.display import Look
from lumigraph.viewer.panel import REST_SECONDS, _Rest
from lumigraph.viewer.panel_path import OF_VIEWS, RUNS, STANDS, PathPanel, path_table
from lumigraph.viewer.panel_time import PLAY_SECONDS, TimePanel, place_among
from lumigraph.viewer.photos import taken_at
from lumigraph.viewer.render_loop import RenderLoop
from lumigraph.viewer.timing import measure_rate
from lumigraph.viewer.views import Shot, Wish

pytest.importorskip("viser")

POSE = look_at(torch.tensor([0.0, -4.0, 0.0]), torch.zeros(3), up=[0.0, 0.0, 1.0])


@pytest.fixture
def scene() -> Scene:
    """One place, four times; every photograph is as red as its time."""
    times = torch.tensor([0.0, 0.25, 0.75, 1.0])
    cameras = Cameras.from_intrinsics(POSE.expand(4, 4, 4), 64, 48, 60.0, times=times)
    images = []
    for time in times:
        image = torch.zeros(48, 64, 3, dtype=torch.uint8)
        image[..., 0] = (time * 255).round().to(torch.uint8)
        images.append(image)
    splits = {"train": torch.arange(4)}
    bounds = cube(torch.zeros(3), 3.0)
    return Scene("spot", "memory", cameras, splits, bounds, images=MemoryImages(images))


@pytest.fixture
def opened(drifting_model, scene, raw_client, until):
    """The session of one client that looks at the drifting Gaussian."""
    with Viewer(ModelSource(drifting_model, scene), port=0) as viewer:
        client = raw_client(viewer.port)
        client.look(size=(128, 96))
        until(lambda: viewer.sessions and viewer.sessions[0].last is not None)
        session = viewer.sessions[0]
        session.client_of_test = client
        yield session


def shown_time(session, until) -> float:
    """The time that the whole picture on the screen shows, by the place of the spot in it."""
    view = session.view
    until(lambda: view.full_serial == view.newest()[1])
    return session.last.wish.moment


def test_pictures_show_the_time_of_the_slider(drifting_model, until, raw_client):
    source = ModelSource(drifting_model)
    assert source.moments.tolist() == [0, 0.25, 0.5, 0.75, 1]
    with Viewer(source, port=0) as viewer:
        client = raw_client(viewer.port)
        client.look(size=(128, 96))
        until(lambda: viewer.sessions and viewer.sessions[0].last is not None)
        session = viewer.sessions[0]
        places = []
        for moment in (0.0, 0.5, 1.0):
            session.set_moment(moment)
            assert shown_time(session, until) == moment
            red = session.last.picture[..., 0].astype(float)
            places.append((red.sum(axis=0) * np.arange(red.shape[1])).sum() / red.sum())
        assert places[1] == pytest.approx(red.shape[1] / 2, abs=1)
        assert abs(places[2] - places[0]) > 0.3 * red.shape[1]
    assert measure_rate(source, 16, 12, frames=2, warmup=0).frames == 2


def test_the_clock_plays_goes_round_and_stops(opened):
    panel = TimePanel(opened)
    assert panel.folder.visible
    panel.tick(1.0)
    assert opened.moment == 0.0, "nothing plays yet"
    panel.toggle()
    panel.tick(PLAY_SECONDS / 4)
    assert opened.moment == pytest.approx(0.25) and panel.slider.value == pytest.approx(0.25)
    panel.tick(PLAY_SECONDS)
    assert opened.moment == pytest.approx(0.25) and panel.playing, "once around"
    panel.loop.value = False
    panel.tick(PLAY_SECONDS)
    assert opened.moment == 1.0 and not panel.playing
    panel.toggle()
    assert opened.moment == 0.0, "from the begin again"
    panel.seconds.value = 2 * PLAY_SECONDS
    panel.tick(PLAY_SECONDS)
    assert opened.moment == pytest.approx(0.5)
    opened.set_moment(0.1)
    assert not panel.playing, "somebody else chose a time"


def test_trained_moments_alone(opened):
    panel = TimePanel(opened)
    panel.slider.value = 0.6
    assert opened.moment == pytest.approx(0.6)
    assert panel.note.content == "between the moments 3 and 4 of 5"
    panel.snaps.value = True
    assert opened.moment == 0.5 and panel.note.content == "moment 3 of 5"
    panel.toggle()
    seen = []
    for _ in range(40):
        panel.tick(PLAY_SECONDS / 40)
        seen.append(opened.moment)
    assert set(seen) == {0, 0.25, 0.5, 0.75, 1}, "the clock goes on between moments"
    panel.step("first")
    assert opened.moment == 0.0 and not panel.playing
    panel.step("forward")
    assert opened.moment == 0.25
    for _ in range(9):
        panel.step("back")
    assert opened.moment == 0.0
    panel.step("last")
    assert opened.moment == 1.0


def test_places_among_moments():
    moments = [0.2, 0.4]
    assert place_among(moments, 0.1) == "before the first of 2 moments"
    assert place_among(moments, 0.2) == "moment 1 of 2"
    assert place_among(moments, 0.3) == "between the moments 1 and 2 of 2"
    assert place_among(moments, 0.5) == "after the last of 2 moments"
    assert place_among([], 0.5) == ""


def test_a_captured_camera_brings_its_time_and_its_photograph(opened, scene, until):
    opened.restyle(photo_share=1.0)
    for index, time in enumerate((0.0, 0.25, 0.75)):
        opened.change(camera=index)
        opened.jump(scene.cameras[index], distance=4.0)
        assert opened.moment == time
    opened.client_of_test.look(size=(128, 96))  # a browser would answer with its new camera
    assert taken_at(scene, 2, 0.75) == 2 and taken_at(scene, 2, 0.7) is None
    cameras = scene.cameras[2]
    loop, view = opened.loop, opened.view.newest()[0]
    wish = replace(view, camera=2, moment=0.75, look=replace(view.look, photo_share=1.0))
    photo = loop._photo(wish, cameras)
    assert photo is not None and float(photo.color[..., 0].mean()) == pytest.approx(0.75, abs=0.01)
    assert loop._photo(replace(wish, moment=0.5), cameras) is None, "there is none of that time"
    photo = loop._photo(replace(wish, moment=0.25), cameras)
    assert float(photo.color[..., 0].mean()) == pytest.approx(0.25, abs=0.01), "the rig films on"


def test_another_camera_is_not_that_of_the_rig(scene):
    aside = scene.cameras.camera_to_world.clone()
    aside[1, 0, 3] += 0.5
    moved = replace(scene, cameras=scene.cameras.with_poses(aside))
    assert taken_at(moved, 2, 0.25) is None and taken_at(moved, 2, 1.0) == 3


def test_a_still_model_keeps_its_photographs_at_all_times(painted, scene):
    painted.scene = scene

    loop = RenderLoop(painted)
    try:
        wish = Wish(Shot(POSE, 0.8, 64, 48), Look(photo_share=1.0), camera=2)
        assert loop._photo(wish, scene.cameras[2]) is not None
    finally:
        loop.close()


def test_paths_run_stand_still_or_take_the_times_of_views(opened):
    panel = PathPanel(opened)
    assert panel.time.visible and panel.time.value == RUNS
    for moment in (0.2, 0.6):
        opened.set_moment(moment)
        panel._do(panel.add)
    assert panel.editor.to_path().cameras(4, 3).times.tolist()[::30] == [0.0, 1.0]
    assert "Time 0.000 to 1.000" in panel.table.content
    panel.time.value = OF_VIEWS
    assert panel.editor.to_path().view_at(0.5)[2] == pytest.approx(0.4)
    assert "| 0.600 |" in panel.table.content
    opened.set_moment(0.3)
    panel.time.value = STANDS
    assert panel.frozen.visible and panel.frozen.value == 0.3
    assert panel.editor.to_path().time_span == (0.3, 0.3)
    panel.frozen.value = 0.9
    assert panel.editor.time_span == (0.9, 0.9) and opened.moment == 0.9
    panel.time.value = RUNS
    panel.moment.value = 0.25  # the preview
    assert opened.moment == pytest.approx(0.25)


def test_a_loaded_path_without_times_runs(opened):
    editor = PathEditor()
    editor.add(POSE)
    editor.add(POSE)
    panel = PathPanel(opened)
    panel.show_path(editor.to_path())
    assert panel.editor.time_span == (0.0, 1.0) and panel.time.value == RUNS
    notes = []
    opened.notify = lambda title, body: notes.append(body)
    panel.time.value = OF_VIEWS
    assert notes == ["the views of this path have no times; replace them, or let time run"]
    assert panel.time.value == RUNS


def test_paths_of_still_scenes_have_no_time(painted, raw_client, until):
    with Viewer(painted, port=0) as viewer:
        client = raw_client(viewer.port)
        client.look()
        until(lambda: viewer.sessions and viewer.sessions[0].last is not None)
        session = viewer.sessions[0]
        panel = PathPanel(session)
        assert not panel.time.visible and not TimePanel(session).folder.visible
        panel._do(panel.add)
        panel._do(panel.add)
        assert not panel.editor.to_path().is_timed and "Time" not in path_table(panel.editor, 0)


class Late:
    """The control of a training whose first model comes when the test says so."""

    def __init__(self) -> None:
        self.model = None

    def between_steps(self, timeout):
        if self.model is None:
            raise TimeoutError
        return nullcontext(self.model)


def test_time_appears_when_the_training_model_moves(drifting_model, scene, raw_client, until):
    control = Late()
    source = TrainingSource(control, scene, splats=True)
    with Viewer(source, port=0) as viewer:
        client = raw_client(viewer.port)
        client.look(size=(128, 96))
        until(lambda: viewer.sessions and viewer.sessions[0].view.newest()[0] is not None)
        session = viewer.sessions[0]
        time_panel, path_panel = TimePanel(session), PathPanel(session)
        assert not time_panel.folder.visible and not path_panel.time.visible
        control.model = drifting_model
        viewer.loop.wake()
        until(lambda: client.pictures)
        time_panel.tick(0.0)
        path_panel.tick(0.0)
        assert time_panel.folder.visible and path_panel.time.value == RUNS
        drifting_model.field.moments = torch.tensor([0.0, 0.5])
        source.changed()
        viewer.loop.wake()
        until(lambda: len(source.moments) == 2)
        time_panel.tick(0.0)
        assert time_panel.note.content == "moment 1 of 2"


def test_the_browser_gets_the_gaussians_of_the_time(opened, until, monkeypatch):
    sent = []
    monkeypatch.setattr(
        opened.client.scene,
        "add_gaussian_splats",
        lambda name, **arrays: sent.append(float(arrays["centers"][0, 0])),
    )
    opened.set_moment(0.75)
    opened.viewer.show_gaussians(opened, True)
    assert sent == [pytest.approx(0.5)]
    opened.set_moment(0.25)
    opened.viewer.show_gaussians(opened, True)
    assert sent[1:] == [pytest.approx(-0.5)]
    opened.viewer.show_gaussians(opened, False)


def test_another_snapshot_is_sent_once_time_rests():

    rest = _Rest()
    assert not rest.over(0.0, 9.0), "nothing has moved"
    assert not rest.over(0.5, 0.05) and not rest.over(0.5, REST_SECONDS / 2)
    assert rest.over(0.5, REST_SECONDS) and not rest.over(0.5, 9.0)


def test_clicks_meet_what_is_there_at_the_time(opened, until):
    for moment, found in ((0.5, True), (1.0, False)):
        opened.set_moment(moment)
        pick = opened.viewer.pick(opened, (0.0, -4.0, 0.0), (0.0, 1.0, 0.0))
        assert (pick is not None) == found
