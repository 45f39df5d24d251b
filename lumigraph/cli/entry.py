"""Entry of the command `lumigraph`: finds the command, runs it, turns its end into an exit code.

Exit codes: 0 done, 2 the user's mistake (one line on stderr), 1 our fault (a short message;
LUMIGRAPH_DEBUG=1 shows the traceback), 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from .commands import COMMANDS
from .parsing import UsageError, closest, parse
from .terminal import Interrupted, Terminal

_USER_ERRNOS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
)
"""Failures of the file system that its user can cure."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after the program's name; None takes them from the shell.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(overview())
        return 0
    if words[0] in ("-V", "--version"):
        from lumigraph import __version__

        sys.stdout.write(f"lumigraph {__version__}\n")
        return 0
    # Threads that wait by spinning slow a step five times down when another program runs beside it.
    # Read when torch loads its OpenMP, so it is set before any command does.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    terminal = Terminal(as_json="--json" in words)
    try:
        with terminal:
            result = _run(words[0], words[1:], terminal)
        terminal.finish(result)
        return 0
    except SystemExit as stop:
        return int(stop.code or 0)
    except KeyboardInterrupt as stop:
        summary = stop.summary if isinstance(stop, Interrupted) else {}
        terminal.finish({**summary, "interrupted": True})
        sys.stderr.write(f"lumigraph: {str(stop) or 'stopped'}\n")
        return 130
    except Exception as error:
        return _failed(error, terminal)


def overview() -> str:
    """The text of `lumigraph --help`."""
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: lumigraph COMMAND [options]",
            "",
            "Posed photographs in, a scene to walk through out.",
            "",
            "commands:",
            *lines,
            "",
            "lumigraph COMMAND --help shows a command's options; lumigraph --version the version.",
            "",
        ]
    )


def _run(name: str, words: Sequence[str], terminal: Terminal) -> dict[str, object]:
    if name not in COMMANDS:
        kind = "option" if name.startswith("-") else "command"
        hint = closest(name, COMMANDS)
        raise UsageError(f"unknown {kind} {name!r}{hint}; see lumigraph --help")
    module = importlib.import_module(f"lumigraph.cli.{COMMANDS[name].module}")
    with terminal.plain_stdout():
        arguments = parse(module.Arguments, words, program=f"lumigraph {name}")
    return module.run(arguments, terminal)


def _failed(error: Exception, terminal: Terminal) -> int:
    """Say on stderr what went wrong; the exit code tells whose fault it is."""
    if os.environ.get("LUMIGRAPH_DEBUG") not in (None, "", "0"):
        traceback.print_exception(error)
    message = " ".join(str(error).split())
    code = 2 if _is_users(error) else 1
    if code == 1:
        way_out = "set LUMIGRAPH_DEBUG=1 to see the traceback"
        message = f"internal error, {type(error).__name__}: {message[:400]}; {way_out}"
    elif isinstance(error, OSError):
        reason = error.strerror or message
        message = f"{error.filename}: {reason}" if error.filename else reason
    terminal.finish({"error": message})
    sys.stderr.write(f"lumigraph: error: {message}\n")
    return code


def _is_users(error: Exception) -> bool:
    if isinstance(error, UsageError):
        return True
    if isinstance(error, OSError) and error.errno in _USER_ERRNOS:
        return True
    from lumigraph.core.errors import InputError

    return isinstance(error, InputError)
