"""Errors that a user can cause and cure; every message is one line.

A message says what is wrong, where (file, option or argument) and what to do about it. Commands
turn any :class:`InputError` into exit code 2 and print its message alone; everything else is a
fault of the program (exit code 1, with a traceback).
"""

from __future__ import annotations

import importlib
from types import ModuleType


class LumigraphError(Exception):
    """Base of all errors raised on purpose by lumigraph."""


class InputError(LumigraphError, ValueError):
    """A user's mistake: wrong argument, option or file. The message is one line."""


class DataError(InputError):
    """A scene folder, image or other data file that cannot be used."""


class ConfigError(InputError):
    """An option or configuration key that is unknown or has an impossible value."""


class CheckpointError(InputError):
    """A checkpoint that is cut short, of another version or of another model."""


class BackendError(InputError):
    """An explicit wish for a device or back end that this machine cannot meet."""


class MissingExtraError(InputError):
    """An optional package is needed and not installed."""


def require(module_name: str, *, extra: str) -> ModuleType:
    """Import an optional package now, or say how to install it.

    Args:
        module_name: the module to import, e.g. ``"pyvista"``.
        extra: the extra of lumigraph that brings the package, e.g. ``"geometry"``.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: the package is not installed; the message names the install command.

    >>> require("json", extra="test").dumps([1])
    '[1]'
    """
    try:
        return importlib.import_module(module_name)
    except ImportError as error:
        package = module_name.partition(".")[0]
        reason = "is not installed"
        if not (isinstance(error, ModuleNotFoundError) and error.name == package):
            reason = f"cannot be imported ({_one_line(error)})"
        raise MissingExtraError(
            f"{package} {reason}; install it with: pip install 'lumigraph[{extra}]'"
        ) from error


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
