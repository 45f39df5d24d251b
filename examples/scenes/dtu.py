"""A scan of the DTU set in the folder format of NeuS, as a surface: pictures, normals, a mesh.

`cameras_sphere.npz` says where the unit sphere lies that holds the object; masks give its outline.
Scores are over white, and inside the outline alone. The mesh is in millimetres, as the scan; where
a true surface or points of it are at hand, it is held against them.

    python examples/scenes/dtu.py FOLDER [--seconds 480] [--preset tiny] [--truth FILE]

Without FOLDER: dtu_scan24 below LUMIGRAPH_TEST_DATA, or below data/.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import lumigraph as lg

DATA = Path(os.environ.get("LUMIGRAPH_TEST_DATA", "data")) / "dtu_scan24"
TEST_VIEWS = "8,13,16,21,26,31,34"  # of NeuS2, as far as scans of 49 views have them
QUICK: dict[str, Any] = {
    "steps": 3, "batch_samples": 1024, "march_steps": 64, "image_scale": 1.0, "test_views": "0,8",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, default=DATA, help="scene folder")
    parser.add_argument("--seconds", type=float, default=480.0, help="training time")
    parser.add_argument("--preset", default="tiny", help="tiny on a CPU, full on a GPU")
    parser.add_argument("--out", type=Path, default=Path("runs/dtu"), help="run folder")
    parser.add_argument(
        "--truth", type=Path, help="true surface; default: points_sfm.ply of FOLDER"
    )
    parser.add_argument("--quick", action="store_true", help="three steps: only to see it work")
    arguments = parser.parse_args()

    settings: dict[str, Any] = {"test_views": TEST_VIEWS}
    settings |= QUICK if arguments.quick else {"seconds": arguments.seconds}
    config = lg.training.train_config("neus", arguments.preset, **settings)
    run = lg.training.train(arguments.data, config, out=arguments.out, on_event=show)

    scores = lg.training.evaluate(run)
    print(f"{scores['views']} test views: PSNR {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.4f}")
    if scores["psnr_masked"] is not None:
        print(f"inside the outline: PSNR {scores['psnr_masked']:.2f} dB")

    video = lg.export.video(
        run,
        path="captured",
        out=run.path / "captured.mp4",
        size=(32, 32) if arguments.quick else None,
        frames=2 if arguments.quick else 72,
        options=lg.export.PathOptions(channels=("rgb", "normal"), fps=24),
    )
    print(f"{video.paths[0]}: {video.frames} frames in {video.seconds:.1f} s")
    truth = arguments.truth or arguments.data / "points_sfm.ply"
    if not arguments.quick:
        print(lg.export.mesh(run, out=run.path / "mesh.ply").line())
    if not arguments.quick and (arguments.truth is not None or truth.is_file()):
        judged = lg.export.evaluate_mesh(run, truth, mesh_file=run.path / "mesh.ply")
        for name, value in judged.lines():
            print(f"{name}: {value}")


def show(event: lg.training.Event) -> None:
    if isinstance(event, lg.training.StepEvent) and event.step % 100 == 0:
        sharpness = event.extras["sharpness"]
        print(f"step {event.step}  PSNR {event.psnr:.2f} dB  sharpness {sharpness:.0f}")


if __name__ == "__main__":
    try:
        main()
    except lg.core.InputError as error:
        raise SystemExit(f"error: {error}") from error
