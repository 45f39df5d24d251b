"""Checkpoints: tensors in one safetensors file, everything else in its JSON header.

Loading executes nothing. The header holds the format version and a list of the content, so a file
of another version, or one cut short, is refused before anything is changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lumigraph.core.errors import CheckpointError

from .files import write_atomic

FORMAT = "lumigraph-checkpoint"
VERSION = 1


def save_checkpoint(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write atomically.

    Args:
        tensors: name -> tensor, any device.
        header: JSON values (step, elapsed time, ...).

    Raises:
        DataError: the file cannot be written; an earlier one stays.
    """
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({**header, "contents": sorted(content)})
    metadata = {"format": FORMAT, "version": str(VERSION), "header": text}
    write_atomic(path, lambda temporary: save_file(content, str(temporary), metadata=metadata))


def load_checkpoint(path: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a checkpoint.

    Raises:
        CheckpointError: not a checkpoint, another version, or damaged; says which.
    """
    try:
        with safe_open(str(path), framework="pt", device=device) as file:
            header = _header(path, file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: not found") from error
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path}: damaged or cut short; remove it, and the run goes on from an earlier one"
        ) from error
    missing = sorted(set(header["contents"]) - set(tensors))
    if missing:
        raise CheckpointError(f"{path}: {missing[0]!r} is missing; the file is damaged")
    return tensors, header


def _header(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a lumigraph checkpoint")
    if metadata.get("version") != str(VERSION):
        raise CheckpointError(
            f"{path}: written in format {metadata.get('version')}, this version reads {VERSION}; "
            "train again or use the version that wrote it"
        )
    header = json.loads(metadata["header"])
    if not isinstance(header, dict) or "contents" not in header:
        raise CheckpointError(f"{path}: the header is damaged")
    return header


def copy_state(target: dict[str, Tensor], tensors: dict[str, Tensor], path: Path) -> None:
    """Copy loaded tensors over live ones of the same names, checking shapes first.

    Raises:
        CheckpointError: a tensor is missing or has another shape; nothing was changed.
    """
    for name, tensor in target.items():
        found = tensors.get(name)
        if found is None:
            raise CheckpointError(f"{path}: holds no {name!r}; it belongs to another model")
        if found.shape != tensor.shape:
            raise CheckpointError(
                f"{path}: {name!r} has shape {tuple(found.shape)}, this model needs "
                f"{tuple(tensor.shape)}; the run's config.yaml was changed"
            )
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(tensors[name])
