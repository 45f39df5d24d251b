"""The run folder that a command writes: never over earlier results without being told so."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lumigraph.core.errors import InputError

_RUN_FILES = ("config.yaml", "metrics.jsonl", "checkpoints")
"""A folder with one of these was written by a run."""
_SCENE_FILES = (".json", ".npz", ".npy", ".bin", ".txt")
"""Files that may be named in place of the folder of a scene."""


def run_name(data: str) -> str:
    """A folder name for data: that of its folder, or of a file that is all of it;
    `builtin:object` gives `object`."""
    if data.startswith("builtin:"):
        return data.removeprefix("builtin:")
    path = Path(data).resolve()
    folder = path.parent if path.suffix in _SCENE_FILES else path
    return (folder.stem if folder.is_file() else folder.name) or "scene"


@contextlib.contextmanager
def claimed(out: Path, *, overwrite: bool, resumable: bool = True) -> Iterator[Path]:
    """Make sure that a new run may be written to `out`.

    With `overwrite` an earlier run is set aside while the block works, and comes back when the
    block fails before it has saved anything.

    Args:
        resumable: whether the message may name --resume as a way out.

    Raises:
        InputError: the folder holds a run and `overwrite` is off, or it holds something else.
    """
    if not (out.exists() or out.is_symlink()) or (out.is_dir() and not any(out.iterdir())):
        yield out
        return
    if not out.is_dir() or not any((out / name).exists() for name in _RUN_FILES):
        raise InputError(f"--out {out}: exists and is not a run folder; choose another name")
    if not overwrite:
        resume = "continue it with --resume, " if resumable else ""
        raise InputError(
            f"--out {out}: holds a run already; {resume}replace it with --overwrite, "
            "or choose another name"
        )
    aside = out.with_name(f".{out.name}-replaced-{os.getpid()}")
    out.rename(aside)
    try:
        yield out
    except BaseException:
        if _has_checkpoint(out):
            _remove(aside)
        else:
            _remove(out)
            aside.rename(out)
        raise
    _remove(aside)


def _remove(folder: Path) -> None:
    """A folder with its content, or a link to one alone."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _has_checkpoint(folder: Path) -> bool:
    return any((folder / "checkpoints").glob("*.safetensors"))
