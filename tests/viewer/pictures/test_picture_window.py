"""The way of drawing is tried before it is used, and leaves no trace."""

import os

import pytest

from lumigraph.core.errors import BackendError
from lumigraph.viewer.pictures import window as picture_window

linux = pytest.mark.skipif(not os.path.isdir("/proc"), reason="windows are chosen on Linux alone")


@linux
def test_ways_that_end_the_process_are_found_out():
    assert not picture_window._works("vtkNoSuchWindow")
    assert picture_window._works(picture_window.offscreen_window())


@linux
def test_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.delenv("VTK_DEFAULT_OPENGL_WINDOW", raising=False)
    monkeypatch.setenv("EGL_LOG_LEVEL", "debug")
    with picture_window.drawing():
        chosen = os.environ["VTK_DEFAULT_OPENGL_WINDOW"]
        assert chosen == picture_window.offscreen_window()
        assert os.environ["EGL_LOG_LEVEL"] == "fatal"
    assert "VTK_DEFAULT_OPENGL_WINDOW" not in os.environ
    assert os.environ["EGL_LOG_LEVEL"] == "debug"


@linux
def test_a_machine_that_cannot_draw_says_what_is_missing(monkeypatch):
    monkeypatch.delenv("VTK_DEFAULT_OPENGL_WINDOW", raising=False)
    monkeypatch.setattr(picture_window, "_works", lambda name: False)
    picture_window.offscreen_window.cache_clear()
    try:
        missing = pytest.raises(BackendError, match="apt-get install libegl1 libgl1-mesa-dri")
        with missing, picture_window.drawing():
            pass
    finally:
        picture_window.offscreen_window.cache_clear()
