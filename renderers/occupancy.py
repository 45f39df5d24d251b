"""Which parts of a volume may hold something: cascades of cells that follow the field's density.

Source: Instant Neural Graphics Primitives, Mueller et al. 2022, appendix E. One thing differs: a
value fades when its cell is looked at, not at every update, so that few looks an update (what a
CPU can afford) do not empty cells that nobody has looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lumigraph.core import Cameras
from lumigraph.cuda.marching import MarchGrid, full_grid
from lumigraph.cuda.occupancy import (
    occupancy_threshold,
    pack_cells,
    sample_cells,
    update_cells,
    visible_cells,
)

UNSEEN = -1.0  # value of cells that no camera sees; they stay empty
DENSITY_CHUNK = 2**18
SEEN_COARSENING = 4  # visibility is tested on a grid this much coarser
SEEN_MARGIN = 8.0  # pixels, for what the coarser grid and the lens model miss


class OccupancyGrid(nn.Module):
    """Cells that rays stop in.

    Args:
        resolution: cells per axis of one cascade; a multiple of 8, with several cascades of 32.
        cascades: cascade k covers the cube of side 2^k about the middle of grid space.
        march_steps: steps along the diagonal of the unit cube.
    """

    values: Tensor
    bits: Tensor
    coarse: Tensor

    def __init__(self, *, resolution: int, cascades: int, march_steps: int) -> None:
        super().__init__()
        self.resolution, self.cascades, self.march_steps = resolution, cascades, march_steps
        self.register_buffer("values", torch.zeros(cascades * resolution**3))
        bits, coarse = full_grid(resolution, cascades)
        self.register_buffer("bits", bits, persistent=False)
        self.register_buffer("coarse", coarse, persistent=False)

    @property
    def cell_count(self) -> int:
        return len(self.values)

    @property
    def march_grid(self) -> MarchGrid:
        """Cells and step lengths as marching takes them."""
        return MarchGrid.with_steps(
            self.bits,
            self.coarse,
            resolution=self.resolution,
            cascades=self.cascades,
            steps=self.march_steps,
        )

    @property
    def minimum_step(self) -> float:
        """Length of the shortest step in grid units."""
        return math.sqrt(3) / self.march_steps

    def occupied_fraction(self) -> float:
        """Part of the cells that rays stop in."""
        shifts = torch.arange(8, device=self.bits.device, dtype=torch.uint8)
        return float((self.bits[:, None] >> shifts & 1).float().mean())

    @torch.no_grad()
    def update(
        self,
        density: Callable[[Tensor], Tensor],
        *,
        count: int,
        decay: float,
        generator: torch.Generator,
        every_cell: bool = False,
    ) -> None:
        """Look at some cells again.

        Args:
            density: positions (M, 3) in grid space -> (M,) per grid unit.
            count: cells drawn evenly, and as many of the occupied ones.
            decay: factor on the old value of a cell that is looked at.
            generator: on the CPU; decides which cells.
            every_cell: look at every cell once instead.
        """
        seed = int(torch.randint(2**31 - 1, (), generator=generator))
        cells, positions = sample_cells(
            self.bits,
            resolution=self.resolution,
            cascades=self.cascades,
            uniform=self.cell_count if every_cell else count,
            occupied=0 if every_cell else count,
            seed=seed,
        )
        found = torch.cat([density(part) for part in positions.split(DENSITY_CHUNK)])
        update_cells(
            self.values, cells, found, decay=decay, scale=self.minimum_step, decay_all=False
        )
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Make the cells follow the values."""
        threshold = occupancy_threshold(self.values, resolution=self.resolution)
        bits, coarse = pack_cells(
            self.values, threshold, resolution=self.resolution, cascades=self.cascades
        )
        self.bits.copy_(bits)
        self.coarse.copy_(coarse)

    @torch.no_grad()
    def mark_unseen(self, cameras: Cameras, bounds: Tensor) -> None:
        """Empty for good the cells that none of the cameras sees.

        Args:
            bounds: (2, 3), the cube of the scene that is the unit cube of grid space.
        """
        device = self.values.device
        cameras, corner = cameras.to(device), bounds[0].to(device)
        side = float(bounds[1, 0] - bounds[0, 0])

        def project(points: Tensor, camera: int) -> tuple[Tensor, Tensor]:
            return cameras.project(points * side + corner, camera)

        coarser = self.resolution // SEEN_COARSENING
        seen = visible_cells(
            project,
            cameras.sizes,
            resolution=coarser,
            cascades=self.cascades,
            margin=SEEN_MARGIN,
            device=device,
        )
        cells = seen.reshape(self.cascades, 1, coarser, coarser, coarser).float()
        # neighbours too: a large cell may be seen through its inside alone
        cells = nn.functional.max_pool3d(cells, 3, stride=1, padding=1)
        cells = nn.functional.interpolate(cells, size=(self.resolution,) * 3)
        self.values[cells.reshape(-1) == 0] = UNSEEN
        self.refresh_all()

    def refresh_all(self) -> None:
        """Every cell that some camera sees counts as occupied: the state before training."""
        bits, coarse = pack_cells(
            self.values,
            torch.tensor(UNSEEN / 2, device=self.values.device),
            resolution=self.resolution,
            cascades=self.cascades,
        )
        self.bits.copy_(bits)
        self.coarse.copy_(coarse)
