"""One file for each moment of a moving scene in `moments/` of a run folder: what playback needs.

A file holds every tensor whole, or tables (tensors of two dimensions) as differences to those of
a key moment: a bit for each row that changed, and the changed rows in half precision. Differences
are taken to the key moment and not to the moment before, so that any moment is read from at most
two files and errors do not add up: half precision is off by at most 2^-11 of a difference, and by
6e-8 where that is less.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumigraph.core.errors import CheckpointError

from .checkpoint import load_checkpoint, save_checkpoint

FOLDER = "moments"
HALF_ERROR = 2.0**-11
"""Largest error of a stored difference, over its size."""
HALF_FLOOR = 2.0**-24
"""Largest error of a difference too small for that."""
HALF_MOST = 65504.0
_CHANGED, _ROWS = ".changed", ".rows"


@dataclass(frozen=True)
class MomentRecord:
    """A moment as it was trained."""

    index: int
    """Its place among the moments of the scene."""
    time: float
    """In [0, 1]."""
    key: int
    """The moment that differences are taken to: its own index where there are none."""
    tensors: dict[str, Tensor]
    """Everything that playback needs, by name."""


def moment_path(folder: Path, index: int) -> Path:
    """Where a moment of a run folder lies."""
    return folder / FOLDER / f"moment-{index:04d}.safetensors"


def write_moment(folder: Path, record: MomentRecord) -> None:
    """Write a moment of a run folder, over an earlier one.

    Raises:
        CheckpointError: its key moment is missing. DataError: the file cannot be written.
    """
    tensors = {name: tensor.detach().cpu() for name, tensor in record.tensors.items()}
    if record.key != record.index:
        key, _ = _loaded(moment_path(folder, record.key))
        tensors = _differences(tensors, key)
    header = {"moment": record.index, "time": record.time, "key": record.key}
    save_checkpoint(moment_path(folder, record.index), tensors, header)


def read_moment(folder: Path, index: int) -> dict[str, Tensor]:
    """The tensors of a moment, on the CPU.

    Raises:
        CheckpointError: it or its key moment is missing or damaged; says which.
    """
    path = moment_path(folder, index)
    tensors, header = _loaded(path)
    if header["key"] == index:
        return tensors
    key, _ = _loaded(moment_path(folder, header["key"]))
    return _sums(tensors, key, path)


def check_moments(folder: Path, count: int) -> None:
    """Refuse a run folder without one of its first `count` moments.

    Raises:
        CheckpointError: names the first that is missing, and the way out.
    """
    missing = [k for k in range(count) if not moment_path(folder, k).is_file()]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckpointError(
            f"{moment_path(folder, missing[0])}: missing{others}, of {count} moments; copy the "
            "whole run folder, or train it again"
        )


def _loaded(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        tensors, header = load_checkpoint(path)
    except CheckpointError as error:
        raise CheckpointError(
            f"{path}: missing or damaged; copy the whole run folder, or train it again"
        ) from error
    if not isinstance(header.get("key"), int):
        raise CheckpointError(f"{path}: not a moment of a moving scene")
    return tensors, header


def _differences(tensors: dict[str, Tensor], key: dict[str, Tensor]) -> dict[str, Tensor]:
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        base = key.get(name)
        if tensor.dim() != 2 or not tensor.is_floating_point() or tensor.dtype != torch.float32:
            stored[name] = tensor
            continue
        if base is None or base.shape != tensor.shape:
            stored[name] = tensor
            continue
        half = (tensor - base).clamp(-HALF_MOST, HALF_MOST).half()
        changed = (half != 0).any(dim=1)
        stored[name + _CHANGED] = pack_bits(changed)
        stored[name + _ROWS] = half[changed]
    return stored


def _sums(tensors: dict[str, Tensor], key: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    whole: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(_ROWS):
            continue
        if not name.endswith(_CHANGED):
            whole[name] = tensor
            continue
        name = name.removesuffix(_CHANGED)
        rows, base = tensors.get(name + _ROWS), key.get(name)
        changed = None if base is None else unpack_bits(tensor, len(base))
        if rows is None or base is None or changed is None or int(changed.sum()) != len(rows):
            raise CheckpointError(
                f"{path}: its differences do not fit its key moment; train the run again"
            )
        whole[name] = base.clone()
        whole[name][changed] += rows.float()
    return whole


def pack_bits(flags: Tensor) -> Tensor:
    """(N,) bool -> (ceil(N / 8),) uint8, the first flag in the lowest bit.

    >>> unpack_bits(pack_bits(torch.tensor([True, False, True])), 3).tolist()
    [True, False, True]
    """
    padded = torch.nn.functional.pad(flags.to(torch.uint8), (0, -len(flags) % 8)).reshape(-1, 8)
    weights = 2 ** torch.arange(8, dtype=torch.uint8, device=flags.device)
    return (padded * weights).sum(dim=1).to(torch.uint8)


def unpack_bits(packed: Tensor, count: int) -> Tensor:
    """(count,) bool from what `pack_bits` made."""
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return (packed[:, None] >> shifts & 1).bool().reshape(-1)[:count]
