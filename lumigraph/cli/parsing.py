"""From words on the command line to a command's `Arguments`, with one-line messages.

The library for arguments, tyro, reports mistakes in a framed box; a shell user and a log file are
better served by one line that names the option and the way out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import re
import typing
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

Arguments = TypeVar("Arguments")

_BAD_VALUE = re.compile(r"Error parsing (\S+): no type matching (.+) could be .*from \['(.*)'\]")
_BAD_CHOICE = re.compile(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)")
_MISSING = re.compile(r"Missing from .*?: (--\S+|[A-Z]+)(?= |$)")
_NO_VALUE = re.compile(r"Missing value for argument '(.*?)'")


class UsageError(Exception):
    """Words that do not form a command; the message is one line."""


def parse(kind: type[Arguments], words: Sequence[str], *, program: str) -> Arguments:
    """Build a command's arguments; `--help` prints and raises SystemExit(0).

    Args:
        kind: a flat frozen dataclass.
        words: what stood after the command's name.
        program: the command as typed, e.g. "lumigraph train".

    Raises:
        UsageError: an unknown option, a missing or a superfluous word, or a bad value.
    """
    import tyro

    options = _option_names(kind)
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("--") and name.replace("_", "-") not in options:
            hint = closest(name, options)
            raise UsageError(f"unknown option {name}{hint}; see {program} --help")
    config = (
        tyro.conf.DisallowNone,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.PositionalMetavarFromFieldName,
    )
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            return tyro.cli(kind, args=list(words), prog=program, config=config)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(f"{_one_line(messages.getvalue())}; see {program} --help") from None


def closest(word: str, known: Iterable[str]) -> str:
    """` (did you mean x?)` for the most similar known word, or nothing."""
    names = {name.lstrip("-"): name for name in known}
    matches = difflib.get_close_matches(word.lstrip("-"), list(names), n=1)
    return f" (did you mean {names[matches[0]]}?)" if matches else ""


def _option_names(kind: type) -> list[str]:
    """Spellings of the options of a flat dataclass."""
    hints = typing.get_type_hints(kind, include_extras=True)
    fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(kind)
    named = [f.name for f in fields if "Positional" not in repr(hints[f.name])]
    return ["--help", *map(option_name, named)]


def option_name(field: str) -> str:
    """How a field of `Arguments` is spelled; `from_` stands for a word that Python keeps.

    >>> option_name("image_scale"), option_name("from_")
    ('--image-scale', '--from')
    """
    return "--" + field.rstrip("_").replace("_", "-")


def _one_line(box: str) -> str:
    """The essence of tyro's message: a title, a ruler (or a frame), what is wrong, a ruler, hints.

    Frames are drawn or left out by the encoding of stdout.
    """
    rows = [row.strip(" │╭╮╰╯") for row in box.splitlines()][1:]
    rulers = [index for index, row in enumerate(rows) if row and not row.strip("-─")]
    if rulers and rulers[0] == 0:
        rows, rulers = rows[1:], [index - 1 for index in rulers[1:]]
    text = " ".join(rows[: rulers[0]] if rulers else rows).split("Got errors:")[0]
    text = " ".join(text.split()) or "the arguments cannot be read"
    if match := _BAD_VALUE.search(text):
        return f"option {match[1]}: cannot read {match[3]!r} as {match[2]}"
    if match := _BAD_CHOICE.search(text):
        choices = match[3].replace("'", "").rstrip(",")
        return f"option {match[2]}: unknown value {match[1]!r}, use one of {choices}"
    if match := _MISSING.search(text):
        return f"{match[1]} is missing"
    if match := _NO_VALUE.search(text):
        return f"option {match[1]}: its value is missing"
    return text.replace("Unrecognized options:", "cannot make sense of")
