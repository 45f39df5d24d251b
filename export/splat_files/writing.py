"""Write a file of Gaussians whole or not at all, and say what it lost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lumigraph.core import GaussianCloud
from lumigraph.core.errors import ConfigError, DataError
from lumigraph.core.gaussian_cloud import MAXIMUM_DEGREE
from lumigraph.export.splat_files import gaussian_ply, plain_splat, spz, spz_packing
from lumigraph.export.splat_files.arrays import Loaded, SplatArrays, repaired
from lumigraph.export.splat_files.loss import Loss, measure
from lumigraph.export.splat_files.ply_header import read_header
from lumigraph.export.target_file import check_target
from lumigraph.training.files import write_atomic

_SUFFIXES = (".ply", ".splat", ".spz")


@dataclass(frozen=True)
class WriteOptions:
    """How a file is written. Checked on construction."""

    degree: int | None = None
    """Highest harmonics kept, 0 to 3; None keeps all that the format can hold."""
    spz_version: int = 3
    """2 or 3. Version 2 is for old readers: its rotations are rough."""
    harmonics_bits: int | None = None
    """Bits that SPZ keeps of harmonics beyond degree 0, 1 to 8; None is 5 for degree 1 and 4
    above, as is usual. More bits, larger file."""
    antialiased: bool = False
    """Note in SPZ that the Gaussians were trained with the screen filter of Mip-Splatting."""
    overwrite: bool = False
    """Replace a file that is there."""

    def __post_init__(self) -> None:
        if self.degree is not None and not 0 <= self.degree <= MAXIMUM_DEGREE:
            raise ConfigError(f"degree {self.degree}: expected 0 to {MAXIMUM_DEGREE}")
        if self.spz_version not in spz.VERSIONS_WRITTEN:
            raise ConfigError(f"spz_version {self.spz_version}: expected 2 or 3")
        if self.harmonics_bits is not None and not 1 <= self.harmonics_bits <= 8:
            raise ConfigError(f"harmonics_bits {self.harmonics_bits}: expected 1 to 8")

    def noting(self, antialiased: bool) -> WriteOptions:
        """The same, with the note where the Gaussians were trained so."""
        return replace(self, antialiased=self.antialiased or antialiased)


@dataclass(frozen=True)
class WriteReport:
    """What was written and what it lost, measured by reading it back."""

    path: Path
    format: str
    count: int
    """Gaussians written."""
    bytes: int
    """Size of the file."""
    degree: int
    """Degree of the harmonics in the file."""
    loss: Loss
    dropped: tuple[str, ...]
    """What is not in the file at all, in words."""

    def line(self) -> str:
        """One line for people."""
        dropped = f"; dropped: {', '.join(self.dropped)}" if self.dropped else ""
        return (
            f"{self.path}: {self.format}, {self.count:,} Gaussians, "
            f"{self.bytes / 2**20:.2f} MiB; lost: {self.loss.line()}{dropped}"
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "out": str(self.path),
            "format": self.format,
            "gaussians": self.count,
            "bytes": self.bytes,
            "degree": self.degree,
            "loss": self.loss.to_dict(),
            "dropped": list(self.dropped),
        }


def write_splats(
    cloud: GaussianCloud, path: str | Path, *, options: WriteOptions | None = None
) -> WriteReport:
    """Write Gaussians in the format of the suffix: .ply, .splat or .spz.

    The file appears under its name when it is complete and has been read back.

    Args:
        cloud: in the frame of the capture; other frames are for `GaussianCloud.transformed`.
        path: the file to write.

    Raises:
        InputError: an unknown suffix, or a file of that name is there and may not be replaced.
        DataError: there is nothing to write, or the disk does not take it.
    """
    options = options or WriteOptions()
    target = Path(path)
    check_splat_target(target, overwrite=options.overwrite)
    suffix = target.suffix.lower()
    given, good, _ = repaired(SplatArrays.of(cloud))
    if not good.any():
        state = "none of the Gaussians is finite" if len(good) else "there are no Gaussians"
        raise DataError(f"{target}: not written: {state}")
    given = given if good.all() else given.rows(good)
    plan = _plan(given, suffix, options)
    if not good.all():
        plan.dropped.insert(0, f"{len(good) - int(good.sum()):,} Gaussians that are not finite")
    loaded: list[Loaded] = []

    def save(temporary: Path) -> None:
        _save(temporary, plan, suffix, options)
        loaded.append(_load(temporary, suffix, plan.written.gaussians))

    write_atomic(target, save)
    return WriteReport(
        target,
        loaded[0].format,
        plan.written.gaussians,
        target.stat().st_size,
        plan.written.degree,
        measure(plan.stored, loaded[0].arrays),
        tuple(plan.dropped),
    )


def check_splat_target(path: Path, *, overwrite: bool) -> None:
    """Refuse a target before work is spent on it; see `check_target`."""
    check_target(path, _SUFFIXES, what="the target", overwrite=overwrite)


@dataclass
class _Plan:
    """What of the Gaussians goes into a file."""

    stored: SplatArrays
    """Those that the format can hold, as given."""
    written: SplatArrays
    """The same with no more harmonics than are written."""
    dropped: list[str]
    fractional_bits: int
    """Of positions in SPZ."""


def _plan(arrays: SplatArrays, suffix: str, options: WriteOptions) -> _Plan:
    dropped = []
    bits = 0
    if suffix == ".spz":
        bits = spz_packing.fractional_bits(arrays.means)
        near = spz_packing.fitting(arrays.means, bits)
        if not near.all():
            dropped.append(f"{int((~near).sum()):,} Gaussians too far off for 24 bits")
            arrays = arrays.rows(near)
        cut = int((arrays.log_scales < spz_packing.LEAST_LOG_SCALE).sum())
        if cut:
            dropped.append(f"the thinness of {cut:,} scales below e^-10")
    highest = 0 if suffix == ".splat" else MAXIMUM_DEGREE
    if options.degree is not None:
        highest = min(highest, options.degree)
    written = arrays
    if arrays.degree > highest:
        written = arrays._replace(harmonics=arrays.harmonics[:, : (highest + 1) ** 2])
        first, last = highest + 1, arrays.degree
        dropped.append(f"harmonics of degree {first}" + (f" to {last}" if last > first else ""))
    if options.antialiased and suffix != ".spz":
        dropped.append("the note that they are antialiased")
    return _Plan(arrays, written, dropped, bits)


def _save(path: Path, plan: _Plan, suffix: str, options: WriteOptions) -> None:
    if suffix == ".ply":
        gaussian_ply.save(path, plan.written)
    elif suffix == ".splat":
        plain_splat.save(path, plan.written)
    else:
        bits = options.harmonics_bits
        spz.save(
            path,
            plan.written,
            version=options.spz_version,
            fractional_bits=plan.fractional_bits,
            harmonics_bits=spz.CUSTOMARY_BITS if bits is None else (bits, bits),
            antialiased=options.antialiased,
        )


def _load(path: Path, suffix: str, count: int) -> Loaded:
    if suffix == ".ply":
        return gaussian_ply.load(path, read_header(path), max_gaussians=count)
    module = plain_splat if suffix == ".splat" else spz
    return module.load(path, max_gaussians=count)
