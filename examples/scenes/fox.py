"""Fox: photographs of an object in a room, in instant-ngp's transforms.json.

The lens is distorted: the reader takes k1 k2 p1 p2 from the file and rays follow it. The room goes
on beyond the object, so the scene is four times as large as its region of interest (`aabb_scale`).

    python examples/scenes/fox.py FOLDER [--seconds 240] [--out runs/fox]

Without FOLDER: nerf_fox below LUMIGRAPH_TEST_DATA, or below data/.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import lumigraph as lg

DATA = Path(os.environ.get("LUMIGRAPH_TEST_DATA", "data")) / "nerf_fox"
QUICK: dict[str, Any] = {"steps": 3, "hidden_width": 16, "batch_samples": 1024, "march_steps": 64}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, default=DATA, help="scene folder")
    parser.add_argument("--seconds", type=float, default=240.0, help="training time")
    parser.add_argument("--out", type=Path, default=Path("runs/fox"), help="run folder")
    parser.add_argument("--quick", action="store_true", help="three steps: only to see it work")
    arguments = parser.parse_args()

    quick = QUICK if arguments.quick else {}
    # a quarter of 1080x1920 is what two CPU cores can learn in minutes; the folder has no split
    config = lg.training.train_config(
        "nerf", "tiny", seconds=arguments.seconds, image_scale=0.25, split_every=8, **quick
    )
    run = lg.training.train(arguments.data, config, out=arguments.out, on_event=show)

    scores = lg.training.evaluate(run)
    print(f"{scores['views']} test views: PSNR {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.4f}")

    video = lg.export.video(
        run,
        path="orbit",
        out=run.path / "orbit.mp4",
        size=(32, 32) if arguments.quick else (270, 480),
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
