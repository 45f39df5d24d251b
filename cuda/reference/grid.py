"""Multiresolution grid encoding in plain torch: what the grid kernels must compute.

For each level with `scale`, `resolution` R, `size` and `offset` (rows of the levels tensor):

    t = clamp(x, 0, 1) * scale + 1/2,  cell = min(floor(t), R - 2),  f = t - cell
    features = sum over corners c of  prod_d (c_d ? w(f_d) : 1 - w(f_d))  *  table[index(cell + c)]

with w(f) = f, or the smooth step of f. Dense levels (R^D <= size) index their vertices row by row,
the others hash them: xor of coordinate times prime, modulo size. NaN positions count as 0. Outside
the unit cube the features are constant along the clamped axis, so derivatives by x are 0 there.

Sources: Instant Neural Graphics Primitives, Mueller et al. 2022; second derivatives: NeuS2, Wang
et al. 2023.

float32 positions are rounded once at t, as a fused multiply-add does; all that follows is done in
the dtype of the table. float64 positions are not rounded, for checks against finite differences.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

HASH_FACTORS = (1, 2654435761, 805459861, 3674653429)
WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class Corners:
    """The corners of every point's cell in one level."""

    index: Tensor  # (M, 2^D) entries of the whole table
    value: Tensor  # (M, D) weight of the upper vertex along each axis
    slope: Tensor  # (M, D) its derivative by the position, 0 where that is clamped
    curvature: Tensor  # (M, D) its second derivative
    columns: slice  # where this level's features stand in a row

    def weights(self, derived: tuple[int, ...] = ()) -> Tensor:
        """Corner weights (M, 2^D), differentiated once by each axis of `derived`."""
        weights = torch.ones_like(self.value[:, :1])
        for axis in range(self.value.shape[1]):
            upper = (self.value, self.slope, self.curvature)[derived.count(axis)][:, axis, None]
            lower = -upper if axis in derived else 1 - upper
            weights = torch.cat([weights * lower, weights * upper], 1)
        return weights

    def tangent(self, direction: Tensor) -> Tensor:
        """Rate of the corner weights when the position moves along `direction` (M, D)."""
        axes = range(direction.shape[1])
        terms = [self.weights((axis,)) * direction[:, axis, None] for axis in axes]
        return torch.stack(terms).sum(0)


def _interpolation(fraction: Tensor, smooth: bool) -> tuple[Tensor, Tensor, Tensor]:
    if not smooth:
        return fraction, torch.ones_like(fraction), torch.zeros_like(fraction)
    f = fraction.clamp(max=1)
    curvature = torch.where(fraction < 1, 6 - 12 * f, 0)
    return f * f * (3 - 2 * f), 6 * f * (1 - f), curvature


def _place(x: Tensor, scale: float) -> Tensor:
    inside = torch.nan_to_num(x, nan=0.0, posinf=1.0, neginf=0.0).clamp(0, 1)
    return (inside.double() * scale + 0.5).to(x.dtype)


def _index(cell: Tensor, resolution: int, size: int) -> Tensor:
    """Entries (M, 2^D) of the corners of integer cells (M, D), within the level."""
    dimensions = cell.shape[1]
    dense = resolution**dimensions <= size
    index = torch.zeros_like(cell[:, :1])
    for axis in range(dimensions):
        factor = resolution**axis if dense else HASH_FACTORS[axis]
        lower = cell[:, axis, None] * factor
        ends = (lower, lower + factor)
        steps = [index + end if dense else index ^ (end & WORD) for end in ends]
        index = torch.cat(steps, 1)
    return index if dense else index & (size - 1)


def _corners(
    x: Tensor, levels: Tensor, features: int, dtype: torch.dtype, smooth: bool
) -> Iterator[Corners]:
    outside = ~((x >= 0) & (x <= 1))
    scales = levels[:, 0].contiguous().view(torch.float32).tolist()
    for level, scale in enumerate(scales):
        resolution, size, offset = levels[level, 1:].tolist()
        t = _place(x, scale)
        cell = t.detach().floor().clamp(max=resolution - 2)
        value, slope, curvature = _interpolation((t - cell).to(dtype), smooth)
        yield Corners(
            index=_index(cell.long(), resolution, size) + offset,
            value=value,
            slope=(slope * scale).masked_fill(outside, 0),
            curvature=(curvature * scale**2).masked_fill(outside, 0),
            columns=slice(level * features, (level + 1) * features),
        )


def _gather(table: Tensor, corners: Corners, weights: Tensor) -> Tensor:
    return (table[corners.index] * weights[..., None]).sum(1)


def _scatter(gradient: Tensor, corners: Corners, weights: Tensor, entries: Tensor) -> None:
    rows = gradient[:, None, corners.columns] * weights[..., None]
    entries.index_add_(0, corners.index.reshape(-1), rows.flatten(0, 1))


def _products(table: Tensor, gradient: Tensor, corners: Corners) -> Tensor:
    return (table[corners.index] * gradient[:, None, corners.columns]).sum(-1)


def _result(rows: list[Tensor], half: bool) -> Tensor:
    features = torch.cat(rows, 1)
    return features.half() if half else features


def grid_forward(x: Tensor, table: Tensor, levels: Tensor, smooth: bool, half: bool) -> Tensor:
    """Features (M, L * F) of positions x (M, D). `half` rounds them to float16.

    Args:
        x: positions in [0, 1].
        table: (entries, F).
        levels: (L, 4) int32 on the CPU: bits of the float32 scale, resolution, size, offset.
        smooth: smooth-step instead of linear interpolation.

    Differentiable by x and table, any number of times.
    """
    rows = [
        _gather(table, corners, corners.weights())
        for corners in _corners(x, levels, table.shape[1], table.dtype, smooth)
    ]
    return _result(rows, half)


def grid_backward_table(
    x: Tensor, gradient: Tensor, levels: Tensor, entries: int, smooth: bool
) -> Tensor:
    """Gradient (entries, F) that the features' `gradient` (M, L * F) sends to the table."""
    dtype = torch.float32 if gradient.dtype == torch.float16 else gradient.dtype
    gradient, features = gradient.to(dtype), gradient.shape[1] // len(levels)
    table = gradient.new_zeros(entries, features)
    for corners in _corners(x, levels, features, dtype, smooth):
        _scatter(gradient, corners, corners.weights(), table)
    return table


def grid_backward_x(
    x: Tensor, table: Tensor, gradient: Tensor, levels: Tensor, smooth: bool
) -> Tensor:
    """Gradient (M, D) that the features' `gradient` sends to the positions."""
    gradient, axes = gradient.to(table.dtype), range(x.shape[1])
    total = torch.zeros_like(x, dtype=table.dtype)
    for corners in _corners(x, levels, table.shape[1], table.dtype, smooth):
        products = _products(table, gradient, corners)
        total += torch.stack([(corners.weights((a,)) * products).sum(1) for a in axes], 1)
    return total.to(x.dtype)


def grid_tangent(
    direction: Tensor, x: Tensor, table: Tensor, levels: Tensor, smooth: bool, half: bool
) -> Tensor:
    """Derivative (M, L * F) of the features when x moves along `direction` (M, D)."""
    direction = direction.to(table.dtype)
    rows = [
        _gather(table, corners, corners.tangent(direction))
        for corners in _corners(x, levels, table.shape[1], table.dtype, smooth)
    ]
    return _result(rows, half)


def grid_tangent_table(
    direction: Tensor, x: Tensor, gradient: Tensor, levels: Tensor, entries: int, smooth: bool
) -> Tensor:
    """Gradient to the table of (`grid_backward_x` . direction): (entries, F)."""
    dtype = torch.float32 if gradient.dtype == torch.float16 else gradient.dtype
    gradient, features = gradient.to(dtype), gradient.shape[1] // len(levels)
    table = gradient.new_zeros(entries, features)
    for corners in _corners(x, levels, features, dtype, smooth):
        _scatter(gradient, corners, corners.tangent(direction.to(dtype)), table)
    return table


def grid_curvature(
    direction: Tensor, x: Tensor, table: Tensor, gradient: Tensor, levels: Tensor, smooth: bool
) -> Tensor:
    """Hessian by x of (features . gradient), times `direction`: (M, D)."""
    gradient, axes = gradient.to(table.dtype), range(x.shape[1])
    direction = direction.to(table.dtype)
    total = torch.zeros_like(x, dtype=table.dtype)
    for corners in _corners(x, levels, table.shape[1], table.dtype, smooth):
        products = _products(table, gradient, corners)
        for a in axes:
            for b in axes:
                if a == b and not smooth:
                    continue
                second = (corners.weights((a, b)) * products).sum(1)
                total[:, a] += second * direction[:, b]
    return total.to(x.dtype)
