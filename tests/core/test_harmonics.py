"""Spherical harmonics: orthonormal over the sphere, and the listed constants and signs."""

import math

import numpy as np
import pytest
import torch

from lumigraph.core import InputError, spherical_harmonics


def sphere_quadrature() -> tuple[torch.Tensor, torch.Tensor]:
    """Directions and weights that integrate polynomials up to degree 15 exactly."""
    heights, weights = np.polynomial.legendre.leggauss(8)
    angles = np.arange(16) * (2 * math.pi / 16)
    z, angle = np.meshgrid(heights, angles, indexing="ij")
    level = np.sqrt(1 - z * z)
    directions = np.stack([level * np.cos(angle), level * np.sin(angle), z], axis=-1)
    area = np.repeat(weights[:, None] * (2 * math.pi / 16), 16, axis=1)
    return torch.from_numpy(directions.reshape(-1, 3)), torch.from_numpy(area.reshape(-1))


def test_orthonormal_over_the_sphere() -> None:
    directions, weights = sphere_quadrature()
    assert float(weights.sum()) == pytest.approx(4 * math.pi)
    values = spherical_harmonics(directions, 5)
    assert values.shape == (128, 25)
    products = values.T @ (values * weights[:, None])
    torch.testing.assert_close(products, torch.eye(25, dtype=torch.float64), atol=1e-12, rtol=0)


def test_constants_and_signs_of_the_hash_grid_papers_code() -> None:
    generator = torch.Generator().manual_seed(2)
    directions = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    directions /= directions.norm(dim=-1, keepdim=True)
    x, y, z = directions.unbind(-1)
    listed = [
        0.2820948 * torch.ones_like(x),
        -0.4886025 * y,
        0.4886025 * z,
        -0.4886025 * x,
        1.0925484 * x * y,
        -1.0925484 * y * z,
        0.9461747 * z**2 - 0.3153916,
        -1.0925484 * x * z,
        0.5462742 * (x**2 - y**2),
        0.5900436 * y * (y**2 - 3 * x**2),
        2.8906114 * x * y * z,
        0.4570458 * y * (1 - 5 * z**2),
        0.3731763 * z * (5 * z**2 - 3),
        0.4570458 * x * (1 - 5 * z**2),
        1.4453057 * z * (x**2 - y**2),
        0.5900436 * x * (3 * y**2 - x**2),
    ]
    expected = torch.stack(listed, dim=-1)
    torch.testing.assert_close(spherical_harmonics(directions, 4), expected, atol=2e-7, rtol=0)


def test_fewer_degrees_are_the_first_values() -> None:
    directions, _ = sphere_quadrature()
    full = spherical_harmonics(directions, 5)
    for count in range(1, 5):
        torch.testing.assert_close(spherical_harmonics(directions, count), full[:, : count**2])


def test_degree_4_has_the_signs_of_its_order() -> None:
    # (-1)^m times the functions without it: odd orders are negative where the others are positive.
    direction = torch.nn.functional.normalize(torch.tensor([[3.0, 1.0, 0.5]]).double(), dim=-1)
    x, y, z = direction[0].tolist()
    angle = math.atan2(y, x)
    values = spherical_harmonics(direction, 5)[0, 16:].tolist()
    level = math.hypot(x, y)
    for order in range(1, 5):
        polynomial = {4: 1.0, 3: z, 2: 7 * z * z - 1, 1: 7 * z**3 - 3 * z}[order]
        shape = (-1) ** order * level**order * polynomial
        assert math.copysign(1, values[4 + order]) == math.copysign(
            1, shape * math.cos(order * angle)
        )
        assert math.copysign(1, values[4 - order]) == math.copysign(
            1, shape * math.sin(order * angle)
        )


def test_gradient_and_shapes() -> None:
    directions = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert spherical_harmonics(directions, 3).shape == (2, 3, 9)
    assert torch.autograd.gradcheck(lambda d: spherical_harmonics(d, 5), (directions,))
    assert spherical_harmonics(torch.zeros(0, 3), 4).shape == (0, 16)


@pytest.mark.parametrize("count", [0, 6])
def test_degree_out_of_range(count: int) -> None:
    with pytest.raises(InputError, match="degree_count must be 1 to 5"):
        spherical_harmonics(torch.zeros(1, 3), count)
