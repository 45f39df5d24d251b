"""Solids to be fitted: a mesh, with the true signed distance of any point.

Distances come from NVIDIA Warp, which looks closest triangles up in a tree, on the CPU. All that a
`Solid` is asked is in grid space: its bounds are the unit cube. Letters: N points, T triangles.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lumigraph.core.axes import AxisName
from lumigraph.core.errors import DataError, InputError, require
from lumigraph.core.scene import cube
from lumigraph.core.transforms import axis_of
from lumigraph.datasets.mesh_reading import TriangleMesh, read_mesh
from lumigraph.datasets.mesh_sampling import SurfaceSampler

from .mesh_checks import edges, merged, signed_volume
from .target_scene import CUBE_MARGIN, TargetScene, cameras_around

Signs = Literal["normals", "winding"]
REACH = 4.0  # grid units: farther than any two points that are asked about
CHUNK = 2**18
MOST_TRIANGLES = 50_000_000


class Solid:
    """A mesh in its bounds.

    Args:
        mesh: in the scene frame.
        bounds: (2, 3) a cube around it.
        signs: what is inside: by the `normals` of a closed surface, or by how often any surface
            winds around a point.

    Raises:
        DataError: the mesh is open, without volume or without area.
        MissingExtraError: Warp is not installed.

    Example:
        >>> corners = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
        >>> mesh = TriangleMesh.of(corners, [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
        >>> solid = Solid(mesh, torch.tensor([[-1.0] * 3, [1.0] * 3]))
        >>> round(float(solid.distances(torch.tensor([[0.5, 0.5, 0.25]]))[0]), 4)
        0.25
    """

    def __init__(self, mesh: TriangleMesh, bounds: Tensor, *, signs: Signs = "normals") -> None:
        self.bounds, self.signs, self.name = bounds, signs, mesh.name
        vertices, triangles = merged(mesh.vertices, mesh.triangles)
        if len(triangles) == 0:
            raise DataError(f"{mesh.name}: its triangles have no area; give one with a surface")
        self.notes: list[str] = []
        if signs == "normals":
            triangles = self._closed(vertices, triangles)
        low, side = bounds[0].double().numpy(), float(bounds[1, 0] - bounds[0, 0])
        self.mesh = TriangleMesh.of((vertices - low) / side, triangles, name=mesh.name)
        """In grid space, vertices merged."""
        _warp()

    def _closed(self, vertices: NDArray[Any], triangles: NDArray[np.int64]) -> NDArray[np.int64]:
        """The triangles facing outwards."""
        found = edges(triangles)
        if found.open or found.crowded:
            what = f"{found.open:,} of its {found.total:,} edges are open"
            if not found.open:
                what = f"more than two triangles meet at {found.crowded:,} of its edges"
            raise DataError(
                f"{self.name}: {what}, so that nothing says what is inside; close the mesh, or "
                "take signs by winding numbers with --set signs=winding"
            )
        volume = signed_volume(vertices, triangles)
        if abs(volume) < 1e-12 * float(np.ptp(vertices, axis=0).max()) ** 3:
            raise DataError(f"{self.name}: has no volume; give a mesh with an inside")
        if volume > 0:
            return triangles
        self.notes.append(f"{Path(self.name).name}: its triangles face inwards; they are turned")
        return triangles[:, ::-1].copy()

    def distances(self, points: Tensor) -> Tensor:
        """(N, 3) in grid space -> (N,) signed distance in grid units, negative inside; float32 on
        the points' device."""
        flat = points.detach().cpu().float().contiguous().numpy()
        found = np.empty(len(flat), np.float32)
        with _quiet() as warp:
            from .warp_kernels import signed_by_normals, signed_by_winding

            kernel = signed_by_normals if self.signs == "normals" else signed_by_winding
            for start in range(0, len(flat), CHUNK):
                part = flat[start : start + CHUNK]
                target = warp.zeros(len(part), dtype=float, device="cpu")
                places = warp.array(part, dtype=warp.vec3, device="cpu")
                inputs = [self._tree.id, places, REACH]
                warp.launch(kernel, len(part), inputs=inputs, outputs=[target], device="cpu")
                found[start : start + CHUNK] = target.numpy()
        return torch.from_numpy(found).to(points.device)

    def surface(self, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """Points spread evenly over the surface and the normals of their triangles, both
        (count, 3) float32 in grid space."""
        points, chosen = self._sampler.draw(count, seed=seed)
        normals = self._sampler.normals(chosen)
        return torch.from_numpy(points).float(), torch.from_numpy(normals).float()

    @cached_property
    def _sampler(self) -> SurfaceSampler:
        return SurfaceSampler(self.mesh)

    @cached_property
    def _tree(self) -> Any:
        with _quiet() as warp:
            return warp.Mesh(
                points=warp.array(
                    self.mesh.vertices.astype(np.float32), dtype=warp.vec3, device="cpu"
                ),
                indices=warp.array(
                    self.mesh.triangles.astype(np.int32).reshape(-1), dtype=int, device="cpu"
                ),
                support_winding_number=self.signs == "winding",
            )


def load_solid(path: str | Path, *, signs: Signs = "normals", up: AxisName = "y") -> TargetScene:
    """Read a mesh (.obj, .ply, .glb) as a scene in the mesh's own frame, with cameras around it.

    Args:
        signs: see `Solid`.
        up: what points up in the file.

    Raises:
        InputError: another kind of file. DataError: missing, damaged, without triangles, open.
        MissingExtraError: trimesh or Warp is not installed.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        raise InputError(f"{file}: is a folder; name a mesh in it")
    mesh = read_mesh(file)
    if len(mesh.triangles) > MOST_TRIANGLES:
        raise DataError(
            f"{file}: has {len(mesh.triangles):,} triangles, at most {MOST_TRIANGLES:,} can be "
            "looked up; simplify it"
        )
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    longest = float((high - low).max())
    if not longest > 0:
        raise DataError(f"{file}: all its vertices are at one place; give one with a surface")
    bounds = cube(torch.from_numpy((low + high) / 2).float(), longest * CUBE_MARGIN)
    solid = Solid(mesh, bounds, signs=signs)
    cameras = cameras_around(bounds, up=axis_of(up))
    return TargetScene(
        name=file.stem,
        source=file,
        cameras=cameras,
        splits={"train": torch.arange(len(cameras))},
        bounds=bounds,
        notes=solid.notes,
        target=solid,
    )


def _warp() -> ModuleType:
    return require("warp", extra="fitting")


@contextlib.contextmanager
def _quiet() -> Iterator[Any]:
    """Warp without its greeting, and without complaints that there is no GPU."""
    warp: Any = _warp()
    level, warp.config.log_level = warp.config.log_level, warp.LOG_ERROR
    try:
        yield warp
    finally:
        warp.config.log_level = level
