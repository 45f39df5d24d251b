"""The peers: their recorded figures, and their live calls where they are installed.

tinycudann and nerfacc run on an NVIDIA GPU only and are never needed. Their calls take the inputs
of `cases.py`.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor

from . import inputs
from .cases import (
    EIKONAL,
    FORWARD,
    GRID_CELLS,
    MARCH_STEP,
    ROTATING,
    Build,
    Case,
    Tensors,
    compositing_inputs,
    normal,
    rotating_points,
)

GRID = {
    "otype": "HashGrid",
    "n_levels": 16,
    "n_features_per_level": 2,
    "log2_hashmap_size": 19,
    "base_resolution": 16,
    "per_level_scale": 1.4472692012786865,
}
NETWORK = {
    "otype": "FullyFusedMLP",
    "activation": "ReLU",
    "output_activation": "None",
    "n_neurons": 64,
}


def recorded_peers() -> dict[str, Any]:
    """The figures of `peers.json`, with their source."""
    content: dict[str, Any] = json.loads(files(__package__).joinpath("peers.json").read_text())
    return content


def recorded(case: Case) -> dict[str, Any] | None:
    """The recorded row of a case, or None."""
    key = (case.name, case.passes, case.inputs, case.size)
    for row in recorded_peers()["kernels"]:
        if (row["case"], row["passes"], row["inputs"], row["size"]) == key:
            return {"peer": row["peer"], "ms": row["ms"]}
    return None


def live(case: Case, device: torch.device) -> dict[str, Build]:
    """Peers that are installed and can do the case's work on the device, by name."""
    if case.name == "Adam":
        return {"torch.optim.Adam(fused)": _adam_build(case)}
    if device.type != "cuda":
        return {}
    if case.name in _TINYCUDANN and _installed("tinycudann"):
        return {"tinycudann": _tinycudann_build(case)}
    if case.name in _NERFACC and _installed("nerfacc"):
        if case.name == "compositing" and case.passes.endswith("distortion"):
            return {}
        return {"nerfacc": _NERFACC[case.name](case)}
    return {}


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _adam_build(case: Case) -> Build:
    def build(device: torch.device) -> Callable[[int], Tensors]:
        parameter = torch.zeros(case.size, device=device, requires_grad=True)
        gradient = normal(case.size, seed=8)
        gradient[gradient < 0] = 0
        parameter.grad = gradient.to(device)
        optimizer = torch.optim.Adam([parameter], lr=1e-2, betas=(0.9, 0.99), fused=True)

        def call(turn: int) -> Tensors:
            optimizer.step()
            return (parameter.detach(),)

        return call

    return build


# ---- tinycudann

_TINYCUDANN: dict[str, Callable[[Any], Any]] = {
    "grid 16x2": lambda library: library.Encoding(3, GRID, dtype=torch.float16),
    "network 32-64-64-16": lambda library: library.Network(
        32, 16, {**NETWORK, "n_hidden_layers": 2}
    ),
    "grid 16x2 + network 32-64-16": lambda library: library.NetworkWithInputEncoding(
        3, 16, GRID, {**NETWORK, "n_hidden_layers": 1}
    ),
}


def _tinycudann_build(case: Case) -> Build:
    def build(device: torch.device) -> Callable[[int], Tensors]:
        import tinycudann

        module = _TINYCUDANN[case.name](tinycudann).to(device)
        if case.inputs == "normal":
            xs = [normal(case.size, 32, seed=seed).to(device).half() for seed in range(ROTATING)]
        else:
            xs = rotating_points(case.inputs, case.size, device)
        by_x = case.passes.endswith("x") or case.passes == EIKONAL
        xs = [x.requires_grad_(by_x) for x in xs]
        gradient = normal(case.size, 32 if case.name == "grid 16x2" else 16, seed=3)
        gradient = gradient.to(device).half()

        @torch.no_grad()
        def forward(turn: int) -> Tensors:
            return (module(xs[turn % ROTATING]),)

        def backward(turn: int) -> Tensors:
            x = xs[turn % ROTATING]
            leaves = (module.params, x) if by_x else (module.params,)
            return torch.autograd.grad(module(x), leaves, gradient)

        def eikonal(turn: int) -> Tensors:
            x = xs[turn % ROTATING]
            (slope,) = torch.autograd.grad(module(x), x, gradient, create_graph=True)
            loss = (slope.norm(dim=1) - 1).square().mean()
            return torch.autograd.grad(loss, module.params)

        return {FORWARD: forward, EIKONAL: eikonal}.get(case.passes, backward)

    return build


# ---- nerfacc


def _nerfacc_marching(case: Case) -> Build:
    def build(device: torch.device) -> Callable[[int], Tensors]:
        import nerfacc

        box = [-inputs.HALF_SIDE] * 3 + [inputs.HALF_SIDE] * 3
        estimator = nerfacc.OccGridEstimator(box, resolution=GRID_CELLS, levels=1).to(device)
        estimator.binaries = inputs.occupancy_cells(GRID_CELLS)[None].to(device)
        rays = [inputs.camera_rays(case.size, seed=seed) for seed in range(ROTATING)]
        sets = [(origins.to(device), directions.to(device)) for origins, directions in rays]
        step = MARCH_STEP * 2 * inputs.HALF_SIDE

        def call(turn: int) -> Tensors:
            origins, directions = sets[turn % ROTATING]
            ray_indices, _, _ = estimator.sampling(origins, directions, render_step_size=step)
            return (ray_indices,)

        return call

    return build


def _nerfacc_compositing(case: Case) -> Build:
    def build(device: torch.device) -> Callable[[int], Tensors]:
        import nerfacc

        given = compositing_inputs(case.size, device, backward=case.passes != FORWARD)
        owner = torch.repeat_interleave(given.ray_offsets[:, 1].long())
        used, rays = len(owner), len(given.ray_offsets)
        starts = given.distances[:used]
        ends = starts + given.steps[:used]

        def forward(turn: int) -> tuple[Tensor, Tensor, Tensor]:
            weights, _, _ = nerfacc.render_weight_from_density(
                starts, ends, given.densities[turn % ROTATING][:used], None, owner, rays
            )
            options = {"ray_indices": owner, "n_rays": rays}
            color = nerfacc.accumulate_along_rays(weights, given.color[:used], **options)
            opacity = nerfacc.accumulate_along_rays(weights, None, **options)
            depth = nerfacc.accumulate_along_rays(weights, starts[:, None], **options)
            return color, opacity, depth

        def backward(turn: int) -> Tensors:
            value = (forward(turn)[0] * given.gradient).sum()
            return torch.autograd.grad(value, (given.densities[turn % ROTATING], given.color))

        return forward if case.passes == FORWARD else backward

    return build


_NERFACC: dict[str, Callable[[Case], Build]] = {
    "marching 128^3": _nerfacc_marching,
    "compositing": _nerfacc_compositing,
}
