"""Files written whole or not at all, with one clear line when it fails. Imports no torch."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lumigraph.core.errors import DataError


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary name beside `path`, then rename.

    A failure (a full disk, say) leaves an earlier file of that name as it was.

    Raises:
        DataError: the file cannot be written; says where and why.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        # safetensors reports a full disk as an error of its own, with the system's text in it
        raise DataError(
            f"{path}: cannot be written ({reason_of(error)}); earlier results are untouched: "
            "free some space or choose another --out"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def reason_of(error: BaseException) -> str:
    """Why a file cannot be used, without the path that the message names already."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200]


def write_text(path: Path, text: str) -> None:
    """Atomic; see `write_atomic`."""
    write_atomic(path, lambda temporary: temporary.write_text(text))


def write_json(path: Path, value: Any) -> None:
    """Atomic, indented; see `write_atomic`."""
    write_text(path, json.dumps(value, indent=2) + "\n")
