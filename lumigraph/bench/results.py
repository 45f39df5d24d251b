"""Result files: what was measured on which machine, as JSON and as a Markdown table.

`docs/benchmarks.md` describes the JSON.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from lumigraph.training.files import write_json, write_text
from lumigraph.training.machine import machine_facts

FORMAT = 1
PROTOCOL = (
    "the project's benchmark protocol: seeded inputs of lumigraph.bench.inputs; the torch twin "
    "runs in the same process; medians, 10th and 90th percentile as spread"
)
CPU_TIMING = "calls of the contenders alternate; wall clock"
GPU_TIMING = "CUDA events around each call, warm-up, rotating inputs"


def document(benchmark: str, device: torch.device, backend: str, *, quick: bool) -> dict[str, Any]:
    """The head of a result file."""
    return {
        "format": FORMAT,
        "benchmark": benchmark,
        "date": datetime.date.today().isoformat(),
        "device": device.type,
        "backend": backend,
        "threads": torch.get_num_threads(),
        "load_at_start": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "machine": machine_facts(),
        "protocol": PROTOCOL,
        "timing": GPU_TIMING if device.type == "cuda" else CPU_TIMING,
        "seed": 0,
        "quick": quick,
    }


def write(content: dict[str, Any], folder: Path, markdown: str) -> list[Path]:
    """Write `<benchmark>-<device>.json` and `.md`; returns their paths.

    Raises:
        DataError: the folder cannot be written.
    """
    stem = f"{content['benchmark']}-{content['device']}"
    paths = [folder / f"{stem}.json", folder / f"{stem}.md"]
    write_json(paths[0], content)
    write_text(paths[1], markdown)
    return paths


def heading(content: dict[str, Any]) -> str:
    """Title and circumstances as Markdown."""
    device = "GPU" if content["device"] == "cuda" else "CPU"
    machine = "; ".join(f"{name} {value}" for name, value in content["machine"].items())
    lines = [
        f"# lumigraph bench {content['benchmark']} on a {device}, {content['date']}",
        "",
        f"{machine}; {content['threads']} threads, load {content['load_at_start']} at the start.",
        "",
        f"Protocol: {content['protocol']}. Timing: {content['timing']}. Seed {content['seed']}.",
    ]
    if content["quick"]:
        lines += ["", "**Quick run: small sizes, not to be quoted.**"]
    return "\n".join([*lines, "", ""])


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a column without a single entry is left out.

    >>> print(table(["a", "b"], [["1", ""], ["2", ""]]), end="")
    | a |
    | --- |
    | 1 |
    | 2 |
    """
    kept = [i for i in range(len(columns)) if not rows or any(row[i] for row in rows)]
    lines = [
        "| " + " | ".join(columns[i] for i in kept) + " |",
        "| " + " | ".join("---" for _ in kept) + " |",
        *("| " + " | ".join(row[i] for i in kept) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def milliseconds(timing: dict[str, Any] | None) -> str:
    """Median with its spread.

    >>> milliseconds({"median_ms": 1.25, "low_ms": 1.2, "high_ms": 1.5})
    '1.25 (1.2-1.5)'
    """
    if timing is None:
        return ""
    return f"{timing['median_ms']:g} ({timing['low_ms']:g}-{timing['high_ms']:g})"


def power(size: int) -> str:
    """A size as people read it.

    >>> power(2**18), power(1000)
    ('2^18', '1000')
    """
    exponent = size.bit_length() - 1
    return f"2^{exponent}" if size == 2**exponent and exponent >= 10 else str(size)


def met(value: float | None, target: float | None, good: Callable[[float, float], bool]) -> str:
    """ "yes" or "no", or nothing where there is no target."""
    if value is None or target is None:
        return ""
    return "yes" if good(value, target) else "no"
