"""Multiresolution hash and dense grids: positions to interpolated features of learnt tables.

`GridLayout` says how large the tables are, `grid_encode` looks positions up. Every derivative that
training a surface needs is an operation too: gradients to table and positions, and the gradients
of the position gradient (names: d = gradient of the loss by ...):

    features           grid_forward(x, table)            d table, d x: the next two
    d table            grid_backward_table(x, d features)
    d x                grid_backward_x(x, table, d features)
    and with v = d (d x):
    d (d features)     grid_tangent(v, x, table)
    d table            grid_tangent_table(v, x, d features)
    d x                grid_curvature(v, x, table, d features)

The equations stand in `reference/grid.py`.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.core.shapes import check_shapes
from lumigraph.cuda.build import cpu_library
from lumigraph.cuda.dispatch import library, operation, pointer
from lumigraph.cuda.grid_layout import GridLayout
from lumigraph.cuda.reference import grid as reference
from lumigraph.cuda.runtime import Kernel, kernel

__all__ = ["GridLayout", "grid_encode"]

BLOCK = 128  # threads, as in kernels/grid.cu
FORWARD, TABLE, POSITIONS, CURVATURE = 1, 2, 3, 4  # LG_PASS of kernels/grid.cu


def grid_encode(x: Tensor, table: Tensor, layout: GridLayout, *, half: bool = False) -> Tensor:
    """Features of positions in a grid.

    Args:
        x: (M, D) float32 in [0, 1]. Outside it is clamped and NaN counts as 0.
        table: (layout.entries, F) float32.
        layout: the sizes.
        half: features in float16. On a GPU the lookups then read a float16 working copy of the
            table, while the gradient to the table is still summed in float32. A float16 `table`
            serves as that copy, for inference.

    Returns:
        (M, L * F), level-major. Differentiable by x and table; the gradient by x is again
        differentiable by everything (training on normals). With both arguments in float64 the
        plain torch twin runs, for checks.

    Raises:
        InputError: shapes, dtypes or devices do not fit the layout.

    Example:
        >>> layout = GridLayout(levels=4, features=2, log2_table_size=10)
        >>> grid_encode(torch.rand(5, 3), torch.rand(layout.entries, 2), layout).shape
        torch.Size([5, 8])
    """
    check_shapes(
        ("x", x, f"M {layout.dimensions}"),
        ("table", table, f"{layout.entries} {layout.features}"),
    )
    levels = layout.levels_tensor
    if x.dtype == table.dtype == torch.float64:
        return reference.grid_forward(x, table, levels, layout.smooth, half)
    if x.dtype != torch.float32 or table.dtype not in (torch.float32, torch.float16):
        raise InputError(f"x and table must be float32; got {x.dtype} and {table.dtype}")
    features: Tensor = grid_forward(x, table, levels, layout.smooth, half)
    return features


# ---- C++ kernels. `direction` None means plain corner weights, else their rate along it.


def _sizes(x: Tensor, levels: Tensor, features: int, smooth: bool) -> tuple[Any, ...]:
    return (ctypes.c_int64(len(x)), len(levels), x.shape[1], features, int(smooth))


def _plain(tensor: Tensor) -> Tensor:
    return tensor.float().contiguous()


def _call(name: str, *tensors: Tensor | None, sizes: tuple[Any, ...]) -> None:
    pointers = [t if t is None else pointer(t, None) for t in tensors]
    if getattr(cpu_library(), name)(*pointers, *sizes):
        raise InputError(
            f"grid: {sizes[2]} dimensions with {sizes[3]} features are not compiled in"
        )


def _cpu_features(
    direction: Tensor | None, x: Tensor, table: Tensor, levels: Tensor, smooth: bool, half: bool
) -> Tensor:
    x, table, features = x.contiguous(), _plain(table), table.shape[1]
    direction = None if direction is None else _plain(direction)
    out = x.new_empty(len(x), len(levels) * features)
    sizes = _sizes(x, levels, features, smooth)
    _call("lg_grid_forward", x, direction, table, levels, out, sizes=sizes)
    return out.half() if half else out


def _cpu_table(
    direction: Tensor | None,
    x: Tensor,
    gradient: Tensor,
    levels: Tensor,
    entries: int,
    smooth: bool,
) -> Tensor:
    x, gradient, features = x.contiguous(), _plain(gradient), gradient.shape[1] // len(levels)
    direction = None if direction is None else _plain(direction)
    out = x.new_empty(entries, features)
    sizes = _sizes(x, levels, features, smooth)
    _call("lg_grid_backward_table", x, direction, gradient, levels, out, sizes=sizes)
    return out


def _cpu_positions(
    direction: Tensor | None,
    x: Tensor,
    table: Tensor,
    gradient: Tensor,
    levels: Tensor,
    smooth: bool,
) -> Tensor:
    x, table, gradient = x.contiguous(), _plain(table), _plain(gradient)
    direction = None if direction is None else _plain(direction)
    out = torch.empty_like(x)
    sizes = _sizes(x, levels, table.shape[1], smooth)
    _call("lg_grid_backward_x", x, direction, table, gradient, levels, out, sizes=sizes)
    return out


# ---- CUDA kernels, also emulated


# Features a thread handles at once: enough work to hide latency and whole vectors to move, within
# the registers. Measured for D = 3, F = 2 and 4 on an H100 and an H200.
FEATURES_PER_THREAD = {FORWARD: 16, TABLE: 8, POSITIONS: 32, CURVATURE: 16}


def _levels_per_thread(part: int, dimensions: int, levels: int, features: int) -> int:
    """A divisor of `levels`; a cell has twice the corners in four dimensions."""
    most = FEATURES_PER_THREAD[part] // (features * (2 if dimensions == 4 else 1))
    return max(n for n in range(1, max(1, most) + 1) if levels % n == 0)


@functools.cache
def _grid_kernel(
    name: str, part: int, dimensions: int, levels: int, features: int, flags: tuple[bool, ...]
) -> tuple[Kernel, int]:
    """The specialised kernel and its groups of levels. `flags`: smooth, half, tangent."""
    each = _levels_per_thread(part, dimensions, levels, features)
    smooth, half, tangent = flags
    specialised = kernel(
        "grid.cu",
        name,
        LG_DIMENSIONS=dimensions,
        LG_FEATURES=features,
        LG_HALF=int(half),
        LG_LEVELS=levels,
        LG_PASS=part,
        LG_PER_THREAD=each,
        LG_SMOOTH=int(smooth),
        LG_TANGENT=int(tangent),
    )
    return specialised, levels // each


def _aligned(tensor: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Contiguous, of that dtype, and on a 16-byte border, as vectors are read."""
    tensor = tensor.to(dtype).contiguous()
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()


def _blocks(points: int) -> int:
    return -(-points // BLOCK)


def _cuda_features(
    direction: Tensor | None, x: Tensor, table: Tensor, levels: Tensor, smooth: bool, half: bool
) -> Tensor:
    (points, dimensions), features = x.shape, table.shape[1]
    dtype = torch.float16 if half else torch.float32
    x, table = _aligned(x), _aligned(table, dtype)
    along = x if direction is None else _aligned(direction)
    flags = (smooth, half, direction is not None)
    run, groups = _grid_kernel("grid_forward", FORWARD, dimensions, len(levels), features, flags)
    out = x.new_empty(points, len(levels) * features, dtype=dtype)
    shape = (_blocks(points), groups if points else 0)
    run(shape, (BLOCK,), x, along, table, levels.numpy().tobytes(), out, points)
    return out


def encode_cuda(x: Tensor, table: Tensor, levels: Tensor, *, smooth: bool, half: bool) -> Tensor:
    """`grid_encode` without autograd, on a GPU or the emulator."""
    return _cuda_features(None, x, table, levels, smooth, half)


def add_table_gradient_cuda(
    x: Tensor,
    gradient: Tensor,
    levels: Tensor,
    target: Tensor,
    *,
    smooth: bool,
    direction: Tensor | None = None,
) -> None:
    """Adds the gradient of the table to `target`, contiguous float32 on a 16-byte border."""
    (points, dimensions), features = x.shape, target.shape[1]
    x, gradient = _aligned(x), _aligned(gradient, gradient.dtype)
    along = x if direction is None else _aligned(direction)
    flags = (smooth, gradient.dtype == torch.float16, direction is not None)
    run, groups = _grid_kernel(
        "grid_backward_table", TABLE, dimensions, len(levels), features, flags
    )
    shape = (_blocks(points), groups)
    run(shape, (BLOCK,), x, along, gradient, levels.numpy().tobytes(), target, points)


def _cuda_table(
    direction: Tensor | None,
    x: Tensor,
    gradient: Tensor,
    levels: Tensor,
    entries: int,
    smooth: bool,
) -> Tensor:
    out = x.new_zeros(entries, gradient.shape[1] // len(levels))
    add_table_gradient_cuda(x, gradient, levels, out, smooth=smooth, direction=direction)
    return out


def _cuda_positions(
    direction: Tensor | None,
    x: Tensor,
    table: Tensor,
    gradient: Tensor,
    levels: Tensor,
    smooth: bool,
) -> Tensor:
    (points, dimensions), features, dtype = x.shape, table.shape[1], gradient.dtype
    x, table, gradient = _aligned(x), _aligned(table, dtype), _aligned(gradient, dtype)
    name, part = (
        ("grid_backward_x", POSITIONS) if direction is None else ("grid_curvature", CURVATURE)
    )
    flags = (smooth, dtype == torch.float16, False)
    run, _ = _grid_kernel(name, part, dimensions, len(levels), features, flags)
    out, shape, table_of_levels = torch.empty_like(x), (_blocks(points),), levels.numpy().tobytes()
    if direction is None:
        run(shape, (BLOCK,), x, table, gradient, table_of_levels, out, points)
    else:
        along = _aligned(direction)
        run(shape, (BLOCK,), x, along, table, gradient, table_of_levels, out, points)
    return out


# ---- operations


def _fake_features(x: Tensor, table: Tensor, levels: Tensor, smooth: bool, half: bool) -> Tensor:
    dtype = torch.float16 if half else torch.float32
    return x.new_empty(x.shape[0], levels.shape[0] * table.shape[1], dtype=dtype)


def _fake_table(x: Tensor, gradient: Tensor, levels: Tensor, entries: int, smooth: bool) -> Tensor:
    return x.new_empty(entries, gradient.shape[1] // levels.shape[0])


grid_forward = operation(
    "grid_forward(Tensor x, Tensor table, Tensor levels, bool smooth, bool half) -> Tensor",
    reference=reference.grid_forward,
    cpu=functools.partial(_cpu_features, None),
    cuda=functools.partial(_cuda_features, None),
    fake=_fake_features,
)
grid_backward_table = operation(
    "grid_backward_table(Tensor x, Tensor gradient, Tensor levels, int entries, bool smooth) "
    "-> Tensor",
    reference=reference.grid_backward_table,
    cpu=functools.partial(_cpu_table, None),
    cuda=functools.partial(_cuda_table, None),
    fake=_fake_table,
)
grid_backward_x = operation(
    "grid_backward_x(Tensor x, Tensor table, Tensor gradient, Tensor levels, bool smooth) "
    "-> Tensor",
    reference=reference.grid_backward_x,
    cpu=functools.partial(_cpu_positions, None),
    cuda=functools.partial(_cuda_positions, None),
    fake=lambda x, table, gradient, levels, smooth: torch.empty_like(x),
)
grid_tangent = operation(
    "grid_tangent(Tensor direction, Tensor x, Tensor table, Tensor levels, bool smooth, "
    "bool half) -> Tensor",
    reference=reference.grid_tangent,
    cpu=_cpu_features,
    cuda=_cuda_features,
    fake=lambda direction, *rest: _fake_features(*rest),
)
grid_tangent_table = operation(
    "grid_tangent_table(Tensor direction, Tensor x, Tensor gradient, Tensor levels, "
    "int entries, bool smooth) -> Tensor",
    reference=reference.grid_tangent_table,
    cpu=_cpu_table,
    cuda=_cuda_table,
    fake=lambda direction, *rest: _fake_table(*rest),
)
grid_curvature = operation(
    "grid_curvature(Tensor direction, Tensor x, Tensor table, Tensor gradient, Tensor levels, "
    "bool smooth) -> Tensor",
    reference=reference.grid_curvature,
    cpu=_cpu_positions,
    cuda=_cuda_positions,
    fake=lambda direction, x, table, gradient, levels, smooth: torch.empty_like(x),
)


# ---- derivatives of the operations. All are linear in table, gradient and direction, so that each
# derivative is another of the operations.


def _is_half(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float16


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)))
    ctx.smooth = next(value for value in reversed(inputs) if isinstance(value, bool))


def _save_features(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _save(ctx, inputs[:-1], output)  # without `half`


def _forward_derivative(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, table, levels = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    by_x = grid_backward_x(x, table, grad, levels, ctx.smooth) if wanted[0] else None
    by_table = None
    if wanted[1]:
        by_table = grid_backward_table(x, grad, levels, len(table), ctx.smooth).to(table.dtype)
    return by_x, by_table, None, None, None


def _backward_table_derivative(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, gradient, levels = ctx.saved_tensors
    wanted, half = ctx.needs_input_grad, _is_half(gradient)
    by_x = grid_backward_x(x, grad, gradient, levels, ctx.smooth) if wanted[0] else None
    by_gradient = grid_forward(x, grad, levels, ctx.smooth, half) if wanted[1] else None
    return by_x, by_gradient, None, None, None


def _backward_x_derivative(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, table, gradient, levels = ctx.saved_tensors
    wanted, smooth = ctx.needs_input_grad, ctx.smooth
    by_x = by_table = by_gradient = None
    if wanted[0]:
        by_x = grid_curvature(grad, x, table, gradient, levels, smooth)
    if wanted[1]:
        by_table = grid_tangent_table(grad, x, gradient, levels, len(table), smooth)
        by_table = by_table.to(table.dtype)
    if wanted[2]:
        by_gradient = grid_tangent(grad, x, table, levels, smooth, _is_half(gradient))
    return by_x, by_table, by_gradient, None, None


def _tangent_derivative(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    direction, x, table, levels = ctx.saved_tensors
    wanted, smooth = ctx.needs_input_grad, ctx.smooth
    by_direction = by_x = by_table = None
    if wanted[0]:
        by_direction = grid_backward_x(x, table, grad, levels, smooth)
    if wanted[1]:
        by_x = grid_curvature(direction, x, table, grad, levels, smooth)
    if wanted[2]:
        by_table = grid_tangent_table(direction, x, grad, levels, len(table), smooth)
        by_table = by_table.to(table.dtype)
    return by_direction, by_x, by_table, None, None, None


def _tangent_table_derivative(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    direction, x, gradient, levels = ctx.saved_tensors
    wanted, smooth = ctx.needs_input_grad, ctx.smooth
    by_direction = by_x = by_gradient = None
    if wanted[0]:
        by_direction = grid_backward_x(x, grad, gradient, levels, smooth)
    if wanted[1]:
        by_x = grid_curvature(direction, x, grad, gradient, levels, smooth)
    if wanted[2]:
        by_gradient = grid_tangent(direction, x, grad, levels, smooth, _is_half(gradient))
    return by_direction, by_x, by_gradient, None, None, None


def _curvature_derivative(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    raise NotImplementedError(
        "grid_encode: third derivatives by the position have no kernel; "
        "pass float64 tensors, which take the torch twin"
    )


for _name, _derivative, _setup in (
    ("grid_forward", _forward_derivative, _save_features),
    ("grid_backward_table", _backward_table_derivative, _save),
    ("grid_backward_x", _backward_x_derivative, _save),
    ("grid_tangent", _tangent_derivative, _save_features),
    ("grid_tangent_table", _tangent_table_derivative, _save),
    ("grid_curvature", _curvature_derivative, _save),
):
    torch.library.register_autograd(
        f"lumigraph::{_name}", _derivative, setup_context=_setup, lib=library
    )
