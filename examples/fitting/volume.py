"""A cloud as a network: density and albedo fitted on points, scored, marched and path traced.

    python examples/fitting/volume.py [GRID] [--steps 1500] [--samples 16] [--out runs/volume]

GRID is builtin:cloud, builtin:fog, or a .npy or .npz file of densities and perhaps albedos.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import lumigraph as lg

QUICK: dict[str, Any] = {"steps": 3, "batch_samples": 256, "log2_table_size": 10}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?", default="builtin:cloud", help="grid")
    parser.add_argument("--steps", type=int, default=1500, help="training steps")
    parser.add_argument("--encoding", default="hashgrid", help="or densegrid, low_res_densegrid")
    parser.add_argument("--preset", default="tiny", help="tiny on a CPU, full on a GPU")
    parser.add_argument("--samples", type=int, default=16, help="paths of light in a pixel")
    parser.add_argument("--out", type=Path, default=Path("runs/volume"), help="run folder")
    parser.add_argument("--quick", action="store_true", help="three steps: only to see it work")
    arguments = parser.parse_args()

    settings = QUICK if arguments.quick else {"steps": arguments.steps}
    config = lg.training.train_config(
        "volume", arguments.preset, encoding=arguments.encoding, **settings
    )
    run = lg.training.train(arguments.data, config, out=arguments.out, on_event=show)

    scores = lg.training.evaluate(run)
    print(f"densities {scores['density_psnr']:.2f} dB, albedos {scores['albedo_psnr']:.2f} dB")
    cells = 16 if arguments.quick else 128
    print(lg.export.medium(run, out=run.path / "fitted.npz", cells=cells).line())

    # the same run with paths of light in place of the preview
    samples = 1 if arguments.quick else arguments.samples
    traced = dataclasses.replace(
        run, config=dataclasses.replace(run.config, samples_per_pixel=samples)
    )
    video = lg.export.video(
        traced,
        path="turntable",
        out=run.path / "traced.mp4",
        size=(32, 24) if arguments.quick else (320, 240),
        frames=2 if arguments.quick else 24,
        options=lg.export.PathOptions(fps=12),
    )
    print(f"{video.paths[0]}: {video.frames} frames in {video.seconds:.1f} s")


def show(event: lg.training.Event) -> None:
    if isinstance(event, lg.training.StepEvent) and event.step % 100 == 0:
        print(f"step {event.step}  loss {event.loss:.6f}")


if __name__ == "__main__":
    try:
        main()
    except lg.core.InputError as error:
        raise SystemExit(f"error: {error}") from error
