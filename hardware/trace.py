"""Traces: what a renderer really asked a field for. One file, `NAME.ngt`, a zip archive of

    meta.json    schema lumigraph.hardware.trace/1: workload, picture, scene, tiles, sums
    samples.npy  float32 (n, D) positions in [0, 1], in the order of issue
    ray.npy      uint32 (n,) pixel of each sample, row by row in the whole picture
    round.npy    uint16 (n,) round of kernels in which it was issued
    kernels.json kernels of the GPU with their times, where they were measured

Positions are kept and not addresses: those follow from the encoding, so that one trace serves every
table size, bank map and number format. Part of a frame is whole tiles of 16 x 16 pixels, one from
each of as many equal runs of tiles; `Estimate` says what that means for the whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumigraph.core.errors import DataError, InputError
from lumigraph.core.files import reason_of, write_atomic

from .workloads import Encoding, Network, Workload

SCHEMA = "lumigraph.hardware.trace/1"
TILE = 16
KERNEL_CLASSES = ("pre", "encoding", "networks", "post")
_ARRAYS = {"samples": np.float32, "ray": np.uint32, "round": np.uint16}


@dataclass(frozen=True)
class KernelTime:
    """A kernel of the GPU baseline."""

    name: str
    kind: str
    """pre, encoding, networks or post."""
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """A total of the whole frame from part of its tiles."""

    value: float
    half_width: float
    """Of the 95 % interval; 0 when the whole frame was seen."""

    @property
    def relative(self) -> float:
        return self.half_width / self.value if self.value else 0.0

    def contains(self, value: float) -> bool:
        """Whether a value lies in the interval."""
        return abs(value - self.value) <= self.half_width + 1e-9 * abs(self.value)


@dataclass(frozen=True, eq=False)
class Trace:
    """Samples of a frame, or of part of one."""

    workload: Workload
    scene: str
    width: int
    height: int
    positions: NDArray[np.float32]
    """(n, D) in [0, 1]."""
    rays: NDArray[np.uint32]
    """(n,) pixel."""
    rounds: NDArray[np.uint16]
    """(n,)"""
    tiles: NDArray[np.int64]
    """(m,) tiles that were recorded, row by row; empty for all."""
    shaded: int | None = None
    """Samples of the whole frame, where the renderer counted them."""
    kernels: tuple[KernelTime, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Anything worth keeping: method, camera, PSNR, machine."""

    def __post_init__(self) -> None:
        n, dimensions = len(self.positions), self.workload.encoding.dimensions
        if self.positions.shape != (n, dimensions) or len(self.rays) != n or len(self.rounds) != n:
            raise InputError(
                f"trace: positions must be (n, {dimensions}) with a ray and a round for each; got "
                f"{self.positions.shape}, {self.rays.shape}, {self.rounds.shape}"
            )
        if n and not (np.isfinite(self.positions).all() and self._inside()):
            raise InputError("trace: positions must be finite and within [0, 1]")
        if n and int(self.rays.max()) >= self.pixels:
            raise InputError(f"trace: ray {int(self.rays.max())} is beyond {self.pixels} pixels")

    def _inside(self) -> bool:
        return float(self.positions.min()) >= 0 and float(self.positions.max()) <= 1

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def application(self) -> str:
        return self.workload.application

    @property
    def fraction(self) -> float:
        """Part of the picture's pixels that was recorded."""
        if not len(self.tiles):
            return 1.0
        return float(tile_pixels(self.width, self.height)[self.tiles].sum()) / self.pixels

    def samples_of_frame(self) -> Estimate:
        """Samples of the whole frame: counted where the renderer told, else estimated."""
        if self.shaded is not None:
            return Estimate(float(self.shaded), 0.0)
        return self.frame_total(np.ones(len(self.rays)))

    def frame_total(self, weights: NDArray[np.float64]) -> Estimate:
        """Sum over the frame of something that each sample has (n,): ratio estimator over tiles,
        its error from differences of neighbouring ones, which leaves out slow trends."""
        if not len(self.tiles):
            return Estimate(float(weights.sum()), 0.0)
        sizes = tile_pixels(self.width, self.height)
        owner = tile_of_pixel(self.rays, self.width)
        sums = np.bincount(owner, weights, minlength=len(sizes))[self.tiles]
        part = sizes[self.tiles]
        ratio = float(sums.sum() / part.sum())
        m = len(self.tiles)
        if m < 2:
            return Estimate(ratio * self.pixels, math.inf)
        residual = np.diff(sums - ratio * part)
        variance = float((residual**2).sum()) / (2 * (m - 1))
        left = 1 - m / len(sizes)
        spread = math.sqrt(variance * m * left) / float(part.sum()) * self.pixels
        return Estimate(ratio * self.pixels, 1.96 * spread)

    def save(self, path: Path) -> None:
        """Write the file; the same trace gives the same bytes.

        Raises:
            InputError: a name with another ending. DataError: it cannot be written.
        """
        if path.suffix != ".ngt":
            raise InputError(f"{path}: a trace ends in .ngt")
        write_atomic(path, self._write)

    def _write(self, path: Path) -> None:
        arrays: dict[str, NDArray[Any]] = {
            "samples": self.positions,
            "ray": self.rays,
            "round": self.rounds,
        }
        parts = {f"{name}.npy": _npy(array, _ARRAYS[name]) for name, array in arrays.items()}
        meta = {
            "schema": SCHEMA,
            "application": self.application,
            "encoding": asdict(self.workload.encoding),
            "networks": [asdict(network) for network in self.workload.networks],
            "input_bytes": self.workload.input_bytes,
            "output_bytes": self.workload.output_bytes,
            "scene": self.scene,
            "resolution": [self.width, self.height],
            "tiles": [int(tile) for tile in self.tiles],
            "shaded": self.shaded,
            "facts": dict(self.facts),
            "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()},
        }
        parts["kernels.json"] = _json([asdict(kernel) for kernel in self.kernels])
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in {"meta.json": _json(meta), **parts}.items():
                entry = zipfile.ZipInfo(name)  # without a date
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, data, compresslevel=6)

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read a trace.

        Raises:
            DataError: missing, damaged, of another version, or its sums do not match.
        """
        path = Path(path)
        try:
            with zipfile.ZipFile(path) as archive:
                parts = {name: archive.read(name) for name in archive.namelist()}
            meta = json.loads(parts["meta.json"])
            if meta.get("schema") != SCHEMA:
                raise DataError(
                    f"{path}: schema {meta.get('schema')!r}; this version reads {SCHEMA!r}: "
                    "record the trace again"
                )
            return cls._from_parts(meta, parts)
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such trace") from error
        except InputError as error:
            text = str(error)
            raise DataError(text if text.startswith(str(path)) else f"{path}: {text}") from error
        except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
            raise DataError(
                f"{path}: damaged trace ({reason_of(error)}); record it again"
            ) from error

    @classmethod
    def _from_parts(cls, meta: dict[str, Any], parts: dict[str, bytes]) -> Trace:
        arrays = {}
        for name, dtype in _ARRAYS.items():
            data = parts[f"{name}.npy"]
            if hashlib.sha256(data).hexdigest() != meta["sha256"][f"{name}.npy"]:
                raise InputError(f"{name}.npy does not match its sum; record the trace again")
            arrays[name] = np.load(io.BytesIO(data), allow_pickle=False).astype(dtype, copy=False)
        networks = tuple(Network(row["name"], tuple(row["widths"])) for row in meta["networks"])
        workload = Workload(
            meta["application"],
            Encoding(**meta["encoding"]),
            networks,
            meta["input_bytes"],
            meta["output_bytes"],
        )
        return cls(
            workload=workload,
            scene=meta["scene"],
            width=meta["resolution"][0],
            height=meta["resolution"][1],
            positions=arrays["samples"],
            rays=arrays["ray"],
            rounds=arrays["round"],
            tiles=np.array(meta["tiles"], np.int64),
            shaded=meta["shaded"],
            kernels=tuple(KernelTime(**row) for row in json.loads(parts["kernels.json"])),
            facts=meta["facts"],
        )


def tile_grid(width: int, height: int) -> tuple[int, int]:
    """Tiles across and down."""
    return -(-width // TILE), -(-height // TILE)


def tile_pixels(width: int, height: int) -> NDArray[np.int64]:
    """Pixels of each tile, row by row: fewer at the right and lower edge."""
    across, down = tile_grid(width, height)
    columns = np.minimum(width - TILE * np.arange(across), TILE)
    rows = np.minimum(height - TILE * np.arange(down), TILE)
    return (rows[:, None] * columns[None]).ravel().astype(np.int64)


def tile_of_pixel(pixels: NDArray[Any], width: int) -> NDArray[np.int64]:
    """Tile of each pixel index."""
    across = -(-width // TILE)
    y, x = np.divmod(pixels.astype(np.int64), width)
    return y // TILE * across + x // TILE


def pixels_of_tiles(tiles: NDArray[np.int64], width: int, height: int) -> NDArray[np.int64]:
    """Pixel indices of tiles in turn, within each row by row."""
    across, _ = tile_grid(width, height)
    y, x = np.mgrid[:TILE, :TILE]
    rows = (tiles // across * TILE)[:, None] + y.ravel()[None]
    columns = (tiles % across * TILE)[:, None] + x.ravel()[None]
    inside = (rows < height) & (columns < width)
    found: NDArray[np.int64] = (rows * width + columns)[inside]
    return found


def choose_tiles(width: int, height: int, count: int, *, seed: int = 0) -> NDArray[np.int64]:
    """One tile from each of `count` equal runs of tiles; all, when there are not more."""
    across, down = tile_grid(width, height)
    total = across * down
    if count >= total:
        return np.arange(total)
    edges = np.arange(count + 1) * total // count
    draws = np.random.default_rng(seed).random(count)
    return edges[:-1] + np.floor(draws * np.diff(edges)).astype(np.int64)


def _npy(array: NDArray[Any], dtype: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array, dtype), allow_pickle=False)
    return stream.getvalue()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
