"""Surfaces fused from depth pictures: truncated signed distances in sparse blocks of voxels.

Each picture says of each voxel near a surface how far in front of the surface it is; the surface is
where the weighted mean of all words is 0 (Curless and Levoy, SIGGRAPH 1996), with the truncation
and the weights by viewing angle of KinectFusion (Newcombe et al., ISMAR 2011) and weights that
fall to 0 behind the surface (Bylow et al., RSS 2013). A voxel in front by more than the truncation
counts as just that, so what one picture puts into empty space, others carve away.

Distances here are from the plane of the surface at the pixel, positive towards the camera. Letters:
B blocks of 8 x 8 x 8 voxels, M points, H W image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lumigraph.core.errors import ConfigError, InputError
from lumigraph.core.shapes import check_shapes

from .block_culling import cull
from .depth_views import DepthView

BLOCK = 8
"""Voxels along each side of a block."""
VOXELS = BLOCK**3
FLOATS = 6
"""Numbers kept for a voxel: distance, weight, three colors and their weight."""
BLOCK_BYTES = (VOXELS * FLOATS + 1) * 4 + 8
BATCH = {"cpu": 1024, "cuda": 8192}
"""Blocks whose voxels are looked at together."""
BATCH_BYTES = VOXELS * 30 * 4
"""Temporary memory for one of them."""
NEAR = 2.0
"""Voxels from the surface up to which they take its color: more than a cell's diagonal."""
TRUNCATIONS = (2.0, 8.0)
"""Range of the truncation in voxels."""
_CELLS = 1 << 15  # voxels whose surroundings are looked at together
_BITS = 21
_HALF = 1 << (_BITS - 1)


@dataclass(frozen=True, eq=False)
class VoxelGrid:
    """Where voxels lie: voxel (0, 0, 0) at `origin`, block (i, j, k) begins at voxel 8 (i, j, k).

    >>> grid = VoxelGrid(torch.zeros(3), 0.1, torch.tensor([[-1.0] * 3, [1.0] * 3]))
    >>> unpack(grid.blocks_near(torch.tensor([[0.35, 0.35, 0.35]]), 0.2)).tolist()
    [[0, 0, 0]]
    """

    origin: Tensor
    """(3,) in the scene frame."""
    voxel: float
    """Side of a voxel, scene units."""
    bounds: Tensor
    """(2, 3) lower and upper corner of the box where there may be blocks."""

    def __post_init__(self) -> None:
        check_shapes(("origin", self.origin, "3"), ("bounds", self.bounds, "2 3"))
        if not (math.isfinite(self.voxel) and self.voxel > 0):
            raise InputError(f"voxel must be a positive length; got {self.voxel}")
        cells = float((self.bounds - self.origin).abs().max()) / self.voxel
        if cells >= _HALF - 64:
            raise ConfigError(
                f"voxel = {self.voxel:.3g}: too small for a region of "
                f"{float((self.bounds[1] - self.bounds[0]).max()):.3g} scene units; "
                "use a larger --voxel or a lower --resolution"
            )

    def blocks_near(self, points: Tensor, reach: float) -> Tensor:
        """Sorted keys of all blocks within `reach` of points (M, 3) along each axis."""
        low, high = ((self.bounds - self.origin) / (self.voxel * BLOCK)).floor().long()
        cells = torch.unique(pack(((points - self.origin) / self.voxel).floor().long()))
        half = reach / self.voxel + 0.5  # from the middle of a voxel, in voxels
        # steps of at most a block from one side of the box around a voxel to the other
        steps = torch.linspace(-half, half, math.ceil(2 * half / BLOCK - 1e-6) + 1)
        shifts = torch.cartesian_prod(steps, steps, steps).to(points) + 0.5
        found = [cells[:0]]
        for part in cells.split(_CELLS):
            blocks = ((unpack(part)[:, None] + shifts) / BLOCK).floor().long().reshape(-1, 3)
            inside = ((blocks >= low) & (blocks <= high)).all(dim=1)
            found.append(torch.unique(pack(blocks[inside])))
        return torch.unique(torch.cat(found))


def pack(places: Tensor) -> Tensor:
    """(M,) int64 keys of integer places (M, 3), ordered by x, then y, then z."""
    x, y, z = (places + _HALF).unbind(-1)
    return (x << (2 * _BITS)) | (y << _BITS) | z


def unpack(keys: Tensor) -> Tensor:
    """(M, 3) int64 places of keys (M,)."""
    mask = (1 << _BITS) - 1
    parts = [keys >> (2 * _BITS), (keys >> _BITS) & mask, keys & mask]
    return torch.stack(parts, dim=-1) - _HALF


class BlockCollector:
    """Collects the blocks that a volume will need, and stops before they are too many.

    Args:
        grid: where they lie.
        limit: memory that the volume may take, bytes.
        place: whose memory it is, for messages, such as "3.0 GiB are free on cpu".
    """

    def __init__(self, grid: VoxelGrid, *, limit: int, place: str) -> None:
        self.grid, self.limit, self.place = grid, limit, place
        self.keys = torch.empty(0, dtype=torch.int64, device=grid.origin.device)

    def add(self, points: Tensor, reach: float) -> None:
        """Blocks within `reach` of points (M, 3), scene units.

        Raises:
            ConfigError: the volume would take more than the limit.
        """
        found = self.grid.blocks_near(points, reach)
        self.keys = torch.unique(torch.cat([self.keys, found]))
        wanted = forecast(len(self.keys), self.keys.device)
        if wanted <= self.limit:
            return
        # blocks along a surface go with the square of the voxel
        advised = self.grid.voxel * math.sqrt(wanted / self.limit) * 1.1
        factor = self.grid.voxel / advised
        raise ConfigError(
            f"voxel = {self.grid.voxel:.3g} scene units: the volume would need more than "
            f"{wanted / 2**30:.2f} GiB, but {self.place}; use a --voxel at least "
            f"{1 / factor:.2g} times as large, or --resolution lower by that factor"
        )


def forecast(blocks: int, device: torch.device) -> int:
    """Bytes that fusing and extracting takes for so many blocks.

    >>> forecast(0, torch.device("cpu"))
    0
    """
    batch = min(blocks, BATCH[device.type])
    # extraction holds a brick of some 2 million voxels, and vertices and triangles of the surface
    return blocks * (BLOCK_BYTES + 4096) + batch * BATCH_BYTES


class Values(NamedTuple):
    """Voxels of blocks in a dense shape (n, 8, 8, 8)."""

    distance: Tensor
    """In truncations, -1 to 1; 1 where nobody looked."""
    near_weight: Tensor
    """Of the words that the surface is within `NEAR` voxels."""


class TsdfVolume:
    """Blocks of voxels that depth pictures are fused into.

    Args:
        grid: where voxels lie.
        keys: (B,) sorted keys of the blocks, see `pack`.
        truncation: in voxels, 2 to 8.
    """

    def __init__(self, grid: VoxelGrid, keys: Tensor, *, truncation: float) -> None:
        if not TRUNCATIONS[0] <= truncation <= TRUNCATIONS[1]:
            raise ConfigError(f"truncation = {truncation}: expected 2 to 8 voxels")
        self.grid, self.keys = grid, keys
        self.truncation = truncation * grid.voxel
        count, device = len(keys), keys.device
        self.distance_sum = torch.zeros(count, VOXELS, device=device)
        self.weight_sum = torch.zeros(count, VOXELS, device=device)
        self.empty_sum = torch.zeros(count, device=device)
        self.color_sum = torch.zeros(count, VOXELS, 4, device=device)
        steps = torch.arange(BLOCK, device=device) * grid.voxel
        self._steps = torch.cartesian_prod(steps, steps, steps)
        self.blocks = unpack(keys)

    def __len__(self) -> int:
        return len(self.keys)

    def integrate(self, view: DepthView) -> None:
        """Add what one picture says."""
        if len(self) == 0:
            return
        middle = (BLOCK - 1) / 2
        centers = self.positions(self.blocks * BLOCK + middle)
        radius = math.sqrt(3) * middle * self.grid.voxel
        found = cull(view, centers, radius=radius, truncation=self.truncation)
        self.empty_sum.index_add_(0, found.empty, found.empty_weight)
        self.integrate_blocks(view, found.near)

    def integrate_blocks(self, view: DepthView, rows: Tensor) -> None:
        """Add what a picture says of the blocks `rows` (n,), voxel by voxel."""
        known = view.known.to(view.depth.dtype)
        maps = torch.stack([view.depth, view.stretch, view.cosine, view.weight, known])
        colors = view.color.permute(2, 0, 1)
        for part in rows.split(BATCH[rows.device.type]):
            self._integrate_part(view, part, maps, colors)

    def _integrate_part(self, view: DepthView, rows: Tensor, maps: Tensor, colors: Tensor) -> None:
        corners = self.positions(self.blocks[rows] * BLOCK)
        points = (corners[:, None] + self._steps).reshape(-1, 3)
        pixels, depth = view.camera.project(points, 0)
        size = view.camera.sizes[0].to(pixels.dtype)
        where = pixels * (2 / size) - 1
        surface, stretch, cosine, weight, known = sampled(maps, where)
        ahead = (surface - depth) * stretch
        distance, voxel = ahead * cosine, self.grid.voxel
        # Behind the rim of a thing lies free space: along flat rays doubt must come soon, but not
        # before a cell is passed. So it goes by the mean of distance and length along the ray.
        room = self.truncation + ahead * cosine.sqrt()
        good = (known > 0.999) & (depth > 0) & (room > 0)
        fall = (room / (self.truncation - voxel)).clamp(0, 1)
        weight = torch.where(good, weight * fall, 0.0)
        truncated = (distance / self.truncation).clamp(-1, 1)
        self.distance_sum.index_add_(0, rows, (weight * truncated).reshape(-1, VOXELS))
        self.weight_sum.index_add_(0, rows, weight.reshape(-1, VOXELS))
        near = (good & (distance.abs() <= NEAR * voxel)).nonzero()[:, 0]
        shade = sampled(colors, where[near]).T
        share = weight[near, None]
        values = torch.cat([shade * share, share], dim=1)
        flat = rows[near // VOXELS] * VOXELS + near % VOXELS
        self.color_sum.view(-1, 4).index_add_(0, flat, values)

    def positions(self, places: Tensor) -> Tensor:
        """Scene positions (M, 3) of voxel places (M, 3), whole or not."""
        return places.to(self.grid.origin.dtype) * self.grid.voxel + self.grid.origin

    def values(self, rows: Tensor) -> Values:
        """Fused voxels of the blocks `rows` (n,)."""
        empty = self.empty_sum[rows, None]
        weight = self.weight_sum[rows] + empty
        mean = (self.distance_sum[rows] + empty) / weight.clamp_min(1e-12)
        distance = torch.where(weight > 0, mean, 1.0)
        shape = (-1, BLOCK, BLOCK, BLOCK)
        return Values(distance.reshape(shape), self.color_sum[rows, :, 3].reshape(shape))

    def colors(self, places: Tensor) -> Tensor:
        """sRGB colors (M, 3) at voxel places (M, 3), interpolated; gray where there are none."""
        base = places.floor().long()
        share = (places - base).float()
        total = torch.zeros(len(places), 4, device=self.keys.device)
        for corner in range(8):
            shift = torch.tensor([corner >> 2, corner >> 1 & 1, corner & 1], device=base.device)
            factor = torch.where(shift > 0, share, 1 - share).prod(dim=1)
            rows, inside, found = self._find(base + shift)
            value = self.color_sum[rows, inside] * (factor * found)[:, None]
            total += value
        gray = torch.full_like(total[:, :3], 0.5)
        weight = total[:, 3:]
        return torch.where(weight > 1e-9, total[:, :3] / weight.clamp_min(1e-9), gray)

    def _find(self, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Row, place in the block and existence of voxels (M, 3)."""
        blocks = torch.div(places, BLOCK, rounding_mode="floor")
        keys = pack(blocks)
        rows = torch.searchsorted(self.keys, keys).clamp_max(len(self) - 1)
        x, y, z = (places - blocks * BLOCK).unbind(-1)
        return rows, (x * BLOCK + y) * BLOCK + z, self.keys[rows] == keys


def sampled(maps: Tensor, where: Tensor) -> Tensor:
    """(D, M) of pictures (D, H, W) at places (M, 2) in [-1, 1], bilinear, 0 outside."""
    found = torch.nn.functional.grid_sample(
        maps[None], where[None, None], mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return found[0, :, 0]
