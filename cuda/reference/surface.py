"""Signed distances from a grid and a small network in plain torch: what the surface kernels must
compute. `surface_query` is the definition; the other functions write its derivatives out.

With p a position clamped to the cube, E the grid encoding and a_l = clamp(active - l, 0, 1) the
share of level l:

    x = [p - 1/2, a E(p)],   z_k = W_k h_k,  h_0 = x,  h_{k+1} = s(z_k),   y = W_H h_H
    distance = y_0 + bias,   feature = y,   gradient = d y_0 / d p

s is ReLU or the softplus log(1 + exp(b z)) / b with b = SHARPNESS. Layers have no bias.

First order, from the top row of the last layer down: u_H = W_H[0],  d_k = u_{k+1} s'(z_k),
u_k = W_k^T d_k, so that the gradient is u_0 times the rate of x by p.

Second order: let v be the gradient of the loss by `gradient`, and q the rate of x when p moves
along v. Then r_0 = q, r_{k+1} = s'(z_k) W_k r_k, and v . gradient = W_H[0] r_H is a plain function
of weights, x and q. With e_k the gradient of the loss by h_k and e_H = W_H^T (gradient by y):

    c_k = e_{k+1} s'(z_k) + u_{k+1} (W_k r_k) s''(z_k),   e_k = W_k^T c_k
    loss by W_k = c_k h_k^T + d_k r_k^T,   by W_H = (by y) h_H^T + [1 0 ...]^T r_H^T
    loss by x = e_0,   by q = u_0

and through x and q the grid's own derivatives: weights and rates of the corners for the table; for
the position the gradient of (e_0 . x) and the Hessian of (u_0 . x) times v. s'' is 0 for ReLU.

Source: NeuS2, Wang et al. 2023, section 4; softplus of sharpness 100 as in NeuS, Wang et al. 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import grid
from .mlp import split_weights

OUTPUTS = 16
RELU, SOFTPLUS = 0, 1
SHARPNESS = 100.0


@dataclass(frozen=True)
class _Model:
    levels: Tensor
    smooth: bool
    layers: list[Tensor]
    softplus: bool
    shares: Tensor  # (L * F,) of every feature

    def network(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Outputs (N, 16) and the inputs of every layer."""
        values = [x]
        for layer in self.layers[:-1]:
            z = values[-1] @ layer.T
            values.append(_softplus(z) if self.softplus else torch.relu(z))
        return values[-1] @ self.layers[-1].T, values

    def slope(self, value: Tensor) -> Tensor:
        """s' as a function of s."""
        if self.softplus:
            return -torch.expm1(-SHARPNESS * value)
        return (value > 0).to(value.dtype)

    def bend(self, slope: Tensor) -> Tensor:
        """s'' / s' as a function of s'."""
        return SHARPNESS * (1 - slope) if self.softplus else torch.zeros_like(slope)


def _softplus(z: Tensor) -> Tensor:
    return torch.logaddexp(SHARPNESS * z, torch.zeros_like(z)) / SHARPNESS


def _model(
    table: Tensor, weights: Tensor, levels: Tensor, shape: list[int], options: list[float]
) -> _Model:
    features, width, hidden, activation, smooth = shape
    count = len(levels)
    widths = (3 + count * features, *[width] * hidden, OUTPUTS)
    places = torch.arange(count, dtype=weights.dtype, device=weights.device)
    shares = (options[0] - places).clamp(0, 1).repeat_interleave(features)
    return _Model(
        levels, bool(smooth), split_weights(weights, widths), activation == SOFTPLUS, shares
    )


def _inside(positions: Tensor) -> Tensor:
    return torch.nan_to_num(positions, nan=0.0, posinf=1.0, neginf=0.0).clamp(0, 1)


def _inputs(model: _Model, table: Tensor, positions: Tensor) -> Tensor:
    encoded = grid.grid_forward(positions, table, model.levels, model.smooth, False)
    return torch.cat([_inside(positions).to(table.dtype) - 0.5, encoded * model.shares], 1)


def surface_query(
    table: Tensor,
    weights: Tensor,
    positions: Tensor,
    levels: Tensor,
    shape: list[int],
    options: list[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Distance (N,), feature (N, 16) and gradient (N, 3) of positions (N, 3).

    Args:
        table: (entries, F). weights: (P,), layers in turn, each (output, input) row-major.
        levels: (L, 4) of `GridLayout.levels_tensor`.
        shape: features, hidden width, hidden layers, activation (0 ReLU, 1 softplus), smooth.
        options: active levels, bias.

    Differentiable by table, weights and positions, any number of times.
    """
    recording = torch.is_grad_enabled()
    model = _model(table, weights, levels, shape, options)
    with torch.enable_grad():
        if not positions.requires_grad:
            positions = positions.detach().requires_grad_()
        feature, _ = model.network(_inputs(model, table, positions))
        (gradient,) = torch.autograd.grad(feature[:, 0].sum(), positions, create_graph=recording)
    if not recording:
        feature = feature.detach()
    return feature[:, 0] + options[1], feature, gradient.to(table.dtype)


def surface_distance(
    table: Tensor,
    weights: Tensor,
    positions: Tensor,
    levels: Tensor,
    shape: list[int],
    options: list[float],
) -> Tensor:
    """Distance (N,) alone."""
    model = _model(table, weights, levels, shape, options)
    feature, _ = model.network(_inputs(model, table, positions))
    return feature[:, 0] + options[1]


def _sensitivities(model: _Model, values: list[Tensor]) -> list[Tensor]:
    """u_0 .. u_H, gradients of y_0 by the inputs of every layer."""
    below = [model.layers[-1][0].expand_as(values[-1])]
    for layer, value in zip(model.layers[-2::-1], values[:0:-1], strict=True):
        below.append((below[-1] * model.slope(value)) @ layer)
    return below[::-1]


def _by_position(
    model: _Model, table: Tensor, positions: Tensor, by_input: Tensor, wanted: Tensor
) -> Tensor:
    """Gradient (N, 3) by the position from that by x."""
    encoded = (by_input[:, 3:] * model.shares).contiguous()
    by_grid = grid.grid_backward_x(positions, table, encoded, model.levels, model.smooth)
    return by_input[:, :3] * wanted + by_grid.to(table.dtype)


def surface_forward(
    table: Tensor,
    weights: Tensor,
    positions: Tensor,
    levels: Tensor,
    shape: list[int],
    options: list[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """`surface_query` by the formulas above."""
    model = _model(table, weights, levels, shape, options)
    feature, values = model.network(_inputs(model, table, positions))
    free = ((positions >= 0) & (positions <= 1)).to(table.dtype)
    gradient = _by_position(model, table, positions, _sensitivities(model, values)[0], free)
    return feature[:, 0] + options[1], feature, gradient


def surface_backward(
    table: Tensor,
    weights: Tensor,
    positions: Tensor,
    levels: Tensor,
    by_distance: Tensor | None,
    by_feature: Tensor | None,
    by_gradient: Tensor | None,
    shape: list[int],
    options: list[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by table, weights and positions, from those of the three results."""
    model = _model(table, weights, levels, shape, options)
    smooth, shares = model.smooth, model.shares
    _, values = model.network(_inputs(model, table, positions))
    slopes = [model.slope(value) for value in values[1:]]
    free = ((positions >= 0) & (positions <= 1)).to(table.dtype)
    above = table.new_zeros(len(positions), OUTPUTS)
    if by_feature is not None:
        above = above + by_feature
    if by_distance is not None:
        above[:, 0] += by_distance
    along = torch.zeros_like(free) if by_gradient is None else by_gradient.to(table.dtype) * free

    tangent = grid.grid_tangent(along, positions, table, levels, smooth, False) * shares
    rates = [torch.cat([along, tangent], 1)]
    for layer, slope in zip(model.layers[:-1], slopes, strict=True):
        rates.append((rates[-1] @ layer.T) * slope)
    sensitivities = _sensitivities(model, values)

    top = above.T @ values[-1]
    top[0] += rates[-1].sum(0)
    by_weights = [top]
    by_value = above @ model.layers[-1]
    for k in range(len(slopes) - 1, -1, -1):
        ahead, slope = sensitivities[k + 1], slopes[k]
        by_sum = by_value * slope + ahead * rates[k + 1] * model.bend(slope)
        by_weights.append(by_sum.T @ values[k] + (ahead * slope).T @ rates[k])
        by_value = by_sum @ model.layers[k]

    rows, tilted = by_value[:, 3:] * shares, sensitivities[0][:, 3:] * shares
    by_table = grid.grid_backward_table(positions, rows, levels, len(table), smooth)
    by_table += grid.grid_tangent_table(along, positions, tilted, levels, len(table), smooth)
    by_positions = _by_position(model, table, positions, by_value, free)
    by_positions += grid.grid_curvature(along, positions, table, tilted, levels, smooth)
    flat = torch.cat([part.reshape(-1) for part in by_weights[::-1]])
    return by_table, flat, by_positions.to(positions.dtype)
