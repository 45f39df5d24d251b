"""Signed distances in `lumigraph bench kernels`: NeuS2's 14 levels with one hidden layer."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lumigraph.cuda.grid import GridLayout
from lumigraph.cuda.mlp import mlp_weight_count
from lumigraph.cuda.surface import SurfaceNetworks, surface_distance, surface_query

from .cases import EIKONAL, FORWARD, ROTATING, Build, Case, Tensors, normal, rotating_points

DISTANCE, BY_POSITION = "distance alone", f"{EIKONAL}, to x"
PASSES = {
    "relu": (DISTANCE, FORWARD, EIKONAL, BY_POSITION),
    "softplus": (FORWARD, EIKONAL, BY_POSITION),
}
TABLE_SPREAD = 5e-4  # a fine level then slopes by about one


def cases(size: int, gpu: bool) -> list[Case]:
    """Forward is distance, feature and gradient; the step has a loss on all three."""
    points = size if gpu or size <= 2**10 else size // 4
    found = []
    for activation, passes in PASSES.items():
        name = "surface 14x2 + network 31-64-16"
        name = name if activation == "relu" else f"{name}, {activation}"
        for part in passes:
            target = 10.0 if part == EIKONAL and points > 2**10 else None
            most = 4.0 if part == EIKONAL and points == 2**18 else None
            build = _build(points, part, activation)
            found.append(Case(name, part, "rays", points, build, target, most))
    return found


def _build(size: int, passes: str, activation: str) -> Build:
    table_size = 19 if size > 2**10 else 12
    layout = GridLayout.from_resolutions(16, 2048, levels=14, log2_table_size=table_size)
    widths = (3 + layout.output_width, 64, 16)

    def build(device: torch.device) -> Callable[[int], Tensors]:
        backward, by_x = passes in (EIKONAL, BY_POSITION), passes == BY_POSITION
        points = [x.requires_grad_(by_x) for x in rotating_points("rays", size, device)]
        table = normal(layout.entries, layout.features, seed=1).mul(TABLE_SPREAD).to(device)
        weights = (normal(mlp_weight_count(widths), seed=2) / 8).to(device)
        leaves = [t.requires_grad_(backward) for t in (table, weights)]
        networks = SurfaceNetworks(layout, table, weights, activation=activation)
        gradient = normal(size, 16, seed=3).to(device) / size

        def step(turn: int) -> Tensors:
            x = points[turn % ROTATING]
            if passes == DISTANCE:
                return (surface_distance(networks, x),)
            samples = surface_query(networks, x)
            if not backward:
                return tuple(samples)
            loss = (samples.gradient.norm(dim=1) - 1).square().mean() + samples.distance.mean()
            loss = loss + (samples.feature * gradient).sum()
            return torch.autograd.grad(loss, [*leaves, x] if by_x else leaves)

        return step

    return build
