"""Where a mesh and the truth are compared: on what training cameras see, inside the outlines of the
object, and in observed space.

A point of a surface is seen where it lies in the picture of a camera and the ray to it meets
nothing of its own surface before. Both surfaces are asked so: what nobody sees, such as
undersides, counts on neither side. A truth of points hides nothing: for it, being in the picture
is all that can be asked. With alpha the truth counts inside the visual hull of the outlines
alone, since it may hold what was not to be learnt (the ground, say); the mesh counts outside of
it as well, so that floating parts do. Masks without alpha say in which pixels looks count, of
both surfaces; points must lie inside their visual hull. Letters: N points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lumigraph.core import Scene
from lumigraph.core.errors import DataError, InputError

from .mesh_rays import RayCaster
from .mesh_reading import Points, TriangleMesh
from .mesh_scores import Region, Regions
from .mesh_targets import TruePoints
from .visual_hull import outside_hull, pixel_places

TOLERANCE = 2e-4
"""Of the distance to the camera: what is met so little before a point is the point."""
OnView = Callable[[int, int], None]


@dataclass(frozen=True)
class RegionOptions:
    """What counts. Checked on construction."""

    seen_by: int = 1
    """Training cameras that must see a point of a surface, 0 to 100000; 0 asks no camera."""
    margin: int = 8
    """Pixels by which outlines are widened for the truth, 0 to 10000."""
    observation: Path | None = None
    """File of observed space of the DTU set (ObsMask*.mat): voxels in which the mesh counts."""
    plane: Path | None = None
    """File of the ground plane of the DTU set (Plane*.mat): the truth counts above it."""

    def __post_init__(self) -> None:
        for name, most in (("seen_by", 100_000), ("margin", 10_000)):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise InputError(f"{name} {value}: expected 0 to {most}")


def camera_regions(
    scene: Scene,
    mesh: TriangleMesh,
    truth: TriangleMesh | TruePoints,
    *,
    options: RegionOptions | None = None,
    on_view: OnView | None = None,
) -> Regions:
    """Regions of surfaces that lie in the capture's own frame.

    Args:
        scene: whose training cameras look.
        on_view: told after each view how many are done, and of how many.

    Raises:
        DataError: a file of observed space that cannot be used. MissingExtraError: embreex.
    """
    options = options or RegionOptions()
    of_mesh: list[Region] = []
    of_truth: list[Region] = []
    words: list[str] = []
    count = len(scene.split("train"))
    if options.seen_by > count:
        raise InputError(f"seen_by {options.seen_by}: there are {count} training cameras")
    if options.seen_by:
        of_mesh.append(_Seen(scene, mesh, options.seen_by, on_view))
        of_truth.append(_Seen(scene, truth, options.seen_by, on_view))
        words.append(f"seen by {options.seen_by} or more of {count} training cameras")
        if scene.has_alpha or (scene.masks is not None and isinstance(truth, TruePoints)):
            of_truth.append(_InHull(scene, options.margin))
            words.append(f"truth inside the outlines widened by {options.margin} pixels")
    if options.observation is not None:
        of_mesh.append(ObservedSpace.read(options.observation))
        words.append(f"mesh inside {options.observation.name}")
    if options.plane is not None:
        of_truth.append(AbovePlane.read(options.plane))
        words.append(f"truth above {options.plane.name}")
    return Regions(_all_of(of_mesh), _all_of(of_truth), ", ".join(words) or Regions().words)


def _all_of(regions: list[Region]) -> Region | None:
    """Where all of them hold; the later ones are asked about what the earlier ones leave."""
    if not regions:
        return None

    def holds(points: Points) -> NDArray[np.bool_]:
        left = np.arange(len(points))
        for region in regions:
            left = left[region(points[left])]
        kept = np.zeros(len(points), bool)
        kept[left] = True
        return kept

    return holds


@dataclass(frozen=True, eq=False)
class _InHull:
    scene: Scene
    pixels: int

    def __call__(self, points: Points) -> NDArray[np.bool_]:
        return ~outside_hull(self.scene, _in_scene(self.scene, points), pixels=self.pixels)


class _Seen:
    """What enough training cameras see of a surface, or would see of points."""

    def __init__(
        self,
        scene: Scene,
        surface: TriangleMesh | TruePoints,
        least: int,
        on_view: OnView | None,
    ) -> None:
        self._scene, self._least, self._tell = scene, least, on_view
        self._caster = None
        if isinstance(surface, TriangleMesh):
            vertices = _in_scene(scene, surface.vertices)
            self._caster = RayCaster(vertices, surface.triangles)

    def __call__(self, points: Points) -> NDArray[np.bool_]:
        scene = self._scene
        cameras = scene.cameras.to("cpu", dtype=torch.float64)
        indices = scene.split("train").tolist()
        places = torch.from_numpy(_in_scene(scene, points))
        counts = np.zeros(len(points), np.int64)
        left = np.arange(len(points))
        for done, index in enumerate(indices, start=1):
            # masks say which pixels count; alpha says what is empty, where floating parts count too
            mask = None if scene.masks is None or scene.has_alpha else scene.masks.load(index)
            counts[left] += self._sees(cameras[index], places[torch.from_numpy(left)], mask)
            left = left[counts[left] < self._least]
            if self._tell is not None:
                self._tell(done, len(indices))
        return counts >= self._least

    def _sees(
        self, camera: Any, points: torch.Tensor, mask: torch.Tensor | None
    ) -> NDArray[np.bool_]:
        rows, columns, seen = pixel_places(camera, points)
        if mask is not None:
            seen &= mask.numpy()[rows, columns]
        if self._caster is None or not seen.any():
            return seen
        near = points[torch.from_numpy(seen)]
        pixels, _ = camera.project(near, 0)
        rays = camera.rays(torch.zeros(len(near), dtype=torch.int64), pixels)
        along = ((near - rays.origins) * rays.directions).sum(dim=1).numpy()
        met = self._caster.first_hits(rays.origins.numpy(), rays.directions.numpy()).distances
        seen[seen] = met >= along * (1 - TOLERANCE)
        return seen


def _in_scene(scene: Scene, points: Points) -> Points:
    """Points of the capture's own frame (N, 3) in the scene frame."""
    return np.asarray(scene.normalization.apply(torch.from_numpy(points)).numpy(), np.float64)


@dataclass(frozen=True, eq=False)
class ObservedSpace:
    """Voxels that were observed in a scan of the DTU set."""

    observed: NDArray[np.bool_]
    """(X, Y, Z)"""
    corner: Points
    """(3,) middle of the first voxel."""
    voxel: float
    """Side of a voxel."""

    @classmethod
    def read(cls, path: str | Path) -> ObservedSpace:
        """A file ObsMask*.mat with the variables ObsMask, BB and Res.

        Raises:
            DataError: missing, damaged, or without them.
        """
        values = _variables(Path(path), ("ObsMask", "BB", "Res"))
        observed, box, voxel = (np.asarray(values[name]) for name in ("ObsMask", "BB", "Res"))
        if observed.ndim != 3 or box.shape != (2, 3) or voxel.size != 1 or not voxel.item() > 0:
            raise DataError(f"{path}: ObsMask must be X x Y x Z, BB 2 x 3 and Res a length above 0")
        return cls(observed.astype(bool), box[0].astype(np.float64), float(voxel.item()))

    def __call__(self, points: Points) -> NDArray[np.bool_]:
        """(N,) which of points (N, 3) lie in an observed voxel."""
        places = np.rint((points - self.corner) / self.voxel)
        inside = np.asarray(((places >= 0) & (places < self.observed.shape)).all(axis=1))
        x, y, z = np.where(inside[:, None], places, 0).astype(np.int64).T
        return inside & self.observed[x, y, z]


@dataclass(frozen=True, eq=False)
class AbovePlane:
    """One side of a plane."""

    plane: Points
    """(4,) a, b, c, d: points with a x + b y + c z + d > 0 count."""

    @classmethod
    def read(cls, path: str | Path) -> AbovePlane:
        """A file Plane*.mat with the variable P.

        Raises:
            DataError: missing, damaged, or without it.
        """
        plane = np.asarray(_variables(Path(path), ("P",))["P"], np.float64).reshape(-1)
        if plane.shape != (4,) or not np.isfinite(plane).all():
            raise DataError(f"{path}: P must be four finite numbers; got {plane.shape}")
        return cls(plane)

    def __call__(self, points: Points) -> NDArray[np.bool_]:
        """(N,) which of points (N, 3) lie above."""
        return np.asarray(points @ self.plane[:3] + self.plane[3] > 0)


def _variables(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    from scipy import io

    if not path.is_file():
        raise DataError(f"{path}: no such file; give a .mat file of the DTU set")
    try:
        values = dict(io.loadmat(path))
    except Exception as error:  # scipy raises whatever its parser meets
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"{path}: not a readable .mat file ({reason})") from error
    missing = [name for name in names if name not in values]
    if missing:
        raise DataError(f"{path}: has no {', '.join(missing)}; give a .mat file of the DTU set")
    return values
