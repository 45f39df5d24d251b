"""The signed distance of a mesh as a network: trained on points with true distances, scored, sphere
traced, and turned into a mesh again.

    python examples/fitting/sdf.py MESH [--steps 2000] [--encoding hashgrid] [--out runs/sdf]

Without MESH: armadillo.obj of meshes below LUMIGRAPH_TEST_DATA, or below data/. An open mesh has no
inside: close it, or add --signs winding.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import lumigraph as lg

DATA = Path(os.environ.get("LUMIGRAPH_TEST_DATA", "data")) / "meshes" / "armadillo.obj"
QUICK: dict[str, Any] = {"steps": 3, "batch_samples": 256, "pool_samples": 2**12}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, default=DATA, help="mesh")
    parser.add_argument("--steps", type=int, default=2000, help="training steps")
    parser.add_argument("--encoding", default="hashgrid", help="or densegrid, low_res_densegrid")
    parser.add_argument("--signs", default="normals", help="or winding, for open meshes")
    parser.add_argument("--preset", default="tiny", help="tiny on a CPU, full on a GPU")
    parser.add_argument("--out", type=Path, default=Path("runs/sdf"), help="run folder")
    parser.add_argument("--quick", action="store_true", help="three steps: only to see it work")
    arguments = parser.parse_args()

    settings = QUICK if arguments.quick else {"steps": arguments.steps}
    config = lg.training.train_config(
        "sdf",
        arguments.preset,
        encoding=arguments.encoding,
        signs=arguments.signs,
        max_resolution=128 if arguments.quick else None,
        **settings,
    )
    run = lg.training.train(arguments.data, config, out=arguments.out, on_event=show)

    scores = lg.training.evaluate(run)
    print(f"IoU {scores['iou']:.4f}, distances {scores['mape']:.2%}; {scores['protocol']}")
    video = lg.export.video(
        run,
        path="turntable",
        out=run.path / "fitted.mp4",
        size=(32, 24) if arguments.quick else (640, 480),
        frames=2 if arguments.quick else 48,
        options=lg.export.PathOptions(channels=("rgb", "normal"), fps=24),
    )
    print(f"{video.paths[0]}: {video.frames} frames in {video.seconds:.1f} s")
    if not arguments.quick:
        print(lg.export.mesh(run, out=run.path / "fitted.glb").line())


def show(event: lg.training.Event) -> None:
    if isinstance(event, lg.training.StepEvent) and event.step % 100 == 0:
        print(f"step {event.step}  loss {event.loss:.5f}")


if __name__ == "__main__":
    try:
        main()
    except lg.core.InputError as error:
        raise SystemExit(f"error: {error}") from error
