"""`lumigraph view`: a run, a file of Gaussians or a mesh in the browser."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from lumigraph.core.axes import AxisName

from .terminal import Terminal, escaped


@dataclass(frozen=True)
class Arguments:
    """Look at a run, at Gaussians (.ply, .splat, .spz, .lg4d) or at a mesh (.glb, .obj) in the
    browser."""

    target: tyro.conf.Positional[Path]
    """Run folder or file."""
    port: int | None = None
    """Port to listen on, 0 for any free one; by default 8080, or a free one where it is taken."""
    host: str = "127.0.0.1"
    """Address to listen on; others than loopback let everyone in who has the printed address."""
    mesh: tuple[Path, ...] = ()
    """Meshes (.glb, .obj) to show with it, in the capture's own frame."""
    up: AxisName | None = None
    """What is up in a file; by default -y for Gaussians, y for .glb, z for other meshes."""
    device: Literal["auto", "cpu", "cuda"] | None = None
    """Where to render; by default as in training."""
    seconds: float | None = None
    """Stop after so long; by default at Ctrl-C."""
    json: bool = False
    """Print one final JSON object on stdout, everything else on stderr."""


def run(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    """Serve until Ctrl-C."""
    from lumigraph import viewer
    from lumigraph.core.errors import require

    require("viser", extra="viewer")
    source = viewer.open_source(arguments.target, device=arguments.device, up=arguments.up)
    options: dict[str, Any] = {"host": arguments.host, "port": arguments.port}
    began = time.monotonic()
    with viewer.Viewer(source, meshes=arguments.mesh, **options) as served:
        announce(served, terminal)
        try:
            served.wait(arguments.seconds)
        except KeyboardInterrupt:
            terminal.say("stopped")
        return {
            "target": str(arguments.target),
            "kind": source.kind,
            "device": source.device,
            "port": served.port,
            "seconds": round(time.monotonic() - began, 3),
        }


def announce(served: Any, terminal: Terminal) -> None:
    """Where to look, and who else could."""
    if served.port_was_taken:
        terminal.say(f"port 8080 is taken; this viewer listens on {served.port}")
    if served.is_open:
        terminal.say(
            f"[yellow]warning:[/yellow] {escaped(served.host)} can be reached by other machines, "
            "without encryption; whoever has the address below may look"
        )
    terminal.say(f"{escaped(served.source.title)}: open {escaped(served.url)}")
    terminal.say("Ctrl-C stops")
