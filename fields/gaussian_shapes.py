"""Shapes of Gaussians whose axes are not given by a rotation: what files and normals need of them.

Axes (G, 3, 3) are any root of the covariance, axes @ axes^T. Letters: G Gaussians.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lumigraph.core.transforms import quaternion_from_rotation

ROWS_AT_ONCE = 2**16  # of a decomposition
SQUARINGS = 12  # tells lengths apart that differ by a thousandth
SMALLEST = 1e-30


def decomposed(axes: Tensor) -> tuple[Tensor, Tensor]:
    """Unit quaternions w x y z (G, 4) and natural logarithms of lengths (G, 3) of the same shapes,
    the longest axis first."""
    parts = [_decomposed(part) for part in axes.split(ROWS_AT_ONCE)] or [_decomposed(axes)]
    rotations, log_scales = zip(*parts, strict=True)
    return torch.cat(rotations), torch.cat(log_scales)


def _decomposed(axes: Tensor) -> tuple[Tensor, Tensor]:
    if not len(axes):
        return axes.new_zeros(0, 4), axes.new_zeros(0, 3)
    turn, lengths, _ = torch.linalg.svd(axes)
    last = turn[:, :, 2:] * torch.linalg.det(turn).sign()[:, None, None]
    turn = torch.cat([turn[:, :, :2], last], dim=2)
    return quaternion_from_rotation(turn), lengths.clamp_min(SMALLEST).log()


def shortest_axes(axes: Tensor) -> Tensor:
    """(G, 3) unit directions along which the Gaussians are thinnest, of either sign.

    The adjugate of the covariance has the same directions, the shortest as its largest; squared a
    few times, scaled back each time, nothing else is left of it. Where two lengths are alike, any
    direction between them may come.
    """
    largest = axes.abs().amax((1, 2), keepdim=True).clamp_min(SMALLEST)
    a, b, c = (axes / largest).unbind(1)
    # rows of the adjugate's own root: the cross products of the rows of the axes
    root = torch.stack(
        [torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], dim=1
    )
    square = root @ root.transpose(1, 2)
    for _ in range(SQUARINGS):
        square = square / square.diagonal(dim1=1, dim2=2).sum(1).clamp_min(SMALLEST)[:, None, None]
        square = square @ square
    best = square.norm(dim=1).argmax(1)
    found = square.gather(2, best[:, None, None].expand(-1, 3, 1))[..., 0]
    length = found.norm(dim=1, keepdim=True)
    anything = found.new_tensor([0.0, 0.0, 1.0])
    return torch.where(length > 0, found / length.clamp_min(SMALLEST), anything)
