"""Signed distances of a grid field with its gradient, fused: `surface_query`, whose three results
can all be part of a loss (training on normals), `surface_distance` for many plain lookups, and
`surface_curvature`.

On the CPU one C++ pass forward and one backward keep blocks of points in cache, in fp32. On a GPU
the grid is read in fp32 and the network runs on tensor cores with fp16 operands and fp32 sums.
Equations and definition: `reference/surface.py`.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.core.shapes import check_shapes

from . import surface_launch
from .build import cpu_library
from .dispatch import library, operation, pointer
from .grid_layout import GridLayout
from .mlp import mlp_weight_count
from .reference import surface as reference

ACTIVATIONS = ("relu", "softplus")  # the order is that of reference/surface.py
HIDDEN_WIDTHS = (32, 64)
MOST_HIDDEN_LAYERS = 3

Three = tuple[Tensor, Tensor, Tensor]
Four = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class SurfaceNetworks:
    """A grid encoding with a small network of 16 outputs, the first of which is the distance.

    The network reads [position - 0.5 (3), features of all levels (L * F)].
    """

    layout: GridLayout
    """Of three dimensions."""
    table: Tensor
    """(entries, features) float32."""
    weights: Tensor
    """(`weight_count`,) float32: layers in turn, each (output, input) row-major; no biases."""
    hidden_width: int = 64
    """32 or 64."""
    hidden_layers: int = 1
    """1 to 3."""
    activation: str = "relu"
    """relu, or softplus: log(1 + exp(100 z)) / 100, smooth over about 1/100 of grid space."""
    active_levels: float | None = None
    """How many levels are on, from the coarsest; the others read 0, have no slope and get no
    gradient. A fraction is the share of the level that is just coming. None: all."""
    bias: float = -0.1
    """Added to the first output."""

    def __post_init__(self) -> None:
        _require(self.layout.dimensions == 3, "layout of 3 dimensions", self.layout.dimensions)
        _require(self.hidden_width in HIDDEN_WIDTHS, "hidden_width of 32 or 64", self.hidden_width)
        good = 1 <= self.hidden_layers <= MOST_HIDDEN_LAYERS
        _require(good, "hidden_layers of 1 to 3", self.hidden_layers)
        _require(self.activation in ACTIVATIONS, "activation relu or softplus", self.activation)
        active, levels = self.active_levels, self.layout.levels
        good = active is None or 0 <= active <= levels
        _require(good, f"active_levels of 0 to {levels}", active)

    @property
    def widths(self) -> tuple[int, ...]:
        """(inputs, hidden ..., 16)."""
        hidden = [self.hidden_width] * self.hidden_layers
        return 3 + self.layout.output_width, *hidden, reference.OUTPUTS

    @property
    def weight_count(self) -> int:
        return mlp_weight_count(self.widths)

    def _shape(self) -> list[int]:
        layout, activation = self.layout, ACTIVATIONS.index(self.activation)
        sizes = [layout.features, self.hidden_width, self.hidden_layers]
        return [*sizes, activation, int(layout.smooth)]

    def _options(self) -> list[float]:
        active = self.layout.levels if self.active_levels is None else self.active_levels
        return [float(active), float(self.bias)]


def _require(good: bool, wanted: str, value: object) -> None:
    if not good:
        raise InputError(f"SurfaceNetworks: needs {wanted}; got {value!r}")


class SurfaceSamples(NamedTuple):
    """What `surface_query` knows of N positions."""

    distance: Tensor
    """(N,) signed distance in grid units, negative inside: the first output plus the bias."""
    feature: Tensor
    """(N, 16) all outputs, without the bias."""
    gradient: Tensor
    """(N, 3) of the distance by the position, not normalized: the normal of the surface."""


def _is_double(networks: SurfaceNetworks, positions: Tensor) -> bool:
    """Checks the arguments; True: all float64, which takes the twin."""
    entries, features = networks.layout.entries, networks.layout.features
    check_shapes(
        ("positions", positions, "N 3"),
        ("table", networks.table, f"{entries} {features}"),
        ("weights", networks.weights, str(networks.weight_count)),
    )
    dtypes = {positions.dtype, networks.table.dtype, networks.weights.dtype}
    if len(dtypes) > 1 or not dtypes <= {torch.float32, torch.float64}:
        found = ", ".join(sorted(map(str, dtypes)))
        raise InputError(f"positions, table and weights must be float32; got {found}")
    return positions.dtype == torch.float64


def _arguments(networks: SurfaceNetworks, positions: Tensor) -> tuple[Any, ...]:
    tensors = (networks.table, networks.weights, positions, networks.layout.levels_tensor)
    return (*tensors, networks._shape(), networks._options())


def surface_query(networks: SurfaceNetworks, positions: Tensor) -> SurfaceSamples:
    """Distance, feature and gradient of positions.

    Args:
        positions: (N, 3) float32 in [0, 1]. Outside it is clamped, so that nothing changes along
            that axis, and NaN counts as 0.

    All three results are differentiable by the table, the weights and the positions: a loss may
    ask for normals. Third derivatives have no kernel; with float64 throughout the plain torch twin
    runs and has them.

    Raises:
        InputError: shapes or dtypes do not fit.

    Example:
        >>> layout = GridLayout(levels=4, log2_table_size=10)
        >>> table, weights = torch.zeros(layout.entries, 2), torch.rand((3 + 8) * 32 + 32 * 16)
        >>> networks = SurfaceNetworks(layout, table, weights, hidden_width=32)
        >>> surface_query(networks, torch.rand(5, 3)).gradient.shape
        torch.Size([5, 3])
    """
    arguments = _arguments(networks, positions)
    if _is_double(networks, positions):
        return SurfaceSamples(*reference.surface_query(*arguments))
    return SurfaceSamples(*_surface_forward(*arguments)[:3])


def surface_distance(networks: SurfaceNetworks, positions: Tensor) -> Tensor:
    """Distance (N,) of positions (N, 3) as `surface_query` has it, without gradients: for
    occupancy, meshes and sphere tracing."""
    arguments = _arguments(networks, positions.detach())
    if _is_double(networks, positions):
        with torch.no_grad():
            return reference.surface_distance(*arguments)
    distance: Tensor = _surface_distance(*(_detached(a) for a in arguments))
    return distance


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def surface_curvature(
    networks: SurfaceNetworks,
    positions: Tensor,
    directions: Tensor,
    *,
    step: float,
    gradient: Tensor | None = None,
) -> Tensor:
    """Second derivative of the distance along unit `directions` (N, 3), by a difference of
    gradients: d . (gradient(p + step d) - gradient(p)) / step, (N,).

    Along random tangents of the surface it is the normal curvature, along the normal it should
    be 0; the mean of its square or size is a smoothness loss. The analytic second derivative of
    ReLU and linear interpolation is 0 almost everywhere; this one sees the change over `step`:
    choose about one cell of the finest level that is on (Neuralangelo, Li et al. 2023).

    Args:
        step: length in grid units, positive. Positions must stay inside the cube by it.
        gradient: (N, 3) of `surface_query` at `positions`, when it is known.

    Differentiable by everything.
    """
    if not step > 0:
        raise InputError(f"surface_curvature: step must be positive; got {step}")
    check_shapes(
        ("positions", positions, "N 3"), ("directions", directions, "N 3"),
        ("gradient", gradient, "N 3"),
    )  # fmt: skip
    if gradient is None:
        gradient = surface_query(networks, positions).gradient
    ahead = surface_query(networks, positions + step * directions).gradient
    return ((ahead - gradient) * directions).sum(1) / step


# ---- plain torch


def _forward_reference(
    table: Tensor, weights: Tensor, positions: Tensor, levels: Tensor, shape: list[int],
    options: list[float],
) -> Four:  # fmt: skip
    results = reference.surface_forward(table, weights, positions, levels, shape, options)
    return *results, table.new_empty(0)


def _backward_reference(
    table: Tensor, weights: Tensor, positions: Tensor, levels: Tensor, saved: Tensor,
    by_distance: Tensor | None, by_feature: Tensor | None, by_gradient: Tensor | None,
    shape: list[int], options: list[float], wanted: list[bool],
) -> Three:  # fmt: skip
    given = (by_distance, by_feature, by_gradient)
    return reference.surface_backward(table, weights, positions, levels, *given, shape, options)


# ---- the CPU library


class _Model(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("table", "weights", "levels")],
        *[(name, ctypes.c_int32) for name in ("level_count", "features", "width", "hidden")],
        *[(name, ctypes.c_int32) for name in ("activation", "smooth")],
        *[(name, ctypes.c_float) for name in ("active", "bias")],
    ]


def _model(
    table: Tensor, weights: Tensor, levels: Tensor, shape: list[int], options: list[float]
) -> _Model:
    pointers = (pointer(table), pointer(weights), pointer(levels, torch.int32))
    return _Model(*pointers, len(levels), *shape, *options)


def _address(tensor: Tensor | None) -> ctypes.c_void_p | None:
    return None if tensor is None else pointer(tensor)


def _contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else t.float().contiguous() for t in tensors]


def _run_forward(
    tensors: tuple[Tensor, ...], shape: list[int], options: list[float], outputs: tuple[Any, ...]
) -> None:
    table, weights, positions, levels = (tensor.contiguous() for tensor in tensors)
    cpu_library().lg_surface_forward(
        ctypes.byref(_model(table, weights, levels, shape, options)),
        pointer(positions), ctypes.c_int64(len(positions)), *map(_address, outputs),
    )  # fmt: skip


def _forward_cpu(
    table: Tensor, weights: Tensor, positions: Tensor, levels: Tensor, shape: list[int],
    options: list[float],
) -> Four:  # fmt: skip
    outputs = _outputs(positions)
    _run_forward((table, weights, positions, levels), shape, options, outputs)
    return *outputs, table.new_empty(0)


def _outputs(positions: Tensor) -> Three:
    count = positions.shape[0]
    new = positions.new_empty
    return new(count), new(count, reference.OUTPUTS), new(count, 3)


def _distance_cpu(
    table: Tensor, weights: Tensor, positions: Tensor, levels: Tensor, shape: list[int],
    options: list[float],
) -> Tensor:  # fmt: skip
    distance = positions.new_empty(len(positions))
    tensors = (table, weights, positions, levels)
    _run_forward(tensors, shape, options, (distance, None, None))
    return distance


def _backward_cpu(
    table: Tensor, weights: Tensor, positions: Tensor, levels: Tensor, saved: Tensor,
    by_distance: Tensor | None, by_feature: Tensor | None, by_gradient: Tensor | None,
    shape: list[int], options: list[float], wanted: list[bool],
) -> Three:  # fmt: skip
    table, weights, levels = table.contiguous(), weights.contiguous(), levels.contiguous()
    positions = positions.contiguous()
    given = _contiguous(by_distance, by_feature, by_gradient)
    out = _gradients(table, weights, positions, wanted)
    cpu_library().lg_surface_backward(
        ctypes.byref(_model(table, weights, levels, shape, options)),
        pointer(positions), ctypes.c_int64(len(positions)), *map(_address, given),
        *[pointer(t) if asked else None for t, asked in zip(out, wanted, strict=True)],
    )  # fmt: skip
    return out


def _gradients(table: Tensor, weights: Tensor, positions: Tensor, wanted: list[bool]) -> Three:
    like = (table, weights, positions)
    found = [
        torch.empty_like(t) if w else t.new_empty(0) for t, w in zip(like, wanted, strict=True)
    ]
    return found[0], found[1], found[2]


# ---- operations


def _forward_fake(
    table: Tensor, weights: Tensor, positions: Tensor, levels: Tensor, shape: list[int],
    options: list[float],
) -> Four:  # fmt: skip
    saved = surface_launch.saved_like(table, positions, len(levels), shape[0])
    return *_outputs(positions), saved


def _backward_fake(
    table: Tensor, weights: Tensor, positions: Tensor, levels: Tensor, saved: Tensor,
    by_distance: Tensor | None, by_feature: Tensor | None, by_gradient: Tensor | None,
    shape: list[int], options: list[float], wanted: list[bool],
) -> Three:  # fmt: skip
    return _gradients(table, weights, positions, wanted)


_INPUTS = "Tensor table, Tensor weights, Tensor positions, Tensor levels"
_surface_forward = operation(
    f"surface_forward({_INPUTS}, int[] shape, float[] options) -> (Tensor, Tensor, Tensor, Tensor)",
    reference=_forward_reference,
    cpu=_forward_cpu,
    cuda=surface_launch.launch_forward,
    fake=_forward_fake,
)
_surface_backward = operation(
    f"surface_backward({_INPUTS}, Tensor saved, Tensor? by_distance, Tensor? by_feature, "
    "Tensor? by_gradient, int[] shape, float[] options, bool[] wanted) "
    "-> (Tensor, Tensor, Tensor)",
    reference=_backward_reference,
    cpu=_backward_cpu,
    cuda=surface_launch.launch_backward,
    fake=_backward_fake,
)
_surface_distance = operation(
    f"surface_distance({_INPUTS}, int[] shape, float[] options) -> Tensor",
    reference=reference.surface_distance,
    cpu=_distance_cpu,
    cuda=surface_launch.launch_distance,
    fake=lambda table, weights, positions, *rest: positions.new_empty(positions.shape[0]),
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Four) -> None:
    ctx.save_for_backward(*inputs[:4], output[3])
    ctx.shape, ctx.options = inputs[4:]
    ctx.mark_non_differentiable(output[3])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    wanted = list(ctx.needs_input_grad[:3])
    found = _surface_backward(*ctx.saved_tensors, *gradients[:3], ctx.shape, ctx.options, wanted)
    kept = [tensor if asked else None for tensor, asked in zip(found, wanted, strict=True)]
    return (*kept, None, None, None)


def _refuse(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    raise NotImplementedError(
        "surface_query: third derivatives have no kernel; pass float64 tensors, which take the "
        "torch twin"
    )


torch.library.register_autograd(
    "lumigraph::surface_forward", _differentiate, setup_context=_save, lib=library
)
torch.library.register_autograd("lumigraph::surface_backward", _refuse, lib=library)
