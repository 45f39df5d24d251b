"""What `lumigraph bench kernels` measures: every operation, forward and with its gradients.

A case builds its inputs anew for each contender and returns a call; calls of the same number do
the same work whoever serves them, so their results can be compared. On a GPU tables and networks
work in fp16 as in training, on a CPU in fp32.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.cuda.compositing import composite
from lumigraph.cuda.grid import GridLayout, grid_encode
from lumigraph.cuda.harmonics import harmonics_encode
from lumigraph.cuda.image_loss import image_loss
from lumigraph.cuda.marching import MarchGrid, march_rays
from lumigraph.cuda.mlp import mlp, mlp_weight_count
from lumigraph.cuda.occupancy import pack_cells, sample_cells, update_cells
from lumigraph.cuda.optimizer import adam_step_, ema_step_
from lumigraph.cuda.optimizer_rows import adam_rows_
from lumigraph.cuda.perturb import perturb_means_

from . import inputs

Tensors = tuple[Tensor, ...]
Build = Callable[[torch.device], Callable[[int], Tensors]]

ROTATING = 4  # input sets
NETWORK = (32, 64, 64, 16)
SHORT_NETWORK = (32, 64, 16)
GRID_CELLS = 128
MARCH_STEP = 5e-3 / 3  # the protocol's 5e-3 scene units in a cube of side 3
MEAN_SAMPLES = 9  # of a ray in training
EIKONAL, BY_TABLE, BY_BOTH = "eikonal step", "+ backward to table", "+ backward to table, x"
FORWARD = "forward"


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        name, passes, inputs, size: what is computed, of what; together they are its key.
        build: makes inputs on a device and returns the timed call.
        cpu_ratio: how many times faster than the torch twin the CPU kernels are meant to be.
        gpu_ms: what the CUDA kernels are meant to take.
    """

    name: str
    passes: str
    inputs: str
    size: int
    build: Build
    cpu_ratio: float | None = None
    gpu_ms: float | None = None


def all_cases(device: torch.device, *, quick: bool) -> list[Case]:
    """The cases of a device: 2^18 and 2^21 points on a GPU, mostly 2^18 on a CPU."""
    from .surface_cases import cases  # which takes its vocabulary from here

    gpu = device.type == "cuda"
    sizes = (2**10,) if quick else (2**18, 2**21) if gpu else (2**18,)
    return [case for kind in (*_KINDS, cases) for size in sizes for case in kind(size, gpu)]


def _layout(size: int) -> GridLayout:
    """The protocol's grid; quick runs have a small table."""
    return GridLayout() if size > 2**10 else GridLayout(log2_table_size=12)


def _works_in_half(device: torch.device) -> bool:
    return device.type == "cuda"


def normal(rows: int, *width: int, seed: int) -> Tensor:
    """Random numbers, the same on every machine; beyond 2^16 rows they repeat, for drawing them
    would take longer than the measurement."""
    drawn = torch.randn(min(rows, 2**16), *width, generator=torch.Generator().manual_seed(seed))
    return drawn.repeat(-(-rows // len(drawn)), *[1] * len(width))[:rows].contiguous()


def _table(layout: GridLayout) -> Tensor:
    return normal(layout.entries, layout.features, seed=1).mul(0.05)


def _weights(widths: tuple[int, ...]) -> Tensor:
    return normal(mlp_weight_count(widths), seed=2) / widths[1] ** 0.5


def rotating_points(kind: str, size: int, device: torch.device) -> list[Tensor]:
    """`ROTATING` sets of positions, "rays" or "uniform"."""
    return [points.to(device, copy=True) for points in _drawn_points(kind, size)]


@functools.lru_cache(maxsize=2)
def _drawn_points(kind: str, size: int) -> list[Tensor]:
    make = inputs.points_rays if kind == "rays" else inputs.points_uniform
    return [make(size, seed=seed) for seed in range(ROTATING)]


def _leaf(tensor: Tensor, device: torch.device, wanted: bool = True) -> Tensor:
    return tensor.to(device).requires_grad_(wanted)


# ---- encoding and networks


def _grid_cases(size: int, gpu: bool) -> list[Case]:
    cases = []
    for kind in ("rays", "uniform"):
        for passes in (FORWARD, BY_TABLE, BY_BOTH, EIKONAL):
            # second derivatives of the twin would take a CPU half a minute
            points = size if gpu or passes != EIKONAL else size // 8
            build = _grid_build(_layout(size), kind, points, passes)
            target = 12.0 if passes == BY_TABLE and size == 2**18 else None
            most = 3.0 if passes == BY_TABLE and kind == "rays" and size == 2**21 else None
            cases.append(Case("grid 16x2", passes, kind, points, build, target, most))
    dense = GridLayout(levels=4, features=2, base_resolution=16, growth=2.0, dense=True)
    for passes in (FORWARD, BY_TABLE):
        build = _grid_build(dense, "rays", size, passes)
        cases.append(Case("dense grid 4x2", passes, "rays", size, build))
    return cases


def _grid_build(layout: GridLayout, kind: str, size: int, passes: str) -> Build:
    def build(device: torch.device) -> Callable[[int], Tensors]:
        half = _works_in_half(device)
        by_x = passes in (BY_BOTH, EIKONAL)
        points = [_leaf(x, device, by_x) for x in rotating_points(kind, size, device)]
        table = _leaf(_table(layout), device, passes != FORWARD)
        gradient = normal(size, layout.output_width, seed=3).to(device)
        gradient = gradient.half() if half else gradient

        def forward(turn: int) -> Tensors:
            return (grid_encode(points[turn % ROTATING], table, layout, half=half),)

        def backward(turn: int) -> Tensors:
            x = points[turn % ROTATING]
            features = grid_encode(x, table, layout, half=half)
            return torch.autograd.grad(features, (table, x) if by_x else (table,), gradient)

        def eikonal(turn: int) -> Tensors:
            x = points[turn % ROTATING]
            features = grid_encode(x, table, layout, half=half)
            (slope,) = torch.autograd.grad(features, x, gradient, create_graph=True)
            loss = (slope.norm(dim=1) - 1).square().mean()
            return torch.autograd.grad(loss, table)

        return {FORWARD: forward, EIKONAL: eikonal}.get(passes, backward)

    return build


def _network_cases(size: int, gpu: bool) -> list[Case]:
    name, kind = "network 32-64-64-16", "normal"
    forward = Case(name, FORWARD, kind, size, _network_build(size, None), gpu_ms=_if(size, 0.15))
    weights = _network_build(size, False)
    both = _network_build(size, True)
    return [
        forward,
        Case(name, "+ backward to weights", kind, size, weights),
        Case(name, "+ backward to weights, x", kind, size, both, 4.0 if size == 2**18 else None),
    ]


def _if(size: int, milliseconds: float) -> float | None:
    return milliseconds if size == 2**21 else None


def _network_build(size: int, by_x: bool | None) -> Build:
    def build(device: torch.device) -> Callable[[int], Tensors]:
        half = _works_in_half(device)
        dtype = torch.float16 if half else torch.float32
        xs = [normal(size, NETWORK[0], seed=seed).to(device, dtype) for seed in range(ROTATING)]
        weights = _leaf(_weights(NETWORK), device, by_x is not None)
        gradient = normal(size, NETWORK[-1], seed=3).to(device, dtype)
        for x in xs:
            x.requires_grad_(by_x is True)

        def forward(turn: int) -> Tensors:
            return (mlp(xs[turn % ROTATING], weights, NETWORK, half=half),)

        def backward(turn: int) -> Tensors:
            x = xs[turn % ROTATING]
            y = mlp(x, weights, NETWORK, half=half)
            return torch.autograd.grad(y, (weights, x) if by_x else (weights,), gradient)

        return forward if by_x is None else backward

    return build


def _field_cases(size: int, gpu: bool) -> list[Case]:
    name, to_x = "grid 16x2 + network 32-64-16", "+ backward to parameters, x"
    kinds = ("rays", "uniform") if gpu else ("rays",)
    return [
        Case(name, passes, kind, size, _field_build(kind, size, passes))
        for kind in kinds
        for passes in (FORWARD, "+ backward to parameters", to_x)
    ]


def _field_build(kind: str, size: int, passes: str) -> Build:
    layout = _layout(size)

    def build(device: torch.device) -> Callable[[int], Tensors]:
        half = _works_in_half(device)
        by_x = passes.endswith("x")
        points = [_leaf(x, device, by_x) for x in rotating_points(kind, size, device)]
        table = _leaf(_table(layout), device, passes != FORWARD)
        weights = _leaf(_weights(SHORT_NETWORK), device, passes != FORWARD)
        gradient = normal(size, SHORT_NETWORK[-1], seed=3).to(device)
        gradient = gradient.half() if half else gradient

        def forward(turn: int) -> Tensors:
            features = grid_encode(points[turn % ROTATING], table, layout, half=half)
            return (mlp(features, weights, SHORT_NETWORK, half=half),)

        def backward(turn: int) -> Tensors:
            wanted = [table, weights, *([points[turn % ROTATING]] if by_x else [])]
            return torch.autograd.grad(forward(turn)[0], wanted, gradient)

        return forward if passes == FORWARD else backward

    return build


def _harmonics_cases(size: int, gpu: bool) -> list[Case]:
    name, kind = "harmonics, degree 4", "directions"
    passes = (FORWARD, "+ backward")
    return [Case(name, p, kind, size, _harmonics_build(size, p != FORWARD)) for p in passes]


def _harmonics_build(size: int, backward: bool) -> Build:
    def build(device: torch.device) -> Callable[[int], Tensors]:
        directions = [
            _leaf(torch.nn.functional.normalize(normal(size, 3, seed=seed)), device, backward)
            for seed in range(ROTATING)
        ]
        gradient = normal(size, 16, seed=3).to(device)

        def call(turn: int) -> Tensors:
            values = harmonics_encode(directions[turn % ROTATING], 4)
            if not backward:
                return (values,)
            return torch.autograd.grad(values, directions[turn % ROTATING], gradient)

        return call

    return build


# ---- marching, compositing, upkeep


def march_grid(device: torch.device) -> MarchGrid:
    """The protocol's occupied cells with steps of its length."""
    values = inputs.occupancy_cells(GRID_CELLS).permute(2, 1, 0).reshape(-1).float().to(device)
    bits, coarse = pack_cells(values, 0.5, resolution=GRID_CELLS, cascades=1)
    return MarchGrid(bits, coarse, GRID_CELLS, 1, MARCH_STEP, MARCH_STEP, 0.0)


def _march_cases(size: int, gpu: bool) -> list[Case]:
    if size > 2**18:
        return []  # 2^18 rays already have eight million samples
    rays = size if gpu else size // 32

    def build(device: torch.device) -> Callable[[int], Tensors]:
        grid = march_grid(device)
        sets = []
        for seed in range(ROTATING):
            origins, directions = inputs.camera_rays(rays, seed=seed)
            sets.append(((origins / 3 + 0.5).to(device), directions.to(device)))

        def call(turn: int) -> Tensors:
            origins, directions = sets[turn % ROTATING]
            samples = march_rays(origins, directions, grid, max_samples=64 * rays)
            return (samples.ray_offsets[:, 1].float(),)

        return call

    return [Case("marching 128^3", FORWARD, "camera rays", rays, build)]


def _composite_cases(size: int, gpu: bool) -> list[Case]:
    kind = f"{MEAN_SAMPLES} samples a ray"
    passes = (FORWARD, "+ backward to density, color", "+ backward, with distortion")
    return [Case("compositing", p, kind, size, _composite_build(size, p)) for p in passes]


def ray_offsets(samples: int) -> Tensor:
    """(N, 2) int32: random runs of 1 to 17 samples that fill `samples`."""
    generator = torch.Generator().manual_seed(4)
    most = 2 * MEAN_SAMPLES
    counts = torch.randint(1, most, (samples,), generator=generator, dtype=torch.int64)
    ends = torch.cumsum(counts, 0)
    rays = int((ends <= samples).sum())
    starts = ends[:rays] - counts[:rays]
    return torch.stack([starts, counts[:rays]], dim=1).int()


@dataclass(frozen=True)
class CompositingInputs:
    """Packed samples of N rays."""

    densities: list[Tensor]
    """`ROTATING` times (M,)."""
    color: Tensor
    """(M, 3)."""
    distances: Tensor
    """(M,)."""
    steps: Tensor
    """(M,)."""
    ray_offsets: Tensor
    """(N, 2) int32."""
    gradient: Tensor
    """(N, 3) by the color of the rays."""


def compositing_inputs(size: int, device: torch.device, *, backward: bool) -> CompositingInputs:
    """Random densities and colors, on rays that begin at distance 2 with steps of 0.01."""
    offsets = ray_offsets(size)
    owner = torch.repeat_interleave(offsets[:, 1].long())
    place = torch.zeros(size)
    place[: len(owner)] = (torch.arange(len(owner)) - offsets[owner, 0]).float()
    densities = [torch.exp(2 * normal(size, seed=seed) + 2) for seed in range(ROTATING)]
    return CompositingInputs(
        densities=[_leaf(density, device, backward) for density in densities],
        color=_leaf(torch.sigmoid(normal(size, 3, seed=5)), device, backward),
        distances=(2 + place * 0.01).to(device),
        steps=torch.full((size,), 0.01, device=device),
        ray_offsets=offsets.to(device),
        gradient=normal(len(offsets), 3, seed=6).to(device),
    )


def _composite_build(size: int, passes: str) -> Build:
    backward, distorted = passes != FORWARD, passes.endswith("distortion")

    def build(device: torch.device) -> Callable[[int], Tensors]:
        given = compositing_inputs(size, device, backward=backward)

        def call(turn: int) -> Tensors:
            density = given.densities[turn % ROTATING]
            out = composite(
                density,
                given.color,
                given.distances,
                given.steps,
                given.ray_offsets,
                distortion=distorted,
            )
            if not backward:
                return (out.color, out.opacity, out.depth)
            value = (out.color * given.gradient).sum()
            if out.distortion is not None:
                value = value + out.distortion.sum()
            return torch.autograd.grad(value, (density, given.color))

        return call

    return build


def _occupancy_cases(size: int, gpu: bool) -> list[Case]:
    def build(device: torch.device) -> Callable[[int], Tensors]:
        values = inputs.occupancy_cells(GRID_CELLS).permute(2, 1, 0).reshape(-1).float().to(device)
        density = torch.exp(normal(2 * size, seed=7)).to(device)
        state = {"bits": pack_cells(values, 0.01, resolution=GRID_CELLS, cascades=1)[0]}

        def call(turn: int) -> Tensors:
            cells, _ = sample_cells(
                state["bits"],
                resolution=GRID_CELLS,
                cascades=1,
                uniform=size,
                occupied=size,
                seed=turn,
            )
            update_cells(values, cells, density, decay=0.95, scale=1e-2)
            state["bits"], coarse = pack_cells(values, 0.01, resolution=GRID_CELLS, cascades=1)
            return state["bits"].float(), coarse.float()

        return call

    return [Case("occupancy 128^3", "draw, update, pack", "cells", 2 * size, build)]


def _optimizer_cases(size: int, gpu: bool) -> list[Case]:
    entries = 16 * size if size < 2**21 else GridLayout().entries * 2

    def build_adam(device: torch.device) -> Callable[[int], Tensors]:
        parameter, first, second = (torch.zeros(entries, device=device) for _ in range(3))
        gradient = normal(entries, seed=8)
        gradient[gradient < 0] = 0  # entries that no sample touched
        gradient = gradient.to(device)

        def call(turn: int) -> Tensors:
            moments = (first, second)
            adam_step_(parameter, gradient, *moments, step=10, learning_rate=1e-2, zero_grad=False)
            return (parameter,)

        return call

    def build_average(device: torch.device) -> Callable[[int], Tensors]:
        average, parameter = torch.zeros(entries, device=device), normal(entries, seed=8)
        parameter = parameter.to(device)

        def call(turn: int) -> Tensors:
            ema_step_(average, parameter, 0.95)
            return (average,)

        return call

    return [
        Case("Adam", "step", "half of the gradient zero", entries, build_adam),
        Case("moving average", "step", "normal", entries, build_average),
    ]


# ---- splatting's training step


def _image_cases(size: int, gpu: bool) -> list[Case]:
    """A square picture of `size` pixels; 1920x1080 for the largest."""
    height, width = (1080, 1920) if size == 2**21 else (math.isqrt(size), math.isqrt(size))
    name, kind = "L1 + SSIM", f"{width}x{height}"
    build = functools.partial(_image_build, height, width)
    passes = (FORWARD, "+ backward")
    return [Case(name, p, kind, height * width, build(p != FORWARD)) for p in passes]


def _image_build(height: int, width: int, backward: bool) -> Build:
    def build(device: torch.device) -> Callable[[int], Tensors]:
        pictures = [
            _leaf(normal(height * width, 3, seed=seed).sigmoid().view(height, width, 3), device)
            for seed in range(ROTATING + 1)
        ]
        target = pictures.pop().detach()

        def call(turn: int) -> Tensors:
            prediction = pictures[turn % ROTATING]
            if not backward:
                return (image_loss(prediction.detach(), target).loss,)
            return torch.autograd.grad(image_loss(prediction, target).loss, prediction)

        return call

    return build


def _gaussian_cases(size: int, gpu: bool) -> list[Case]:
    def build_step(device: torch.device) -> Callable[[int], Tensors]:
        parameter, first, second = (torch.zeros(size, 48, device=device) for _ in range(3))
        gradient = normal(size, 48, seed=8).to(device)
        seen = (normal(size, seed=9) > 0).to(device)

        def call(turn: int) -> Tensors:
            moments = (first, second)
            adam_rows_(parameter, gradient, *moments, step=10, learning_rate=1e-3, visible=seen)
            return (parameter,)

        return call

    def build_noise(device: torch.device) -> Callable[[int], Tensors]:
        shapes = ((size, 3), (size, 4), (size, 3), (size,), (size, 3))
        tensors = [normal(*shape, seed=seed).to(device) for seed, shape in enumerate(shapes)]

        def call(turn: int) -> Tensors:
            perturb_means_(*tensors, rate=1e-6)
            return (tensors[0],)

        return call

    return [
        Case("rows of harmonics", "selective step", "half visible", size, build_step),
        Case("noise on means", "step", "Gaussians", size, build_noise),
    ]


_KINDS = (
    _grid_cases,
    _network_cases,
    _field_cases,
    _harmonics_cases,
    _march_cases,
    _composite_cases,
    _occupancy_cases,
    _optimizer_cases,
    _image_cases,
    _gaussian_cases,
)
