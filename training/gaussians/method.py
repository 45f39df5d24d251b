"""Method `gaussians`: 3D Gaussians trained on whole views (Kerbl et al. 2023); the step is that of
`splat_method.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumigraph.core import Scene
from lumigraph.core.errors import CheckpointError
from lumigraph.core.gaussian_cloud import GaussianCloud
from lumigraph.cuda.ops import SplatImages, SplatOptions, render_gaussians
from lumigraph.cuda.splatting import SplatCamera
from lumigraph.fields import Gaussians
from lumigraph.training.config_gaussians import GaussiansConfig, SplatConfig
from lumigraph.training.method import Model, Progress

from .default_strategy import DefaultStrategy
from .initialization import initial_cloud
from .mcmc_strategy import McmcStrategy
from .memory import check_memory
from .splat_method import Part, SplatMethod, load_renderer
from .strategy import GaussianState
from .views import View


def build_strategy(
    config: SplatConfig, *, extent: float, device: torch.device, seed: int
) -> DefaultStrategy | McmcStrategy:
    """The strategy that a configuration names."""
    if config.strategy == "mcmc":
        return McmcStrategy(config, device=device, seed=seed)
    return DefaultStrategy(config, extent=extent, device=device, seed=seed)


def load_gaussians_model(
    scene: Scene,
    config: GaussiansConfig,
    tensors: dict[str, Tensor],
    header: dict[str, Any],
    path: Path,
    device: torch.device,
) -> Model:
    """Field and renderer of a checkpoint.

    Raises:
        CheckpointError: it holds no Gaussians.
    """
    names = [f"field.{name}" for name in Gaussians(GaussianCloud.empty()).tensors._fields]
    missing = [name for name in names if name not in tensors]
    if missing:
        raise CheckpointError(f"{path}: holds no {missing[0]!r}; it belongs to another model")
    cloud = GaussianCloud(*(tensors[name] for name in names)).to(device)
    field = Gaussians(cloud, active_degree=int(header["active_degree"]))
    return Model(field, load_renderer(scene, config, tensors, path, device), device)


class GaussiansMethod(SplatMethod):
    """Gaussians in training.

    Args:
        scene: with images and a split "train".
        config: settings.
        device: where to train.
        initial: where to start instead of what `config.initialization` says.

    Raises:
        DataError: no images, or no points where they are asked for.
        ConfigError: it does not fit into memory.
    """

    def __init__(
        self,
        scene: Scene,
        config: GaussiansConfig,
        device: torch.device,
        *,
        initial: GaussianCloud | None = None,
    ) -> None:
        self.config = config
        self._forecast = check_memory(scene, config, device)
        super().__init__(scene, config, device)
        cloud, self._notes = (initial, []) if initial is not None else initial_cloud(scene, config)
        self.field = Gaussians(cloud.to(device))
        self.strategy = build_strategy(
            config, extent=self.extent, device=device, seed=config.seed + 2
        )
        self.gaussians = GaussianState(self.field, self.strategy.statistics)
        self.parts = [Part("strategy", self.gaussians, self.strategy)]

    def notes(self) -> Sequence[str]:
        return [*self._notes, self._forecast.note(self.config)]

    def render_view(
        self,
        view: View,
        camera: SplatCamera,
        options: SplatOptions,
        *,
        background: Tensor | None,
        probe: Tensor | None,
    ) -> SplatImages:
        return render_gaussians(
            *self.field.gaussians_at(None),
            camera,
            options,
            background=background,
            screen_probe=probe,
        )

    def rates(self, progress: Progress) -> Mapping[str, float]:
        config = self.config
        return {
            "means": config.means_rate * self.extent * progress.rate,
            "rotations": config.rotations_rate,
            "log_scales": config.scales_rate,
            "opacity_logits": config.opacities_rate,
            "harmonics": config.harmonics_rate,
        }
