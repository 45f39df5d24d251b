"""The built-in scene: toys on a stand, made on first use, so that nothing is downloaded.

What `lumigraph demo` does, as a script: train, score on views that training never saw, and render
a video around the toys. Takes a minute or two on two CPU cores.

    python examples/scenes/demo.py [--seconds 45] [--out runs/demo-script]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import lumigraph as lg

QUICK: dict[str, Any] = {"steps": 3, "hidden_width": 16, "batch_samples": 1024, "march_steps": 64}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?", default="builtin:object")
    parser.add_argument("--seconds", type=float, default=45.0, help="training time")
    parser.add_argument("--out", type=Path, default=Path("runs/demo-script"), help="run folder")
    parser.add_argument("--quick", action="store_true", help="three steps: only to see it work")
    arguments = parser.parse_args()

    quick = QUICK if arguments.quick else {}
    # tiny is sized for a CPU; the pictures have alpha, which the trainer fills with random colors
    config = lg.training.train_config("nerf", "tiny", seconds=arguments.seconds, **quick)
    run = lg.training.train(arguments.data, config, out=arguments.out, on_event=show)

    scores = lg.training.evaluate(run)
    print(f"{scores['views']} test views: PSNR {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.4f}")

    video = lg.export.video(
        run,
        path="orbit",
        out=run.path / "orbit.mp4",
        size=(32, 32) if arguments.quick else (240, 240),
        frames=2 if arguments.quick else 72,
        options=lg.export.PathOptions(channels=("rgb", "depth"), fps=24),
    )
    print(f"{video.paths[0]}: {video.frames} frames in {video.seconds:.1f} s")


def show(event: lg.training.Event) -> None:
    if isinstance(event, lg.training.StepEvent) and event.step % 100 == 0:
        print(f"step {event.step}  PSNR {event.psnr:.2f} dB  {event.eta_seconds:.0f} s left")


if __name__ == "__main__":
    try:
        main()
    except lg.core.InputError as error:
        raise SystemExit(f"error: {error}") from error
