"""`lumigraph demo`: the whole way on a built-in scene, in under two minutes on two CPU cores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .terminal import Terminal


@dataclass(frozen=True)
class Arguments:
    """Train a built-in scene, score it, render a video around it and write a report."""

    out: Path = Path("runs/demo")
    """Run folder to write."""
    seconds: float = 45.0
    """Training time."""
    method: Literal["nerf", "gaussians", "neus"] = "nerf"
    """What is trained: a radiance field on a grid, a cloud of 3D Gaussians, or a surface."""
    preset: Literal["tiny", "small", "full"] = "tiny"
    """Size: tiny for a CPU, small and full for a GPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU when there is one."""
    size: int = 240
    """Width and height of the video in pixels."""
    frames: int = 72
    """Frames of the video."""
    fps: float = 24.0
    """Frames a second of the video."""
    overwrite: bool = False
    """Replace the run in --out."""
    json: bool = False
    """Print one final JSON object on stdout, everything else on stderr."""


def run(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    """Train, evaluate, render, report."""
    from lumigraph import export, training
    from lumigraph.core.errors import InputError
    from lumigraph.training.report import write_report

    from .evaluate import evaluate_with_progress, score_rows
    from .output_folder import claimed
    from .train import summary_rows, train_summary, train_with_progress

    if not 16 <= arguments.size <= 4096 or arguments.frames < 1:
        raise InputError(
            f"--size {arguments.size} --frames {arguments.frames}: expected 16 to 4096 pixels "
            "and at least one frame"
        )
    config = training.train_config(
        arguments.method, arguments.preset, seconds=arguments.seconds, device=arguments.device
    )
    with claimed(arguments.out, overwrite=arguments.overwrite, resumable=False):
        trained = train_with_progress("builtin:object", config, arguments.out, terminal)
    scores = evaluate_with_progress(trained, terminal)
    with terminal.frames("rendering") as progress:
        rendered = export.video(
            trained,
            path="orbit",
            out=trained.path / "orbit.mp4",
            size=(arguments.size, arguments.size),
            frames=arguments.frames,
            options=export.PathOptions(fps=arguments.fps, overwrite=True),
            on_frame=progress,
        )
    trained.add_timing("render", rendered.seconds)
    report = write_report(trained.path)
    summary = train_summary(trained)
    files = {"video": str(rendered.paths[0]), "report": str(report)}
    terminal.facts([*summary_rows(summary), *score_rows(scores), *files.items()])
    # Both parts have `seconds`: the training's stays, the evaluation's gets a name of its own.
    scores["evaluate_seconds"] = scores.pop("seconds")
    return {**summary, **scores, **files}
