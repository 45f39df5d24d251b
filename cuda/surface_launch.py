"""Surface queries on a GPU or the emulator: a fixed sequence of kernels, without a host sync.

Forward: the grid becomes rows of fp16 inputs with their rates by the position (kept for the
backward pass, 8 bytes a padded input), then the network. Backward: the network with both orders
side by side, then the table. Gradients are scaled to the range of fp16 by the largest of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lumigraph.core.errors import BackendError

from . import grid
from .mlp_launch import PADDING, _device_limits
from .reference.surface import OUTPUTS, SOFTPLUS
from .runtime import Kernel, kernel

Three = tuple[Tensor, Tensor, Tensor]
Four = tuple[Tensor, Tensor, Tensor, Tensor]

GRID_BLOCK = 128  # threads, as in kernels/surface_grid.cu
COLUMNS = 8  # of a row that a thread of the grid kernels takes, the same
FORWARD_WARPS = 4
LARGEST_BLOCK = 256  # threads, as in kernels/surface.cu
MOST_BLOCKS = 1024  # of the search for the largest gradient
RATES_AND_VALUE = 4  # kinds of rows, as in kernels/surface_rows.h
BY_DISTANCE, BY_FEATURE = 1, 2  # as in kernels/surface.cu


@dataclass(frozen=True)
class _Model:
    levels: Tensor
    features: int
    width: int
    hidden: int
    softplus: bool
    smooth: bool
    active: float
    bias: float

    @property
    def inputs(self) -> int:
        return 3 + len(self.levels) * self.features

    @property
    def row(self) -> int:
        """Halves of a row."""
        return _padded(self.inputs)

    @property
    def widths(self) -> tuple[int, ...]:
        return self.inputs, *[self.width] * self.hidden, OUTPUTS

    @property
    def weight_count(self) -> int:
        return sum(a * b for a, b in pairwise(self.widths))

    @property
    def weight_bytes(self) -> int:
        """In shared memory."""
        return sum(2 * out * (_padded(a) + PADDING) for a, out in pairwise(self.widths))

    def grid_kernel(self, name: str, part: int, **constants: int) -> Kernel:
        sizes = {"LG_LEVELS": len(self.levels), "LG_FEATURES": self.features}
        smooth = int(self.smooth)
        return kernel("surface_grid.cu", name, LG_PASS=part, LG_SMOOTH=smooth, **sizes, **constants)

    def network_kernel(self, name: str, part: int, **constants: int) -> Kernel:
        return kernel(
            "surface.cu",
            name,
            LG_PASS=part,
            LG_LEVELS=len(self.levels),
            LG_FEATURES=self.features,
            LG_WIDTH=self.width,
            LG_HIDDEN_LAYERS=self.hidden,
            LG_SOFTPLUS=int(self.softplus),
            **constants,
        )


def _padded(width: int) -> int:
    return -(-width // 16) * 16


def _model(levels: Tensor, shape: list[int], options: list[float]) -> _Model:
    features, width, hidden, activation, smooth = shape
    active, bias = options
    return _Model(
        levels, features, width, hidden, activation == SOFTPLUS, bool(smooth), active, bias
    )


def _aligned(tensor: Tensor) -> Tensor:
    """Contiguous fp32 on a 16-byte border, as vectors are read."""
    tensor = tensor.float().contiguous()
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()


def saved_like(table: Tensor, positions: Tensor, levels: int, features: int) -> Tensor:
    """What the forward pass keeps for the backward pass on the device of `table`, empty."""
    if table.device.type == "cpu":
        return table.new_empty(0)
    rows = (positions.shape[0], RATES_AND_VALUE, _padded(3 + levels * features))
    return table.new_empty(rows, dtype=torch.float16)


def _encode(model: _Model, table: Tensor, positions: Tensor, *, rates: bool) -> Tensor:
    """Rows of inputs (N, 4 or 1, row) fp16."""
    points = len(positions)
    kinds = RATES_AND_VALUE if rates else 1
    rows = positions.new_empty(points, kinds, model.row, dtype=torch.float16)
    run = model.grid_kernel("surface_encode", 1, LG_RATES=int(rates))
    blocks = (-(-points // GRID_BLOCK), model.row // COLUMNS if points else 0)
    levels = model.levels.numpy().tobytes()
    run(blocks, (GRID_BLOCK,), positions, _aligned(table), levels, rows, model.active, points)
    return rows


def _run_network(
    model: _Model, weights: Tensor, positions: Tensor, rows: Tensor, outputs: Three, *, rates: bool
) -> None:
    """Fills `outputs`; without rates the distance alone."""
    points = len(rows)
    run = model.network_kernel("surface_forward", 1, LG_RATES=int(rates), LG_WARPS=FORWARD_WARPS)
    _, multiprocessors = _device_limits(rows.device)
    steps = -(-points // (16 * FORWARD_WARPS))
    grid_size = (min(steps, 8 * multiprocessors),)
    inputs = (positions, rows, weights.float().contiguous())
    block, shared = (32 * FORWARD_WARPS,), model.weight_bytes
    run(grid_size, block, *inputs, *outputs, model.bias, points, shared=shared)


def launch_forward(
    table: Tensor, weights: Tensor, positions: Tensor, levels: Tensor, shape: list[int],
    options: list[float],
) -> Four:  # fmt: skip
    """Distance, feature, gradient, and the rows of inputs."""
    model = _model(levels, shape, options)
    positions, points = positions.contiguous(), len(positions)
    rows = _encode(model, table, positions, rates=True)
    new = positions.new_empty
    outputs = (new(points), new(points, OUTPUTS), new(points, 3))
    _run_network(model, weights, positions, rows, outputs, rates=True)
    return *outputs, rows


def launch_distance(
    table: Tensor, weights: Tensor, positions: Tensor, levels: Tensor, shape: list[int],
    options: list[float],
) -> Tensor:  # fmt: skip
    """Distance alone."""
    model = _model(levels, shape, options)
    positions = positions.contiguous()
    rows = _encode(model, table, positions, rates=False)
    distance = positions.new_empty(len(positions))
    _run_network(model, weights, positions, rows, (distance, distance, distance), rates=False)
    return distance


def _largest(given: list[Tensor], filler: Tensor) -> Tensor:
    """(1,) the largest size of all numbers."""
    largest = filler.new_zeros(1)
    arrays = [*given, *[filler] * (3 - len(given))]
    counts = [t.numel() for t in given] + [0] * (3 - len(given))
    blocks = min(-(-max(counts) // (4 * LARGEST_BLOCK)), MOST_BLOCKS)
    run = kernel("surface.cu", "surface_largest", LG_PASS=3)
    run((blocks,), (LARGEST_BLOCK,), *arrays, largest, *counts)
    return largest


def _backward_warps(model: _Model, parts: int, limit: int) -> tuple[int, int]:
    """(warps of a block, bytes of its shared memory): as many as fit."""
    row_bytes = 2 * sum(_padded(width) + PADDING for width in model.widths)
    for warps in (8, 4, 2, 1):
        size = model.weight_bytes + warps * 16 * parts * row_bytes
        if size <= limit:
            return warps, size
    raise BackendError(
        f"surface_query: a network {model.widths} does not fit in the {limit} bytes of shared "
        "memory of this GPU; use fewer levels or layers, or LUMIGRAPH_BACKEND=torch (slower)"
    )


@dataclass(frozen=True)
class _Given:
    """Gradients of the loss by the results, those that exist, and the largest number of them."""

    distance: Tensor | None
    feature: Tensor | None
    gradient: Tensor | None
    largest: Tensor

    @property
    def flags(self) -> int:
        return BY_DISTANCE * (self.distance is not None) | BY_FEATURE * (self.feature is not None)


def _run_backward(
    model: _Model,
    weights: Tensor,
    positions: Tensor,
    rows: Tensor,
    given: _Given,
    wanted: list[bool],
) -> Three:
    """Rows of slopes (N, 2, row) fp16, and gradients of weights and positions (without the grid's
    curvature), empty where they are not wanted."""
    points, second = len(rows), given.gradient is not None
    limit, multiprocessors = _device_limits(rows.device)
    warps, shared = _backward_warps(model, 2 if second else 1, limit)
    run = model.network_kernel(
        "surface_backward",
        2,
        LG_WARPS=warps,
        LG_BLOCKS=2 if model.hidden == 1 else 1,
        LG_SECOND=int(second),
        LG_NEED_WEIGHTS=int(wanted[1]),
        LG_NEED_X=int(wanted[2]),
    )
    blocks = min(-(-points // (16 * warps)), multiprocessors * (2 if model.hidden == 1 else 1))
    slopes = rows.new_empty(points, 2, model.row)
    new = weights.new_empty
    by_positions = new(points if wanted[2] else 0, 3)
    partial = new(blocks if wanted[1] else 0, model.weight_count)
    by_results = [rows if t is None else t for t in (given.distance, given.feature, given.gradient)]
    outputs = (slopes, by_positions, partial)
    inputs = (positions, rows, weights.float().contiguous(), *by_results, given.largest)
    run((blocks,), (32 * warps,), *inputs, *outputs, given.flags, points, shared=shared)
    by_weights = torch.empty_like(weights) if wanted[1] else new(0)
    if wanted[1]:
        reduce = kernel("mlp.cu", "mlp_reduce", LG_PASS=3)
        columns = (-(-model.weight_count // 32),)
        reduce(columns, (32, 8), partial, by_weights, blocks, model.weight_count)
    return slopes, by_weights, by_positions


def _table_gradient(
    model: _Model, table: Tensor, positions: Tensor, slopes: Tensor, given: _Given
) -> Tensor:
    points, along = len(positions), given.gradient
    target = torch.zeros(table.shape, dtype=torch.float32, device=table.device)
    run = model.grid_kernel("surface_table", 2, LG_SECOND=int(along is not None))
    groups = -(-len(model.levels) * model.features // COLUMNS)
    second = positions if along is None else along
    arguments = (positions, second, slopes, model.levels.numpy().tobytes(), target, given.largest)
    run((-(-points // GRID_BLOCK), groups), (GRID_BLOCK,), *arguments, model.active, points)
    return target


def _add_curvature(
    model: _Model, table: Tensor, positions: Tensor, slopes: Tensor, along: Tensor, target: Tensor
) -> None:
    """Adds what the second derivatives of the encoding send to the positions."""
    encoded = slopes[:, 1, : len(model.levels) * model.features].float()
    places = torch.arange(len(model.levels), device=slopes.device)
    shares = (model.active - places).clamp(0, 1).repeat_interleave(model.features)
    tilt = encoded * shares
    target += grid.grid_curvature(along, positions, table, tilt, model.levels, model.smooth)


def launch_backward(
    table: Tensor, weights: Tensor, positions: Tensor, levels: Tensor, saved: Tensor,
    by_distance: Tensor | None, by_feature: Tensor | None, by_gradient: Tensor | None,
    shape: list[int], options: list[float], wanted: list[bool],
) -> Three:  # fmt: skip
    """Gradients by table, weights and positions."""
    model, points = _model(levels, shape, options), len(positions)
    results = (by_distance, by_feature, by_gradient)
    aligned = [None if t is None else _aligned(t) for t in results]
    present = [t for t in aligned if t is not None]
    if not points or not present:
        like = zip((table, weights, positions), wanted, strict=True)
        none = [torch.zeros_like(t) if asked else t.new_empty(0) for t, asked in like]
        return none[0], none[1], none[2]
    positions = positions.contiguous()
    given = _Given(aligned[0], aligned[1], aligned[2], _largest(present, weights))
    slopes, by_weights, by_positions = _run_backward(
        model, weights, positions, saved, given, wanted
    )
    by_table = table.new_empty(0)
    if wanted[0]:
        by_table = _table_gradient(model, table, positions, slopes, given)
    if wanted[2] and given.gradient is not None:
        _add_curvature(model, table, positions, slopes, given.gradient, by_positions)
    return by_table, by_weights, by_positions
