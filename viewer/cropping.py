"""A model cut down to a box, so that the inside of a scene can be seen.

Gaussians are kept where their centre lies in the box; volumes where the cell of the occupancy grid
touches it.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from lumigraph.cuda.marching import MarchGrid
from lumigraph.cuda.occupancy import occupancy_threshold, pack_cells
from lumigraph.fields import GaussianTensors, PrimitiveField, to_grid_space
from lumigraph.renderers import MovedSurfaceRenderer, OccupancyGrid
from lumigraph.training import Model

EMPTY = -1.0  # value of a cell that holds nothing


def can_crop(model: Model) -> bool:
    """Whether `cropped` knows how; not of surfaces that have moved, whose cells are not those of
    the scene."""
    if isinstance(model.renderer, MovedSurfaceRenderer):
        return False
    occupancy = getattr(model.renderer, "occupancy", None)
    return isinstance(model.field, PrimitiveField) or isinstance(occupancy, OccupancyGrid)


def cropped(model: Model, box: Tensor) -> Model:
    """The model inside a box; the given one does not change and shares its memory.

    Args:
        box: (2, 3) lower and upper corner in the scene frame.
    """
    if isinstance(model.field, PrimitiveField):
        inside = _InBox(model.field, box.to(model.device))
        return Model(inside, model.renderer, model.device)
    renderer = copy.copy(cast(Any, model.renderer))
    grid = _cut_grid(renderer.occupancy, to_grid_space(box, cast(Any, model.field).bounds.cpu()))
    renderer.occupancy = SimpleNamespace(march_grid=grid)
    return Model(model.field, renderer, model.device)


class _InBox(nn.Module):
    """A primitive field without what has its centre outside."""

    def __init__(self, field: PrimitiveField, box: Tensor) -> None:
        super().__init__()
        self._whole, self._box = (field,), box  # a tuple: not a part to be trained

    def gaussians_at(self, time: float | None) -> GaussianTensors:
        whole = self._whole[0].gaussians_at(time)
        inside = ((whole.means >= self._box[0]) & (whole.means <= self._box[1])).all(dim=1)
        return GaussianTensors(*(tensor[inside] for tensor in whole))


@torch.no_grad()
def _cut_grid(occupancy: OccupancyGrid, box: Tensor) -> MarchGrid:
    """The cells of a grid that touch a box (2, 3) in grid space."""
    resolution, cascades = occupancy.resolution, occupancy.cascades
    values = occupancy.values.clone().reshape(cascades, *[resolution] * 3)
    edges = torch.arange(resolution + 1, dtype=torch.float32, device=values.device)
    for k in range(cascades):
        place = (edges - resolution / 2) * (2**k / resolution) + 0.5
        for axis in range(3):
            outside = (place[1:] <= float(box[0, axis])) | (place[:-1] >= float(box[1, axis]))
            # cells are stored z, y, x: the last dimension is x
            values[k].transpose(2 - axis, 0)[outside] = EMPTY
    threshold = occupancy_threshold(occupancy.values, resolution=resolution)
    bits, coarse = pack_cells(
        values.reshape(-1), threshold, resolution=resolution, cascades=cascades
    )
    return MarchGrid.with_steps(
        bits, coarse, resolution=resolution, cascades=cascades, steps=occupancy.march_steps
    )
