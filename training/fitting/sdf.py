"""Method `sdf`: the signed distance of a mesh on a 3-D grid (Mueller et al. 2022), trained on
points on, near and away from the surface by the relative error of their distances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumigraph.core import Scene
from lumigraph.core.transforms import axis_of
from lumigraph.datasets.targets import Solid, TargetScene, load_solid, target_of
from lumigraph.fields import SolidField
from lumigraph.renderers import SolidLight, SphereTracer
from lumigraph.renderers.sphere_tracing import distance_normals

from ..config import SdfConfig
from ..events import Listener
from ..method import Model, Progress
from ..pictures import write_image
from .distance_pool import BLOCK, DistancePool, sampled_points
from .fit import BatchLoss, Fit, fitted_layout, fitted_model

FINEST = 2048  # vertices along an axis of the finest level of a hashgrid
RELATIVE_FLOOR = 1e-2  # grid units added to the true distance of a relative error
SCORED_POINTS = 2**18
SCORED_NORMALS = 2**15
SCORE_SEED = 2**20  # no run trains on these points
SHOWN_VIEWS = (0, 4, 8)
SHOWN_SIZE = (320, 240)
WANTED = "method sdf needs a mesh: an .obj, .ply or .glb file"


def solid_scene(source: str | Path, config: SdfConfig) -> TargetScene:
    """The mesh that a run is fitted to."""
    return load_solid(source, signs=config.signs, up=config.up)


def build_field(solid: Solid, config: SdfConfig) -> SolidField:
    """The field that a configuration asks for, with initial weights."""
    return SolidField(
        solid.bounds,
        fitted_layout(config, dimensions=3, finest=FINEST),
        hidden_width=config.hidden_width,
        hidden_layers=config.hidden_layers,
        seed=config.seed,
    )


def build_renderer(config: SdfConfig) -> SphereTracer:
    light = SolidLight.from_up(axis_of(config.up))
    return SphereTracer(background=torch.ones(3), light=light)


def load_sdf_model(
    scene: Scene,
    config: SdfConfig,
    tensors: dict[str, Tensor],
    header: dict[str, Any],
    path: Path,
    device: torch.device,
) -> Model:
    """The model of a checkpoint, on a device.

    Raises:
        CheckpointError: the checkpoint belongs to another model.
    """
    field = build_field(target_of(scene, Solid, wanted=WANTED), config)
    return fitted_model(field, build_renderer(config), tensors, path, device)


class SdfMethod(Fit):
    """A solid in training.

    Args:
        scene: whose target is a `Solid`.
        config: settings.
        device: where to train.
    """

    field: SolidField
    config: SdfConfig

    def __init__(self, scene: Scene, config: SdfConfig, device: torch.device) -> None:
        solid = target_of(scene, Solid, wanted=WANTED)
        field, renderer = build_field(solid, config).to(device), build_renderer(config).to(device)
        super().__init__(scene, field, renderer, config=config, device=device)
        self.pool = DistancePool(solid, config.pool_samples, seed=config.seed, device=device)

    def batch_loss(self, progress: Progress) -> BatchLoss:
        for _ in range(-(-self.config.fresh_samples // BLOCK)):
            self.pool.renew()
        points, truth = self.pool.draw(self.config.batch_samples, self.generator)
        error = self.field.distances(points) - truth
        relative = error.abs() / (truth.abs() + RELATIVE_FLOOR)
        return BatchLoss(relative.mean(), error.detach().square().mean(), len(truth))

    def header(self) -> dict[str, Any]:
        return {**super().header(), "pool_blocks": self.pool.made}

    def restore(self, tensors: dict[str, Tensor], header: dict[str, Any], path: Path) -> None:
        super().restore(tensors, header, path)
        self.pool.rebuild(int(header["pool_blocks"]))


def score_sdf(
    scene: Scene, model: Model, *, folder: Path, on_event: Listener | None
) -> dict[str, Any]:
    """Scores at points that no run was trained on, and pictures for the report.

    Returns:
        protocol; iou of the insides; mape, the mean relative error of distances near the surface
        and anywhere; distance_error, the mean error near the surface over the side of the bounds;
        normal_error, the mean angle to the mesh's normals in degrees.
    """
    solid = target_of(scene, Solid, wanted=WANTED)
    field = model.field
    assert isinstance(field, SolidField)
    generator = torch.Generator().manual_seed(SCORE_SEED)
    anywhere = torch.rand(SCORED_POINTS, 3, generator=generator)
    inside = solid.distances(anywhere) < 0
    found = field.sdf(anywhere.to(model.device)).cpu() < 0
    points, truth = sampled_points(solid, SCORED_POINTS, seed=SCORE_SEED)
    error = (field.sdf(points.to(model.device)).cpu() - truth).abs()
    off = truth != 0
    surface, normals = solid.surface(SCORED_NORMALS, seed=SCORE_SEED)
    learnt = distance_normals(field, surface.to(model.device)).cpu()
    cosine = (learnt * normals).sum(1).clamp(-1, 1)
    _show(scene, model, solid, folder)
    return {
        "protocol": f"{SCORED_POINTS:,} points anywhere in the bounds (IoU), as many on, near and "
        f"away from the surface, relative to the distance plus {RELATIVE_FLOOR:g} of the side; "
        f"{SCORED_NORMALS:,} normals",
        "iou": float((inside & found).sum() / (inside | found).sum().clamp(min=1)),
        "mape": float((error / (truth.abs() + RELATIVE_FLOOR))[off].mean()),
        "distance_error": float(error[truth.abs() < RELATIVE_FLOOR].mean()),
        "normal_error": float(cosine.acos().rad2deg().mean()),
    }


def _show(scene: Scene, model: Model, solid: Solid, folder: Path) -> None:
    """The field and the mesh itself by the same renderer, from a few sides."""
    assert isinstance(model.renderer, SphereTracer)
    for place, index in enumerate(SHOWN_VIEWS):
        camera = scene.cameras[index].resized_to(*SHOWN_SIZE)
        shown = model.render(camera)
        truth = model.renderer.render(_TrueDistances(solid), camera.to(model.device)).to("cpu")
        pictures = {
            "prediction": shown.color,
            "truth": truth.color,
            "depth": shown.channel("depth"),
        }
        for name, picture in pictures.items():
            write_image(folder / f"{place:03d}_{name}.png", picture)


class _TrueDistances:
    """A mesh as a `DistanceField`."""

    def __init__(self, solid: Solid) -> None:
        self.solid, self.bounds = solid, solid.bounds

    def sdf(self, positions: Tensor) -> Tensor:
        return self.solid.distances(positions)
