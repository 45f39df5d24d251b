"""A moving object as a surface at every moment: pictures, a video along time, a mesh sequence.

Data: a folder of folders frame_000, frame_001, ... of one format, with the same cameras, or one of
the scenes builtin:moving and builtin:moving-fast. The first moment is learnt from scratch, every
later one from the one before it: how the whole has moved first, then what has changed its shape.

    python examples/scenes/dynamic_surface.py [DATA] [--preset tiny] [--moments 20] [--out runs/x]

Without DATA: builtin:moving-fast.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import lumigraph as lg

QUICK: dict[str, Any] = {
    "batch_samples": 1024,
    "march_steps": 64,
    "first_steps": 3,
    "later_steps": 2,
    "motion_steps": 1,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?", default="builtin:moving-fast", help="data with times")
    parser.add_argument("--preset", default="tiny", help="tiny on a CPU, small or full on a GPU")
    parser.add_argument("--steps", type=int, help="of the whole run, shared among the moments")
    parser.add_argument("--moments", type=int, help="only so many, from the first on")
    parser.add_argument("--out", type=Path, default=Path("runs/moving"), help="run folder")
    parser.add_argument("--quick", action="store_true", help="a few steps: only to see it work")
    arguments = parser.parse_args()

    scene = first_moments(lg.datasets.load(arguments.data), arguments.moments)
    settings = QUICK if arguments.quick else {"steps": arguments.steps}
    config = lg.training.train_config("neus", arguments.preset, **settings)
    run = lg.training.train(scene, config, out=arguments.out, on_event=show)

    scores = lg.training.evaluate(run)
    for moment in scores["per_moment"]:
        print(f"time {moment['time']:.3f}: PSNR {moment['psnr']:.2f} dB")
    print(f"{scores['views']} test views: PSNR {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.4f}")

    model = run.model()
    assert model.moments is not None
    camera = scene.cameras[int(scene.split("test")[0])]
    cameras = [camera.at_time(time) for time in model.moments.tolist()]
    video = lg.export.render_cameras(
        model,
        lg.core.Cameras.concatenate(cameras),
        run.path / "moments.mp4",
        options=lg.export.PathOptions(channels=("rgb", "normal"), fps=10),
    )
    print(f"{video.paths[0]}: {video.frames} frames in {video.seconds:.1f} s")
    if not arguments.quick:
        print(lg.export.mesh_sequence(run, out=run.path / "meshes").line())


def first_moments(scene: lg.core.Scene, count: int | None) -> lg.core.Scene:
    """The scene up to a moment."""
    if count is None or scene.moments is None or count >= len(scene.moments):
        return scene
    assert scene.cameras.times is not None
    return scene.select((scene.cameras.times < scene.moments[count]).nonzero()[:, 0])


def show(event: lg.training.Event) -> None:
    if isinstance(event, lg.training.StepEvent) and event.step % 100 == 0:
        moment = event.extras["moment"]
        print(f"step {event.step}/{event.steps_total}  moment {moment}  PSNR {event.psnr:.2f} dB")


if __name__ == "__main__":
    try:
        main()
    except lg.core.InputError as error:
        raise SystemExit(f"error: {error}") from error
