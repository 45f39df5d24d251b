"""Nested frozen dataclasses from nested mappings: unknown keys, wrong types and values out of range
are errors that name the dotted key and what is legal."""

from __future__ import annotations

import dataclasses
import difflib
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from lumigraph.core.errors import ConfigError

Built = TypeVar("Built")


def setting(
    default: Any,
    *,
    tag: str,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[Any] | None = None,
) -> Any:
    """A field with its provenance and its legal values."""
    legal = {"tag": tag, "low": low, "high": high, "choices": choices}
    return dataclasses.field(default=default, metadata=legal)


def build(start: Built, values: Mapping[str, Any], *, source: str, prefix: str = "") -> Built:
    """`start` with the values of a nested mapping.

    Args:
        source: file or option, for messages.

    Raises:
        ConfigError: an unknown key, a value of the wrong kind or out of range.
    """
    hints = typing.get_type_hints(type(start))
    fields = {field.name: field for field in dataclasses.fields(start)}  # type: ignore[arg-type]
    changes: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(fields)}"
            raise ConfigError(f"{source}: unknown key {key!r}; {hint}")
        current = getattr(start, name)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{source}: {key} must be a mapping; got {value!r}")
            changes[name] = build(current, value, source=source, prefix=f"{key}.")
        else:
            changes[name] = _checked(value, hints[name], fields[name].metadata, source, key)
    return dataclasses.replace(start, **changes)  # type: ignore[type-var]


def to_mapping(value: Any) -> dict[str, Any]:
    """All settings, nested."""
    return dataclasses.asdict(value)


def settings_of(value: Any, prefix: str = "") -> dict[str, dict[str, Any]]:
    """Dotted key -> its value and its metadata, of all settings."""
    rows: dict[str, dict[str, Any]] = {}
    for field in dataclasses.fields(value):
        current = getattr(value, field.name)
        key = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(current):
            rows |= settings_of(current, f"{key}.")
        else:
            rows[key] = {"value": current, **field.metadata}
    return rows


def _checked(value: Any, hint: Any, legal: Mapping[str, Any], source: str, key: str) -> Any:
    words = _words(hint)
    if isinstance(value, str) and value in words:
        return value
    kinds = {kind for kind in (typing.get_args(hint) or (hint,)) if isinstance(kind, type)}
    if words and not kinds:
        raise ConfigError(f"{source}: {key} = {value!r}; use one of {', '.join(words)}")
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) not in kinds:
        wanted = " or ".join([*sorted(kind.__name__ for kind in kinds), *words])
        raise ConfigError(f"{source}: {key} = {value!r}; must be {wanted}")
    choices, low, high = (legal.get(name) for name in ("choices", "low", "high"))
    if choices is not None and value not in choices:
        raise ConfigError(f"{source}: {key} = {value!r}; use one of {', '.join(map(str, choices))}")
    outside = low is not None and not low <= value <= high
    if outside or (isinstance(value, float) and not math.isfinite(value)):
        raise ConfigError(f"{source}: {key} = {value!r}; must be {low} to {high}")
    return value


def _words(hint: Any) -> list[str]:
    """The words of a Literal, alone or within a union."""
    if typing.get_origin(hint) is Literal:
        return [str(word) for word in typing.get_args(hint)]
    inner = [arg for arg in typing.get_args(hint) if typing.get_origin(arg) is Literal]
    return [str(word) for literal in inner for word in typing.get_args(literal)]
