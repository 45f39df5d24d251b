"""Lego: the bulldozer of the NeRF synthetic set, in Blender's transforms_{train,val,test}.json.

The folder has its own split and pictures with alpha. They are scored over white; in training,
random colors stand behind them, so that empty space cannot pass for white paint.

    python examples/scenes/lego.py FOLDER [--seconds 120] [--out runs/lego]

Without FOLDER: nerf_synthetic_lego below LUMIGRAPH_TEST_DATA, or below data/.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import lumigraph as lg

DATA = Path(os.environ.get("LUMIGRAPH_TEST_DATA", "data")) / "nerf_synthetic_lego"
QUICK: dict[str, Any] = {"steps": 3, "hidden_width": 16, "batch_samples": 1024, "march_steps": 64}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, default=DATA, help="scene folder")
    parser.add_argument("--seconds", type=float, default=120.0, help="training time")
    parser.add_argument("--out", type=Path, default=Path("runs/lego"), help="run folder")
    parser.add_argument("--quick", action="store_true", help="three steps: only to see it work")
    arguments = parser.parse_args()

    quick = QUICK if arguments.quick else {}
    # the reader knows the background of this format: white
    config = lg.training.train_config("nerf", "tiny", seconds=arguments.seconds, **quick)
    run = lg.training.train(arguments.data, config, out=arguments.out, on_event=show)

    scores = lg.training.evaluate(run)
    print(f"{scores['views']} test views: PSNR {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.4f}")

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
        print(f"step {event.step}  PSNR {event.psnr:.2f} dB  {event.eta_seconds:.0f} s left")


if __name__ == "__main__":
    try:
        main()
    except lg.core.InputError as error:
        raise SystemExit(f"error: {error}") from error
