"""Lego as 3D Gaussians: the same data as lego.py, another method, and files for other viewers.

Gaussians start at random places inside the silhouettes, move to where they are needed (strategy
MCMC), and end in `lego.ply` (the layout of the original code) and `lego.spz` (a tenth of the size).

    python examples/scenes/lego_gaussians.py FOLDER [--seconds 180] [--out runs/lego-gaussians]

Without FOLDER: nerf_synthetic_lego below LUMIGRAPH_TEST_DATA, or below data/.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import lumigraph as lg

DATA = Path(os.environ.get("LUMIGRAPH_TEST_DATA", "data")) / "nerf_synthetic_lego"
QUICK: dict[str, Any] = {"steps": 3, "initial_gaussians": 200, "max_gaussians": 400}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, default=DATA, help="scene folder")
    parser.add_argument("--seconds", type=float, default=180.0, help="training time")
    parser.add_argument("--out", type=Path, default=Path("runs/lego-gaussians"), help="run folder")
    parser.add_argument("--quick", action="store_true", help="three steps: only to see it work")
    arguments = parser.parse_args()

    quick = QUICK if arguments.quick else {}
    config = lg.training.train_config("gaussians", "tiny", seconds=arguments.seconds, **quick)
    run = lg.training.train(arguments.data, config, out=arguments.out, on_event=show)

    scores = lg.training.evaluate(run)
    print(f"{scores['views']} test views: PSNR {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.4f}")

    for name in ("lego.ply", "lego.spz"):
        print(lg.export.splats(run, out=run.path / name).line())
    video = lg.export.video(
        run,
        path="orbit",
        out=run.path / "orbit.mp4",
        size=(32, 32) if arguments.quick else (400, 400),
        frames=2 if arguments.quick else 72,
        options=lg.export.PathOptions(channels=("rgb", "depth"), fps=24),
    )
    print(f"{video.paths[0]}: {video.frames} frames in {video.seconds:.1f} s")


def show(event: lg.training.Event) -> None:
    if isinstance(event, lg.training.StepEvent) and event.step % 100 == 0:
        count = event.extras["gaussians"]
        print(f"step {event.step}  {count:.0f} Gaussians  PSNR {event.psnr:.2f} dB")


if __name__ == "__main__":
    try:
        main()
    except lg.core.InputError as error:
        raise SystemExit(f"error: {error}") from error
