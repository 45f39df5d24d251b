"""Moving surfaces moment by moment, with and without the search for the motion of the whole.

For each scene and both ways a run is trained, and scored on its held-out cameras at every moment.
Printed and written: the PSNR of each moment, the steps it took, how far the worst later moment is
behind the first, and what its file takes.

    python benchmarks/moving_surface.py --out moving.json                      # a GPU, preset small
    python benchmarks/moving_surface.py --preset tiny --device cpu --moments 4 --image-scale 0.5
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

import lumigraph as lg
from lumigraph.core import Scene
from lumigraph.training.machine import machine_facts

SCENES = ("builtin:moving", "builtin:moving-fast")
PROTOCOL = "mean PSNR of the held-out cameras at each moment, over white, sRGB in [0, 1]"
STEPS = ("first_steps", "later_steps", "motion_steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenes", nargs="+", default=SCENES, help="scenes with times")
    parser.add_argument("--ways", nargs="+", default=("with", "without"), help="with, without")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--moments", type=int, help="only so many, from the first on")
    parser.add_argument("--image-scale", type=float, default=1.0)
    for name in STEPS:
        parser.add_argument("--" + name.replace("_", "-"), type=int)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=NUMBER")
    parser.add_argument("--runs", type=Path, help="keep the run folders here")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    settings: dict[str, Any] = {"device": arguments.device}
    settings |= {name: getattr(arguments, name) for name in STEPS if getattr(arguments, name)}
    settings |= {word.split("=")[0]: json.loads(word.split("=")[1]) for word in arguments.set}
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.runs or Path(temporary)
        for source in arguments.scenes:
            scene = lg.datasets.load(source, image_scale=arguments.image_scale)
            scene = first_moments(scene, arguments.moments)
            for way in arguments.ways:
                given = {**settings, "predict_motion": way == "with"}
                config = lg.training.train_config("neus", arguments.preset, **given)
                out = folder / f"{scene.name}-{way}"
                rows.append({"scene": source, "prediction": way, **measured(scene, config, out)})
                print(line(rows[-1]), flush=True)
    if arguments.out is not None:
        facts = {
            "format": 1,
            "benchmark": "moving-surface",
            "date": datetime.date.today().isoformat(),
            "machine": machine_facts(),
            "protocol": PROTOCOL,
            "preset": arguments.preset,
            "settings": settings,
            "image_scale": arguments.image_scale,
        }
        arguments.out.write_text(json.dumps({**facts, "runs": rows}, indent=2) + "\n")


def first_moments(scene: Scene, count: int | None) -> Scene:
    """The scene up to a moment."""
    times, moments = scene.cameras.times, scene.moments
    assert times is not None and moments is not None
    if count is None or count >= len(moments):
        return scene
    return scene.select((times < moments[count]).nonzero()[:, 0])


def measured(scene: Scene, config: Any, out: Path) -> dict[str, Any]:
    """Train, score each moment, and look at the files."""
    run = lg.training.train(scene, config, out=out)
    scores = lg.training.evaluate(run)
    psnr = [round(row["psnr"], 3) for row in scores["per_moment"]]
    files = sorted((run.path / "moments").iterdir())
    summary = run.train_summary()
    return {
        "psnr": psnr,
        "mean_psnr": round(sum(psnr) / len(psnr), 3),
        "behind_first": round(psnr[0] - min(psnr[1:]), 3),
        "steps": [config.first_steps, config.later_steps],
        "motion_steps": config.motion_steps if config.predict_motion else 0,
        "seconds": summary["seconds"],
        "moment_bytes": [file.stat().st_size for file in files],
        "motions": motions(run),
    }


def motions(run: lg.training.Run) -> list[dict[str, float]]:
    """Degrees turned and scene units gone since the first moment, as learnt."""
    field, found = run.model("cpu").field, []
    for index in range(len(field.moments)):
        motion = field.at_moment(index).motion
        cosine = ((motion.rotation.trace() - 1) / 2).clamp(-1, 1)
        shift = motion.inverse().apply(torch.zeros(3)).norm()
        found.append(
            {"degrees": round(float(torch.rad2deg(torch.acos(cosine))), 2),
             "shift": round(float(shift), 4)}
        )  # fmt: skip
    return found


def line(row: dict[str, Any]) -> str:
    psnr = " ".join(f"{value:.1f}" for value in row["psnr"])
    return (
        f"{row['scene']} {row['prediction']} prediction: {psnr} dB; the worst later moment is "
        f"{row['behind_first']:.2f} dB behind the first; steps {row['steps'][0]} and "
        f"{row['steps'][1]}, {row['seconds']:.0f} s"
    )


if __name__ == "__main__":
    try:
        main()
    except lg.core.InputError as error:
        raise SystemExit(f"error: {error}") from error
