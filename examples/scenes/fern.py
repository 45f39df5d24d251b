"""Fern: twenty photographs that all face one way, in LLFF's poses_bounds.npy.

Forward-facing captures know their scene from one side only: the video is a small spiral about the
mean view, not an orbit.

    python examples/scenes/fern.py FOLDER [--seconds 240] [--out runs/fern]

Without FOLDER: llff_fern below LUMIGRAPH_TEST_DATA, or below data/.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import lumigraph as lg

DATA = Path(os.environ.get("LUMIGRAPH_TEST_DATA", "data")) / "llff_fern"
QUICK: dict[str, Any] = {"steps": 3, "hidden_width": 16, "batch_samples": 1024, "march_steps": 64}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, default=DATA, help="scene folder")
    parser.add_argument("--seconds", type=float, default=240.0, help="training time")
    parser.add_argument("--out", type=Path, default=Path("runs/fern"), help="run folder")
    parser.add_argument("--quick", action="store_true", help="three steps: only to see it work")
    arguments = parser.parse_args()

    quick = QUICK if arguments.quick else {}
    # every 8th photograph is for testing, as is usual for this set: 3 of 20
    config = lg.training.train_config(
        "nerf", "tiny", seconds=arguments.seconds, split_every=8, **quick
    )
    run = lg.training.train(arguments.data, config, out=arguments.out, on_event=show)

    scores = lg.training.evaluate(run)
    print(f"{scores['views']} test views: PSNR {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.4f}")

    video = lg.export.video(
        run,
        path="spiral",
        out=run.path / "spiral.mp4",
        size=(32, 32) if arguments.quick else (504, 378),
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
