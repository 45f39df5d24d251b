"""A picture of a scene's cameras, points and region of interest, from a corner and from above.

Training cameras are blue, others orange; the thin box is the region of interest. The picture is
turned so that the cameras' mean upward direction is up. Drawn with matplotlib, without a display.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lumigraph.core.errors import DataError
from lumigraph.core.frusta import frusta
from lumigraph.core.scene import Scene

MOST_POINTS = 6000
MOST_CAMERAS = 250
"""More points or cameras than these are thinned out evenly."""
FRUSTUM_DEPTH = 0.09
"""Length of a camera in the picture, as a share of half the picture's reach."""
TRAIN_COLOR, OTHER_COLOR, BOX_COLOR, POINT_COLOR = "#2563eb", "#d9730d", "#616e7c", "#9aa5b1"
SUFFIXES = (".png", ".pdf", ".svg", ".jpg")

Array = NDArray[np.float64]


def draw_scene(scene: Scene, path: str | Path) -> Path:
    """Write the picture, whole or not at all.

    Args:
        scene: any scene.
        path: file to write; its suffix chooses the kind (.png, .pdf, .svg, .jpg).

    Returns:
        The path.

    Raises:
        DataError: the suffix is not known or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: expected a picture name that ends in one of {' '.join(SUFFIXES)}")
    figure = _figure(scene)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
        os.close(handle)
        figure.savefig(temporary, dpi=110)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise DataError(
            f"{path}: cannot write the picture ({error.strerror}); choose another place"
        ) from error
    return path


def _figure(scene: Scene) -> Any:
    # Not pyplot, which would choose a display and keep the figure alive.
    from matplotlib.figure import Figure

    frame = _Frame.of(scene)
    figure = Figure(figsize=(13, 6.6), layout="constrained")
    for place, (elevation, azimuth, title) in enumerate(
        ((26.0, -60.0, "from a corner"), (90.0, -90.0, "from above"))
    ):
        axes: Any = figure.add_subplot(1, 2, place + 1, projection="3d")
        _draw_points(axes, scene, frame)
        _draw_cameras(axes, scene, frame)
        _draw_box(axes, scene, frame)
        axes.set_title(f"{scene.name}, {title}", fontsize=11)
        axes.view_init(elev=elevation, azim=azimuth)
        axes.set_proj_type("persp" if place == 0 else "ortho")
        for set_limits in (axes.set_xlim, axes.set_ylim, axes.set_zlim):
            set_limits(-frame.reach, frame.reach)
        axes.set_box_aspect((1, 1, 1), zoom=1.15 if place == 0 else 1.35)
        axes.set_axis_off()
    dots = "" if scene.points is None else f"; dots: {len(scene.points)} points"
    names = "blue: training cameras; orange: others; box: region of interest"
    figure.supxlabel(f"{names}, side {scene.side:.3g}{dots}", fontsize=9, color=BOX_COLOR)
    return figure


class _Frame:
    """Where the picture looks: rotation to upright, middle and reach."""

    def __init__(self, rotation: Array, middle: Array, reach: float) -> None:
        self.rotation, self.middle, self.reach = rotation, middle, reach

    @classmethod
    def of(cls, scene: Scene) -> _Frame:
        """Upright, around the bounds and nearly all cameras."""
        poses = scene.cameras.camera_to_world.double().cpu().numpy()
        rotation = _upright(-poses[:, :3, 1].mean(axis=0))
        low, high = np.quantile(poses[:, :3, 3] @ rotation.T, (0.02, 0.98), axis=0)
        corners = _corners(scene) @ rotation.T
        low, high = np.minimum(low, corners.min(axis=0)), np.maximum(high, corners.max(axis=0))
        return cls(rotation, rotation.T @ ((low + high) / 2), float((high - low).max()) * 0.54)

    def place(self, points: Array) -> Array:
        """Points (N, 3) of the scene frame in the picture's."""
        return (points - self.middle) @ self.rotation.T


def _upright(up: Array) -> Array:
    """Rotation (3, 3) that turns a direction to z and leaves the levelest axis level."""
    if np.linalg.norm(up) < 1e-3:
        up = np.array([0.0, 0.0, 1.0])
    up = up / np.linalg.norm(up)
    level = np.eye(3)[np.argmin(np.abs(up))]
    right = level - up * (level @ up)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(up, right), up])


def _corners(scene: Scene) -> Array:
    """(8, 3) corners of the bounds; bit k of a corner's number chooses the side along axis k."""
    bounds = scene.bounds.double().cpu().numpy()
    return np.array(
        [[bounds[number >> axis & 1, axis] for axis in range(3)] for number in range(8)]
    )


def _draw_box(axes: Any, scene: Scene, frame: _Frame) -> None:
    corners = frame.place(_corners(scene))
    for number in range(8):
        for bit in (1, 2, 4):
            if not number & bit:
                edge = corners[[number, number | bit]]
                axes.plot(*edge.T, color=BOX_COLOR, linewidth=0.8)


def _draw_points(axes: Any, scene: Scene, frame: _Frame) -> None:
    if scene.points is None or len(scene.points) == 0:
        return
    chosen = _thinned(len(scene.points), MOST_POINTS)
    places = frame.place(scene.points.positions[chosen].double().cpu().numpy())
    shown = (np.abs(places) < frame.reach).all(axis=1)
    colors: Any = POINT_COLOR
    if scene.points.colors is not None:
        colors = scene.points.colors[chosen].cpu().numpy()[shown] / 255.0
    axes.scatter(*places[shown].T, s=1.5, c=colors, linewidths=0, depthshade=False)


def _draw_cameras(axes: Any, scene: Scene, frame: _Frame) -> None:
    training = set(scene.splits["train"].tolist()) if "train" in scene.splits else set()
    chosen = _thinned(len(scene.cameras), MOST_CAMERAS)
    parts = frusta(scene.cameras.select(torch.from_numpy(chosen)), FRUSTUM_DEPTH * frame.reach)
    for index, *corners in zip(chosen.tolist(), *(part.numpy() for part in parts), strict=True):
        outline = frame.place(_outline(*corners))
        # Beyond the picture's reach a camera would be drawn over its margin.
        if (np.abs(outline) < 1.2 * frame.reach).all():
            color = TRAIN_COLOR if index in training else OTHER_COLOR
            axes.plot(*outline.T, color=color, linewidth=0.7)


def _outline(apex: Array, rim: Array, mark: Array) -> Array:
    """One line (15, 3) along the edges of what a camera sees and the mark at its upper side."""
    sides = [apex, rim[0], rim[1], apex, rim[2], rim[3], apex]
    return np.stack([*sides, rim[0], rim[3], rim[2], rim[1], mark[2], mark[1], mark[0], rim[0]])


def _thinned(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` indices below `count`, evenly spread."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)
