"""Pictures of geometry, drawn off-screen with PyVista and written whole or not at all.

from lumigraph import viewer
viewer.picture([viewer.MeshItem(mesh), viewer.CamerasItem(cameras)], out="mesh.png")
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lumigraph.core.errors import ConfigError, DataError, InputError, require
from lumigraph.training.files import write_atomic

from .items import Item, Points, Stage
from .overlay import Words, annotated, word_scale
from .view import PictureView
from .window import drawing

SUFFIXES = (".png", ".jpg", ".jpeg")
SIZES = (64, 8192)
"""Range of the sides of a picture in pixels."""
_BACKGROUNDS = {
    "light": ("#ffffff", "#dfe6ee"),
    "white": ("#ffffff", "#ffffff"),
    "dark": ("#20262f", "#0e1116"),
}
"""Colors at the lower and at the upper side."""
_OVERSAMPLING = 2  # Rendered pixels along each side of a pixel.


@dataclass(frozen=True)
class PictureOptions:
    """How a picture looks. Checked on construction."""

    size: tuple[int, int] = (1600, 1000)
    """Width and height in pixels, 64 to 8192; a view from a camera is fitted into it."""
    background: Literal["light", "white", "dark"] = "light"
    up: tuple[float, float, float] | None = None
    """Direction that is up in a view from outside; None takes z."""
    toward: tuple[float, float, float] | None = None
    """Direction in which such a view looks, roughly; None takes one."""
    title: str = ""
    subtitle: str = ""
    legend: bool = True
    axes: bool = True
    """A cross of the axes of the frame in the lower right corner."""

    def __post_init__(self) -> None:
        if len(self.size) != 2 or not all(SIZES[0] <= side <= SIZES[1] for side in self.size):
            raise ConfigError(f"size = {self.size}: expected two sides of {SIZES[0]} to {SIZES[1]}")
        if self.background not in _BACKGROUNDS:
            known = ", ".join(_BACKGROUNDS)
            raise ConfigError(f"background = {self.background!r}: expected one of {known}")
        for name in ("up", "toward"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value).all() and np.linalg.norm(value) > 0):
                raise ConfigError(f"{name} = {value}: expected a direction")


@dataclass(frozen=True)
class PictureReport:
    """A picture that was drawn."""

    path: Path | None
    """The file, where one was written."""
    image: NDArray[np.uint8]
    """(H, W, 3) sRGB."""
    view: PictureView
    """Where it was taken from."""


def check_picture_target(path: Path) -> None:
    """Refuse a target before work is spent on it.

    Raises:
        InputError: an unknown suffix, or a folder.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"{path}: expected a picture name that ends in one of {' '.join(SUFFIXES)}"
        )
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it")


def picture(
    items: Sequence[Item],
    *,
    out: str | Path | None = None,
    view: PictureView | None = None,
    options: PictureOptions | None = None,
) -> PictureReport:
    """Draw items of one frame.

    Args:
        items: what to draw, see `items.py`; the legend keeps their order.
        out: a .png or .jpg file; None draws alone.
        view: where from; None looks from outside, so that everything is in view.
        options: size, background, words.

    Raises:
        InputError: a bad name. DataError: nothing to draw, or the file cannot be written.
        MissingExtraError: the extra `geometry` is not installed.
        BackendError: the machine cannot draw; says which package is missing.
    """
    options = options or PictureOptions()
    if out is not None:
        check_picture_target(Path(out))
    points = _extent(items)
    view = view or PictureView.outside(
        points,
        up=np.array(options.up or (0.0, 0.0, 1.0)),
        size=options.size,
        toward=None if options.toward is None else np.array(options.toward, np.float64),
    )
    with drawing():
        image = _rendered(items, view, points, options)
    image = annotated(image, _words(items, options), is_light=options.background != "dark")
    if out is None:
        return PictureReport(None, image, view)
    write_atomic(Path(out), lambda temporary: temporary.write_bytes(_encoded(image, Path(out))))
    return PictureReport(Path(out), image, view)


def _extent(items: Sequence[Item]) -> Points:
    parts = [item.extent() for item in items]
    points = np.concatenate(parts) if parts else np.empty((0, 3))
    if not len(points):
        raise DataError("the picture is empty: nothing to draw was found")
    if not np.isfinite(points).all():
        raise DataError("the picture cannot be drawn: some coordinates are not finite")
    # A single place has no size to fit to.
    room = max(float(np.ptp(points, axis=0).max()) * 0.01, 1e-9 + 1e-6 * float(abs(points).max()))
    ends = np.stack([points.min(axis=0) - room, points.max(axis=0) + room])
    return np.concatenate([points, ends]) if np.ptp(points, axis=0).max() < room else points


def _rendered(
    items: Sequence[Item], view: PictureView, points: Points, options: PictureOptions
) -> NDArray[np.uint8]:
    pyvista = require("pyvista", extra="geometry")
    width, height = view.size
    size = [width * _OVERSAMPLING, height * _OVERSAMPLING]
    plotter = pyvista.Plotter(off_screen=True, window_size=size)
    with contextlib.closing(plotter):
        lower, upper = _BACKGROUNDS[options.background]
        plotter.set_background(lower, top=upper)
        stage = Stage(
            pyvista,
            plotter,
            origin=points.mean(axis=0),
            reach=float(np.linalg.norm(np.ptp(points, axis=0))),
            pixel=word_scale(width, height) * _OVERSAMPLING,
            eye=view.position,
            up=np.array(options.up or -view.camera_to_world[:3, 1], np.float64),
        )
        for item in items:
            item.draw(stage)
        if options.axes:
            _add_axes(plotter, view.size, stage.pixel, is_dark=options.background == "dark")
        _aim(plotter, view, stage)
        image = np.asarray(plotter.screenshot(return_img=True), np.uint8)[..., :3]
    small = Image.fromarray(image).resize((width, height), Image.Resampling.BOX)
    return np.asarray(small)


def _aim(plotter: Any, view: PictureView, stage: Stage) -> None:
    pose = view.camera_to_world
    position = pose[:3, 3] - stage.origin
    camera = plotter.camera
    camera.position = tuple(position)
    camera.focal_point = tuple(position + pose[:3, 2] * max(stage.reach, 1e-9))
    camera.up = tuple(-pose[:3, 1])
    camera.view_angle = view.field_of_view
    across, down = view.principal
    camera.SetWindowCenter(1 - 2 * across, 2 * down - 1)
    plotter.renderer.ResetCameraClippingRange()


def _add_axes(plotter: Any, size: tuple[int, int], pixel: float, *, is_dark: bool) -> None:
    side = 110 * pixel / _OVERSAMPLING
    across, up = min(1.0, side / size[0]), min(1.0, side / size[1])
    plotter.add_axes(
        line_width=2.0 * pixel,
        color="#dde3ea" if is_dark else "#3b4654",
        x_color="#c0392b",
        y_color="#2e8b57",
        z_color="#2f5fd0",
        viewport=(1 - across, 0.0, 1.0, up),
        interactive=False,
    )


def _words(items: Sequence[Item], options: PictureOptions) -> Words:
    entries = [entry for item in items for entry in item.legend()] if options.legend else []
    bars = [bar for bar in (item.bar() for item in items) if bar is not None]
    return Words(options.title, options.subtitle, entries, bars[0] if bars else None)


def _encoded(image: NDArray[np.uint8], path: Path) -> bytes:
    stream = io.BytesIO()
    if path.suffix.lower() == ".png":
        Image.fromarray(image).save(stream, "PNG", optimize=True)
    else:
        Image.fromarray(image).save(stream, "JPEG", quality=90, subsampling=0)
    return stream.getvalue()
