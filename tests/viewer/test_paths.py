"""Paths as files, and rendered as the command does."""

import json
from types import SimpleNamespace

import imageio.v3 as iio
import numpy as np
import pytest

from lumigraph import export
from lumigraph.core import CameraPath
from lumigraph.core.errors import InputError
from lumigraph.viewer.path_render import (
    PathRenderer,
    checked_name,
    path_bytes,
    path_from_bytes,
    saved_paths,
)
from lumigraph.viewer.render_loop import RenderLoop
from lumigraph.viewer.source import RunSource


@pytest.fixture
def path(nerf_run) -> CameraPath:
    return CameraPath.captured(nerf_run.scene().select([0, 3, 7]), fps=4.0)


@pytest.mark.parametrize("text", ["", "../x", "a/b", "a.b", "-x", "x" * 65, "ä", "a b", "/etc"])
def test_names_stay_in_their_folder(text):
    with pytest.raises(InputError, match="letters, digits"):
        checked_name(text)


def test_good_names():
    assert checked_name("tour_2-b") == "tour_2-b"


def test_a_path_goes_through_the_browser_unchanged(path):
    again = path_from_bytes("mine.json", path_bytes(path))
    assert path_bytes(again) == path_bytes(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["keyframes"].pop() and c["keyframes"].pop(), "at least two|two keyframes"),
        (lambda c: c["keyframes"].reverse(), "seconds"),
        (lambda c: c.update(format="other"), "not a camera path"),
    ],
)
def test_bad_files_are_named(path, change, message):
    content = json.loads(path_bytes(path))
    change(content)
    with pytest.raises(InputError, match=message) as caught:
        path_from_bytes("mine.json", json.dumps(content).encode())
    assert "mine.json" in str(caught.value) and "/tmp" not in str(caught.value)
    with pytest.raises(InputError, match="mine.json"):
        path_from_bytes("mine.json", b"\xff\x00")


def test_rendered_pictures_are_those_of_the_command(nerf_run, path, tmp_path):
    source = RunSource(nerf_run, device="cpu")
    loop = RenderLoop(source)
    told = []
    try:
        written = PathRenderer(source, loop).render(
            path, "tour", size=(48, 36), suffix="", on_frame=lambda *done: told.append(done)
        )
    finally:
        loop.close()
    assert written == nerf_run.path / "renders" / "tour"
    path.to_file(tmp_path / "tour.json")
    export.video(nerf_run, path=tmp_path / "tour.json", out=tmp_path / "out", size=(48, 36))
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert len(names) == path.frame_count == told[-1][0]
    for name in names:
        assert (written / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    with pytest.raises(InputError, match="exists already"):
        PathRenderer(source, loop).render(
            path, "tour", size=(48, 36), suffix="", on_frame=lambda *done: None
        )


def test_sources_without_a_folder_render_on_the_viewers_thread(painted, path):
    loop = RenderLoop(painted)
    try:
        written = PathRenderer(painted, loop).render(
            path, "tour", size=(32, 24), suffix="", on_frame=lambda *done: None
        )
    finally:
        loop.close()
    first = iio.imread(written / "00000.png")
    whole = painted.model.render(path.cameras(32, 24)[0])
    assert np.array_equal(first, export.video_writer.to_bytes(whole.channel("color")))


def test_one_path_at_a_time(painted, path):
    loop = RenderLoop(painted)
    renderer = PathRenderer(painted, loop)
    refused = []

    def while_busy(done: int, total: int) -> None:
        with pytest.raises(InputError, match="another path") as caught:
            renderer.render(path, "b", size=(8, 8), suffix="", on_frame=lambda *_: None)
        refused.append(caught)

    try:
        renderer.render(path, "a", size=(8, 8), suffix="", on_frame=while_busy)
        assert refused
        renderer.render(path, "c", size=(8, 8), suffix="", on_frame=lambda *_: None)
    finally:
        loop.close()


def test_a_closed_viewer_leaves_no_half_a_path(painted, path):
    loop = RenderLoop(painted)

    def close(done: int, total: int) -> None:
        loop.close()

    with pytest.raises(Exception, match="the viewer was closed"):
        PathRenderer(painted, loop).render(path, "x", size=(8, 8), suffix="", on_frame=close)
    with pytest.raises(RuntimeError, match="the viewer was closed"):
        loop.call(lambda model: 1).result(timeout=5)


def test_paths_of_a_run_are_listed(tmp_path, path):
    source = SimpleNamespace(run=SimpleNamespace(path=tmp_path))
    assert saved_paths(source) == {}
    (tmp_path / "paths").mkdir()
    path.to_file(tmp_path / "paths" / "b.json")
    path.to_file(tmp_path / "paths" / "a.json")
    assert list(saved_paths(source)) == ["a", "b"]
    assert saved_paths(SimpleNamespace()) == {}
