"""Neighbors in space and time move alike: a loss on velocities (Duan et al. 2024).

    mean over i of | v_i - mean over the K nearest j of v_j |_1

Nearest in (x, y, z, kappa t). The neighbors are searched now and then, and at once where rows have
changed; copies at the same place do not count. A step compares some of the Gaussians, drawn at
each search. Letters: B compared Gaussians, K neighbors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from lumigraph.cuda.reference.gaussian_slicing import slice_constants
from lumigraph.fields import Gaussian4DTensors
from lumigraph.training.config_gaussians4d import Gaussians4DConfig
from lumigraph.training.gaussians.schedule import Clock
from lumigraph.training.gaussians.strategy import GaussianState

from .lifetimes import Clip

SAME = 1e-7  # distance of copies
CHUNK_NUMBERS = 2**27  # distances that a GPU holds at a time


def nearest_rows(points: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The nearest other points of some.

    Args:
        points: (G, D).
        rows: (B,) int64, which are asked about.
        count: K, below G.

    Returns:
        (B, K) int64 indices and (B, K) distances.
    """
    if points.device.type == "cpu":
        tree = cKDTree(points.double().numpy())
        distances, found = tree.query(points[rows].double().numpy(), k=count + 1, workers=-1)
        return _without_self(
            torch.from_numpy(np.asarray(found)), torch.from_numpy(np.asarray(distances)), rows
        )
    parts = rows.split(max(CHUNK_NUMBERS // len(points), 1))
    pairs = [
        torch.cdist(points[part], points).topk(count + 1, dim=1, largest=False) for part in parts
    ]
    distances = torch.cat([pair.values for pair in pairs])
    return _without_self(torch.cat([pair.indices for pair in pairs]), distances, rows)


def _without_self(found: Tensor, distances: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Drop the point itself, or with enough copies of it the last that was found."""
    own = found == rows[:, None]
    own[:, -1] |= ~own.any(dim=1)
    shape = (len(rows), found.shape[1] - 1)
    return found[~own].reshape(shape), distances[~own].reshape(shape).float()


class Consistency:
    """The loss with its neighbors.

    Args:
        config: weights and counts.
        device: of the Gaussians.
        seed: of the choice of compared Gaussians.
        clip: the time of the scene.
    """

    def __init__(
        self, config: Gaussians4DConfig, *, device: torch.device, seed: int, clip: Clip
    ) -> None:
        self._config, self._clip = config, clip
        self._generator = torch.Generator(device=device).manual_seed(seed)
        self._rows = torch.zeros(0, dtype=torch.int64, device=device)
        self._neighbors = torch.zeros(0, 0, dtype=torch.int64, device=device)
        self._known = torch.zeros(0, 0, device=device)

    def forget(self) -> None:
        """Rows have changed: search neighbors before the next step."""
        self._rows = self._rows[:0]

    @torch.no_grad()
    def add_gradients(self, gaussians: GaussianState[Gaussian4DTensors], clock: Clock) -> None:
        """Add the gradients of the loss to those of rotors and scales."""
        count = self._config.consistency_neighbors
        if self._config.consistency_weight <= 0 or len(gaussians) <= count:
            return
        if not len(self._rows) or clock.passes(self._config.consistency_every):
            self._search(gaussians.values(), count)
        tensors = gaussians.field.tensors
        if tensors.rotors.grad is None or tensors.log_scales.grad is None:
            return
        rows, places = torch.cat([self._rows, self._neighbors.flatten()]).unique(
            return_inverse=True
        )
        rotors = tensors.rotors.detach()[rows].requires_grad_()
        log_scales = tensors.log_scales.detach()[rows].requires_grad_()
        with torch.enable_grad():
            velocities = slice_constants(rotors, log_scales, self._clip.shortest).velocities
            loss = self._config.consistency_weight * self._loss(velocities, places)
            found = torch.autograd.grad(loss, [rotors, log_scales])
        for tensor, gradient in zip((tensors.rotors, tensors.log_scales), found, strict=True):
            assert tensor.grad is not None
            tensor.grad.index_add_(0, rows, torch.nan_to_num(gradient, 0.0, 0.0, 0.0))

    def _loss(self, velocities: Tensor, places: Tensor) -> Tensor:
        own = velocities[places[: len(self._rows)]]
        others = velocities[places[len(self._rows) :].reshape(self._neighbors.shape)]
        weight = self._known[..., None]
        mean = (others * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1)
        counted = self._known.any(dim=1, keepdim=True)
        return torch.where(counted, (own - mean).abs(), 0.0).sum(dim=1).mean()

    def _search(self, values: Gaussian4DTensors, count: int) -> None:
        far = self._config.consistency_time / self._clip.length
        points = torch.cat([values.means, far * values.times[:, None]], dim=1)
        most = min(self._config.consistency_rows, len(points))
        order = torch.rand(len(points), generator=self._generator, device=points.device)
        self._rows = order.topk(most, sorted=False).indices.sort().values
        self._neighbors, distances = nearest_rows(points, self._rows, count)
        self._known = (distances > SAME).float()

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint: the comparison goes on as it was."""
        return {
            "consistency.rows": self._rows,
            "consistency.neighbors": self._neighbors,
            "consistency.known": self._known,
        }

    def random_state(self) -> Tensor:
        return self._generator.get_state()

    def restore(self, tensors: dict[str, Tensor], random: Tensor) -> None:
        """Go on from `state` and `random_state`."""
        device = self._rows.device
        values: list[Any] = [tensors[name].to(device).clone() for name in self.state()]
        self._rows, self._neighbors, self._known = values
        self._generator.set_state(random.cpu())
