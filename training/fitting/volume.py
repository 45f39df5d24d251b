"""Method `volume`: density and albedo of a medium on a 3-D grid (the neural volume of Instant-NGP,
Mueller et al. 2022), trained on points of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumigraph.core import Scene
from lumigraph.core.color import psnr
from lumigraph.core.transforms import axis_of
from lumigraph.datasets.targets import Medium, TargetScene, load_medium, target_of
from lumigraph.fields import MediumField
from lumigraph.renderers import MediumLight, MediumRenderer

from ..config import VolumeConfig
from ..events import Listener
from ..method import Model, Progress
from ..pictures import write_image
from .fit import BatchLoss, Fit, fitted_layout, fitted_model

FINEST = 613  # vertices along an axis of the finest level of a hashgrid: a factor of 1.275 a level
SCORED_POINTS = 2**18
SCORE_SEED = 2**20  # no run trains on these points
SHOWN_VIEWS = (0, 4, 8)
SHOWN_SIZE = (320, 240)
WANTED = "method volume needs a medium: a .npy or .npz grid, builtin:cloud or builtin:fog"


def medium_scene(source: str | Path, config: VolumeConfig) -> TargetScene:
    """The medium that a run is fitted to."""
    scale = config.density_scale
    return load_medium(source, density_scale=scale, up=config.up, seed=config.seed)


def build_field(scene: Scene, config: VolumeConfig) -> MediumField:
    """The field that a configuration asks for, with initial weights."""
    medium = target_of(scene, Medium, wanted=WANTED)
    return MediumField(
        scene.bounds,
        fitted_layout(config, dimensions=3, finest=FINEST),
        majorants=medium.majorants,
        hidden_width=config.hidden_width,
        hidden_layers=config.hidden_layers,
        seed=config.seed,
    )


def build_renderer(config: VolumeConfig) -> MediumRenderer:
    return MediumRenderer(
        light=MediumLight.from_up(axis_of(config.up)),
        anisotropy=config.anisotropy,
        samples_per_pixel=config.samples_per_pixel,
        seed=config.seed,
    )


def load_volume_model(
    scene: Scene,
    config: VolumeConfig,
    tensors: dict[str, Tensor],
    header: dict[str, Any],
    path: Path,
    device: torch.device,
) -> Model:
    """The model of a checkpoint, on a device.

    Raises:
        CheckpointError: the checkpoint belongs to another model.
    """
    field = build_field(scene, config)
    return fitted_model(field, build_renderer(config), tensors, path, device)


class VolumeMethod(Fit):
    """A medium in training.

    Args:
        scene: whose target is a `Medium`.
        config: settings.
        device: where to train.
    """

    field: MediumField
    config: VolumeConfig

    def __init__(self, scene: Scene, config: VolumeConfig, device: torch.device) -> None:
        self.medium = target_of(scene, Medium, wanted=WANTED)
        field, renderer = build_field(scene, config).to(device), build_renderer(config).to(device)
        super().__init__(scene, field, renderer, config=config, device=device)
        self.full = (self.medium.majorants.reshape(-1) > 0).nonzero()[:, 0]

    def batch_loss(self, progress: Progress) -> BatchLoss:
        points = self._points()
        density, albedo = self.medium.sample(points)
        density, albedo = density.to(self.device), albedo.to(self.device)
        truth = density / self.field.peak
        raw, shade = self.field.raw(points.to(self.device))
        # where nothing is, anything below 0 is right: it is cut off in frames
        error = torch.where(truth > 0, raw - truth, raw.clamp(min=0))
        off = (shade - albedo) * (truth > 0)[:, None]
        weight = self.config.albedo_weight
        loss = error.square().mean() + weight * off.square().mean()
        return BatchLoss(loss, error.detach().square().mean(), len(points))

    def _points(self) -> Tensor:
        """(M, 3) in grid space: half of them anywhere, half in cells that hold something."""
        count, cells = self.config.batch_samples, len(self.field.majorants)
        points = torch.rand(count, 3, generator=self.generator)
        chosen = torch.randint(len(self.full), (count // 2,), generator=self.generator)
        flat = self.full[chosen]
        corner = torch.stack([flat // cells**2, flat // cells % cells, flat % cells], dim=1)
        points[: count // 2] = (points[: count // 2] + corner) / cells
        return points


def score_volume(
    scene: Scene, model: Model, *, folder: Path, on_event: Listener | None
) -> dict[str, Any]:
    """Scores at points that no run was trained on, and pictures for the report.

    Returns:
        protocol, density_psnr (dB, of densities over their peak), albedo_psnr (dB, weighted by the
        density), and psnr (dB) of frames against those of the data itself, by the same renderer.
    """
    medium = target_of(scene, Medium, wanted=WANTED)
    field = model.field
    assert isinstance(field, MediumField)
    points = torch.rand(SCORED_POINTS, 3, generator=torch.Generator().manual_seed(SCORE_SEED))
    truth, shade = medium.sample(points)
    density, albedo = (v.cpu() for v in field.density_and_albedo(points.to(model.device)))
    weight = truth / truth.sum()
    off = ((albedo - shade) ** 2).mean(dim=1)
    renderer = model.renderer
    assert isinstance(renderer, MediumRenderer)
    paths = renderer.samples_per_pixel
    how = f"{paths} paths a pixel" if paths else "the marched preview"
    return {
        "protocol": f"{SCORED_POINTS:,} points anywhere in the cube; {len(SHOWN_VIEWS)} frames of "
        f"{SHOWN_SIZE[0]} x {SHOWN_SIZE[1]} against those of the data, {how}",
        "psnr": _frames_psnr(scene, model, medium, folder),
        "density_psnr": psnr(((density - truth) / medium.peak).square().mean()),
        "albedo_psnr": psnr((off * weight).sum()),
    }


def _frames_psnr(scene: Scene, model: Model, medium: Medium, folder: Path) -> float:
    """Mean over views; writes the frames."""
    source = TrueMedium(medium, scene.bounds, model.device)
    errors = []
    for place, index in enumerate(SHOWN_VIEWS):
        camera = scene.cameras[index].resized_to(*SHOWN_SIZE)
        shown = model.render(camera)
        truth = model.renderer.render(source, camera.to(model.device)).to("cpu")
        errors.append((shown.color - truth.color).square().mean())
        pictures = {"prediction": shown.color, "truth": truth.color}
        for name, picture in {**pictures, "depth": shown.channel("depth")}.items():
            write_image(folder / f"{place:03d}_{name}.png", picture)
    return psnr(torch.stack(errors).mean())


class TrueMedium:
    """The data itself as a `MediumLike`.

    Args:
        bounds: (2, 3) of the scene.
        device: where it is asked.
    """

    def __init__(self, medium: Medium, bounds: Tensor, device: torch.device) -> None:
        self.medium, self.bounds = medium, bounds.to(device)
        self.majorants = medium.majorants.to(device)

    def density_and_albedo(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        density, albedo = self.medium.sample(positions.cpu())
        return density.to(positions.device), albedo.to(positions.device)
