"""The render thread: small pictures first, whole ones when still, fair to all."""

import threading
import time

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from lumigraph import export
from lumigraph.core.transforms import quaternion_from_rotation
from lumigraph.viewer.display import Look
from lumigraph.viewer.render_loop import RenderLoop
from lumigraph.viewer.source import RunSource
from lumigraph.viewer.views import Shot, View, Wish


class Eye:
    """A view that keeps what it gets."""

    def __init__(self) -> None:
        self.drawn, self.failures = [], []
        self.view = View(self.drawn.append, self.failures.append)

    @property
    def full(self):
        return [drawn for drawn in self.drawn if drawn.job.full]


@pytest.fixture
def loop_of():
    loops = []

    def make(source) -> RenderLoop:
        loops.append(RenderLoop(source))
        return loops[-1]

    yield make
    for loop in loops:
        loop.close()


def test_a_small_picture_comes_first_then_the_whole(loop_of, painted, make_wish, until):
    painted.painter.seconds_per_pixel = 1e-6
    loop, eye = loop_of(painted), Eye()
    eye.view.want(make_wish(width=640, height=480), moving=False)
    loop.add(eye.view)
    until(lambda: eye.full)
    assert eye.drawn[0].size != (640, 480)
    assert eye.full[0].size == (640, 480)
    assert len(painted.painter.calls) > 3, "the whole came in tiles"
    assert max(height for _, height in painted.painter.calls) < 480


def test_tiles_join_to_the_picture_of_one_piece(loop_of, painted, make_wish, until):
    painted.painter.seconds_per_pixel = 2e-6
    wish = make_wish(width=320, height=240)
    loop, eye = loop_of(painted), Eye()
    eye.view.want(wish, moving=False)
    loop.add(eye.view)
    until(lambda: eye.full)
    whole = painted.model.render(wish.shot.cameras(320, 240))
    assert torch.equal(eye.full[0].frame.color, whole.color)
    assert set(eye.full[0].frame.extras) == {"samples"}


@pytest.mark.parametrize("kind", ["nerf_run", "splat_run"])
def test_the_streamed_picture_is_the_exported_one(
    kind, request, loop_of, make_wish, until, tmp_path
):
    """Before JPEG, byte for byte what `lumigraph render` writes to PNG."""
    source = RunSource(request.getfixturevalue(kind), device="cpu")
    cameras = source.scene.cameras[3]
    pose = cameras.camera_to_world[0]
    shot = Shot.of(
        quaternion_from_rotation(pose[:3, :3].double()).tolist(),
        pose[:3, 3].tolist(),
        field_of_view=0.6,
        size=(200, 150),
    )
    loop, eye = loop_of(source), Eye()
    eye.view.want(Wish(shot), moving=False)
    loop.add(eye.view)
    until(lambda: eye.full)
    export.render_cameras(source.run.model("cpu"), shot.cameras(200, 150), tmp_path / "out")
    written = iio.imread(tmp_path / "out" / "00000.png")
    assert np.array_equal(eye.full[0].picture, written)
    assert written.std() > 10, "there is something to see"


@pytest.mark.parametrize("kind", ["nerf_run", "splat_run"])
def test_the_crop_box_of_a_wish(kind, request, loop_of, make_wish, until):
    source = RunSource(request.getfixturevalue(kind), device="cpu")
    pose = source.scene.cameras.camera_to_world[3]
    looking = Shot(pose, 0.65, 60, 60)
    loop, eye = loop_of(source), Eye()
    loop.add(eye.view)
    shown = []
    for box in (None, torch.tensor([[5.0, 5.0, 5.0], [6.0, 6.0, 6.0]])):
        eye.view.want(Wish(looking, box=box), moving=False)
        loop.wake()
        until(lambda box=box: eye.full and eye.full[-1].wish.box is box)
        shown.append(float(eye.full[-1].frame.opacity.mean()))
    assert shown[0] > 0.05 and shown[1] == 0.0


def test_a_picture_is_given_up_when_the_camera_moves(loop_of, painted, make_wish, until):
    painted.painter.seconds_per_pixel = 5e-6  # a whole picture takes 1.5 s
    loop, eye = loop_of(painted), Eye()
    eye.view.want(make_wish(width=640, height=480), moving=False)
    loop.add(eye.view)
    until(lambda: eye.view.work is not None and eye.view.work.tiles)
    moved = make_wish(x=1.0, width=640, height=480)
    eye.view.want(moved, moving=True)
    loop.wake()
    at = time.monotonic()
    until(lambda: eye.drawn[-1].wish is moved)
    assert time.monotonic() - at < 0.8, "it did not wait for the first picture"
    until(lambda: eye.full)
    assert [drawn.wish for drawn in eye.full] == [moved]


def test_whole_pictures_are_finished_where_that_is_chosen(loop_of, painted, make_wish, until):
    painted.painter.seconds_per_pixel = 1e-6
    loop, eye = loop_of(painted), Eye()
    loop.add(eye.view)
    for x in range(5):
        eye.view.want(make_wish(x=x, width=320, height=240, reduce=False), moving=True)
        loop.wake()
        time.sleep(0.02)
    until(lambda: eye.full and float(eye.full[-1].wish.shot.camera_to_world[0, 3]) == 4)
    assert all(drawn.size == (320, 240) for drawn in eye.drawn)


def test_eight_pictures_a_second_while_moving(loop_of, painted, make_wish):
    """On a renderer that takes a second for the whole picture, by its own clock."""
    painted.painter.seconds_per_pixel = 1.0 / (640 * 480)
    loop, eye = loop_of(painted), Eye()
    loop.add(eye.view)
    begin = time.monotonic()
    moves = 0
    while time.monotonic() - begin < 2.0:
        moves += 1
        eye.view.want(make_wish(x=moves / 10, width=640, height=480), moving=True)
        loop.wake()
        time.sleep(0.02)
    assert len(eye.drawn) >= 16
    assert eye.drawn[-1].size[0] > 120, "and not smaller than they must be"


def test_twenty_viewers_all_get_their_whole_picture(loop_of, painted, make_wish, until):
    painted.painter.seconds_per_pixel = 1e-7
    loop = loop_of(painted)
    eyes = [Eye() for _ in range(20)]
    for x, eye in enumerate(eyes):
        eye.view.want(make_wish(x=x, width=160, height=120), moving=False)
        loop.add(eye.view)
    until(lambda: all(eye.full for eye in eyes))
    for x, eye in enumerate(eyes):
        assert float(eye.full[0].wish.shot.camera_to_world[0, 3]) == x


def test_one_who_moves_does_not_keep_another_waiting(loop_of, painted, make_wish, until):
    painted.painter.seconds_per_pixel = 1e-6
    loop, mover, still = loop_of(painted), Eye(), Eye()
    loop.add(mover.view)
    still.view.want(make_wish(width=320, height=240), moving=False)
    loop.add(still.view)
    stop = threading.Event()

    def move() -> None:
        x = 0.0
        while not stop.is_set():
            x += 0.01
            mover.view.want(make_wish(x=x, width=320, height=240), moving=True)
            loop.wake()
            time.sleep(0.01)

    thread = threading.Thread(target=move)
    thread.start()
    try:
        until(lambda: still.full, seconds=10)
    finally:
        stop.set()
        thread.join()
    assert mover.drawn


def test_another_look_at_the_same_frame_renders_nothing(loop_of, painted, make_wish, until):
    loop, eye = loop_of(painted), Eye()
    eye.view.want(make_wish(), moving=False)
    loop.add(eye.view)
    until(lambda: eye.full)
    rendered = len(painted.painter.calls)
    eye.view.change(look=Look(channel="opacity", exposure=1.0))
    loop.wake()
    until(lambda: eye.full[-1].wish.look.channel == "opacity")
    assert len(painted.painter.calls) == rendered
    assert eye.full[-1].picture.min() == 255
    eye.view.change(look=Look(channel="normal"))  # which the frame lacks
    loop.wake()
    until(lambda: eye.full[-1].wish.look.channel == "normal")
    assert len(painted.painter.calls) > rendered


def test_a_change_that_changes_nothing_is_no_wish(make_wish):
    view = Eye().view
    box = torch.tensor([[0.0, 0, 0], [1, 1, 1]])
    view.want(make_wish(box=box), moving=False)
    before = view.newest()[1]
    view.change(cap=640, depth=False, box=box.clone())
    assert view.newest()[1] == before
    view.change(depth=True)
    assert view.newest()[1] == before + 1


def test_a_failed_picture_is_told_and_the_next_one_comes(loop_of, painted, make_wish, until):
    loop, eye = loop_of(painted), Eye()
    painted.painter.fails = True
    eye.view.want(make_wish(), moving=False)
    loop.add(eye.view)
    until(lambda: eye.failures)
    assert eye.failures[0] == "ValueError: the painter is ill"
    time.sleep(0.1)
    assert len(eye.failures) == 1, "it is not tried over and over"
    painted.painter.fails = False
    eye.view.want(make_wish(x=1), moving=False)
    loop.wake()
    until(lambda: eye.full)


def test_a_viewer_that_leaves_in_the_middle_harms_nobody(loop_of, painted, make_wish, until):
    painted.painter.seconds_per_pixel = 3e-6
    loop, gone, here = loop_of(painted), Eye(), Eye()
    for eye in (gone, here):
        eye.view.want(make_wish(width=320, height=240), moving=False)
        loop.add(eye.view)
    until(lambda: gone.view.work is not None)
    loop.remove(gone.view)
    until(lambda: here.full)
    assert loop.view_count == 1
    assert not gone.full


def test_a_new_model_is_shown_without_a_move(loop_of, painted, make_wish, until, monkeypatch):
    from lumigraph.viewer import render_loop

    monkeypatch.setattr(render_loop, "REFRESH_SECONDS", 0.05)
    monkeypatch.setattr(render_loop, "POLL_SECONDS", 0.05)
    loop, eye = loop_of(painted), Eye()
    eye.view.want(make_wish(), moving=False)
    loop.add(eye.view)
    until(lambda: eye.full)
    painted.version = 1
    loop.wake()
    until(lambda: eye.full[-1].job.version == 1)


def test_nothing_is_rendered_while_nobody_looks(loop_of, painted, make_wish):
    loop = loop_of(painted)
    view = Eye().view
    view.want(make_wish(), moving=False)
    time.sleep(0.1)
    assert painted.painter.calls == []
    assert loop.call(lambda model: 7).result(timeout=5) == 7


def test_a_call_fails_with_its_own_error(loop_of, painted):
    with pytest.raises(ZeroDivisionError):
        loop_of(painted).call(lambda model: 1 // 0).result(timeout=5)
