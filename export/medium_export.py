"""The medium that a run was fitted to, asked on a grid and written for other programs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lumigraph.core.errors import ConfigError, InputError
from lumigraph.fields import MediumField
from lumigraph.training.files import write_atomic

from .target_file import check_target

if TYPE_CHECKING:
    from lumigraph.training import Run

MEDIUM_SUFFIX = ".npz"
DEFAULT_CELLS = 128
CELLS = (2, 1024)


@dataclass(frozen=True)
class MediumReport:
    """A grid that was written."""

    path: Path
    cells: int
    """Along a side of the bounds."""
    peak: float
    """Largest density, as extinction over the side."""
    bytes: int
    seconds: float = field(compare=False)

    def line(self) -> str:
        """One line for people."""
        return (
            f"{self.path}: {self.cells} x {self.cells} x {self.cells} voxels of density (up to "
            f"{self.peak:.4g} over the side) and albedo, {self.bytes / 2**20:.1f} MiB"
        )

    def to_dict(self) -> dict[str, Any]:
        """For machines; `out` is the file."""
        values = asdict(self)
        return {"out": str(values.pop("path")), **values}


def medium(
    run: Run,
    *,
    out: str | Path,
    cells: int | None = None,
    overwrite: bool = False,
    device: str | None = None,
    on_slice: Callable[[int, int], None] | None = None,
) -> MediumReport:
    """Write the grid of a run of method `volume`: `lg.export.medium(run, out="x.npz")`. Method
    `volume` reads such files.

    Args:
        out: a .npz file: `density` (X, Y, Z), extinction over the side of the bounds, and `albedo`
            (X, Y, Z, 3), both float32 at the middles of voxels that fill the bounds.
        cells: voxels along the side, 2 to 1024; None takes 128.
        overwrite: replace a file that is there.
        device: where to compute; None takes that of the run's settings.
        on_slice: told after each slice how many are done, and of how many.

    Raises:
        InputError: unknown suffix, an existing file, or a run of another method.
        ConfigError: too few or too many cells. DataError: the file cannot be written.
    """
    target, started = Path(out), time.monotonic()
    check_target(target, (MEDIUM_SUFFIX,), what="a grid", overwrite=overwrite)
    count = DEFAULT_CELLS if cells is None else cells
    if not CELLS[0] <= count <= CELLS[1]:
        raise ConfigError(f"the grid would have {count} voxels along a side, expected 2 to 1024")
    model = run.model(device)
    fitted = model.field
    if not isinstance(fitted, MediumField):
        raise InputError(f"{run.path}: is a run of method {run.config.method} and holds no medium")
    density = np.empty((count, count, count), np.float32)
    albedo = np.empty((count, count, count, 3), np.float32)
    line = (torch.arange(count, device=model.device) + 0.5) / count
    y, z = torch.meshgrid(line, line, indexing="ij")
    for x in range(count):
        points = torch.stack([line[x].expand_as(y), y, z], dim=-1).reshape(-1, 3)
        dense, shade = fitted.density_and_albedo(points)
        density[x] = dense.reshape(count, count).cpu().numpy()
        albedo[x] = shade.reshape(count, count, 3).cpu().numpy()
        if on_slice is not None:
            on_slice(x + 1, count)

    def write(file: Path) -> None:
        with file.open("wb") as stream:
            np.savez_compressed(stream, density=density, albedo=albedo)

    write_atomic(target, write)
    return MediumReport(
        path=target,
        cells=count,
        peak=float(density.max()),
        bytes=target.stat().st_size,
        seconds=time.monotonic() - started,
    )
