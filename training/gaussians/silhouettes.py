"""What pictures say about points in space: where they show nothing, and which colors.

A point of the scene lies inside of every silhouette (Laurentini 1994, the visual hull). Nothing is
known of what hides it, so that the color found is a mean over views that may not see it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lumigraph.core import Scene

MOST_VIEWS = 40
LEAST_VIEWS = 2  # that must see a point, where there are more
MARGIN = 2  # pixels that a silhouette is widened by


def judge_points(scene: Scene, points: Tensor) -> tuple[Tensor, Tensor]:
    """Which points may belong to the scene, and their mean colors.

    Args:
        scene: with images and a split "train"; at most 40 of its views are asked.
        points: (P, 3) scene frame, on the CPU.

    Returns:
        (P,) bool: at least two views see the point, and none shows it as empty; and (P, 3) colors
        in [0, 1], grey where no view sees it.
    """
    assert scene.images is not None
    train = scene.split("train")
    picked = train[torch.linspace(0, len(train) - 1, min(MOST_VIEWS, len(train))).round().long()]
    cameras = scene.cameras.to("cpu")
    empty = torch.zeros(len(points), dtype=torch.bool)
    seen, total = torch.zeros(len(points)), torch.zeros(len(points), 3)
    for index in picked.tolist():
        inside = cameras.in_view(points, index).nonzero()[:, 0]
        pixels = cameras.project(points[inside], index)[0].long()
        image = scene.images.load(index)
        column, row = pixels.unbind(1)
        rgba = image[row.clamp(0, image.shape[0] - 1), column.clamp(0, image.shape[1] - 1)]
        counts = torch.ones(len(inside))
        if scene.masks is not None:
            mask = scene.masks.load(index)
            counts = mask[row.clamp(0, mask.shape[0] - 1), column.clamp(0, mask.shape[1] - 1)]
            counts = counts.float()
        if rgba.shape[1] == 4:
            covered = _widened(image[..., 3] > 0)[row, column]
            empty[inside] |= ~covered & (counts > 0)
            counts = counts * (rgba[:, 3].float() / 255)
        total.index_add_(0, inside, rgba[:, :3].float() / 255 * counts[:, None])
        seen.index_add_(0, inside, counts)
    colors = torch.where(seen[:, None] > 0, total / seen.clamp_min(1e-6)[:, None], 0.5)
    # soft edges count for less than a view
    return ~empty & (seen > min(LEAST_VIEWS, len(picked)) - 0.5), colors


def _widened(silhouette: Tensor) -> Tensor:
    size = 2 * MARGIN + 1
    wide = torch.nn.functional.max_pool2d(silhouette[None, None].float(), size, 1, MARGIN)
    return wide[0, 0] > 0
