"""Read any file of Gaussians; its content, not its name, says which format it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lumigraph.core import GaussianCloud
from lumigraph.core.axes import AxisName
from lumigraph.core.errors import DataError
from lumigraph.export.splat_files import compressed_ply, gaussian_ply, plain_splat, spz
from lumigraph.export.splat_files.arrays import DEFAULT_MAX_GAUSSIANS, Loaded, repaired
from lumigraph.export.splat_files.ply_header import read_header

SPLAT_SUFFIXES = (".ply", ".splat", ".spz")
"""Suffixes of the files read here, in small letters."""
MOVING_SUFFIX = ".lg4d"
"""Of files of Gaussians that move, see `moving_file`."""
MOVING_MAGIC = b"lg4d"
FILE_UP: AxisName = "-y"
"""What is up in most files, which do not say: they keep the axes of cameras."""


@dataclass(frozen=True)
class ReadReport:
    """What was found in a file."""

    path: Path
    format: str
    """E.g. "PLY", "compressed PLY", "splat", "SPZ 4"."""
    stored: int
    """Gaussians in the file."""
    culled: int
    """Of them left out, because a number was NaN or infinite."""
    degree: int
    """Degree of the harmonics, 0 to 3."""
    antialiased: bool
    """Trained with the screen filter of Mip-Splatting, as far as the format says."""
    notes: tuple[str, ...]
    """What was repaired or skipped, in words."""

    def line(self) -> str:
        """For people."""
        culled = [f"{self.culled:,} left out as not finite"] if self.culled else []
        parts = [f"{self.stored:,} Gaussians", f"degree {self.degree}", *culled, *self.notes]
        return f"{self.path}: {self.format}, {', '.join(parts)}"


@dataclass(frozen=True)
class SplatFile:
    """Gaussians of a file and what was found in it."""

    cloud: GaussianCloud
    """In the capture's own frame and unit, on the CPU."""
    report: ReadReport


def read_splats(path: str | Path, *, max_gaussians: int = DEFAULT_MAX_GAUSSIANS) -> SplatFile:
    """Read PLY (plain or compressed), .splat or SPZ.

    Args:
        path: the file.
        max_gaussians: refuse files that say they hold more, before memory is taken for them.

    Raises:
        DataError: no such file, another kind of file, cut short, damaged, empty or too large; the
            message names the file and the way out.
    """
    file = Path(path)
    loaded = _load(file, max_gaussians)
    arrays, good, notes = repaired(loaded.arrays)
    if not good.any():
        raise DataError(f"{file}: none of its {len(good):,} Gaussians is finite; write it again")
    kept = arrays if good.all() else arrays.rows(good)
    report = ReadReport(
        file,
        loaded.format,
        stored=len(good),
        culled=len(good) - kept.gaussians,
        degree=kept.degree,
        antialiased=loaded.antialiased,
        notes=(*loaded.notes, *notes),
    )
    return SplatFile(kept.cloud(), report)


def _load(path: Path, max_gaussians: int) -> Loaded:
    """By the first bytes of the file; `.splat` has none and goes by its name."""
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
        if start[:3] == b"ply":
            header = read_header(path)
            if compressed_ply.is_compressed(header):
                return compressed_ply.load(path, header, max_gaussians=max_gaussians)
            return gaussian_ply.load(path, header, max_gaussians=max_gaussians)
        if start == spz.MAGIC or start[:2] == spz.GZIP_MAGIC:
            return spz.load(path, max_gaussians=max_gaussians)
        if path.suffix.lower() == ".splat":
            return plain_splat.load(path, max_gaussians=max_gaussians)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    if start == MOVING_MAGIC:
        raise DataError(
            f"{path}: its Gaussians move; take those of one time with lumigraph export splats "
            f"{path} --time 0.5 --out FILE"
        )
    state = f"starts with {start!r}" if start else "is empty"
    raise DataError(f"{path}: {state}, so it is no PLY, SPZ or .splat file of Gaussians")
