"""`lumigraph doctor`: what runs where on this machine, and why not faster."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from .terminal import Terminal, escaped

_COLORS = {"ok": "green", "slower": "yellow", "failed": "red"}


@dataclass(frozen=True)
class Arguments:
    """Build the kernels, check each operation against its plain twin, and say what runs where."""

    json: bool = False
    """Print one final JSON object on stdout, everything else on stderr."""


def run(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    """Print one line for each finding."""
    from lumigraph.cuda.doctor import report

    rows = report()
    width = max(len(row.name) for row in rows)
    for row in rows:
        color = _COLORS.get(row.status, "default")
        status = f"[{color}]{row.status:<8}[/{color}]"
        terminal.say(f"{row.name:<{width}}  {status} {escaped(row.detail)}")
    return {"rows": [dataclasses.asdict(row) for row in rows]}
