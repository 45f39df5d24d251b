"""Surface kernels against the float64 definition; its written-out derivatives and itself against
automatic and finite differences and closed forms.

Bounds, relative to the norm of a result. On the CPU every number is a chain of a few hundred
float32 operations. On a GPU the network works in fp16 (5e-4 for each rounded operand); points at
which a unit is so near to the kink of ReLU that it may take the other side are left out there.
"""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.cuda.dispatch import backend_override
from lumigraph.cuda.grid import GridLayout
from lumigraph.cuda.reference import surface as reference
from lumigraph.cuda.surface import (
    SurfaceNetworks,
    SurfaceSamples,
    surface_curvature,
    surface_distance,
    surface_query,
)

BACKENDS = ["cpu", "emu", pytest.param("cuda", marks=pytest.mark.gpu)]
BOUNDS = {"torch": 2e-6, "cpu": 2e-6, "emu": 1.5e-3, "cuda": 1.5e-3}
KINK = 3e-3  # fp16 errors of a unit's sum stay below this
POINTS = 203  # no multiple of a warp, a block or a CPU block


@dataclasses.dataclass(frozen=True)
class Case:
    levels: int = 4
    features: int = 2
    smooth: bool = False
    width: int = 32
    hidden: int = 1
    activation: str = "relu"
    active: float | None = None


CASES = {
    "relu": Case(),
    "softplus, some levels off": Case(activation="softplus", active=2.5, width=64),
    "three layers, smooth grid": Case(hidden=3, smooth=True, features=1, active=3),
    "softplus, two layers, smooth grid": Case(
        activation="softplus", hidden=2, smooth=True, features=4
    ),
    "wide entries": Case(levels=5, features=8, width=64, active=4.25),
    "no level on": Case(active=0),
    "as in NeuS2": Case(levels=14, width=64),
}


def device_of(backend: str) -> str:
    return "cuda" if backend == "cuda" else "cpu"


def relative(result: Tensor, expected: Tensor) -> float:
    expected = expected.detach().double().cpu()
    error = (result.detach().double().cpu() - expected).norm()
    return (error / expected.norm().clamp_min(1e-30)).item()


def build(case: Case, dtype: torch.dtype = torch.float32, device: str = "cpu") -> SurfaceNetworks:
    """Random networks whose numbers float32 holds exactly."""
    generator = torch.Generator().manual_seed(7)
    layout = GridLayout(
        levels=case.levels,
        features=case.features,
        log2_table_size=7,
        base_resolution=3,
        growth=1.4,
        smooth=case.smooth,
    )
    table = 0.3 * (torch.rand(layout.entries, layout.features, generator=generator) - 0.5)
    sizes = {"hidden_width": case.width, "hidden_layers": case.hidden}
    networks = SurfaceNetworks(
        layout, table, table, activation=case.activation, active_levels=case.active, **sizes
    )
    spread = 0.3 if case.activation == "relu" else 0.1
    weights = spread * torch.randn(networks.weight_count, generator=generator)
    table, weights = (t.to(device, dtype).requires_grad_() for t in (table, weights))
    return dataclasses.replace(networks, table=table, weights=weights)


def positions(count: int = POINTS) -> Tensor:
    """Random points in and around the cube, a piece of a ray, corners, and impossible values."""
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(count, 3, generator=generator) * 1.1 - 0.05
    x[: count // 3] = 0.3 + torch.linspace(0, 0.1, count // 3)[:, None]
    extremes = (0.0, 1.0, math.nan, math.inf, -math.inf, 1e30, -1e-30)
    x[-len(extremes) :] = torch.tensor(extremes)[:, None]
    return x


def definition(networks: SurfaceNetworks, x: Tensor) -> SurfaceSamples:
    """float32 positions with everything else in float64: the same cells as the kernels."""
    levels = networks.layout.levels_tensor
    arguments = (networks.table, networks.weights, x, levels)
    return SurfaceSamples(
        *reference.surface_query(*arguments, networks._shape(), networks._options())
    )


def is_sure(networks: SurfaceNetworks, x: Tensor) -> Tensor:
    """(N,) no unit is near the kink of ReLU."""
    arguments = (networks.table, networks.weights, networks.layout.levels_tensor)
    model = reference._model(*arguments, networks._shape(), networks._options())
    _, values = model.network(reference._inputs(model, networks.table, x))
    sure = torch.ones(len(x), dtype=torch.bool)
    for layer, value in zip(model.layers[:-1], values[:-1], strict=True):
        sure &= ((value @ layer.T).abs() > KINK).all(1)
    return sure | (networks.activation != "relu")


def result_gradients(samples: SurfaceSamples, sure: Tensor | None = None) -> list[Tensor]:
    """Random gradients by the results, 0 where not sure."""
    generator = torch.Generator().manual_seed(11)
    drawn = [torch.randn(t.shape, generator=generator) for t in samples]
    if sure is not None:
        drawn = [(g.movedim(0, -1) * sure).movedim(-1, 0) for g in drawn]
    return [g.to(t) for g, t in zip(drawn, samples, strict=True)]


def all_gradients(
    networks: SurfaceNetworks, x: Tensor, samples: SurfaceSamples, sure: Tensor | None = None
) -> tuple[Tensor, ...]:
    leaves = (networks.table, networks.weights, x)
    return torch.autograd.grad(samples, leaves, result_gradients(samples, sure))


@pytest.mark.parametrize("backend", ["torch", *BACKENDS])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_results_and_gradients_match_the_definition(case: Case, backend: str) -> None:
    exact, x = build(case, torch.float64), positions().requires_grad_()
    sure = is_sure(exact, x) if BOUNDS[backend] > 1e-4 else torch.ones(POINTS, dtype=torch.bool)
    assert sure.sum() > 30
    expected = definition(exact, x)
    expected_gradients = all_gradients(exact, x, expected, sure)
    networks = build(case, device=device_of(backend))
    y = positions().to(device_of(backend)).requires_grad_()
    with backend_override(backend):
        samples = surface_query(networks, y)
        gradients = all_gradients(networks, y, samples, sure)
        distance = surface_distance(networks, y)
    bound = BOUNDS[backend]
    assert not distance.requires_grad
    assert relative(distance, expected.distance) < bound
    for name, found, wanted in zip(SurfaceSamples._fields, samples, expected, strict=True):
        assert found.isfinite().all(), name
        assert relative(found.cpu()[sure], wanted[sure]) < bound, name
    for name, found, wanted in zip("twx", gradients, expected_gradients, strict=True):
        assert found.isfinite().all(), name
        assert relative(found, wanted) < 2 * bound, name


@pytest.mark.parametrize("backend", ["torch", *BACKENDS])
@pytest.mark.parametrize("given", [(0,), (1,), (2,), (0, 2)])
def test_some_results_and_some_gradients(given: tuple[int, ...], backend: str) -> None:
    """A loss on some of the results; and each gradient wanted alone is the same."""
    case = CASES["softplus, some levels off"]
    exact, x = build(case, torch.float64), positions().requires_grad_()
    device = device_of(backend)
    networks, y = build(case, device=device), positions().to(device).requires_grad_()

    def loss(samples: SurfaceSamples) -> Tensor:
        factors = result_gradients(samples)
        return sum((samples[k] * factors[k]).sum() for k in given)

    expected = torch.autograd.grad(loss(definition(exact, x)), (exact.table, exact.weights, x))
    with backend_override(backend):
        leaves = (networks.table, networks.weights, y)
        found = torch.autograd.grad(loss(surface_query(networks, y)), leaves)
        for k, leaf in enumerate(leaves):
            (alone,) = torch.autograd.grad(loss(surface_query(networks, y)), leaf)
            assert relative(alone, found[k].double()) < 1e-6
    for a, b in zip(found, expected, strict=True):
        assert relative(a, b) < 2 * BOUNDS[backend]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", [1, 16, 1500])
def test_few_and_many_points(count: int, backend: str) -> None:
    """Down to less than a tile, up to several rounds of every block."""
    case, device = CASES["softplus, some levels off"], device_of(backend)
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(count, 3, generator=generator)
    exact, networks = build(case, torch.float64), build(case, device=device)
    inner, outer = x.clone().requires_grad_(), x.to(device).requires_grad_()
    expected = definition(exact, inner)
    with backend_override(backend):
        samples = surface_query(networks, outer)
        found = (*samples, *all_gradients(networks, outer, samples))
    for a, b in zip(found, (*expected, *all_gradients(exact, inner, expected)), strict=True):
        assert relative(a, b) < 2 * BOUNDS[backend]


@pytest.mark.parametrize("backend", ["torch", *BACKENDS])
def test_only_levels_that_are_on_get_gradients(backend: str) -> None:
    device = device_of(backend)
    networks, x = build(Case(active=2), device=device), positions().to(device)
    with backend_override(backend):
        samples = surface_query(networks, x)
        (by_table,) = torch.autograd.grad(samples, networks.table, result_gradients(samples))
    border = sum(networks.layout.sizes[:2])
    assert by_table[:border].any()
    assert not by_table[border:].any()


@pytest.mark.parametrize("backend", ["torch", *BACKENDS])
def test_empty_input(backend: str) -> None:
    device = device_of(backend)
    networks, x = build(Case(), device=device), torch.zeros(0, 3, device=device)
    x.requires_grad_()
    with backend_override(backend):
        samples = surface_query(networks, x)
        gradients = all_gradients(networks, x, samples)
        assert surface_distance(networks, x).shape == (0,)
    assert [t.shape for t in samples] == [(0,), (0, 16), (0, 3)]
    assert gradients[2].shape == (0, 3)
    assert not gradients[0].any()
    assert not gradients[1].any()


@pytest.mark.parametrize("backend", ["torch", *BACKENDS])
def test_positions_are_clamped(backend: str) -> None:
    device = device_of(backend)
    networks = build(Case(), device=device)
    wild = torch.tensor([math.nan, math.inf, -math.inf, 7.0, -3.0, 0.0, 1.0], device=device)
    tame = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0], device=device)
    x = wild[:, None].expand(-1, 3).clone().requires_grad_()
    with backend_override(backend):
        samples = surface_query(networks, x)
        expected = surface_query(networks, tame[:, None].expand(-1, 3))
        (by_x,) = torch.autograd.grad(samples, x, result_gradients(samples))
    assert torch.equal(samples.feature, expected.feature)
    assert not samples.gradient[:5].any()
    assert samples.gradient[5:].any()
    assert not by_x[:5].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_that_start_anywhere(backend: str) -> None:
    """Views that are not on a 16-byte border or not contiguous."""
    device = device_of(backend)
    networks = build(CASES["softplus, some levels off"], device=device)
    padded = torch.cat([networks.table[:1], networks.table]).detach()
    odd = dataclasses.replace(
        networks,
        table=padded[1:].requires_grad_(),
        weights=torch.cat([networks.weights[:1], networks.weights])[1:],
    )
    x = torch.rand(100, 4, device=device)[1:, :3]
    with backend_override(backend):
        expected = surface_query(networks, x.contiguous())
        samples = surface_query(odd, x)
        by_odd = torch.autograd.grad(samples.gradient.square().sum(), odd.table)[0]
        by_plain = torch.autograd.grad(expected.gradient.square().sum(), networks.table)[0]
    for found, wanted in zip(samples, expected, strict=True):
        assert torch.equal(found, wanted)
    assert relative(by_odd, by_plain) < 1e-6


def test_gradients_are_the_same_for_any_thread_count() -> None:
    networks = build(CASES["softplus, some levels off"])
    x = torch.rand(20_000, 3).requires_grad_()  # more than one batch
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            with backend_override("cpu"):
                samples = surface_query(networks, x)
                results.append((*samples, *all_gradients(networks, x, samples)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_tiny_losses_survive(backend: str) -> None:
    """A mean over many points has gradients far below the smallest fp16 number."""
    case, device = CASES["relu"], device_of(backend)
    networks, x = build(case, device=device), positions().to(device)
    with backend_override(backend):
        samples = surface_query(networks, x)
        given = result_gradients(samples)
        leaves = (networks.table, networks.weights)
        plain = torch.autograd.grad(samples, leaves, given, retain_graph=True)
        small = torch.autograd.grad(samples, leaves, [1e-9 * g for g in given])
    for a, b in zip(small, plain, strict=True):
        assert relative(1e9 * a, b) < BOUNDS[backend]


# ---- the definition


def inner_points(count: int, layout: GridLayout) -> Tensor:
    """Points away from all cell borders, where the features have all derivatives."""
    torch.manual_seed(0)
    x = torch.rand(20_000, 3, dtype=torch.float64)
    keep = torch.ones(len(x), dtype=torch.bool)
    for scale in layout.scales:
        fraction = (x * scale + 0.5).frac()
        keep &= ((fraction > 1e-2) & (fraction < 1 - 1e-2)).all(1)
    return x[keep][:count].clone().requires_grad_()


SMALL = {
    "relu": Case(levels=2, width=32),
    "softplus": Case(levels=2, width=32, activation="softplus", smooth=True, active=1.5),
    "softplus, two layers": Case(levels=2, width=32, hidden=2, activation="softplus"),
}


@pytest.mark.parametrize("case", SMALL.values(), ids=SMALL)
def test_definition_against_finite_differences(case: Case) -> None:
    """First and second derivatives of all three results, by positions, weights and table."""
    networks = build(case, torch.float64)
    x = inner_points(2, networks.layout)
    assert len(x) == 2

    def query(x: Tensor, table: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        given = dataclasses.replace(networks, table=table, weights=weights)
        return tuple(surface_query(given, x))

    leaves = (x, networks.table, networks.weights)
    fast = {"fast_mode": True, "eps": 1e-7, "atol": 1e-4, "rtol": 1e-3}
    assert torch.autograd.gradcheck(query, leaves, **fast)
    assert torch.autograd.gradgradcheck(query, leaves, **fast)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_written_out_derivatives(case: Case) -> None:
    """The formulas of the twin against automatic differentiation, to the precision of float64."""
    networks = build(case, torch.float64)
    x = positions().double().requires_grad_()
    samples = definition(networks, x)
    expected = all_gradients(networks, x, samples)
    arguments = (networks.table, networks.weights, x, networks.layout.levels_tensor)
    settings = (networks._shape(), networks._options())
    with torch.no_grad():
        found = reference.surface_forward(*arguments, *settings)
        gradients = reference.surface_backward(*arguments, *result_gradients(samples), *settings)
    for a, b in zip((*found, *gradients), (*samples, *expected), strict=True):
        assert relative(a, b) < 1e-12


@pytest.mark.parametrize("backend", ["torch", *BACKENDS])
def test_gradient_against_finite_differences(backend: str) -> None:
    """The distance of the same backend, moved along each axis."""
    device, step = device_of(backend), 1e-3
    networks = build(Case(levels=2, smooth=True, activation="softplus"), device=device)
    x = (0.2 + 0.6 * torch.rand(50, 3, generator=torch.Generator().manual_seed(0))).to(device)
    offsets = step * torch.eye(3, device=device)
    with backend_override(backend):
        gradient = surface_query(networks, x).gradient
        rates = [
            surface_distance(networks, x + o) - surface_distance(networks, x - o) for o in offsets
        ]
    slope = torch.stack(rates, 1) / (2 * step)
    assert relative(slope, gradient) < (0.2 if backend in ("emu", "cuda") else 1e-2)


def sphere(device: str = "cpu", dtype: torch.dtype = torch.float32) -> SurfaceNetworks:
    """|p - 1/2| - 0.1 from 64 units whose mean is nearly the length, as NeuS2 begins."""
    layout = GridLayout(levels=4, log2_table_size=10)
    table = torch.zeros(layout.entries, 2)
    place = torch.arange(64) + 0.5
    height, turn = 1 - place / 32, math.pi * (1 + 5**0.5) * place
    ring = (1 - height.square()).sqrt()
    units = torch.stack([ring * turn.cos(), ring * turn.sin(), height], 1)
    first = torch.cat([units, torch.zeros(64, layout.output_width)], 1)
    last = torch.full((16, 64), 4 / 64)  # the mean of the positive part is a quarter of the length
    weights = torch.cat([first.flatten(), last.flatten()])
    table, weights = (t.to(device, dtype).requires_grad_() for t in (table, weights))
    return SurfaceNetworks(layout, table, weights)


@pytest.mark.parametrize("backend", ["torch", *BACKENDS])
def test_sphere(backend: str) -> None:
    device = device_of(backend)
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(400, 3, generator=generator).to(device)
    offset = x - 0.5
    length = offset.norm(dim=1)
    with backend_override(backend):
        samples = surface_query(sphere(device), x)
    assert (samples.distance - (length - 0.1)).abs().max() < 0.02
    error = samples.gradient - offset / length[:, None]
    assert error.norm(dim=1).mean() < 0.1


@pytest.mark.parametrize("backend", ["torch", *BACKENDS])
def test_curvature_of_a_sphere(backend: str) -> None:
    """Along a tangent the distance from a point bends by one over the radius."""
    device = device_of(backend)
    networks = sphere(device)
    generator = torch.Generator().manual_seed(1)
    radial = torch.nn.functional.normalize(torch.randn(500, 3, generator=generator), dim=1)
    other = torch.nn.functional.normalize(torch.randn(500, 3, generator=generator), dim=1)
    tangent = torch.nn.functional.normalize(torch.linalg.cross(radial, other), dim=1)
    x = (0.5 + 0.25 * radial).to(device)
    with backend_override(backend):
        bend = surface_curvature(networks, x, tangent.to(device), step=0.05)
        known = surface_query(networks, x).gradient
        again = surface_curvature(networks, x, tangent.to(device), step=0.05, gradient=known)
        straight = surface_curvature(networks, x, radial.to(device), step=0.05)
        (by_weights,) = torch.autograd.grad(bend.square().mean(), networks.weights)
    assert abs(bend.mean().item() - 4) < 0.4
    assert torch.equal(bend, again)
    assert straight.mean().abs().item() < 0.4
    assert by_weights.isfinite().all()
    assert by_weights.any()


def test_third_derivatives_are_refused() -> None:
    networks, x = build(Case()), torch.rand(3, 3)
    samples = surface_query(networks, x)
    loss = samples.gradient.square().sum()
    (by_table,) = torch.autograd.grad(loss, networks.table, create_graph=True)
    with pytest.raises(NotImplementedError, match="float64"):
        by_table.sum().backward()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_width": 48}, "hidden_width of 32 or 64"),
        ({"hidden_layers": 4}, "hidden_layers of 1 to 3"),
        ({"activation": "sine"}, "activation relu or softplus"),
        ({"active_levels": 4.5}, "active_levels of 0 to 4"),
        ({"active_levels": math.nan}, "active_levels of 0 to 4"),
        ({"layout": GridLayout(dimensions=2)}, "layout of 3 dimensions"),
    ],
)
def test_wrong_settings(change: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        dataclasses.replace(build(Case()), **change)


def test_wrong_arguments() -> None:
    networks = build(Case())
    with pytest.raises(InputError, match="positions must have shape"):
        surface_query(networks, torch.zeros(3, 2))
    with pytest.raises(InputError, match="weights"):
        surface_query(dataclasses.replace(networks, hidden_layers=2), torch.zeros(3, 3))
    with pytest.raises(InputError, match="must be float32"):
        surface_query(networks, torch.zeros(3, 3, dtype=torch.float64))
    with pytest.raises(InputError, match="step"):
        surface_curvature(networks, torch.zeros(3, 3), torch.zeros(3, 3), step=0)
