"""Surface queries on a GPU: the plain torch twin runs there, in fp32."""

from __future__ import annotations

from torch import Tensor

from .reference import surface as reference

Three = tuple[Tensor, Tensor, Tensor]
Four = tuple[Tensor, Tensor, Tensor, Tensor]


def saved_like(table: Tensor, positions: Tensor, levels: int, features: int) -> Tensor:
    """What the forward pass keeps for the backward pass, by shape and dtype."""
    return table.new_empty(0)


def launch_forward(
    table: Tensor, weights: Tensor, positions: Tensor, levels: Tensor, shape: list[int],
    options: list[float],
) -> Four:  # fmt: skip
    results = reference.surface_forward(table, weights, positions, levels, shape, options)
    return *results, table.new_empty(0)


def launch_distance(
    table: Tensor, weights: Tensor, positions: Tensor, levels: Tensor, shape: list[int],
    options: list[float],
) -> Tensor:  # fmt: skip
    return reference.surface_distance(table, weights, positions, levels, shape, options)


def launch_backward(
    table: Tensor, weights: Tensor, positions: Tensor, levels: Tensor, saved: Tensor,
    by_distance: Tensor | None, by_feature: Tensor | None, by_gradient: Tensor | None,
    shape: list[int], options: list[float], wanted: list[bool],
) -> Three:  # fmt: skip
    given = (by_distance, by_feature, by_gradient)
    return reference.surface_backward(table, weights, positions, levels, *given, shape, options)
