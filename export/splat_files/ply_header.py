"""The header of a PLY file, looked at before the library that reads the body: what elements there
are, and whether the file can hold as many rows as it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from plyfile import PlyData, PlyParseError

from lumigraph.core.errors import DataError

_LONGEST_HEADER = 1 << 20
_SIZES = {
    **dict.fromkeys(("char", "uchar", "int8", "uint8"), 1),
    **dict.fromkeys(("short", "ushort", "int16", "uint16"), 2),
    **dict.fromkeys(("int", "uint", "int32", "uint32", "float", "float32"), 4),
    **dict.fromkeys(("double", "float64"), 8),
}
"""Bytes of the types of properties."""
FLOATS = frozenset({"float", "float32", "double", "float64"})


@dataclass
class PlyElementHeader:
    """One element: its name, its number of rows, and the type of each property."""

    name: str
    count: int
    types: dict[str, str] = field(default_factory=dict)
    """Property -> type; that of a list is "list"."""

    def least_bytes(self, *, text: bool) -> int:
        """Bytes that the rows take at least."""
        if text:
            return self.count * 2 * max(1, len(self.types))
        return self.count * sum(_SIZES.get(kind, 1) for kind in self.types.values())


@dataclass(frozen=True)
class PlyHeader:
    """What a PLY file says about itself."""

    text: bool
    """ASCII, else binary."""
    elements: dict[str, PlyElementHeader]


def read_header(path: Path) -> PlyHeader:
    """Parse the header and compare its counts with the size of the file.

    Raises:
        DataError: it is no PLY file, has a broken header, or is too short for its rows.
    """
    with path.open("rb") as stream:
        start = stream.read(_LONGEST_HEADER)
    end = start.find(b"end_header")
    newline = start.find(b"\n", end)
    if not start.startswith(b"ply") or end < 0:
        raise DataError(f"{path}: not a PLY file, or its header is cut short; write it again")
    body = path.stat().st_size - (newline + 1 if newline >= 0 else len(start))
    try:
        header = _parse(start[:end].decode("ascii").splitlines())
    except (ValueError, KeyError, IndexError) as error:
        raise DataError(f"{path}: broken PLY header ({error}); write the file again") from None
    needed = sum(element.least_bytes(text=header.text) for element in header.elements.values())
    if needed > body + (1 if header.text else 0):  # the last line of a text may lack its end
        raise DataError(
            f"{path}: cut short: its header promises at least {needed:,} bytes of rows and "
            f"{max(body, 0):,} are there; copy or download it again"
        )
    return header


def _parse(lines: list[str]) -> PlyHeader:
    """The header of its lines; ValueError says what is wrong."""
    text: bool | None = None
    elements: dict[str, PlyElementHeader] = {}
    last: PlyElementHeader | None = None
    for line in lines[1:]:
        words = line.split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format":
            text = _is_text(words[1])
        elif words[0] == "element":
            last = PlyElementHeader(words[1], int(words[2]))
            if last.count < 0 or last.name in elements:
                raise ValueError(f"bad element {last.name!r}")
            elements[last.name] = last
        elif words[0] == "property" and last is not None:
            kind, name = words[1], words[-1]
            if name in last.types or (kind != "list" and kind not in _SIZES):
                raise ValueError(f"bad property {line.strip()!r}")
            last.types[name] = kind
        else:
            raise ValueError(f"unknown line {line.strip()[:40]!r}")
    if text is None:
        raise ValueError("it names no format")
    return PlyHeader(text, elements)


def _is_text(name: str) -> bool:
    if name not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise ValueError(f"unknown format {name!r}")
    return name == "ascii"


def read_body(path: Path) -> dict[str, Any]:
    """The rows of every element as structured arrays, by the library `plyfile`.

    Raises:
        DataError: the rows cannot be read.
    """
    try:
        with np.errstate(over="ignore"):
            data = PlyData.read(str(path))
        return {element.name: element.data for element in data.elements}
    except (PlyParseError, OSError, ValueError, TypeError, StopIteration) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: its rows cannot be read ({reason}); write it again") from None


def columns(rows: Any, names: Sequence[str]) -> np.ndarray:
    """Properties side by side, (rows, properties) float32; too large numbers become infinite."""
    table = np.empty((len(rows), len(names)), dtype=np.float32)
    with np.errstate(over="ignore"):
        for index, name in enumerate(names):
            table[:, index] = rows[name]
    return table
