"""Pictures of what there is on disk: a scene, a run, a mesh, points, a file of Gaussians.

Scenes and runs are drawn in the frame of training, files in their own, which is the capture's for
what lumigraph exports.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lumigraph.core import PointCloud, Scene, Similarity
from lumigraph.core.errors import DataError, InputError
from lumigraph.core.path_shapes import upward
from lumigraph.datasets.formats.ply import read_points
from lumigraph.export.mesh_reading import TriangleMesh, read_mesh
from lumigraph.export.mesh_scores import mesh_error
from lumigraph.export.mesh_truth import Kind, ply_kind, read_truth
from lumigraph.export.splat_files.moving_file import is_moving_file, read_moving
from lumigraph.export.splat_files.reading import MOVING_SUFFIX, SPLAT_SUFFIXES, read_splats
from lumigraph.training import Run
from lumigraph.viewer.source import cloud_of

from .drawing import PictureOptions, PictureReport, check_picture_target, picture
from .errors import error_items
from .items import (
    BoundsItem,
    CamerasItem,
    GaussiansItem,
    Item,
    MeshItem,
    PointsItem,
)
from .view import PictureView

SHOWN_TIME = 0.5
"""Of what moves."""
FILE_SUFFIXES = (".ply", ".obj", ".glb", ".splat", ".spz", ".lg4d")
"""Files that can be drawn."""
_ROOM = 0.25  # How far beyond bounds and cameras points are drawn, as a share of their box.


@dataclass(frozen=True)
class SubjectOptions:
    """What of a subject is drawn, and from where. Checked where it is used."""

    camera: int | None = None
    """Look from this camera of the capture; None looks from outside."""
    most_gaussians: int = 20_000
    """Gaussians drawn at most, the largest and most opaque."""
    threshold: float | None = None
    """Distance for precision and recall; see `export.mesh_error`."""
    error_limit: float | None = None
    """Upper end of the colors of errors; None takes one by the distances."""

    def __post_init__(self) -> None:
        if self.most_gaussians < 1:
            raise InputError(f"most_gaussians {self.most_gaussians}: expected at least 1")
        for name in ("threshold", "error_limit"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value > 0):
                raise InputError(f"{name} {value}: expected a distance above 0")


@dataclass(frozen=True)
class SubjectReport:
    """What was drawn."""

    picture: PictureReport
    kind: str
    """scene, run, mesh, points or Gaussians."""
    facts: list[tuple[str, str]]
    """For people."""
    numbers: dict[str, Any]
    """For machines."""


@dataclass(frozen=True)
class _Found:
    """What is to be drawn and said of a subject."""

    kind: str
    items: list[Item]
    facts: list[tuple[str, str]] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    title: str = ""
    detail: str = ""
    """A line below the title."""


def picture_of_scene(
    scene: Scene,
    *,
    out: str | Path | None = None,
    options: PictureOptions | None = None,
    subject: SubjectOptions | None = None,
) -> SubjectReport:
    """Cameras, points and bounds of a scene.

    Raises:
        InputError and its kinds: see `picture`.
    """
    items = _scene_items(scene)
    has_points = any(isinstance(item, PointsItem) for item in items)
    detail = "cameras, points and bounds" if has_points else "cameras and bounds"
    found = _Found("scene", items, title=scene.name, detail=detail)
    return _drawn(found, out, options=options, subject=subject)


def picture_of_run(
    run: Run | str | Path,
    *,
    out: str | Path | None = None,
    options: PictureOptions | None = None,
    subject: SubjectOptions | None = None,
) -> SubjectReport:
    """Cameras, points and bounds of a run's scene, and the primitives that it has learnt.

    A method without primitives is drawn without; the facts say so.

    Raises:
        InputError and its kinds: no run, no checkpoint yet; see `picture`, too.
    """
    opened = run if isinstance(run, Run) else Run.open(run)
    scene, method = opened.scene(), opened.config.method
    model = opened.model("cpu")
    cloud = cloud_of(model.field, SHOWN_TIME)
    items = _scene_items(scene)
    if cloud is None:
        facts = [("primitives", f"none: method {method} has no Gaussians to draw")]
    else:
        when = "" if model.moments is None else f" at time {SHOWN_TIME}"
        facts = [("primitives", f"{len(cloud):,} Gaussians{when}")]
        most = (subject or SubjectOptions()).most_gaussians
        primitives = GaussiansItem(cloud, most, bounds=scene.bounds)
        items = [primitives, *items]
    numbers = {"method": method, "gaussians": None if cloud is None else len(cloud)}
    detail = f"{method} on {scene.name}, frame of training"
    found = _Found("run", items, facts, numbers, opened.path.resolve().name, detail)
    return _drawn(found, out, options=options, subject=subject)


def picture_of_file(
    path: str | Path,
    *,
    out: str | Path | None = None,
    truth: str | Path | None = None,
    scene: Scene | None = None,
    options: PictureOptions | None = None,
    subject: SubjectOptions | None = None,
) -> SubjectReport:
    """A mesh (.ply, .obj, .glb), points (.ply) or Gaussians (.ply, .splat, .spz, or .lg4d half way
    through its time).

    Args:
        truth: a mesh, or a .ply of points, in the same frame: the mesh is colored by its distance
            to it, and scored.
        scene: the capture, whose cameras and points are drawn in its own frame.

    Raises:
        InputError and its kinds: unknown or damaged files, an empty mesh; see `picture`, too.
    """
    file, chosen = Path(path), subject or SubjectOptions()
    if out is not None:
        check_picture_target(Path(out))
    kind = kind_of(file)
    if truth is not None and kind != "mesh":
        raise InputError(f"{file}: holds {kind}, and only a mesh can be compared with the truth")
    if truth is not None:
        found = _judged(file, Path(truth), chosen)
    else:
        found = _READERS[kind](file, chosen)
    if scene is not None:
        around = _scene_items(scene, move=scene.normalization.inverse())
        kept = [item for item in around if kind == "mesh" or not isinstance(item, PointsItem)]
        found = replace(found, items=found.items + kept)
    return _drawn(found, out, options=options, subject=chosen)


def kind_of(path: Path) -> Kind:
    """What a file holds, by its content where the suffix leaves a choice.

    Raises:
        DataError: no such file, or a damaged one. InputError: another kind of file.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path")
    if suffix not in FILE_SUFFIXES:
        known = ", ".join(FILE_SUFFIXES)
        raise InputError(f"{path}: cannot be drawn; give a file that ends in one of {known}")
    if suffix != ".ply":
        return "Gaussians" if suffix in (*SPLAT_SUFFIXES, MOVING_SUFFIX) else "mesh"
    return ply_kind(path)


def _mesh(path: Path, subject: SubjectOptions) -> _Found:
    mesh = read_mesh(path)
    facts, numbers = _mesh_facts(mesh)
    detail = f"mesh, size {_size(mesh.vertices)}"
    return _Found("mesh", [MeshItem(mesh)], facts, numbers, path.name, detail)


def _points(path: Path, subject: SubjectOptions) -> _Found:
    cloud = _point_cloud(path)
    size = _size(cloud.positions.numpy())
    facts, numbers = [("points", f"{len(cloud):,}"), ("size", size)], {"points": len(cloud)}
    items: list[Item] = [PointsItem(cloud)]
    return _Found("points", items, facts, numbers, path.name, f"points, size {size}")


def _gaussians(path: Path, subject: SubjectOptions) -> _Found:
    if is_moving_file(path):
        moving = read_moving(path)
        report, cloud = moving.report, moving.splats.at(SHOWN_TIME)
    else:
        read = read_splats(path)
        report, cloud = read.report, read.cloud
    item = GaussiansItem(cloud, subject.most_gaussians)
    if not len(item.extent()):
        raise DataError(f"{path}: none of its Gaussians is opaque enough to be drawn")
    facts, numbers = [("Gaussians", report.line())], {"gaussians": len(cloud)}
    return _Found("Gaussians", [item], facts, numbers, path.name, report.format)


_READERS: dict[str, Callable[[Path, SubjectOptions], _Found]] = {
    "mesh": _mesh,
    "points": _points,
    "Gaussians": _gaussians,
}


def _judged(path: Path, truth: Path, subject: SubjectOptions) -> _Found:
    """A mesh held against the truth."""
    mesh = read_mesh(path)
    error = mesh_error(mesh, read_truth(truth), threshold=subject.threshold)
    items = error_items(mesh, error, limit=subject.error_limit)
    facts, numbers = _mesh_facts(mesh)
    scores = error.scores
    detail = f"against {truth.name}: {scores.short()}"
    numbers |= {"truth": str(truth), "scores": scores.to_dict()}
    return _Found("mesh", items, facts + scores.lines(), numbers, path.name, detail)


def _mesh_facts(mesh: TriangleMesh) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    counts = {"vertices": len(mesh.vertices), "triangles": len(mesh.triangles)}
    text = f"{counts['vertices']:,} vertices, {counts['triangles']:,} triangles"
    return [("mesh", text), ("size", _size(mesh.vertices))], counts


def _point_cloud(path: Path) -> PointCloud:
    positions, colors = read_points(path)
    if not len(positions):
        raise DataError(f"{path}: holds no points that are finite; write it again")
    return PointCloud(
        torch.from_numpy(positions), None if colors is None else torch.from_numpy(colors)
    )


def _scene_items(scene: Scene, *, move: Similarity | None = None) -> list[Item]:
    """Points, cameras and bounds, moved into another frame."""
    move = move or Similarity.identity()
    cameras = scene.cameras.to("cpu", dtype=torch.float64)
    cameras = cameras.with_poses(move.apply_poses(cameras.camera_to_world))
    bounds = BoundsItem(scene.bounds.double().cpu(), move=move)
    items: list[Item] = []
    if scene.points is not None and len(scene.points):
        around = np.concatenate([bounds.extent(), cameras.positions.numpy()])
        items.append(PointsItem(_near(scene.points, move, around), fitted=False))
    return [*items, CamerasItem(cameras, scene.splits), bounds]


def _near(points: PointCloud, move: Similarity, around: np.ndarray) -> PointCloud:
    """The points near a box: those far away say nothing in a picture."""
    positions = move.apply(points.positions.double().cpu())
    low, high = torch.from_numpy(around.min(axis=0)), torch.from_numpy(around.max(axis=0))
    room = _ROOM * (high - low).amax()
    kept = ((positions >= low - room) & (positions <= high + room)).all(dim=1)
    colors: Tensor | None = None if points.colors is None else points.colors.cpu()[kept]
    return PointCloud(positions[kept], colors)


def _drawn(
    found: _Found,
    out: str | Path | None,
    *,
    options: PictureOptions | None,
    subject: SubjectOptions | None,
) -> SubjectReport:
    """The picture, with words and directions where the options leave them open."""
    options = options or PictureOptions()
    title, detail = options.title or found.title, options.subtitle or found.detail
    options = replace(options, title=title, subtitle=detail)
    index = None if subject is None else subject.camera
    shown = next((item.cameras for item in found.items if isinstance(item, CamerasItem)), None)
    if index is not None and shown is None:
        raise InputError("camera: no capture is given whose camera could be taken")
    view = None
    if shown is not None and len(shown):
        if index is not None:
            view = PictureView.of_camera(shown, index, options.size)
        forward = _direction(shown.forwards.double().mean(dim=0))
        up = options.up or _direction(upward(shown))
        options = replace(options, up=up, toward=options.toward or forward)
    report = picture(found.items, out=out, view=view, options=options)
    numbers = {"kind": found.kind, **found.numbers, "picture": None if out is None else str(out)}
    return SubjectReport(report, found.kind, found.facts, numbers)


def _direction(vector: Tensor) -> tuple[float, float, float] | None:
    """None where a mean of directions has come out as nothing."""
    x, y, z = vector.tolist()
    return (x, y, z) if float(vector.norm()) > 1e-6 else None


def _size(points: np.ndarray) -> str:
    return " x ".join(f"{side:.4g}" for side in np.ptp(points, axis=0))
