"""Drawing without a display: which of VTK's ways works on this machine.

VTK ends the process where it finds no OpenGL, so each way is first tried in a process of its own.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Iterator

from lumigraph.core.errors import BackendError, MissingExtraError, require

_VARIABLE = "VTK_DEFAULT_OPENGL_WINDOW"
_QUIET = {"EGL_LOG_LEVEL": "fatal"}  # Mesa speaks of every device that it may not open.
_PROBE_SECONDS = 60.0
_PROBE = """
import sys
from vtkmodules import vtkRenderingOpenGL2
window = getattr(vtkRenderingOpenGL2, sys.argv[1])()
window.SetOffScreenRendering(1)
window.SetSize(8, 8)
window.Render()
print("works" if window.SupportsOpenGL() else "fails")
"""
CANNOT_DRAW = (MissingExtraError, BackendError)
"""What `drawing` raises where PyVista or OpenGL is missing."""
PACKAGES = "libegl1 libgl1-mesa-dri"
"""What Debian and Ubuntu call what is needed; libosmesa6 serves as well."""


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """A context in which windows of VTK are made off-screen, and quietly.

    Raises:
        MissingExtraError: PyVista is not installed. BackendError: this machine cannot draw; names
            the package that is missing.
    """
    require("pyvista", extra="geometry")
    changes = dict(_QUIET)
    if sys.platform == "linux" and not os.environ.get(_VARIABLE):
        changes[_VARIABLE] = offscreen_window()
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@functools.cache
def offscreen_window() -> str:
    """Name of the class of VTK that draws on this Linux machine, found once.

    Raises:
        BackendError: none does.
    """
    names = ["vtkEGLRenderWindow", "vtkOSOpenGLRenderWindow"]
    if os.environ.get("DISPLAY"):
        names.append("vtkXOpenGLRenderWindow")
    for name in names:
        if _works(name):
            return name
    raise BackendError(
        "PyVista cannot draw on this machine: no OpenGL without a display was found; install it "
        f"with: apt-get install {PACKAGES}"
    )


def _works(name: str) -> bool:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, name],
            capture_output=True,
            timeout=_PROBE_SECONDS,
            env={**os.environ, **_QUIET, _VARIABLE: name},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and b"works" in done.stdout
