"""Spherical harmonics kernels against the float64 reference; the reference against the laws."""

import math

import pytest
import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.core.harmonics import spherical_harmonics
from lumigraph.cuda.dispatch import backend_override
from lumigraph.cuda.harmonics import harmonics_encode

BACKENDS = ["cpu", "emu", pytest.param("cuda", marks=pytest.mark.gpu)]


def device_of(backend: str) -> str:
    return "cuda" if backend == "cuda" else "cpu"


def directions(count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(count, 3), dim=1).to(dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("degree_count", [1, 2, 3, 4, 5])
def test_values_and_gradients_match_the_reference(degree_count: int, backend: str) -> None:
    device, x = device_of(backend), directions(203)
    gradient, direction = torch.randn(203, degree_count**2), torch.randn(203, 3)
    results = []
    for place, dtype in (("cpu", torch.float64), (device, torch.float32)):
        with backend_override("torch" if dtype == torch.float64 else backend):
            at = x.to(place, dtype).requires_grad_()
            row = gradient.to(place, dtype).requires_grad_()
            values = harmonics_encode(at, degree_count)
            found = [values]
            if degree_count > 1:
                (by_x,) = torch.autograd.grad(values, at, row, create_graph=True)
                found += [
                    by_x,
                    *torch.autograd.grad(
                        by_x, (at, row), direction.to(by_x), materialize_grads=True
                    ),
                ]
        results.append([t.detach().double().cpu() for t in found])
    for expected, result in zip(*results, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_and_impossible_directions(backend: str) -> None:
    device = device_of(backend)
    with backend_override(backend):
        assert harmonics_encode(torch.zeros(0, 3, device=device)).shape == (0, 16)
        x = torch.tensor([[math.nan, 0, 0], [math.inf, 0, 0], [0, 0, 1.0]], device=device)
        values = harmonics_encode(x.requires_grad_())
        values.sum().backward()
    assert values[2].isfinite().all()
    assert x.grad is not None
    assert x.grad[2].isfinite().all()


def test_reference_against_finite_differences() -> None:
    x = directions(3, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: harmonics_encode(x, 5), (x,))
    assert torch.autograd.gradgradcheck(lambda x: harmonics_encode(x, 5), (x,))


def test_functions_are_orthonormal() -> None:
    """On a product grid of Gauss-Legendre heights and even angles, exact for these degrees."""
    count = 12
    # Golub-Welsch: nodes and weights from the Jacobi matrix of the Legendre polynomials
    k = torch.arange(1, count, dtype=torch.float64)
    off = k / (4 * k * k - 1).sqrt()
    heights, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    weights = 2 * vectors[0] ** 2
    angles = torch.arange(2 * count, dtype=torch.float64) * (math.pi / count)
    z, angle = torch.meshgrid(heights, angles, indexing="ij")
    radius = (1 - z * z).sqrt()
    x = torch.stack([radius * angle.cos(), radius * angle.sin(), z], -1).reshape(-1, 3)
    area = (weights * math.pi / count).repeat_interleave(2 * count)
    values = harmonics_encode(x, 5)
    products = values.T @ (values * area[:, None])
    torch.testing.assert_close(products, torch.eye(25, dtype=torch.float64))


def test_agrees_with_the_vocabulary_of_core() -> None:
    x = directions(50, torch.float64)
    torch.testing.assert_close(harmonics_encode(x, 5), spherical_harmonics(x, 5))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="degree_count must be 1 to 5; got 6"):
        harmonics_encode(torch.zeros(2, 3), 6)
    with pytest.raises(InputError, match="directions must have shape"):
        harmonics_encode(torch.zeros(2, 4))
