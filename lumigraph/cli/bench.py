"""`lumigraph bench`: kernels or training measured against their peers; needs the source tree."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import tyro

from .terminal import Terminal, escaped


@dataclass(frozen=True)
class Arguments:
    """Measure our back ends against the torch twins and, where installed, against their peers."""

    subject: tyro.conf.Positional[Literal["kernels", "train"]]
    """What is measured: single operations, or whole training steps."""
    out: Path | None = None
    """Result file (.json); a table (.md) is written beside it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to measure; auto takes a GPU when there is one."""
    quick: bool = False
    """Small sizes and few repetitions: to see that it works, not to be quoted."""
    json: bool = False
    """Print one final JSON object on stdout, everything else on stderr."""


def run(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    """Run one benchmark of the folder `benchmarks/`."""
    return _benchmark(arguments.subject).run(
        device=arguments.device,
        quick=arguments.quick,
        out=arguments.out,
        on_message=lambda text: terminal.say(escaped(text)),
    )


def _benchmark(subject: str) -> ModuleType:
    """`benchmarks/<subject>.py` of the source tree; the folder is not part of the package."""
    import lumigraph
    from lumigraph.core.errors import InputError

    file = Path(lumigraph.__file__).resolve().parents[1] / "benchmarks" / f"{subject}.py"
    if not file.is_file():
        raise InputError(
            f"{file}: not found; benchmarks are part of the source tree, not of the installed "
            "package: clone it and install with pip install -e ."
        )
    spec = importlib.util.spec_from_file_location(f"lumigraph_benchmark_{subject}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
