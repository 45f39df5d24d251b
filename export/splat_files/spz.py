"""SPZ: about a tenth of the bytes of PLY. Versions 2 and 3 are written, 1 to 4 read.

Versions 1 to 3 are one gzip stream: a header of 16 bytes (magic NGSP, version, count, degree,
fractional bits, flags, 0), then the six streams of `spz_packing` for all Gaussians one after the
other, then extensions where flag 2 is set. Version 4 is not compressed as a whole: a header of 32
bytes (magic, version, count, degree, fractional bits, flags, number of streams, offset of the
table, 12 x 0), extensions up to the table, the table (compressed and true size of each stream, 64
bits each), and the streams, compressed by Zstandard one by one. Streams without bytes (harmonics of
degree 0) are left out of it. An extension is a type, a length and that many bytes.

Axes: the format means x right, y up, z back, while captures and their PLY files have y down and z
forward. Reading and writing therefore turn by half a turn about x, harmonics included, and a cloud
stays in the capture's frame. The extension 0xADBE0003 names other axes of a file.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lumigraph.core.errors import DataError
from lumigraph.core.gaussian_cloud import harmonics_rotation
from lumigraph.export.splat_files import spz_packing as packing
from lumigraph.export.splat_files.arrays import (
    Loaded,
    SplatArrays,
    check_budget,
    logits_of_bytes,
    sigmoid,
    to_bytes,
)

MAGIC = b"NGSP"
GZIP_MAGIC = b"\x1f\x8b"
VERSIONS_WRITTEN = (2, 3)
CUSTOMARY_BITS = (5, 4)
"""Bits kept of harmonics of degree 1 and of the higher ones."""

_LEGACY_HEADER = struct.Struct("<4sIIBBBx")
_HEADER = struct.Struct("<4sIIBBBBI12x")
_TABLE_ROW = struct.Struct("<QQ")
_EXTENSION = struct.Struct("<II")
_ANTIALIASED, _EXTENDED = 1, 2
_HIGHEST_DEGREE = 4
_AXES_EXTENSION = 0xADBE0003
_AXES = {0: (1, -1, -1), 1: (-1, 1, -1), 4: (1, -1, -1), 6: (1, 1, 1), 7: (-1, -1, 1)}
"""Right-handed codes of the extension -> signs to the axes of PLY (code 6). 0 and 4: the usual."""
_USUAL_AXES = 4
_PIECE = 1 << 22  # bytes unpacked at a time: a header that lies takes no memory
_LARGEST_WINDOW = 1 << 27
_MOST_EXTENSION_BYTES = 1 << 24


@dataclass(frozen=True)
class _Header:
    version: int
    count: int
    degree: int
    fractional_bits: int
    flags: int

    def sizes(self) -> list[int]:
        """Bytes a Gaussian of each stream, in order."""
        positions = 6 if self.version == 1 else 9
        rotations = 4 if self.version >= 3 else 3
        return [positions, 1, 3, 3, rotations, 3 * ((self.degree + 1) ** 2 - 1)]


def load(path: Path, *, max_gaussians: int) -> Loaded:
    """Read any version.

    Raises:
        DataError: another kind of file, an unknown version, bytes cut short or damaged.
    """
    data = path.read_bytes()
    if data.startswith(MAGIC):
        header, streams, extensions = _open_version_4(path, data, max_gaussians)
    else:
        header, streams, extensions = _open_gzip(path, data, max_gaussians)
    notes, axes = _read_extensions(path, extensions)
    positions, alphas, colors, scales, rotations, rest = (
        np.frombuffer(stream, np.uint8).reshape(header.count, -1) for stream in streams
    )
    if header.degree == _HIGHEST_DEGREE:
        notes.append("harmonics of degree 4 left out")
    kept = min((header.degree + 1) ** 2, 16)
    harmonics = np.empty((header.count, kept, 3), dtype=np.float32)
    harmonics[:, 0] = packing.unpack_colors(colors)
    higher = rest.reshape(header.count, (header.degree + 1) ** 2 - 1, 3)
    harmonics[:, 1:] = packing.unpack_harmonics(higher[:, : kept - 1])
    arrays = SplatArrays(
        packing.unpack_positions(positions, header.fractional_bits),
        packing.unpack_rotations(rotations),
        packing.unpack_scales(scales),
        logits_of_bytes(alphas[:, 0]),
        harmonics,
    )
    antialiased = bool(header.flags & _ANTIALIASED)
    return Loaded(_turned(arrays, axes), f"SPZ {header.version}", antialiased, tuple(notes))


def _checked(path: Path, header: _Header, max_gaussians: int) -> _Header:
    if header.degree > _HIGHEST_DEGREE or header.fractional_bits > 30:
        raise DataError(
            f"{path}: damaged SPZ header: degree {header.degree}, {header.fractional_bits} "
            "fractional bits; copy or download it again"
        )
    check_budget(path, header.count, max_gaussians)
    return header


def _open_gzip(path: Path, data: bytes, max_gaussians: int) -> tuple[_Header, list[bytes], bytes]:
    """Header, streams and extensions of versions 1 to 3."""
    source = _Unpacked(path, _gzip_pieces(data))
    magic, version, *values = _LEGACY_HEADER.unpack(source.take(_LEGACY_HEADER.size))
    if magic != MAGIC:
        raise DataError(f"{path}: a gzip file, but not SPZ; check which file this is")
    if version not in (1, 2, 3):
        raise DataError(f"{path}: SPZ version {version} in gzip is unknown; versions 1 to 3 are")
    header = _checked(path, _Header(version, *values), max_gaussians)
    streams = [source.take(size * header.count) for size in header.sizes()]
    rest = source.rest()  # to the end also without extensions: there the checksum is compared
    return header, streams, rest if header.flags & _EXTENDED else b""


def _open_version_4(
    path: Path, data: bytes, max_gaussians: int
) -> tuple[_Header, list[bytes], bytes]:
    """Header, streams and extensions of version 4."""
    if len(data) < _HEADER.size:
        raise DataError(f"{path}: cut short within the header; copy or download it again")
    _, version, count, degree, bits, flags, stream_count, table = _HEADER.unpack_from(data)
    if version != 4:
        raise DataError(
            f"{path}: SPZ version {version} is unknown; versions 1 to 4 can be read: "
            "write the file with one of them"
        )
    header = _checked(path, _Header(version, count, degree, bits, flags), max_gaussians)
    sizes = [size * count for size in header.sizes()]
    full = [size for size in sizes if size]
    start = table + stream_count * _TABLE_ROW.size
    if stream_count != len(full) or table < _HEADER.size or start > len(data):
        raise DataError(
            f"{path}: damaged table of streams ({stream_count} streams at byte {table}, "
            f"{len(full)} expected); copy or download it again"
        )
    streams = []
    for index, size in enumerate(full):
        packed, true = _TABLE_ROW.unpack_from(data, table + index * _TABLE_ROW.size)
        if true != size or start + packed > len(data):
            raise DataError(
                f"{path}: stream {index} is cut short or of another size than its "
                f"{count:,} Gaussians need; copy or download it again"
            )
        source = _Unpacked(path, _zstandard_pieces(data[start : start + packed]))
        streams.append(source.take(size))
        if source.rest():
            raise DataError(f"{path}: stream {index} is longer than it says; download it again")
        start += packed
    streams += [b""] * (len(sizes) - len(full))
    return header, streams, data[_HEADER.size : table] if flags & _EXTENDED else b""


class _Unpacked:
    """Bytes that are unpacked as they are asked for, so that a wrong count takes no memory."""

    def __init__(self, path: Path, pieces: Iterator[bytes]) -> None:
        self._path = path
        self._pieces = pieces
        self._left = b""

    def take(self, size: int) -> bytes:
        """The next bytes; DataError when there are fewer, or when they are damaged."""
        parts, have = [self._left], len(self._left)
        while have < size:
            piece = self._next()
            if not piece:
                raise DataError(
                    f"{self._path}: cut short: fewer bytes than its Gaussians need; "
                    "copy or download it again"
                )
            parts.append(piece)
            have += len(piece)
        joined = b"".join(parts)
        self._left = joined[size:]
        return joined[:size]

    def rest(self) -> bytes:
        """What is left, as far as extensions reasonably go."""
        parts, have = [self._left], len(self._left)
        while have < _MOST_EXTENSION_BYTES and (piece := self._next()):
            parts.append(piece)
            have += len(piece)
        return b"".join(parts)

    def _next(self) -> bytes:
        import zstandard

        try:
            return next(self._pieces, b"")
        except (zlib.error, zstandard.ZstdError, EOFError, OSError) as error:
            reason = " ".join(str(error).split())[:100]
            raise DataError(
                f"{self._path}: damaged: cannot be unpacked ({reason}); copy or download it again"
            ) from None


def _gzip_pieces(data: bytes) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        while piece := stream.read(_PIECE):
            yield piece


def _zstandard_pieces(data: bytes) -> Iterator[bytes]:
    import zstandard

    unpacker = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
    with unpacker.stream_reader(data) as stream:
        while piece := stream.read(_PIECE):
            yield piece


def _read_extensions(path: Path, data: bytes) -> tuple[list[str], int]:
    """Notes on what was skipped, and the code of the axes."""
    notes: list[str] = []
    axes = _USUAL_AXES
    at = 0
    while at + _EXTENSION.size <= len(data):
        kind, size = _EXTENSION.unpack_from(data, at)
        at += _EXTENSION.size
        if kind == _AXES_EXTENSION and size == 4 and at + 4 <= len(data):
            axes = int.from_bytes(data[at : at + 4], "little")
        else:
            notes.append(f"extension 0x{kind:08X} left out")
        at += size
    if axes not in _AXES:
        raise DataError(
            f"{path}: stored in the axes of code {axes}, which are left-handed or have z up; "
            "write it in the format's own axes (right, up, back)"
        )
    return notes[:8], axes


def _turned(arrays: SplatArrays, axes: int) -> SplatArrays:
    """Between the axes of a file and those of the capture; its own inverse.

    A Gaussian of rotation R becomes one of F R F with F the half turn. F R alone would be the same
    ellipsoid; this is how other programs write it.
    """
    x, y, z = signs = np.array(_AXES[axes], dtype=np.float32)
    if (signs > 0).all():
        return arrays
    half_turn = torch.diag(torch.from_numpy(signs))
    bands = [band.diagonal() for band in harmonics_rotation(half_turn, arrays.degree)]
    harmonic_signs = torch.cat(bands).round().numpy().astype(np.float32)
    return arrays._replace(
        means=arrays.means * signs,
        rotations=arrays.rotations * np.array([1, y * z, x * z, x * y], dtype=np.float32),
        harmonics=arrays.harmonics * harmonic_signs[:, None],
    )


def save(
    path: Path,
    arrays: SplatArrays,
    *,
    version: int,
    fractional_bits: int,
    harmonics_bits: tuple[int, int],
    antialiased: bool,
) -> None:
    """Write a file of version 2 or 3; all positions must fit, see `spz_packing.fitting`."""
    turned = _turned(arrays, _USUAL_AXES)
    bits = fractional_bits
    flags = _ANTIALIASED if antialiased else 0
    header = _LEGACY_HEADER.pack(MAGIC, version, arrays.gaussians, arrays.degree, bits, flags)
    streams = [
        packing.pack_positions(turned.means, bits),
        to_bytes(sigmoid(turned.opacity_logits) * 255.0),
        packing.pack_colors(turned.harmonics[:, 0]),
        packing.pack_scales(turned.log_scales),
        packing.pack_rotations(turned.rotations, version),
        packing.pack_harmonics(turned.harmonics[:, 1:], harmonics_bits),
    ]
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
        packed.write(header)
        for stream in streams:
            packed.write(np.ascontiguousarray(stream).tobytes())
