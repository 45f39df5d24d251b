"""Reading and writing the files of a run folder. Imports no torch."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from lumigraph.core.errors import CheckpointError, ConfigError, DataError
from lumigraph.core.files import reason_of, write_atomic, write_json, write_text

__all__ = [
    "append_line",
    "newest_checkpoint",
    "read_json",
    "read_lines",
    "read_yaml",
    "write_atomic",
    "write_json",
    "write_text",
    "write_yaml",
]


def read_json(path: Path) -> Any:
    """Raises DataError naming the file when it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DataError(f"{path}: not found; is {path.parent} a finished run?") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({reason_of(error)}); remove it and run again") from error


def append_line(path: Path, value: Any) -> None:
    """Add one JSON object as a line."""
    try:
        with path.open("a") as stream:
            stream.write(json.dumps(value) + "\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({reason_of(error)})") from error


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
        raise ConfigError(f"{path}: not readable as YAML ({reason_of(error)})") from error
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
