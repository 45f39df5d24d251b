"""A can on a table, hand-held photographs in COLMAP's format, as 3D Gaussians.

COLMAP's points say where Gaussians start. Each photograph has a lens of its own, which the
rasteriser takes as it is: nothing is undistorted beforehand. Photographs are reduced to a quarter;
every 8th one is kept for testing.

    python examples/scenes/can_gaussians.py FOLDER [--seconds 240] [--out runs/can]

Without FOLDER: colmap_can below LUMIGRAPH_TEST_DATA, or below data/.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import lumigraph as lg

DATA = Path(os.environ.get("LUMIGRAPH_TEST_DATA", "data")) / "colmap_can"
QUICK: dict[str, Any] = {"steps": 3, "max_gaussians": 400, "image_scale": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, default=DATA, help="scene folder")
    parser.add_argument("--seconds", type=float, default=240.0, help="training time")
    parser.add_argument("--out", type=Path, default=Path("runs/can"), help="run folder")
    parser.add_argument("--quick", action="store_true", help="three steps: only to see it work")
    arguments = parser.parse_args()

    settings: dict[str, Any] = {"image_scale": 0.25, "split_every": 8, "exposure": True}
    if arguments.quick:
        settings |= QUICK
    config = lg.training.train_config("gaussians", "tiny", seconds=arguments.seconds, **settings)
    run = lg.training.train(arguments.data, config, out=arguments.out, on_event=show)

    scores = lg.training.evaluate(run)
    print(f"{scores['views']} test views: PSNR {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.4f}")

    # in COLMAP's own frame, so that it lies on other results of the same reconstruction
    print(lg.export.splats(run, out=run.path / "can.ply").line())
    video = lg.export.video(
        run,
        path="captured",
        out=run.path / "captured.mp4",
        frames=2 if arguments.quick else 120,
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
