"""Writing the files of a run folder: whole or not at all, with one clear line when it fails.
Imports no torch."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lumigraph.core.errors import CheckpointError, ConfigError, DataError


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
            f"{path}: cannot be written ({_reason(error)}); earlier results are untouched: "
            "free some space or choose another --out"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200]


def write_text(path: Path, text: str) -> None:
    """Atomic; see `write_atomic`."""
    write_atomic(path, lambda temporary: temporary.write_text(text))


def write_json(path: Path, value: Any) -> None:
    """Atomic, indented; see `write_atomic`."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Raises DataError naming the file when it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DataError(f"{path}: not found; is {path.parent} a finished run?") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({_reason(error)}); remove it and run again") from error


def append_line(path: Path, value: Any) -> None:
    """Add one JSON object as a line."""
    try:
        with path.open("a") as stream:
            stream.write(json.dumps(value) + "\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({_reason(error)})") from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All objects of a JSON-lines file; a last line cut short by a kill is left out."""
    rows = []
    if path.is_file():
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError):
                rows.append(json.loads(line))
    return rows


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping from a YAML file, parsed without executing anything.

    Raises:
        ConfigError: missing, damaged, or not a mapping.
    """
    import yaml

    try:
        value = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: not found; is {path.parent} a run folder?") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not readable as YAML ({_reason(error)})") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a mapping of settings")
    return value


def write_yaml(path: Path, value: dict[str, Any]) -> None:
    """Atomic; see `write_atomic`."""
    import yaml

    write_text(path, yaml.safe_dump(value, sort_keys=False))


def newest_checkpoint(folder: Path) -> Path:
    """The checkpoint with the highest step.

    Raises:
        CheckpointError: there is none.
    """
    found = sorted((folder / "checkpoints").glob("step-*.safetensors"))
    if not found:
        raise CheckpointError(f"{folder}: no checkpoint inside; train it first")
    return found[-1]
