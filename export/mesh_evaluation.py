"""The mesh of a run, or another mesh of its scene, scored against the true surface: what cameras
see of both (`mesh_regions.py`), by the distances of `mesh_scores.py`, in the unit of the capture;
and the normals of renderings against the true ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lumigraph.core import Scene
from lumigraph.core.errors import DataError, InputError
from lumigraph.datasets.mesh_reading import Points, TriangleMesh, read_mesh
from lumigraph.datasets.mesh_sampling import triangle_normals
from lumigraph.training.files import write_json
from lumigraph.training.run import MESH, MESH_PICTURE

from .mesh_export import Stages, mesh
from .mesh_options import MeshOptions
from .mesh_rays import RayCaster
from .mesh_regions import OnView, RegionOptions, camera_regions
from .mesh_scores import DEFAULT_SAMPLES, LEAST_SAMPLES, MeshError, check_distances, mesh_error
from .mesh_targets import TruePoints
from .mesh_truth import read_truth
from .render_source import Renders

if TYPE_CHECKING:
    from lumigraph.training import Run

_SAME_SIZE = 100.0
"""Ratio of the sizes of two surfaces from which they cannot be the same thing in the same unit."""
_OPAQUE = 0.5


@dataclass(frozen=True)
class MeshScoreOptions:
    """How a mesh is scored; distances in the unit of the capture. Checked on construction."""

    samples: int = DEFAULT_SAMPLES
    """Points spread over each surface."""
    spacing: float | None = None
    """Distance of these points instead."""
    threshold: float | None = None
    """For precision, recall and F-score; None takes 1 % of the diagonal of the truth."""
    cap: float | None = None
    """Larger distances are left out of the means; None counts all."""
    regions: RegionOptions = field(default_factory=RegionOptions)
    """What counts."""
    split: str = "test"
    """Whose views are asked for normals."""

    def __post_init__(self) -> None:
        check_distances(spacing=self.spacing, threshold=self.threshold, cap=self.cap)
        if self.samples < LEAST_SAMPLES:
            raise InputError(f"samples {self.samples}: expected at least {LEAST_SAMPLES}")


@dataclass(frozen=True, eq=False)
class MeshEvaluation:
    """A mesh that was scored against the truth."""

    mesh: TriangleMesh
    """In the capture's own frame."""
    truth: TriangleMesh | TruePoints
    error: MeshError
    numbers: dict[str, Any]
    """What `evaluate.json` keeps under `mesh`: file, truth, protocol, the scores, normals."""
    name: str = "mesh"
    """Of the run, or of the file that was judged in place of its mesh."""

    def lines(self) -> list[tuple[str, str]]:
        """Name and value of each fact, for people."""
        truth, protocol = Path(self.numbers["truth"]).name, str(self.numbers["protocol"])
        rows = [("truth", truth), ("what counts", protocol), *self.error.scores.lines()]
        normals = self.numbers.get("normal_error_degrees")
        if normals:
            text = f"{normals['mean']:.2f} degrees mean, {normals['median']:.2f} median"
            where = f"{normals['views']} {normals['split']} views"
            rows.append(("rendered normals", f"{text}, {where}"))
        return rows


def evaluate_mesh(
    run: Run,
    truth: str | Path | TriangleMesh | TruePoints,
    *,
    mesh_file: str | Path | None = None,
    options: MeshScoreOptions | None = None,
    mesh_options: MeshOptions | None = None,
    device: str | None = None,
    on_progress: Stages | None = None,
) -> MeshEvaluation:
    """Score the mesh of a run: `lg.export.evaluate_mesh(run, "truth.ply")`.

    The scores join `evaluate.json` under `mesh`; the mesh is kept as `renders/mesh.ply`.

    Args:
        run: a `training.Run`.
        truth: a mesh (.ply, .obj, .glb) or points (.ply), in the frame and unit of the capture; or
            what `true_surface` has read.
        mesh_file: a mesh in that frame to be judged in place of the run's.
        options: what is compared, and how.
        mesh_options: how the run's mesh is made.
        device: where to render; None takes that of the run's settings.
        on_progress: told the stage, how much of it is done, and of how much.

    Raises:
        InputError and its kinds: files that cannot be used, a truth that lies elsewhere or is of
        another size than the mesh, nothing that counts; see `mesh` and `mesh_error`, too.
    """
    options, started = options or MeshScoreOptions(), time.monotonic()
    scene = run.scene()
    known = true_surface(truth, scene)
    given = None if mesh_file is None else Path(mesh_file)
    if given is not None and mesh_options is not None:
        raise InputError(f"{given}: is judged as it is; leave out how a mesh would be made")
    file = given or Path(run.path) / MESH
    # A picture of earlier scores must not stand beside new ones.
    (Path(run.path) / MESH_PICTURE).unlink(missing_ok=True)
    if given is None:
        _write(run, file, mesh_options or MeshOptions(), device, on_progress)
    judged = read_mesh(file)
    error, words = seen_mesh_error(judged, known, scene, options=options, on_progress=on_progress)
    numbers: dict[str, Any] = {
        "file": str(file),
        "truth": known.name,
        "protocol": words,
        **error.scores.to_dict(),
    }
    if given is None and isinstance(known, TriangleMesh):
        numbers["normal_error_degrees"] = normal_error(
            run.model(device),
            scene,
            known,
            split=options.split,
            on_view=_stage(on_progress, "normals"),
        )
    numbers["seconds"] = round(time.monotonic() - started, 3)
    name = given.name if given is not None else Path(run.path).resolve().name
    evaluation = MeshEvaluation(judged, known, error, numbers, name)
    run.add_timing("mesh evaluation", numbers["seconds"])
    kept = {**numbers, "lines": evaluation.lines()}
    write_json(Path(run.path) / "evaluate.json", {**(run.evaluation() or {}), "mesh": kept})
    return evaluation


def true_surface(
    truth: str | Path | TriangleMesh | TruePoints, scene: Scene
) -> TriangleMesh | TruePoints:
    """The truth of a scene, read if need be; refused where it lies elsewhere or is of another size.

    Raises:
        InputError and its kinds: see `read_truth`. DataError: it does not lie on the scene.
    """
    known = read_truth(truth) if isinstance(truth, str | Path) else truth
    corners = scene.bounds.double().cpu()
    choice = torch.tensor([[number >> axis & 1 for axis in range(3)] for number in range(8)])
    bounds = scene.to_source(corners.gather(0, choice)).numpy()
    _check_boxes(known, bounds, "the bounds of the scene")
    return known


def seen_mesh_error(
    judged: TriangleMesh,
    truth: TriangleMesh | TruePoints,
    scene: Scene,
    *,
    options: MeshScoreOptions | None = None,
    on_progress: Stages | None = None,
) -> tuple[MeshError, str]:
    """A mesh against the truth, both in the capture's own frame, where the cameras of a scene look;
    and in words how.

    Raises:
        InputError and its kinds: see `evaluate_mesh`.
    """
    options = options or MeshScoreOptions()
    _check_boxes(truth, judged.vertices, judged.name)
    regions = camera_regions(
        scene,
        judged,
        truth,
        options=options.regions,
        on_view=_stage(on_progress, "looking"),
    )
    error = mesh_error(
        judged,
        truth,
        samples=options.samples,
        spacing=options.spacing,
        threshold=options.threshold,
        cap=options.cap,
        regions=regions,
    )
    density = f"{options.samples:,} points on each surface"
    if options.spacing is not None:
        density = f"points {options.spacing:g} apart"
    cap = "no cap" if options.cap is None else f"distances beyond {options.cap:g} left out"
    return error, f"{regions.words}; {density}; {cap}"


def normal_error(
    model: Renders,
    scene: Scene,
    truth: TriangleMesh,
    *,
    split: str = "test",
    on_view: OnView | None = None,
) -> dict[str, Any] | None:
    """Angle between the normals that a model renders and those of the true triangles, in degrees,
    over the pixels in which both show a surface, inside the outline where there is one.

    Args:
        truth: in the capture's own frame.
        split: whose views are rendered.
        on_view: told after each view how many are done, and of how many.

    Returns:
        mean, median, pixels, views, split; None where the split is empty, or the model has no
        normals.
    """
    indices = scene.splits[split].tolist() if split in scene.splits else []
    moved = scene.normalization.apply(torch.from_numpy(truth.vertices)).numpy()
    caster, normals = RayCaster(moved, truth.triangles), triangle_normals(moved[truth.triangles])
    parts: list[Points] = []
    for done, index in enumerate(indices, start=1):
        frame = model.render(scene.cameras[index], channels=("color", "opacity", "depth", "normal"))
        if frame.normal is None:
            return None
        rays = scene.cameras[index].to("cpu", dtype=torch.float64).image_rays(0)
        triangles = caster.first_hits(rays.origins.numpy(), rays.directions.numpy()).triangles
        rendered = frame.normal.reshape(-1, 3).double().numpy()
        length = np.linalg.norm(rendered, axis=1)
        both = (frame.opacity.reshape(-1).numpy() >= _OPAQUE) & (triangles >= 0) & (length > 0)
        outline = scene.outline(index)
        if outline is not None:
            both &= outline.reshape(-1).numpy()
        true = normals[triangles[both]]
        # the side that looks at the camera, whatever the order of the corners
        away = (true * rays.directions.numpy()[both]).sum(axis=1) > 0
        true = np.where(away[:, None], -true, true)
        cosine = (rendered[both] * true).sum(axis=1) / length[both]
        parts.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
        if on_view is not None:
            on_view(done, len(indices))
    angles = np.concatenate(parts) if parts else np.empty(0)
    if not len(angles):
        return None
    return {
        "mean": float(angles.mean()),
        "median": float(np.median(angles)),
        "pixels": len(angles),
        "views": len(indices),
        "split": split,
    }


def _write(
    run: Run, file: Path, options: MeshOptions, device: str | None, on_progress: Stages | None
) -> None:
    """The mesh of a run, over an earlier one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    mesh(
        run,
        out=file,
        device=device,
        options=replace(options, overwrite=True),
        on_progress=on_progress,
    )


def _stage(tell: Stages | None, name: str) -> OnView | None:
    """What tells one stage."""
    return None if tell is None else lambda done, total: tell(name, done, total)


def _check_boxes(truth: TriangleMesh | TruePoints, other: Points, what: str) -> None:
    """Refuse a truth whose box does not touch that of other points, or is of another size."""
    points = truth.vertices if isinstance(truth, TriangleMesh) else truth.positions
    boxes = [(x.min(axis=0), x.max(axis=0)) for x in (points, other)]
    sizes = [float(np.linalg.norm(high - low)) for low, high in boxes]
    (low, high), (other_low, other_high) = boxes
    apart = bool((low > other_high).any() or (high < other_low).any())
    ratio = sizes[0] / max(sizes[1], 1e-300)
    if apart or not 1 / _SAME_SIZE < ratio < _SAME_SIZE:
        raise DataError(
            f"{truth.name}: does not lie on {what}: it is {sizes[0]:.4g} large around "
            f"{_short((low + high) / 2)}, and that is {sizes[1]:.4g} large around "
            f"{_short((other_low + other_high) / 2)}; frames or units differ: give the truth in "
            "those of the capture"
        )


def _short(place: Sequence[float] | Points) -> str:
    return "(" + ", ".join(f"{x:.4g}" for x in place) + ")"
