"""Network kernels against the float64 reference; the reference against finite differences.

Bounds, relative to the norm of a result: the CPU kernel sums in fp32, about 1e-6. The GPU kernel
rounds inputs, weights and activations to fp16, so it is held against a float64 network with the
same roundings: what is left are fp32 sums (1e-6, and now and then an activation that rounds the
other way: 5e-4 of one number) and gradients rounded to fp16 in every layer (5e-4 each): 1e-3 and
2e-3. Against the exact network ReLU switches for the one sum in a thousand that is nearer to zero
than the rounding: sqrt(1e-3) = 3e-2 of a gradient's norm, checked at 6e-2.
"""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from lumigraph.core.errors import BackendError, InputError
from lumigraph.cuda import mlp as mlp_module
from lumigraph.cuda.dispatch import backend_override
from lumigraph.cuda.mlp import mlp, mlp_weight_count
from lumigraph.cuda.mlp_launch import Network, backward_plan, forward_plan, weight_passes
from lumigraph.cuda.reference import mlp as reference

BACKENDS = ["cpu", "emu", pytest.param("cuda", marks=pytest.mark.gpu)]
ACTIVATIONS = ["none", "relu", "sigmoid", "exp", "softplus"]
BOUNDS = {"cpu": (2e-6, 5e-6), "emu": (1e-3, 2e-3), "cuda": (1e-3, 2e-3)}
EXACT_BOUND = 6e-2
# (rows, widths): rows around the tile sizes, padded and whole widths, every depth
SHAPES = [
    (0, (3, 16, 1)),
    (1, (3, 16, 1)),
    (17, (27, 32, 32, 3)),
    (129, (32, 64, 64, 16)),
    (129, (48, 48, 48, 48, 16)),
    (65, (32, 128, 128, 128, 128, 3)),
    (33, (5, 7)),
    (40, (64, 16, 33)),
    (300, (32, 64, 16)),
]


def device_of(backend: str) -> str:
    return "cuda" if backend == "cuda" else "cpu"


def random_network(
    rows: int, widths: tuple[int, ...], backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    """x, weights (variance-preserving) and gradient of the result."""
    generator = torch.Generator().manual_seed(rows + sum(widths))
    layers = [torch.randn(a * b, generator=generator) * (2 / a) ** 0.5 for a, b in pairwise(widths)]
    x = torch.randn(rows, widths[0], generator=generator)
    grad = torch.randn(rows, widths[-1], generator=generator)
    device = device_of(backend)
    return x.to(device), torch.cat(layers).to(device), grad.to(device)


def rounded_network(
    x: Tensor, weights: Tensor, widths: tuple[int, ...], *, output_activation: str
) -> Tensor:
    """The reference with fp16 operands; derivatives pass through the roundings."""

    def rounded(t: Tensor) -> Tensor:
        return t + (t.half().double() - t).detach()

    hidden = rounded(x)
    layers = reference.split_weights(rounded(weights), widths)
    for layer in layers[:-1]:
        hidden = rounded(torch.relu(hidden @ layer.T))
    return reference.activate(hidden @ layers[-1].T, output_activation)


def expected(
    backend: str,
    x: Tensor,
    weights: Tensor,
    grad: Tensor,
    widths: tuple[int, ...],
    activation: str,
) -> tuple[Tensor, ...]:
    """Result and gradients in float64."""
    network = reference.mlp if backend == "cpu" else rounded_network
    leaves = [t.detach().double().requires_grad_() for t in (x, weights)]
    y = network(*leaves, widths, output_activation=activation)
    return (y.detach(), *torch.autograd.grad(y, leaves, grad.double()))


def relative(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30)).item()


def assert_network(backend: str, rows: int, widths: tuple[int, ...], activation: str) -> None:
    x, weights, grad = random_network(rows, widths, backend)
    y_true, dx_true, dw_true = expected(backend, x, weights, grad, widths, activation)
    leaves = [t.clone().requires_grad_() for t in (x, weights)]
    with backend_override(backend):
        y = mlp(*leaves, widths, output_activation=activation)
        dx, dw = torch.autograd.grad(y, leaves, grad)
    value_bound, gradient_bound = BOUNDS[backend]
    assert y.shape == (rows, widths[-1]) and y.dtype == torch.float32
    assert relative(y, y_true) <= value_bound
    assert relative(dx, dx_true) <= gradient_bound
    assert relative(dw, dw_true) <= gradient_bound


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_reference_gradients(activation: str) -> None:
    """First and second derivatives of the reference against finite differences."""
    torch.manual_seed(3)
    widths = (3, 16, 16, 2)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(mlp_weight_count(widths), dtype=torch.float64) * 0.4
    weights.requires_grad_()

    def network(x: Tensor, weights: Tensor) -> Tensor:
        return reference.mlp(x, weights, widths, output_activation=activation)

    assert torch.autograd.gradcheck(network, (x, weights))
    assert torch.autograd.gradgradcheck(network, (x, weights), atol=1e-4)
    y = network(x, weights)
    grad = torch.randn_like(y)
    by_autograd = torch.autograd.grad(y, (x, weights), grad)
    by_hand = reference.mlp_backward(grad, x, weights, y, widths, output_activation=activation)
    for a, b in zip(by_autograd, by_hand, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_shapes(backend: str, shape: tuple[int, tuple[int, ...]]) -> None:
    assert_network(backend, *shape, "none")


@pytest.mark.parametrize("backend", BACKENDS)
def test_against_the_exact_network(backend: str) -> None:
    widths = (32, 64, 64, 16)
    x, weights, grad = random_network(200, widths, backend)
    true = expected("cpu", x, weights, grad, widths, "none")
    leaves = [t.clone().requires_grad_() for t in (x, weights)]
    with backend_override(backend):
        y = mlp(*leaves, widths)
        found = (y, *torch.autograd.grad(y, leaves, grad))
    for a, b in zip(found, true, strict=True):
        assert relative(a, b) <= EXACT_BOUND


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_activations(backend: str, activation: str) -> None:
    assert_network(backend, 100, (16, 32, 5), activation)


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_input_and_output(backend: str) -> None:
    """fp16 x and y; gradients come back in the dtype of what they belong to."""
    widths = (32, 64, 64, 16)
    x, weights, grad = random_network(50, widths, backend)
    x, grad = x.half(), grad.half()
    y_true, dx_true, dw_true = expected(backend, x, weights, grad, widths, "sigmoid")
    leaves = [t.clone().requires_grad_() for t in (x, weights)]
    with backend_override(backend):
        y = mlp(*leaves, widths, output_activation="sigmoid", half=True)
        dx, dw = torch.autograd.grad(y, leaves, grad)
    assert (y.dtype, dx.dtype, dw.dtype) == (torch.float16, torch.float16, torch.float32)
    assert relative(y, y_true) <= 1e-3  # y itself is rounded, and enters its own slope
    assert relative(dx, dx_true) <= 4e-3
    assert relative(dw, dw_true) <= 4e-3


@pytest.mark.parametrize("scale", [None, 1.0, 1024.0])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_scale(backend: str, scale: float | None) -> None:
    """Gradients as small as a mean over millions of numbers makes them survive fp16."""
    widths = (16, 32, 4)
    x, weights, grad = random_network(40, widths, backend)
    grad = grad * (1.0 if scale == 1.0 else 1e-3 if scale else 1e-9)
    _, dx_true, dw_true = expected(backend, x, weights, grad, widths, "none")
    leaves = [t.clone().requires_grad_() for t in (x, weights)]
    with backend_override(backend):
        y = mlp(*leaves, widths, gradient_scale=scale)
        dx, dw = torch.autograd.grad(y, leaves, grad)
    assert relative(dx, dx_true) <= BOUNDS[backend][1]
    assert relative(dw, dw_true) <= BOUNDS[backend][1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_gradient_only(backend: str) -> None:
    widths = (16, 32, 32, 3)
    x, weights, grad = random_network(30, widths, backend)
    _, dx_true, dw_true = expected(backend, x, weights, grad, widths, "relu")
    with backend_override(backend):
        for place, true in ((0, dx_true), (1, dw_true)):
            inputs = [x.clone(), weights.clone()]
            inputs[place].requires_grad_()
            y = mlp(*inputs, widths, output_activation="relu")
            (found,) = torch.autograd.grad(y, inputs[place], grad)
            assert relative(found, true) <= BOUNDS[backend][1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_extreme_values(backend: str) -> None:
    """Rows of NaN, infinities and huge numbers neither crash nor touch the rows beside them;
    results beyond fp16 saturate; gradients saturate instead of overflowing."""
    widths = (16, 32, 4)
    x, weights, grad = random_network(40, widths, backend)
    with backend_override(backend):
        clean = mlp(x, weights, widths)
        x[3], x[5], x[7] = float("nan"), float("inf"), 1e30
        y = mlp(x, weights, widths)
        half = mlp(x * 1e4, weights * 10, widths, output_activation="exp", half=True)
    untouched = [i for i in range(40) if i not in (3, 5, 7)]
    torch.testing.assert_close(y[untouched], clean[untouched])
    assert y[3].isnan().all()
    assert half[untouched].isfinite().all()
    leaf = weights.clone().requires_grad_()
    with backend_override(backend):
        result = mlp(x[untouched], leaf, widths, gradient_scale=1.0)
        result.backward(grad[untouched] * 1e7)
    assert leaf.grad is not None and leaf.grad.isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_exp_keeps_its_gradient_beyond_the_clamp(backend: str) -> None:
    x = torch.full((1, 1), 20.0, device=device_of(backend), requires_grad=True)
    weights = torch.ones(1, device=device_of(backend))
    with backend_override(backend):
        y = mlp(x, weights, (1, 1), output_activation="exp")
        (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
    torch.testing.assert_close(y, torch.full_like(y, 15.0).exp(), rtol=2e-3, atol=0)
    torch.testing.assert_close(dx, y.detach(), rtol=2e-3, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_second_derivatives(backend: str) -> None:
    """The gradient of a gradient norm, as an eikonal loss takes it."""
    widths = (3, 32, 32, 1)
    x, weights, _ = random_network(20, widths, backend)

    def loss(x: Tensor, weights: Tensor, network: object) -> Tensor:
        y = network(x, weights, widths, output_activation="softplus")  # type: ignore[operator]
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return (slope.norm(dim=-1) - 1).square().mean()

    doubles = [t.double().requires_grad_() for t in (x, weights)]
    true = torch.autograd.grad(loss(*doubles, reference.mlp), doubles)
    leaves = [t.clone().requires_grad_() for t in (x, weights)]
    with backend_override(backend):
        found = torch.autograd.grad(loss(*leaves, mlp), leaves)
    bound = 1e-4 if backend == "cpu" else 2e-2
    for a, b in zip(found, true, strict=True):
        assert relative(a, b) <= bound


def test_threads_do_not_change_the_result() -> None:
    widths = (32, 64, 16)
    x, weights, grad = random_network(5000, widths, "cpu")
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        leaf = weights.clone().requires_grad_()
        with backend_override("cpu"):
            mlp(x, leaf, widths).backward(grad)
        results.append(leaf.grad)
    torch.set_num_threads(before)
    assert results[0] is not None and results[1] is not None
    assert torch.equal(results[0], results[1])


@pytest.mark.parametrize("backend", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_operation_registration(backend: str) -> None:
    x, weights, _ = random_network(7, (4, 16, 2), backend)
    x.requires_grad_()
    weights.requires_grad_()
    arguments = (x, weights, [4, 16, 2], "none", False, 0.0)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(mlp_module.mlp_forward, arguments, test_utils=checks)


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_and_unaligned_input(backend: str) -> None:
    widths = (10, 16, 2)
    x, weights, _ = random_network(8, widths, backend)
    strided = torch.stack([x, -x], dim=-1)[..., 0]
    shifted = torch.cat([x.new_zeros(1), x.flatten()])[1:].view(8, 10)
    with backend_override(backend):
        plain = mlp(x, weights, widths)
        torch.testing.assert_close(mlp(strided, weights, widths), plain)
        torch.testing.assert_close(mlp(shifted, weights, widths), plain)


def test_messages() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(InputError, match=r"weights must have shape \(64\)|weights"):
        mlp(x, torch.zeros(5), (3, 16, 1))
    with pytest.raises(InputError, match="multiple of 16"):
        mlp(x, torch.zeros(5), (3, 20, 1))
    with pytest.raises(InputError, match="output_activation must be one of"):
        mlp(x, torch.zeros(64), (3, 16, 1), output_activation="tanh")
    with pytest.raises(InputError, match="widths"):
        mlp(x, torch.zeros(3), (3,))


def test_plans_fit() -> None:
    """Every network of the supported sizes gets a plan on the smallest GPU, passes cover all
    layers, and what cannot fit is refused by name."""
    for width in (16, 32, 64, 96, 128):
        for depth in range(1, 9 if width < 128 else 7):
            network = Network((32, *[width] * depth, 16), "none")
            forward, backward = forward_plan(network, 101376), backward_plan(network, 101376)
            assert forward.shared_bytes <= 101376 and backward.shared_bytes <= 101376
            covered = [
                layer
                for first, last in weight_passes(network, backward.warps)
                for layer in range(first, last + 1)
            ]
            assert covered == list(range(network.layers))
    with pytest.raises(BackendError, match="does not fit"):
        backward_plan(Network((32, *[128] * 60, 16), "none"), 101376)
