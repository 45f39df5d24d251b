"""A moving scene as Gaussians in space and time: a fox that jumps, a ball that comes and goes.

Gaussians start at random places that the pictures of their moment allow; those that turn out not to
change become Gaussians in space. Scores are told for every moment, since a mean hides the frames in
which something appears at once.

    python examples/scenes/dynamic_gaussians.py FOLDER [--seconds 180] [--out runs/dynamic]

Without FOLDER: synth_dynamic below LUMIGRAPH_TEST_DATA, or below data/. Any data with times do,
and `builtin:dynamic` needs no file.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import lumigraph as lg

DATA = Path(os.environ.get("LUMIGRAPH_TEST_DATA", "data")) / "synth_dynamic"
QUICK: dict[str, Any] = {"steps": 3, "initial_gaussians": 200, "max_gaussians": 400}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?", default=str(DATA), help="scene folder")
    parser.add_argument("--seconds", type=float, default=180.0, help="training time")
    parser.add_argument("--out", type=Path, default=Path("runs/dynamic"), help="run folder")
    parser.add_argument("--quick", action="store_true", help="three steps: only to see it work")
    arguments = parser.parse_args()

    quick = QUICK if arguments.quick else {}
    config = lg.training.train_config(
        "gaussians4d", "tiny", seconds=arguments.seconds, image_scale=0.5, **quick
    )
    run = lg.training.train(arguments.data, config, out=arguments.out, on_event=show)

    scores = lg.training.evaluate(run)
    print(f"{scores['views']} test views: PSNR {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.4f}")
    for row in scores["per_moment"]:
        print(f"  time {row['time']:.3f}: {row['psnr']:.2f} dB")

    video = lg.export.video(
        run,
        path="orbit",
        out=run.path / "orbit.mp4",
        size=(32, 32) if arguments.quick else (240, 240),
        frames=2 if arguments.quick else 72,
        options=lg.export.PathOptions(fps=24),
    )
    print(f"{video.paths[0]}: {video.frames} frames in {video.seconds:.1f} s")


def show(event: lg.training.Event) -> None:
    if isinstance(event, lg.training.StepEvent) and event.step % 100 == 0:
        count, still = event.extras["gaussians"], event.extras["still_share"]
        print(
            f"step {event.step}  {count:.0f} Gaussians, {still:.0%} still  PSNR {event.psnr:.2f} dB"
        )


if __name__ == "__main__":
    try:
        main()
    except lg.core.InputError as error:
        raise SystemExit(f"error: {error}") from error
