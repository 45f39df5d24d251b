"""`lumigraph bench`: kernels, training or splatting measured against their peers."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from .terminal import Terminal, escaped


@dataclass(frozen=True)
class Arguments:
    """Measure our back ends against the torch twins and, where installed, against their peers."""

    subject: tyro.conf.Positional[Literal["kernels", "train", "splat", "splat4d"]]
    """What is measured: single operations, whole training steps, Gaussian splatting, or splatting
    of Gaussians in space and time."""
    out: Path | None = None
    """Folder for the result as .json and as a table in .md."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to measure; auto takes a GPU when there is one."""
    quick: bool = False
    """Small sizes and few repetitions: to see that it works, not to be quoted."""
    json: bool = False
    """Print one final JSON object on stdout, everything else on stderr."""


def run(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    """Run `bench_kernels`, `bench_train`, `bench_splat` or `bench_splat4d`."""
    module = importlib.import_module(f"lumigraph.bench.{arguments.subject}")
    measure = getattr(module, f"bench_{arguments.subject}")
    return measure(
        arguments.device,
        quick=arguments.quick,
        out=arguments.out,
        on_message=lambda text: terminal.say(escaped(text)),
    )
