"""Method `image`: a picture of any size on a 2-D grid, trained on random pixels (the gigapixel
image of Instant-NGP, Mueller et al. 2022)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumigraph.core import Scene
from lumigraph.core.color import psnr
from lumigraph.datasets.targets import Picture, TargetScene, load_picture, target_of
from lumigraph.fields import PictureField
from lumigraph.renderers import PlaneRenderer

from ..config import ImageConfig
from ..events import Listener
from ..method import Model, Progress
from ..metrics import ssim
from ..pictures import write_image
from .fit import BatchLoss, Fit, fitted_layout, fitted_model

RELATIVE_FLOOR = 1e-2  # added to the squared prediction of a relative error
ROWS_PIXELS = 2**20  # looked at together when a whole picture is scored
SHOWN_PIXELS = 1024
"""Longer side of the pictures that an evaluation keeps."""
WANTED = "method image needs a picture: a .exr, .png or .jpg file"


def image_scene(source: str | Path, config: ImageConfig) -> TargetScene:
    """The picture that a run is fitted to."""
    budget = int(config.image_budget_gib * 2**30)
    return load_picture(source, image_scale=config.image_scale, budget_bytes=budget)


def build_field(picture: Picture, config: ImageConfig) -> PictureField:
    """The field that a configuration asks for, with initial weights."""
    return PictureField(
        fitted_layout(config, dimensions=2, finest=max(picture.size) // 2),
        size=picture.size,
        is_linear=picture.is_linear,
        hidden_width=config.hidden_width,
        hidden_layers=config.hidden_layers,
        seed=config.seed,
    )


def build_renderer() -> PlaneRenderer:
    return PlaneRenderer(background=torch.ones(3))


def load_image_model(
    scene: Scene,
    config: ImageConfig,
    tensors: dict[str, Tensor],
    header: dict[str, Any],
    path: Path,
    device: torch.device,
) -> Model:
    """The model of a checkpoint, on a device.

    Raises:
        CheckpointError: the checkpoint belongs to another model.
    """
    field = build_field(target_of(scene, Picture, wanted=WANTED), config)
    return fitted_model(field, build_renderer(), tensors, path, device)


class ImageMethod(Fit):
    """A picture in training.

    Args:
        scene: whose target is a `Picture`.
        config: settings.
        device: where to train.
    """

    field: PictureField
    config: ImageConfig

    def __init__(self, scene: Scene, config: ImageConfig, device: torch.device) -> None:
        self.picture = target_of(scene, Picture, wanted=WANTED)
        field = build_field(self.picture, config).to(device)
        super().__init__(scene, field, build_renderer().to(device), config=config, device=device)
        relative = {"auto": self.picture.is_linear, "relative_l2": True, "l2": False}
        self.is_relative = relative[config.loss]

    def batch_loss(self, progress: Progress) -> BatchLoss:
        width, height = self.picture.size
        count = self.config.batch_samples
        column = torch.randint(width, (count,), generator=self.generator)
        row = torch.randint(height, (count,), generator=self.generator)
        truth = self.picture.values(row, column).to(self.device)
        uv = torch.stack([(column + 0.5) / width, (row + 0.5) / height], dim=1).to(self.device)
        found = self.field.values(uv)
        error = (found - truth) ** 2
        if self.is_relative:
            error = error / (found.detach() ** 2 + RELATIVE_FLOOR)
        shown = self.picture.shown(found.detach()) - self.picture.shown(truth)
        return BatchLoss(error.mean(), (shown**2).mean(), count)


def score_image(
    scene: Scene, model: Model, *, folder: Path, on_event: Listener | None
) -> dict[str, Any]:
    """Scores over all pixels, and pictures for the report.

    Returns:
        protocol, psnr (dB, as shown), ssim of the reduced picture, and for linear light
        relative_l2, the mean relative squared error.
    """
    picture = target_of(scene, Picture, wanted=WANTED)
    field = model.field
    assert isinstance(field, PictureField)
    squared, relative = _whole_errors(field, picture, model.device)
    camera = scene.cameras[0]
    shown = model.render(camera).color.clamp(0, 1)
    truth = build_renderer().render(_Pixels(picture), camera).color.clamp(0, 1)
    for name, image in {"prediction": shown, "truth": truth}.items():
        write_image(folder / f"000_{name}.png", image)
    kind = "linear light cut off at 1 and encoded as sRGB" if picture.is_linear else "sRGB"
    width, height = picture.size
    scores: dict[str, Any] = {
        "protocol": f"all {width} x {height} pixels, {kind} in [0, 1]; SSIM of the whole in "
        f"{camera.size(0)[0]} x {camera.size(0)[1]} pixels",
        "psnr": psnr(squared),
        "ssim": ssim(shown, truth),
    }
    return scores | ({"relative_l2": relative} if picture.is_linear else {})


class _Pixels:
    """The picture itself as a `ColorPlane`: the nearest pixel."""

    def __init__(self, picture: Picture) -> None:
        self.picture, self.size = picture, picture.size

    def colors(self, uv: Tensor) -> Tensor:
        width, height = self.size
        column = (uv[:, 0] * width).long().clamp(0, width - 1)
        row = (uv[:, 1] * height).long().clamp(0, height - 1)
        return self.picture.shown(self.picture.values(row, column))


def _whole_errors(
    field: PictureField, picture: Picture, device: torch.device
) -> tuple[float, float]:
    """Mean squared error as shown, and mean relative squared error of the values."""
    width, height = picture.size
    rows = max(1, ROWS_PIXELS // width)
    squared = relative = 0.0
    for first in range(0, height, rows):
        count = min(rows, height - first)
        truth = picture.values(slice(first, first + count), slice(None)).to(device)
        found = field.rows(first, count)
        shown = picture.shown(found).double() - picture.shown(truth).double()
        squared += float((shown**2).sum())
        part = (found - truth) ** 2 / (truth**2 + RELATIVE_FLOOR)
        relative += float(part.double().sum())
    total = 3 * width * height
    return squared / total, relative / total
