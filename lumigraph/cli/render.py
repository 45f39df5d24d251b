"""`lumigraph render`: a camera path of a run to a video or to pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from .terminal import Terminal


@dataclass(frozen=True)
class Arguments:
    """Render a run along a camera path, without a display."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    path: str = "orbit"
    """orbit, spiral, captured, interpolate, or a camera path file (.json)."""
    out: Path | None = None
    """A .mp4 file, or a folder for PNG files; by default renders/PATH.mp4 in the run folder."""
    width: int | None = None
    """Pixels; by default those of the captured images."""
    height: int | None = None
    """Pixels; by default those of the captured images."""
    frames: int | None = None
    """Number of frames, evenly spread over the path; by default what its duration asks for."""
    fps: float | None = None
    """Frames a second; by default those of the path."""
    channels: str = "rgb"
    """Any of rgb,depth,normal,opacity, separated by commas."""
    separate: bool = False
    """One file for each channel instead of all side by side."""
    device: Literal["auto", "cpu", "cuda"] | None = None
    """Where to render; by default as in training."""
    overwrite: bool = False
    """Replace existing files."""
    json: bool = False
    """Print one final JSON object on stdout, everything else on stderr."""


def run(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    """Render and say what was written."""
    from lumigraph import export, training

    options = export.PathOptions(
        channels=tuple(word.strip() for word in arguments.channels.split(",") if word.strip()),
        separate=arguments.separate,
        fps=arguments.fps,
        overwrite=arguments.overwrite,
    )
    opened = training.Run.open(arguments.run)
    out = arguments.out or opened.path / "renders" / f"{Path(arguments.path).stem}.mp4"
    with terminal.frames("rendering") as progress:
        rendered = export.video(
            opened,
            path=arguments.path,
            out=out,
            size=(arguments.width, arguments.height),
            frames=arguments.frames,
            device=arguments.device,
            options=options,
            on_frame=progress,
        )
    opened.add_timing("render", rendered.seconds)
    for path in rendered.paths:
        terminal.say(f"{path}: {rendered.frames} frames in {rendered.seconds:.1f} s")
    return {
        "run": str(opened.path),
        "path": arguments.path,
        "out": [str(path) for path in rendered.paths],
        "frames": rendered.frames,
        "seconds": rendered.seconds,
    }
