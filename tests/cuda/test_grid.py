"""Grid kernels against the float64 reference; the reference against finite differences and a plain
loop.

Bounds, relative to the norm of a result: the kernels sum at most a few hundred float32 products,
each rounded to 6e-8; positions are rounded alike in both. float16 features are rounded to 5e-4 at
most, on average less than half of that.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lumigraph.core.errors import BackendError, InputError
from lumigraph.cuda import grid
from lumigraph.cuda.build import build_cubin
from lumigraph.cuda.dispatch import backend_override
from lumigraph.cuda.grid import GridLayout, grid_encode
from lumigraph.cuda.nvrtc import nvrtc_version
from lumigraph.cuda.reference import grid as reference

BACKENDS = ["cpu", "emu", pytest.param("cuda", marks=pytest.mark.gpu)]
SINGLE_BOUND = 1e-6
HALF_BOUND = 4e-4
POINTS = 203  # no multiple of a warp, a block or a CPU block
LAYOUTS = {
    "paper": GridLayout(log2_table_size=10, base_resolution=4, growth=1.5),
    "wide": GridLayout(levels=8, features=4, log2_table_size=12, base_resolution=8),
    "plane": GridLayout(dimensions=2, levels=5, features=1, log2_table_size=8, smooth=True),
    "time": GridLayout(
        dimensions=4, levels=3, features=8, log2_table_size=9, base_resolution=3, smooth=True
    ),
    "dense": GridLayout(levels=1, features=4, base_resolution=9, dense=True),
    "one": GridLayout(levels=3, features=1, log2_table_size=6, base_resolution=3),
}
OPERATIONS = (
    "grid_forward",
    "grid_backward_table",
    "grid_backward_x",
    "grid_tangent",
    "grid_tangent_table",
    "grid_curvature",
)


def device_of(backend: str) -> str:
    return "cuda" if backend == "cuda" else "cpu"


def relative(result: Tensor, expected: Tensor) -> float:
    expected = expected.double().cpu()
    error = (result.double().cpu() - expected).norm()
    return (error / expected.norm().clamp_min(1e-30)).item()


def positions(count: int, dimensions: int, seed: int = 0) -> Tensor:
    """Random points in and around the cube, a piece of a ray, corners, and impossible values."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, dimensions, generator=generator) * 1.2 - 0.1
    third = count // 3
    x[:third] = torch.rand(1, dimensions, generator=generator) * 0.5
    x[:third] += torch.linspace(0, 0.05, third)[:, None]
    extremes = (0.0, 1.0, math.nan, math.inf, -math.inf, 1e30, -1e-30)
    x[-len(extremes) :] = torch.tensor(extremes)[:, None]
    return x


class Inputs:
    """Arguments of every operation for one layout."""

    def __init__(self, layout: GridLayout, half: bool = False) -> None:
        torch.manual_seed(1)
        self.layout, self.half = layout, half
        dtype = torch.float16 if half else torch.float32
        self.x = positions(POINTS, layout.dimensions)
        self.direction = torch.randn_like(self.x)
        self.table = (torch.rand(layout.entries, layout.features) - 0.5).to(dtype)
        self.gradient = torch.randn(POINTS, layout.output_width).to(dtype)

    def arguments(self, name: str, dtype: torch.dtype | None, device: str) -> tuple:
        def place(tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype)

        table, gradient = place(self.table), place(self.gradient)
        direction, x = self.direction.to(device), self.x.to(device)
        levels, smooth, entries = self.layout.levels_tensor, self.layout.smooth, len(table)
        half = self.half and dtype is None
        return {
            "grid_forward": (x, table, levels, smooth, half),
            "grid_backward_table": (x, gradient, levels, entries, smooth),
            "grid_backward_x": (x, table, gradient, levels, smooth),
            "grid_tangent": (direction, x, table, levels, smooth, half),
            "grid_tangent_table": (direction, x, gradient, levels, entries, smooth),
            "grid_curvature": (direction, x, table, gradient, levels, smooth),
        }[name]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_operations_match_the_reference(layout: GridLayout, backend: str) -> None:
    inputs = Inputs(layout)
    for name in OPERATIONS:
        expected = getattr(reference, name)(*inputs.arguments(name, torch.float64, "cpu"))
        with backend_override(backend):
            result = getattr(grid, name)(*inputs.arguments(name, None, device_of(backend)))
        assert result.dtype == torch.float32
        assert result.isfinite().all(), name
        assert relative(result, expected) < SINGLE_BOUND, name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["paper", "wide", "one"])
def test_half_features_match_the_reference(name: str, backend: str) -> None:
    inputs = Inputs(LAYOUTS[name], half=True)
    for operation in OPERATIONS:
        expected = getattr(reference, operation)(*inputs.arguments(operation, torch.float64, "cpu"))
        arguments = inputs.arguments(operation, None, device_of(backend))
        with backend_override(backend):
            result = getattr(grid, operation)(*arguments)
        features = operation in ("grid_forward", "grid_tangent")
        assert result.dtype == (torch.float16 if features else torch.float32)
        assert relative(result, expected) < (HALF_BOUND if features else SINGLE_BOUND), operation


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["paper", "time"])
def test_training_on_normals(name: str, backend: str) -> None:
    """Loss on features and on the position gradient: all first and second derivatives."""
    layout, device = LAYOUTS[name], device_of(backend)
    inputs = Inputs(layout)
    weight = torch.randn(layout.output_width)

    def gradients(encode: Callable[..., Tensor], x: Tensor, table: Tensor) -> tuple[Tensor, ...]:
        x, table = x.detach().requires_grad_(), table.detach().requires_grad_()
        field = (encode(x, table) * weight.to(table)).sin().sum(1)
        (normal,) = torch.autograd.grad(field.sum(), x, create_graph=True)
        loss = (normal.square().sum(1) - 1).square().mean() + field.square().mean()
        return torch.autograd.grad(loss, (x, table))

    def twin(x: Tensor, table: Tensor) -> Tensor:
        return reference.grid_forward(x, table, layout.levels_tensor, layout.smooth, False)

    expected = gradients(twin, inputs.x, inputs.table.double())
    with backend_override(backend):
        result = gradients(
            lambda x, table: grid_encode(x, table, layout),
            inputs.x.to(device),
            inputs.table.to(device),
        )
    assert relative(result[0], expected[0]) < 10 * SINGLE_BOUND
    assert relative(result[1], expected[1]) < 10 * SINGLE_BOUND


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_operation_is_differentiable(backend: str) -> None:
    """The derivatives of the derivatives, each against automatic differentiation of the twin."""
    layout = LAYOUTS["one"]
    inputs, device = Inputs(layout), device_of(backend)
    for name in OPERATIONS[:-1]:
        results = []
        for dtype, place, module in ((torch.float64, "cpu", reference), (None, device, grid)):
            arguments = inputs.arguments(name, dtype, place)
            leaves = [a for a in arguments if isinstance(a, Tensor) and a.is_floating_point()]
            leaves = [leaf.requires_grad_() for leaf in leaves]
            with backend_override(backend if module is grid else "torch"):
                output = getattr(module, name)(*arguments)
                torch.manual_seed(2)
                direction = torch.randn(output.shape).to(output)
                results.append(torch.autograd.grad(output, leaves, direction))
        for expected, result in zip(*results, strict=True):
            assert relative(result.nan_to_num(), expected.nan_to_num()) < SINGLE_BOUND, name


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_input(backend: str) -> None:
    layout, device = LAYOUTS["wide"], device_of(backend)
    x = torch.zeros(0, 3, device=device, requires_grad=True)
    table = torch.ones(layout.entries, layout.features, device=device, requires_grad=True)
    with backend_override(backend):
        features = grid_encode(x, table, layout)
        (by_x,) = torch.autograd.grad(features.sum(), x, create_graph=True)
        (by_x.sum() + features.sum()).backward()
    assert features.shape == (0, layout.output_width)
    assert by_x.shape == (0, 3)
    assert table.grad is not None
    assert not table.grad.any()


@pytest.mark.parametrize("backend", ["torch", *BACKENDS])
def test_positions_are_clamped(backend: str) -> None:
    layout, device = LAYOUTS["paper"], device_of(backend)
    table = torch.rand(layout.entries, layout.features, device=device)
    wild = torch.tensor([math.nan, math.inf, -math.inf, 7.0, -3.0, 0.0, 1.0], device=device)
    tame = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0], device=device)
    x = wild[:, None].expand(-1, 3).clone().requires_grad_()
    with backend_override(backend):
        features = grid_encode(x, table, layout)
        expected = grid_encode(tame[:, None].expand(-1, 3), table, layout)
        features.sum().backward()
    assert torch.equal(features, expected)
    assert x.grad is not None
    assert not x.grad[:5].any()
    assert x.grad[5:].all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_that_start_anywhere(backend: str) -> None:
    """Views that are not on a 16-byte border or not contiguous."""
    layout, device = LAYOUTS["paper"], device_of(backend)
    x = positions(100, 4).to(device)[1:, :3]
    padded = torch.rand(layout.entries + 1, 2, device=device)
    with backend_override(backend):
        features = grid_encode(x, padded[1:], layout)
        expected = grid_encode(x.contiguous(), padded[1:].clone(), layout)
    assert torch.equal(features, expected)


def test_table_gradient_is_the_same_for_any_thread_count() -> None:
    layout = GridLayout(levels=5, log2_table_size=12)
    torch.manual_seed(0)
    x, gradient = torch.rand(5000, 3), torch.randn(5000, 10)
    arguments = (x, gradient, layout.levels_tensor, layout.entries, False)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            with backend_override("cpu"):
                results.append(grid.grid_backward_table(*arguments))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def inner_points(count: int, layout: GridLayout) -> Tensor:
    """Points away from all cell borders, where the features have all derivatives."""
    torch.manual_seed(0)
    x = torch.rand(20_000, layout.dimensions, dtype=torch.float64)
    keep = torch.ones(len(x), dtype=torch.bool)
    for scale in layout.scales:
        fraction = (x * scale + 0.5).frac()
        keep &= ((fraction > 0.05) & (fraction < 0.95)).all(1)
    return x[keep][:count].clone().requires_grad_()


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("dimensions", [2, 3, 4])
def test_reference_against_finite_differences(dimensions: int, smooth: bool) -> None:
    layout = GridLayout(
        dimensions=dimensions,
        levels=2,
        features=1,
        log2_table_size=5,
        base_resolution=2,
        growth=2.5,
        smooth=smooth,
    )
    x = inner_points(3, layout)
    table = torch.rand(layout.entries, 1, dtype=torch.float64, requires_grad=True)
    assert len(x) == 3
    assert torch.autograd.gradcheck(lambda x, t: grid_encode(x, t, layout), (x, table))
    assert torch.autograd.gradgradcheck(lambda x, t: grid_encode(x, t, layout), (x, table))


def loop_encode(x: list[float], table: list[list[float]], layout: GridLayout) -> list[float]:
    """One position by the published formula, in plain Python."""
    factors, features, offset = (1, 2654435761, 805459861, 3674653429), [], 0
    for level in range(layout.levels):
        scale = layout.scales[level]
        vertices = math.ceil(scale) + 1
        most = 2**layout.log2_table_size
        size = math.ceil(vertices**layout.dimensions / 8) * 8
        hashed = not layout.dense and vertices**layout.dimensions > most
        size = most if hashed else size
        total = [0.0] * layout.features
        for corner in range(2**layout.dimensions):
            index, weight = 0, 1.0
            for axis, coordinate in enumerate(x):
                place = coordinate * scale + 0.5
                cell = min(math.floor(place), vertices - 2)
                bit = corner >> axis & 1
                weight *= place - cell if bit else 1 - (place - cell)
                if hashed:
                    index ^= (cell + bit) * factors[axis] % 2**32
                else:
                    index += (cell + bit) * vertices**axis
            row = table[offset + (index % size if hashed else index)]
            total = [t + weight * value for t, value in zip(total, row, strict=True)]
        features += total
        offset += size
    return features


@pytest.mark.parametrize("dimensions", [2, 3, 4])
@pytest.mark.parametrize("dense", [False, True])
def test_reference_against_a_plain_loop(dimensions: int, dense: bool) -> None:
    layout = GridLayout(
        dimensions=dimensions, levels=3, log2_table_size=7, base_resolution=3, dense=dense
    )
    torch.manual_seed(0)
    x = torch.rand(9, dimensions, dtype=torch.float64)
    x[0], x[1] = 0, 1
    table = torch.rand(layout.entries, 2, dtype=torch.float64)
    expected = [loop_encode(row, table.tolist(), layout) for row in x.tolist()]
    result = grid_encode(x, table, layout)
    torch.testing.assert_close(result, torch.tensor(expected, dtype=torch.float64))


def test_levels_match_the_published_sizes() -> None:
    layout = GridLayout.from_resolutions(16, 2048, levels=16)
    assert layout.resolutions[0] == 16
    assert layout.resolutions[-1] == 2048
    assert all(size % 8 == 0 and size <= 2**19 for size in layout.sizes)
    assert layout.levels_tensor[:, 3].tolist() == [
        sum(layout.sizes[:level]) for level in range(layout.levels)
    ]
    assert 12.1e6 < layout.entries * layout.features < 12.3e6  # "about 12.2 M parameters"


def test_single_dense_grid_interpolates_its_vertices() -> None:
    layout = GridLayout(levels=1, features=1, base_resolution=5, dense=True)
    assert layout.entries == 128
    vertices = torch.arange(125.0)
    table = torch.zeros(layout.entries, 1)
    table[:125, 0] = vertices % 5  # the coordinate along x
    x = torch.rand(50, 3)
    place = x[:, 0] * 4 + 0.5
    torch.testing.assert_close(grid_encode(x, table, layout)[:, 0], place)


def test_operations_have_shapes_without_running() -> None:
    inputs = Inputs(LAYOUTS["wide"])
    for name in OPERATIONS:
        operation = getattr(torch.ops.lumigraph, name).default
        torch.library.opcheck(
            operation,
            inputs.arguments(name, None, "cpu"),
            test_utils=("test_schema", "test_faketensor"),
        )


def test_third_derivatives_are_refused() -> None:
    layout = LAYOUTS["one"]
    x = torch.rand(4, 3, requires_grad=True)
    table = torch.rand(layout.entries, 1)
    (first,) = torch.autograd.grad(grid_encode(x, table, layout).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="float64"):
        second.sum().backward()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimensions": 5}, "dimensions must be 2, 3 or 4; got 5"),
        ({"features": 3}, "features must be 1, 2, 4 or 8"),
        ({"levels": 0}, "levels must be 1 to 32"),
        ({"growth": math.nan}, "growth must be 1 or more"),
        ({"base_resolution": 1}, "base_resolution must be 2 or more"),
        ({"growth": 3.0}, "the finest level has"),
        ({"levels": 1, "base_resolution": 5000, "dense": True}, "entries"),
    ],
)
def test_impossible_layouts_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GridLayout(**options)


def test_wrong_tensors_are_refused() -> None:
    layout = LAYOUTS["one"]
    table = torch.zeros(layout.entries, 1)
    with pytest.raises(InputError, match="x must have shape"):
        grid_encode(torch.zeros(4, 2), table, layout)
    with pytest.raises(InputError, match="table must have shape"):
        grid_encode(torch.zeros(4, 3), table[1:], layout)
    with pytest.raises(InputError, match="float32"):
        grid_encode(torch.zeros(4, 3).int(), table, layout)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a", "sm_120"])
def test_specialised_kernels_compile(architecture: str) -> None:
    try:
        nvrtc_version()
    except BackendError as error:
        pytest.skip(str(error))
    for dimensions, features, flag in ((2, 1, 1), (3, 2, 0), (4, 8, 1)):
        defines = (
            f"-DLG_DIMENSIONS={dimensions}",
            f"-DLG_FEATURES={features}",
            f"-DLG_HALF={flag}",
            "-DLG_LEVELS=8",
            "-DLG_PER_THREAD=2",
            f"-DLG_SMOOTH={flag}",
            f"-DLG_TANGENT={flag}",
        )
        assert build_cubin("grid.cu", architecture, defines)
