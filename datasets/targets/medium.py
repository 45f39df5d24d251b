"""Media to be fitted: fog and clouds as density and albedo on a grid.

Everything a `Medium` is asked is in grid space: the grid lies in the middle of the unit cube, its
longest axis as long as the cube. Letters: X Y Z grid, N points, C cells.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lumigraph.core.axes import AxisName
from lumigraph.core.errors import DataError, InputError
from lumigraph.core.scene import cube
from lumigraph.core.shapes import check_shapes
from lumigraph.core.transforms import axis_of

from .clouds import BUILTIN_MEDIA, built_in_grid
from .target_scene import TargetScene, cameras_around

BUILTIN_PREFIX = "builtin:"
MEDIUM_SUFFIXES = (".npy", ".npz")
SIDE = 2.0  # of the bounds, in scene units
MOST_CELLS = 32  # along an axis of the majorants
PLAIN_ALBEDO = 0.9


@dataclass(frozen=True, eq=False)
class Medium:
    """Density and albedo between the middles of voxels, trilinear; nothing beyond the grid.

    >>> medium = Medium(torch.ones(4, 4, 4), torch.full((4, 4, 4, 3), 0.5))
    >>> [value.tolist() for value in medium.sample(torch.tensor([[0.5, 0.5, 0.5]]))]
    [[1.0], [[0.5, 0.5, 0.5]]]
    """

    density: Tensor
    """(X, Y, Z) float32, at least 0: extinction over the side of the cube."""
    albedo: Tensor
    """(X, Y, Z, 3) float32 in [0, 1]: what part of the light is scattered and not swallowed."""
    extent: Tensor = field(init=False)
    """(3,) of the grid, in grid units."""

    def __post_init__(self) -> None:
        check_shapes(("density", self.density, "X Y Z"), ("albedo", self.albedo, "X Y Z 3"))
        shape = torch.tensor(self.density.shape, dtype=torch.float32)
        object.__setattr__(self, "extent", shape / shape.max())

    @cached_property
    def _values(self) -> Tensor:
        """(1, 4, Z, Y, X) density and albedo."""
        return torch.cat([self.density[..., None], self.albedo], dim=3).permute(3, 2, 1, 0)[None]

    @property
    def peak(self) -> float:
        """The largest density."""
        return float(self.density.max())

    def sample(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3) in grid space -> density (N,) and albedo (N, 3), on the CPU."""
        place = (points - 0.5) / self.extent * 2  # -1 to 1 over the grid
        found = torch.nn.functional.grid_sample(
            self._values,
            place.reshape(1, 1, 1, -1, 3),
            padding_mode="border",
            align_corners=False,
        )[0, :, 0, 0].T
        inside = (place.abs() <= 1).all(dim=1)
        return torch.where(inside, found[:, 0], 0.0), found[:, 1:]

    @cached_property
    def majorants(self) -> Tensor:
        """(C, C, C) by x, y, z: no density in a cell of the unit cube is larger."""
        longest = max(self.density.shape)
        count = max(1, min(MOST_CELLS, longest // 2))
        most = self.density
        for axis, size in enumerate(self.density.shape):
            middles = ((torch.arange(size) + 0.5) / size - 0.5) * self.extent[axis] + 0.5
            shape = list(most.shape)
            shape[axis] = count
            reduced = torch.zeros(shape)
            # a voxel counts one voxel to each side, and a little for rounding: hardly a cell
            for shift in (-1.001, 0.0, 1.001):
                cell = ((middles + shift / longest) * count).floor().long().clamp(0, count - 1)
                along = [-1 if k == axis else 1 for k in range(3)]
                reduced.scatter_reduce_(axis, cell.view(along).expand_as(most), most, "amax")
            most = reduced
        return most


def load_medium(
    source: str | Path, *, density_scale: float = 1.0, up: AxisName = "z", seed: int = 0
) -> TargetScene:
    """Read a medium as a scene: a cube of side 2 about the origin, with cameras around.

    Args:
        source: "builtin:cloud", "builtin:fog", a .npy file with densities (X, Y, Z) or densities
            and albedos (X, Y, Z, 4), or a .npz file with `density` and perhaps `albedo`
            (X, Y, Z, 3).
        density_scale: extinction over the longest axis of a density of 1.
        up: what points up.
        seed: of the built-in ones.

    Raises:
        InputError: another kind of file. DataError: missing, damaged, empty or out of range.
    """
    name = str(source)
    if name.startswith(BUILTIN_PREFIX):
        short = name.removeprefix(BUILTIN_PREFIX)
        if short not in BUILTIN_MEDIA:
            known = ", ".join(BUILTIN_PREFIX + each for each in BUILTIN_MEDIA)
            raise DataError(f"{name}: no such built-in medium; available: {known}")
        density, albedo = built_in_grid(short, seed=seed)
    else:
        file = Path(source).expanduser()
        density, albedo = _checked(file, *_read(file))
        short = file.stem
    bounds = cube(torch.zeros(3), SIDE)
    cameras = cameras_around(bounds, up=axis_of(up))
    return TargetScene(
        name=short,
        source=source,
        cameras=cameras,
        splits={"train": torch.arange(len(cameras))},
        bounds=bounds,
        target=Medium(density * density_scale, albedo),
    )


def _read(file: Path) -> tuple[NDArray[np.generic], NDArray[np.generic] | None]:
    """Density and albedo as the file has them."""
    if file.suffix.lower() == ".vdb":
        raise InputError(
            f"{file}: OpenVDB files cannot be read: PyPI has no package for this Python; write the "
            "grid as a .npz file with `density` and perhaps `albedo`"
        )
    if file.is_dir():
        raise InputError(f"{file}: is a folder; name a grid in it ({', '.join(MEDIUM_SUFFIXES)})")
    if not file.is_file():
        raise DataError(f"{file}: no such file; check the path, or use builtin:cloud")
    if file.suffix.lower() not in MEDIUM_SUFFIXES:
        raise InputError(f"{file}: is no grid; use one of {', '.join(MEDIUM_SUFFIXES)}")
    try:
        content = np.load(file, allow_pickle=False)
        if isinstance(content, np.ndarray):
            if content.ndim == 4 and content.shape[3] == 4:
                return content[..., 0], content[..., 1:]
            return content, None
        with content:
            if "density" not in content:
                listed = ", ".join(content) or "nothing"
                raise DataError(f"{file}: holds {listed}; expected `density`")
            return content["density"], content.get("albedo")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: not a readable NumPy file; write it again") from error


def _checked(
    file: Path, density: NDArray[np.generic], albedo: NDArray[np.generic] | None
) -> tuple[Tensor, Tensor]:
    """As tensors that a `Medium` takes."""
    if density.dtype.kind not in "fiu" or density.ndim != 3 or min(density.shape) < 2:
        raise DataError(
            f"{file}: densities are {density.dtype} {density.shape}; expected numbers (X, Y, Z), "
            "at least 2 along each axis, or (X, Y, Z, 4) with albedos"
        )
    if albedo is not None and albedo.shape != (*density.shape, 3):
        wanted = (*density.shape, 3)
        raise DataError(f"{file}: albedos are {albedo.shape}; expected {wanted}")
    dense = torch.from_numpy(density.astype(np.float32))
    for what, values in (("densities", density), ("albedos", albedo)):
        if values is not None and not np.isfinite(values.astype(np.float64)).all():
            raise DataError(f"{file}: some {what} are not finite; write it again")
    if float(dense.min()) < 0:
        raise DataError(f"{file}: densities begin at {float(dense.min()):g}; expected 0 or more")
    if float(dense.max()) == 0:
        raise DataError(f"{file}: all densities are 0; there is nothing to fit")
    if albedo is None:
        return dense, torch.full((*dense.shape, 3), PLAIN_ALBEDO)
    shade = torch.from_numpy(albedo.astype(np.float32))
    if not 0 <= float(shade.min()) <= float(shade.max()) <= 1:
        raise DataError(
            f"{file}: albedos reach from {float(shade.min()):g} to {float(shade.max()):g}; "
            "expected 0 to 1"
        )
    return dense, shade
