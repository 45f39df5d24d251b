"""Rotations of space and time: laws, the static limit, and the way back."""

import doctest

import torch

from lumigraph.core import rotors as module
from lumigraph.core.rotors import (
    rotation_from_rotor,
    rotor_from_quaternion,
    rotor_from_rotation,
)
from lumigraph.core.transforms import rotation_from_quaternion


def test_a_million_are_orthogonal_in_float32():
    generator = torch.Generator().manual_seed(0)
    rotors = torch.randn(1_000_000, 8, generator=generator)
    rotors *= torch.exp(3 * torch.randn(1_000_000, 1, generator=generator))
    rotation = rotation_from_rotor(rotors)
    off = rotation @ rotation.transpose(1, 2) - torch.eye(4)
    assert float(off.abs().amax()) <= 1e-6
    assert float((torch.linalg.det(rotation[:1000]) - 1).abs().amax()) < 1e-5


def test_it_is_the_polynomial_form_with_the_normalisation_of_the_paper():
    """Rotors of length 1 whose product with themselves has no part in xyzt need no splitting: the
    matrix turns x as r x r~ of the geometric algebra does."""
    generator = torch.Generator().manual_seed(1)
    s, xy, xz, yz, xw, yw, zw, p = torch.randn(200, 8, generator=generator).double().unbind(1)
    for _ in range(2):  # the second pass only takes rounding away
        epsilon = p * s - xy * zw + xz * yw - xw * yz
        square = sum(part * part for part in (s, xy, xz, yz, xw, yw, zw, p))
        root = (square**2 - 4 * epsilon**2).sqrt() - square
        delta = torch.where(epsilon.abs() > 1e-12, root / (2 * epsilon), 0.0)
        s, p = s + delta * p, p + delta * s
        xy, zw = xy - delta * zw, zw - delta * xy
        xz, yw = xz + delta * yw, yw + delta * xz
        yz, xw = yz - delta * xw, xw - delta * yz
    rotor = torch.stack([s, xy, xz, yz, xw, yw, zw, p], dim=1)
    rotor = rotor / rotor.norm(dim=1, keepdim=True)
    raw = torch.randn(200, 8, generator=torch.Generator().manual_seed(1)).double()
    expected = torch.stack([sandwich(r) for r in rotor])
    assert float((rotation_from_rotor(raw) - expected).abs().amax()) < 1e-12


def product(first: dict[int, float], second: dict[int, float]) -> dict[int, float]:
    """Of multivectors, bits standing for x y z t."""
    found: dict[int, float] = {}
    for a, left in first.items():
        for b, right in second.items():
            swaps, rest = 0, a >> 1
            while rest:
                swaps += bin(rest & b).count("1")
                rest >>= 1
            sign = -1 if swaps % 2 else 1
            found[a ^ b] = found.get(a ^ b, 0.0) + sign * left * right
    return found


def sandwich(rotor: torch.Tensor) -> torch.Tensor:
    """Columns: what r e_j r~ is."""
    blades = (0b0000, 0b0011, 0b0101, 0b0110, 0b1001, 0b1010, 0b1100, 0b1111)
    values = dict(zip(blades, rotor.tolist(), strict=True))
    reverse = {blade: -v if bin(blade).count("1") == 2 else v for blade, v in values.items()}
    columns = []
    for j in range(4):
        turned = product(product(values, {1 << j: 1.0}), reverse)
        columns.append([turned.get(1 << i, 0.0) for i in range(4)])
    return torch.tensor(columns, dtype=torch.float64).T


def test_without_time_it_is_the_quaternion():
    quaternions = torch.randn(50, 4, generator=torch.Generator().manual_seed(2)).double()
    rotation = rotation_from_rotor(rotor_from_quaternion(quaternions))
    assert torch.allclose(rotation[:, :3, :3], rotation_from_quaternion(quaternions), atol=1e-14)
    unit = torch.tensor([0.0, 0, 0, 1], dtype=torch.float64).expand(50, 4)
    assert torch.allclose(rotation[:, 3], unit, atol=1e-15)
    assert torch.allclose(rotation[:, :, 3], unit, atol=1e-15)


def test_the_way_back():
    rotors = torch.randn(200, 8, generator=torch.Generator().manual_seed(3)).double()
    rotation = rotation_from_rotor(rotors)
    again = rotor_from_rotation(rotation)
    assert torch.allclose(again.norm(dim=1), torch.ones(200, dtype=torch.float64))
    assert torch.allclose(rotation_from_rotor(again), rotation, atol=1e-13)
    single = rotor_from_rotation(torch.eye(4))
    assert torch.allclose(single.abs(), torch.eye(8)[0])


def test_gradients():
    rotors = torch.randn(5, 8, generator=torch.Generator().manual_seed(4)).double()
    assert torch.autograd.gradcheck(rotation_from_rotor, rotors.requires_grad_())


def test_examples_in_docstrings():
    assert doctest.testmod(module).failed == 0
