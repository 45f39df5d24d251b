"""What lies outside the outlines of an object in the pictures, and so cannot belong to it.

A point is outside where it falls beside the outline, widened by some pixels, in one training view
that it is in, or in more than some allowed number of them. What is left is the visual hull.
Letters: N points, H W image.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from lumigraph.core import Cameras, Scene
from lumigraph.core.errors import DataError


def check_outlines(scene: Scene) -> None:
    """Refuse a scene without outlines.

    Raises:
        DataError: it has neither alpha nor masks.
    """
    if scene.masks is None and not (scene.has_alpha and scene.images is not None):
        raise DataError(
            f"{scene.source}: has no alpha and no masks to trim a mesh to; give images with alpha "
            "or a folder of masks, or leave out --trim-hull"
        )


def outside_hull(
    scene: Scene,
    points: NDArray[np.float64],
    *,
    pixels: float,
    allowed: int = 0,
    split: str = "train",
    on_view: Callable[[int, int], None] | None = None,
) -> NDArray[np.bool_]:
    """(N,) whether points (N, 3) of the scene frame lie outside the hull.

    Args:
        pixels: by which outlines are widened, from 0.
        allowed: views in which a point may lie outside without harm.
        split: whose views look.
        on_view: told after each view how many are done, and of how many.

    Raises:
        DataError: the scene has neither alpha nor masks.
    """
    check_outlines(scene)
    places = torch.from_numpy(np.ascontiguousarray(points))
    cameras = scene.cameras.to("cpu", dtype=torch.float64)
    indices = scene.split(split).tolist()
    misses = np.zeros(len(points), np.int64)
    for done, index in enumerate(indices, start=1):
        outline = scene.outline(index)
        if outline is not None:
            rows, columns, inside = pixel_places(cameras[index], places)
            beside = ~_widened(outline.numpy(), pixels)
            misses += inside & beside[rows, columns]
        if on_view is not None:
            on_view(done, len(indices))
    return misses > allowed


def pixel_places(
    camera: Cameras, points: torch.Tensor
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Row and column (N,) of the pixels of one camera that points (N, 3) fall into, clipped to the
    image, and which lie in its view."""
    where, _ = camera.project(points, 0)
    inside = camera.in_view(points, 0)
    width, height = camera.size(0)
    columns, rows = where.floor().long().unbind(dim=1)
    return (
        rows.clamp(0, height - 1).numpy(),
        columns.clamp(0, width - 1).numpy(),
        inside.numpy(),
    )


def _widened(outline: NDArray[np.bool_], pixels: float) -> NDArray[np.bool_]:
    if pixels <= 0 or outline.all() or not outline.any():
        return outline
    return np.asarray(ndimage.distance_transform_edt(~outline) <= pixels)
