"""A file that is about to be written: refused before work is spent on it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lumigraph.core.errors import InputError


def check_target(path: Path, suffixes: Iterable[str], *, what: str, overwrite: bool) -> None:
    """Refuse a target that cannot or must not be written.

    Args:
        suffixes: those that are known, in lower case.
        what: is written, for the message: "a mesh".
        overwrite: whether a file that is there may be replaced.

    Raises:
        InputError: an unknown suffix, a folder, or a file that may not be replaced.
    """
    known = tuple(suffixes)
    if path.suffix.lower() not in known:
        listed = ", ".join(known)
        raise InputError(f"{path}: unknown suffix {path.suffix!r}; {what} must end in {listed}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists already; replace it with --overwrite, or name another")
