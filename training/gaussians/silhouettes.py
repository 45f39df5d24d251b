"""What pictures say about points in space: where they show nothing, and which colors.

A point of the scene lies inside of every silhouette (Laurentini 1994, the visual hull). Nothing is
known of what hides it, so that the color found is a mean over views that may not see it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.core import Scene

MOST_VIEWS = 40
KEPT_BYTES = 2**28  # of silhouettes
LEAST_VIEWS = 2  # that must see a point, where there are more
PLAIN_DIFFERENCE = 4.5 / 255  # from the color behind everything
MARGIN = 2  # pixels that a silhouette is widened by


class Silhouettes:
    """Where views show something, a little widened; those asked for last are kept.

    Args:
        scene: with images.
        plain: (3,) color in [0, 1] that stands behind everything: what is of that color counts as
            empty, whatever the alpha says. None: alpha says what is empty, where there is any.
    """

    def __init__(self, scene: Scene, plain: Tensor | None = None) -> None:
        self._scene, self._plain = scene, plain
        self._kept: OrderedDict[int, Tensor] = OrderedDict()
        self._kept_bytes = 0

    def of(self, index: int) -> Tensor | None:
        """(H, W) bool of a camera; None where nothing tells."""
        found = self._kept.get(index)
        if found is not None:
            self._kept.move_to_end(index)
            return found
        assert self._scene.images is not None
        shown = self._shown(self._scene.images.load(index))
        if shown is None:
            return None
        found = self._kept[index] = _widened(shown)
        self._kept_bytes += found.nbytes
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return found

    def _shown(self, image: Tensor) -> Tensor | None:
        alpha = image[..., 3:].float() / 255 if image.shape[2] == 4 else None
        if self._plain is None:
            return None if alpha is None else alpha[..., 0] > 0
        color = image[..., :3].float() / 255
        if alpha is not None:
            color = torch.lerp(self._plain.expand_as(color), color, alpha)
        return (color - self._plain).abs().amax(dim=2) > PLAIN_DIFFERENCE


@dataclass(frozen=True)
class Motion:
    """How points move."""

    velocities: Tensor
    """(P, 3) scene units per unit of time."""
    moment: float
    """The time at which they are where they are said to be."""


def judge_points(
    scene: Scene,
    points: Tensor,
    *,
    views: Tensor | None = None,
    silhouettes: Silhouettes | None = None,
    motion: Motion | None = None,
) -> tuple[Tensor, Tensor]:
    """Which points may belong to the scene, and their mean colors.

    Args:
        scene: with images and a split "train".
        points: (P, 3) scene frame, on the CPU.
        views: (C,) cameras to ask; None: at most 40 of the training views.
        silhouettes: of the scene, where they are asked more than once; None: what alpha says.
        motion: the points move, and are asked about where they are at the time of each view.

    Returns:
        (P,) bool: at least two views see the point (where there are two), and none shows it as
        empty; and (P, 3) colors in [0, 1], grey where no view sees it; of those that are empty, as
        far as they were looked at.
    """
    assert scene.images is not None
    picked = spread_views(scene.split("train"), MOST_VIEWS) if views is None else views
    outlines = silhouettes or Silhouettes(scene)
    cameras = scene.cameras.to("cpu")
    empty = torch.zeros(len(points), dtype=torch.bool)
    seen, total = torch.zeros(len(points)), torch.zeros(len(points), 3)
    for index in picked.tolist():
        left = (~empty).nonzero()[:, 0]
        there = points[left]
        if motion is not None:
            assert cameras.times is not None
            there = there + motion.velocities[left] * (cameras.times[index] - motion.moment)
        seen_now = cameras.in_view(there, index)
        inside = left[seen_now]
        pixels = cameras.project(there[seen_now], index)[0].long()
        image = scene.images.load(index)
        column, row = pixels.unbind(1)
        row, column = row.clamp(0, image.shape[0] - 1), column.clamp(0, image.shape[1] - 1)
        rgba = image[row, column]
        counts = torch.ones(len(inside))
        if scene.masks is not None:
            mask = scene.masks.load(index)
            counts = mask[row.clamp(0, mask.shape[0] - 1), column.clamp(0, mask.shape[1] - 1)]
            counts = counts.float()
        shown = outlines.of(index)
        if shown is not None:
            empty[inside] |= ~shown[row, column] & (counts > 0)
        if rgba.shape[1] == 4:
            counts = counts * (rgba[:, 3].float() / 255)
        total.index_add_(0, inside, rgba[:, :3].float() / 255 * counts[:, None])
        seen.index_add_(0, inside, counts)
    colors = torch.where(seen[:, None] > 0, total / seen.clamp_min(1e-6)[:, None], 0.5)
    # soft edges count for less than a view
    return ~empty & (seen > min(LEAST_VIEWS, len(picked)) - 0.5), colors


def spread_views(views: Tensor, most: int) -> Tensor:
    """At most `most` of some views (C,), evenly spread over their order."""
    return views[torch.linspace(0, len(views) - 1, min(most, len(views))).round().long()]


def _widened(silhouette: Tensor) -> Tensor:
    size = 2 * MARGIN + 1
    wide = torch.nn.functional.max_pool2d(silhouette[None, None].float(), size, 1, MARGIN)
    return wide[0, 0] > 0
