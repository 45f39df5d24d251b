"""Exposure and pose of each training image while a field trains, with their optimizer.

A step has few rays of each image, so what belongs to images moves on the gradients of several
steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .config_run import RunConfig
from .image_tables import ExposureTable, PoseTable

GATHERED_STEPS = 16
BETAS = (0.9, 0.99)
EXPOSURE_RATE = 2e-2


class ImageOptimizer:
    """What is learnt for each of a number of images, as far as the settings ask for it."""

    def __init__(self, images: int, config: RunConfig, device: torch.device) -> None:
        self.exposure = ExposureTable(images).to(device) if config.exposure else None
        self.poses = PoseTable(images).to(device) if config.pose_refinement else None
        tables: list[tuple[nn.Parameter, float]] = []
        if self.exposure is not None:
            tables.append((self.exposure.log_gain, EXPOSURE_RATE))
        if self.poses is not None:
            tables.append((self.poses.motion, config.pose_learning_rate))
        self._gathered = [(table, torch.zeros_like(table)) for table, _ in tables]
        groups = [{"params": [table], "lr": rate, "base_rate": rate} for table, rate in tables]
        self._adam = torch.optim.Adam(groups, betas=BETAS, eps=1e-15) if groups else None

    @property
    def tables(self) -> list[nn.Parameter]:
        """What is learnt, for those who scale its gradients."""
        return [table for table, _ in self._gathered]

    def rays(self, origins: Tensor, directions: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Rays (N, 3) in grid space, by the corrected poses of their images (N,)."""
        if self.poses is None:
            return origins, directions
        return self.poses(origins, directions, places)

    def colors(self, color: Tensor, places: Tensor) -> Tensor:
        """Colors (N, 3) as the cameras of the images (N,) record them."""
        return color if self.exposure is None else color * self.exposure(places)

    def step(self, step: int, rate: float) -> None:
        """Gather the gradients; every few steps move by them.

        Args:
            step: steps done before. rate: factor on the learning rates.
        """
        if self._adam is None:
            return
        for table, gathered in self._gathered:
            if table.grad is not None:
                gathered += table.grad.nan_to_num(0.0, 0.0, 0.0)
            table.grad = None
        if (step + 1) % GATHERED_STEPS:
            return
        for table, gathered in self._gathered:
            table.grad = gathered.clone()
            gathered.zero_()
        for group in self._adam.param_groups:
            group["lr"] = group["base_rate"] * rate
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        for module in (self.exposure, self.poses):
            if module is not None:
                module.center()

    def state(self) -> dict[str, Tensor]:
        """Live tensors by name, without Adam's."""
        state = {f"gathered.{k}": gathered for k, (_, gathered) in enumerate(self._gathered)}
        for name, module in (("exposure", self.exposure), ("poses", self.poses)):
            if module is not None:
                state |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
        return state

    def small_state(self) -> dict[str, Tensor]:
        """Adam's moments and step counts, names beginning with `small.`."""
        found = {} if self._adam is None else self._adam.state_dict()["state"]
        return {
            f"small.{place}.{key}": torch.as_tensor(value)
            for place, values in found.items()
            for key, value in values.items()
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take Adam's state from a checkpoint; `state` is copied by whoever holds this."""
        if self._adam is None:
            return
        state: dict[int, dict[str, Any]] = {}
        for name, value in tensors.items():
            if name.startswith("small."):
                _, place, key = name.split(".", 2)
                state.setdefault(int(place), {})[key] = value
        self._adam.load_state_dict({**self._adam.state_dict(), "state": state})
