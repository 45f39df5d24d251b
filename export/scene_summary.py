"""What a scene holds, in numbers and as a picture of its cameras, points and region of interest.

Letters: C cameras, P points.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lumigraph.core import CameraModel, Scene

_MOST_POINTS = 4000
_MOST_FRUSTA = 200
"""More points or cameras than these are thinned out in the picture, evenly."""
_EDGES = [(i, i | bit) for i in range(8) for bit in (1, 2, 4) if not i & bit]
"""Edges of a cube whose corners are numbered by their bits."""


def summarize_scene(scene: Scene) -> dict[str, Any]:
    """Facts for people and machines: plain numbers, text, lists and dictionaries.

    Returns:
        name, source, images, splits (name -> count), sizes ("640x480" -> count), camera_models
        (name -> count), bounds, side, aabb_scale, camera_distance (least and most distance of a
        camera from the middle of the bounds), points, has_alpha, background, masks, depths, times
        and notes (problems found while loading).
    """
    cameras = scene.cameras
    sizes = Counter(f"{width}x{height}" for width, height in cameras.sizes.tolist())
    models = Counter(CameraModel(model).name.lower() for model in cameras.models.tolist())
    distances = (cameras.positions - scene.center.to(cameras.positions)).norm(dim=1)
    return {
        "name": scene.name,
        "source": str(scene.source),
        "images": 0 if scene.images is None else len(scene.images),
        "splits": {name: int(indices.numel()) for name, indices in scene.splits.items()},
        "sizes": dict(sizes.most_common()),
        "camera_models": dict(models.most_common()),
        "bounds": [[round(float(x), 6) for x in corner] for corner in scene.bounds],
        "side": round(scene.side, 6),
        "aabb_scale": scene.aabb_scale,
        "camera_distance": [round(float(distances.min()), 6), round(float(distances.max()), 6)],
        "points": 0 if scene.points is None else len(scene.points),
        "has_alpha": scene.has_alpha,
        "background": scene.background,
        "masks": scene.masks is not None,
        "depths": scene.depths is not None,
        "times": cameras.times is not None,
        "notes": list(scene.notes),
    }


def draw_scene(scene: Scene, path: str | Path) -> Path:
    """Write a PNG: the scene from a corner and from above, test cameras in another color.

    Raises:
        DataError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from lumigraph.training.files import write_atomic

    figure = Figure(figsize=(12, 6), layout="constrained")
    up = _upright(scene)
    middle, reach = _extent(scene, up)
    for place, (elevation, title) in enumerate(((28.0, "from a corner"), (89.9, "from above"))):
        axes: Any = figure.add_subplot(1, 2, place + 1, projection="3d")
        _draw_points(axes, scene, up, middle, reach)
        _draw_frusta(axes, scene, up, middle, reach)
        turned = (_corners(scene) - middle) @ up.T
        for first, second in _EDGES:
            axes.plot(*turned[[first, second]].T, color="#616e7c", linewidth=0.8)
        axes.set_title(f"{scene.name}, {title}", fontsize=10)
        axes.view_init(elev=elevation, azim=-60.0 if place == 0 else -90.0)
        for set_limits in (axes.set_xlim, axes.set_ylim, axes.set_zlim):
            set_limits(-reach, reach)
        axes.set_proj_type("persp" if place == 0 else "ortho")
        axes.set_box_aspect((1, 1, 1), zoom=1.2)
        axes.set_axis_off()
    figure.text(0.5, 0.01, _legend(scene), ha="center", fontsize=9, color="#616e7c")
    canvas = FigureCanvasAgg(figure)
    path = Path(path)
    write_atomic(path, lambda file: canvas.print_png(str(file)))
    return path


def _legend(scene: Scene) -> str:
    points = "" if scene.points is None else f", dots: {len(scene.points)} points"
    return f"blue: training cameras, orange: others, box: region of interest{points}"


def _upright(scene: Scene) -> np.ndarray:
    """(3, 3) rotation that turns the mean upward direction of the cameras to z."""
    up = -scene.cameras.camera_to_world[:, :3, 1].double().mean(dim=0).cpu().numpy()
    if np.linalg.norm(up) < 1e-3:
        up = np.array([0.0, 0.0, 1.0])
    up = up / np.linalg.norm(up)
    # The axis closest to being level stays as it is, so that axis-aligned captures keep theirs.
    level = np.eye(3)[np.argmin(np.abs(up))]
    right = level - up * (level @ up)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(up, right), up])


def _extent(scene: Scene, up: np.ndarray) -> tuple[np.ndarray, float]:
    """Middle (3,) and half the side of what is shown: the bounds and nearly all cameras."""
    positions = scene.cameras.positions.double().cpu().numpy() @ up.T
    low, high = np.quantile(positions, (0.01, 0.99), axis=0)
    corners = _corners(scene) @ up.T
    low, high = np.minimum(low, corners.min(axis=0)), np.maximum(high, corners.max(axis=0))
    return up.T @ ((low + high) / 2), float((high - low).max()) * 0.55


def _corners(scene: Scene) -> np.ndarray:
    """(8, 3) corners of the bounds; bit k of a corner's number chooses the side along axis k."""
    bounds = scene.bounds.double().cpu().numpy()
    return np.array([[bounds[i >> k & 1, k] for k in range(3)] for i in range(8)])


def _draw_points(axes: Any, scene: Scene, up: np.ndarray, middle: np.ndarray, reach: float) -> None:
    if scene.points is None or len(scene.points) == 0:
        return
    chosen = _spread(len(scene.points), _MOST_POINTS)
    turned = (scene.points.positions[chosen].double().cpu().numpy() - middle) @ up.T
    inside = (np.abs(turned) < reach).all(axis=1)
    colors: Any = "#9aa5b1"
    if scene.points.colors is not None:
        colors = scene.points.colors[chosen].cpu().numpy()[inside] / 255.0
    axes.scatter(*turned[inside].T, s=1.2, c=colors, linewidths=0, depthshade=False)


def _draw_frusta(axes: Any, scene: Scene, up: np.ndarray, middle: np.ndarray, reach: float) -> None:
    training = set(scene.splits.get("train", torch.empty(0)).tolist())
    for index in _spread(len(scene.cameras), _MOST_FRUSTA).tolist():
        pose = scene.cameras.camera_to_world[index].double().cpu().numpy()
        width, height = scene.cameras.size(index)
        longer = max(width, height)
        half = 0.045 * reach * np.array([width / longer, height / longer])
        signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        corners = np.column_stack([signs * half, np.full(4, 0.09 * reach)])
        origin = (pose[:3, 3] - middle) @ up.T
        rim = (corners @ pose[:3, :3].T + pose[:3, 3] - middle) @ up.T
        line = np.concatenate([[np.stack([origin, corner])] for corner in rim]).reshape(-1, 3)
        outline = np.concatenate([line, rim, rim[:1]])
        color = "#2563eb" if index in training else "#d9730d"
        axes.plot(*outline.T, color=color, linewidth=0.7)


def _spread(count: int, most: int) -> torch.Tensor:
    """At most `most` indices below `count`, evenly spread."""
    return torch.linspace(0, count - 1, min(count, most)).round().long()
