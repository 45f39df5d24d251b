"""Marching rays through an occupancy grid in plain torch: what the marching kernels must compute.

Letters: N rays, K cascades of G^3 cells. Positions are in grid space: cascade k covers the cube of
side 2^k centred at 0.5, in cells of side 2^k / G.

The steps of a ray form a lattice. Their length is dt(t) = clamp(t c, dt_min, dt_max) with the cone
angle c (0: dt = dt_min everywhere), and n(t) numbers them from the origin of the ray on:

    c = 0:  n(t) = t / dt_min
    c > 0:  n(t) = t / dt_min                                     t <= t_a = dt_min / log(1 + c)
            n(t) = n(t_a) + log(t / t_a) / log(1 + c)             between: t grows by 1 + c a step
            n(t) = n(t_b) + (t - t_b) / dt_max                    t >= t_b = dt_max / log(1 + c)

A ray enters the outermost cascade, or passes `near`, at t_start. Candidate i stands where n(t) is
n(t_start) + jitter + i, for all i with t below both `far` and the exit. It is a sample when its
cell is occupied, in the smallest cascade k that contains the position (|p - 0.5| < 2^k / 2 along
every axis) and whose cells are no smaller than the step (dt <= 2^k / G).

Source: Instant Neural Graphics Primitives, Mueller et al. 2022, appendix E.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CANDIDATES_AT_ONCE = 128
NEVER_REACHED = 1e6  # a ray that starts farther away has no samples


@dataclass(frozen=True)
class Lattice:
    """n(t) and its inverse."""

    minimum_step: float
    maximum_step: float
    cone: float

    def limits(self) -> tuple[float, float, float, float]:
        """t_a, t_b, n(t_a), n(t_b); for cone > 0."""
        base = math.log1p(self.cone)
        near, far = self.minimum_step / base, self.maximum_step / base
        near_count = near / self.minimum_step
        return near, far, near_count, near_count + math.log(far / near) / base

    def count(self, t: Tensor) -> Tensor:
        if self.cone == 0:
            return t / self.minimum_step
        near, far, near_count, far_count = self.limits()
        middle = near_count + torch.log(t.clamp(near, far) / near) / math.log1p(self.cone)
        last = far_count + (t - far) / self.maximum_step
        return torch.where(t <= near, t / self.minimum_step, torch.where(t < far, middle, last))

    def distance(self, count: Tensor) -> Tensor:
        if self.cone == 0:
            return count * self.minimum_step
        near, far, near_count, far_count = self.limits()
        grown = (count.clamp(near_count, far_count) - near_count) * math.log1p(self.cone)
        last = far + (count - far_count) * self.maximum_step
        middle = torch.where(count < far_count, near * torch.exp(grown), last)
        return torch.where(count <= near_count, count * self.minimum_step, middle)

    def step(self, t: Tensor) -> Tensor:
        if self.cone == 0:
            return torch.full_like(t, self.minimum_step)
        return (t * self.cone).clamp(self.minimum_step, self.maximum_step)


def unpack_bits(bits: Tensor, resolution: int, cascades: int) -> Tensor:
    """Packed bits to booleans (K, G, G, G), indexed [cascade, z, y, x]."""
    shifts = torch.arange(8, device=bits.device)
    cells = (bits.long()[:, None] >> shifts) & 1
    return cells.bool().reshape(cascades, resolution, resolution, resolution)


def cell_of(p: Tensor, step: Tensor, resolution: int, cascades: int) -> tuple[Tensor, Tensor]:
    """Cascade (...,) and cell x, y, z (..., 3) that a sample at p (..., 3) looks at."""
    reach = (p - 0.5).abs().amax(-1)
    cascade = torch.zeros_like(reach, dtype=torch.long)
    for k in range(cascades - 1):
        too_small = (reach >= 2.0**k / 2) | (step > 2.0**k / resolution)
        cascade = torch.where(too_small & (cascade == k), k + 1, cascade)
    side = torch.pow(2.0, cascade.to(p.dtype))[..., None]
    cell = ((p - 0.5) / side + 0.5) * resolution
    return cascade, cell.long().clamp(0, resolution - 1)


def ray_extent(
    origins: Tensor, directions: Tensor, cascades: int, near: Tensor, far: Tensor
) -> tuple[Tensor, Tensor]:
    """t_start and t_end (N,) of every ray; equal where it has no samples."""
    half = 2.0 ** (cascades - 1) / 2
    low = (0.5 - half - origins) / directions
    high = (0.5 + half - origins) / directions
    inside = (origins - 0.5).abs() <= half
    parallel = directions == 0
    enter = torch.where(
        parallel, torch.where(inside, -math.inf, math.inf), torch.minimum(low, high)
    )
    leave = torch.where(parallel, math.inf, torch.maximum(low, high))
    start = torch.maximum(enter.amax(1).clamp(min=0), near)
    end = torch.minimum(leave.amin(1), far)
    usable = torch.isfinite(origins).all(1) & torch.isfinite(directions).all(1)
    usable &= directions.square().sum(1) > 1e-4
    usable &= (start < end) & (end < NEVER_REACHED)
    zero = torch.zeros_like(start)
    return torch.where(usable, start, zero), torch.where(usable, end, zero)


def march_candidates(
    origins: Tensor, directions: Tensor, occupied: Tensor, lattice: Lattice, span: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Occupied candidates of all rays: ray, t, dt, p; ray by ray and near to far.

    Args:
        occupied: (K, G, G, G) booleans.
        span: (N, 2) lattice number of the first candidate, and t_end.
    """
    cascades, resolution = occupied.shape[:2]
    found = []
    first = 0
    while bool((lattice.distance(span[:, 0] + first) < span[:, 1]).any()):
        number = span[:, :1] + first + torch.arange(CANDIDATES_AT_ONCE, device=span.device)
        t = lattice.distance(number)
        ray, place = (t < span[:, 1:]).nonzero(as_tuple=True)
        t = t[ray, place]
        p = origins[ray] + t[:, None] * directions[ray]
        step = lattice.step(t)
        cascade, cell = cell_of(p, step, resolution, cascades)
        hit = occupied[cascade, cell[:, 2], cell[:, 1], cell[:, 0]]
        found.append((ray[hit], t[hit], step[hit], p[hit]))
        first += CANDIDATES_AT_ONCE
    if not found:
        return origins.new_zeros(0, dtype=torch.long), *_nothing(origins)
    ray, t, step, p = (torch.cat(column) for column in zip(*found, strict=True))
    order = torch.sort(ray, stable=True).indices
    return ray[order], t[order], step[order], p[order]


def _nothing(like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return like.new_zeros(0), like.new_zeros(0), like.new_zeros(0, 3)


def march_rays(
    origins: Tensor,
    directions: Tensor,
    bits: Tensor,
    *,
    jitter: Tensor,
    near: Tensor,
    far: Tensor,
    sizes: tuple[int, int, int, int],
    lattice: Lattice,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """March all rays; see the top of this file.

    Args:
        origins, directions: (N, 3). bits: packed cells. jitter, near, far: (N,).
        sizes: resolution G, cascades K, most samples in total, most samples of one ray.

    Returns:
        positions (M, 3), distances (M,), steps (M,), ray_indices (M,) int32,
        ray_offsets (N, 2) int32, counter (3,) int32: samples kept, samples wanted, and rays up to
        the first that did not fit. It and all that follow it have no samples.
    """
    resolution, cascades, most, most_per_ray = sizes
    rays = len(origins)
    start, end = ray_extent(origins, directions, cascades, near, far)
    number = lattice.count(start) + jitter
    finite = torch.isfinite(number)
    span = torch.stack([number.where(finite, torch.zeros_like(number)), end * finite], 1)
    occupied = unpack_bits(bits, resolution, cascades)
    ray, t, step, p = march_candidates(origins, directions, occupied, lattice, span)

    before = torch.searchsorted(ray, ray)  # samples of earlier rays
    keep = torch.arange(len(ray), device=ray.device) - before < most_per_ray
    ray, t, step, p = ray[keep], t[keep], step[keep], p[keep]
    counts = torch.bincount(ray, minlength=rays)
    ends = counts.cumsum(0)
    fits = ends <= most
    kept = int(counts[fits].sum())
    offsets = torch.stack([(ends - counts).clamp(max=kept), counts * fits], 1)
    counter = torch.tensor([kept, len(ray), int(fits.sum())])
    return (
        p[:kept],
        t[:kept],
        step[:kept],
        ray[:kept].int(),
        offsets.int(),
        counter.to(origins.device, torch.int32),
    )
