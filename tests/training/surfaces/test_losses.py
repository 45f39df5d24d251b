"""Losses of surfaces against numbers worked out by hand."""

import math

import pytest
import torch

from lumigraph.training.surface_losses import (
    color_loss,
    depth_loss,
    eikonal_loss,
    mask_loss,
    tangent_directions,
)


def test_color():
    color, target = torch.tensor([[0.5, 0.5, 0.5], [0.0, 0.0, 1.0]]), torch.zeros(2, 3)
    assert float(color_loss(color, target, "l1")) == pytest.approx((1.5 + 1.0) / 2)
    # Huber over delta: e - 0.05 beyond 0.1, and e^2 / 0.2 below; a fifth of it
    huber = (3 * 0.45 + 0.95) / 2 / 5
    assert float(color_loss(color, target, "huber")) == pytest.approx(huber)
    small = torch.full((1, 3), 0.04)
    assert float(color_loss(small, small * 0, "huber")) == pytest.approx(3 * 0.04**2 / 0.2 / 5)


def test_eikonal():
    gradient = torch.tensor([[1.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.0]])
    assert float(eikonal_loss(gradient)) == pytest.approx((0 + 4 + 1) / 3, abs=1e-2)
    assert float(eikonal_loss(torch.zeros(0, 3))) == 0
    zero = torch.zeros(2, 3, requires_grad=True)
    eikonal_loss(zero).backward()
    assert bool(zero.grad.isfinite().all())


def test_mask():
    opacity, alpha = torch.tensor([0.9, 0.2, 1.0, 0.0]), torch.tensor([1.0, 0.0, 1.0, 0.5])
    wanted = -(math.log(0.9) + math.log(0.8) + 2 * math.log(1 - 1e-4)) / 4
    assert float(mask_loss(opacity, alpha)) == pytest.approx(wanted, rel=1e-3)


def test_depth():
    distance, opacity = torch.tensor([2.0, 1.0, 5.0]), torch.tensor([1.0, 0.5, 1.0])
    truth = torch.tensor([2.5, 2.0, 0.0])  # the last is unknown; half of the second is behind
    assert float(depth_loss(distance, opacity, truth)) == pytest.approx(0.25)
    assert float(depth_loss(distance, opacity, truth * 0)) == 0


def test_tangents_lie_across_the_gradient():
    gradient = torch.randn(100, 3, dtype=torch.float64)  # some are nearly along what is drawn
    across = tangent_directions(gradient, torch.Generator().manual_seed(0))
    assert torch.allclose(across.norm(dim=1), torch.ones(100, dtype=torch.float64), atol=1e-9)
    assert float((across * gradient).sum(1).abs().max()) < 1e-9
