"""Which parts of space no camera can look into: the inside of things.

Nothing teaches a volume what lies behind its surfaces, so its density there means nothing. A cell
counts as hidden where it is in view of some camera and behind what is seen in all pictures that it
is in. Letters: H W image.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from lumigraph.core import Cameras
from lumigraph.core.devices import choose_device

from .depth_views import EMPTY_DEPTH, SURFACE_OPACITY
from .render_source import Renders

CELLS = 128
"""Along a side of the cube that is looked at; hidden space begins so coarsely below surfaces."""
MARGIN = 1.0
"""Cells behind what is seen from which a cell is hidden: no cell that touches a surface is."""


def hidden_cells(
    model: Renders,
    cameras: Cameras,
    *,
    low: torch.Tensor,
    side: float,
    cells: int = CELLS,
    device: str = "cpu",
    on_view: Callable[[int, int], None] | None = None,
) -> NDArray[np.bool_]:
    """(n, n, n) whether the middle of each cell of a cube is hidden.

    Args:
        model: renders one camera at a time; mean depths do.
        cameras: those that look; small pictures do.
        low: (3,) lower corner of the cube in the scene frame.
        side: of the cube.
        cells: n.
        device: where to compute.
        on_view: told after each picture how many are done, and of how many.
    """
    place = choose_device(device)
    steps = (torch.arange(cells, device=place) + 0.5) * (side / cells)
    middles = torch.cartesian_prod(steps, steps, steps) + low.to(place, torch.float32)
    left = torch.arange(len(middles), device=place)
    in_view = torch.zeros(len(middles), dtype=torch.bool, device=place)
    for index in range(len(cameras)):
        camera = cameras[index].to(place)
        frame = model.render(camera, channels=("color", "opacity", "depth")).to(place)
        seen = torch.where(frame.opacity >= SURFACE_OPACITY, frame.depth, EMPTY_DEPTH)
        # the farthest of neighbours: a cell beside an edge is not behind it
        seen = torch.nn.functional.max_pool2d(seen[None], 3, stride=1, padding=1)[0]
        points = middles[left]
        pixels, depth = camera.project(points, 0)
        inside = camera.in_view(points, 0)
        width, height = camera.size(0)
        column = pixels[:, 0].long().clamp(0, width - 1)
        row = pixels[:, 1].long().clamp(0, height - 1)
        in_view[left[inside]] = True
        left = left[~(inside & (depth < seen[row, column] + MARGIN * side / cells))]
        if on_view is not None:
            on_view(index + 1, len(cameras))
    hidden = torch.zeros_like(in_view)
    hidden[left] = True
    return (hidden & in_view).reshape((cells,) * 3).cpu().numpy()
