"""Quality within a time on moving scenes: trains `gaussians4d` for a budget, scores each moment.

    python benchmarks/dynamic_gaussians.py synth_dynamic dnerf_texture --out dynamic.json \\
        --preset small --seconds 180 [--image-scale 0.5] [--set background=white] [--device cpu]

Exits with 77 where there is no GPU, unless `--device cpu` is given. Results are written after each
scene, behind those that the file holds already.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SKIPPED = 77
GIB = 2**30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="+", help="scene folders")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--image-scale", type=float, default=1.0)
    parser.add_argument("--split", default="test")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("dynamic: no GPU here, skipped")
        return SKIPPED
    from lumigraph.bench import results
    from lumigraph.cuda.dispatch import backend_for

    device = torch.device(arguments.device)
    content = results.document("dynamic", device, backend_for(device), quick=False)
    for name in ("timing", "protocol", "quick"):
        del content[name]
    earlier = json.loads(arguments.out.read_text())["rows"] if arguments.out.is_file() else []
    content["rows"] = earlier
    for folder in arguments.data:
        row = score(folder, arguments)
        content["rows"].append(row)
        arguments.out.write_text(json.dumps(content, indent=2) + "\n")
        show(row)
    return 0


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What differs from the preset."""
    found: dict[str, Any] = {
        "seconds": arguments.seconds,
        "device": arguments.device,
        "image_scale": arguments.image_scale,
        "checkpoint_every_seconds": 1e6,
    }
    for word in arguments.set:
        name, _, text = word.partition("=")
        try:
            found[name] = json.loads(text)
        except json.JSONDecodeError:
            found[name] = text
    return found


def score(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train through the public functions, and evaluate."""
    import torch

    from lumigraph import training

    config = training.train_config("gaussians4d", arguments.preset, **settings(arguments))
    with tempfile.TemporaryDirectory() as place:
        begin = time.monotonic()
        run = training.train(folder, config, out=Path(place) / "run")
        wall = time.monotonic() - begin
        summary = run.train_summary()
        on_gpu = torch.cuda.max_memory_allocated() if arguments.device == "cuda" else 0
        scores = training.evaluate(run, split=arguments.split)
        size = sum(file.stat().st_size for file in (run.path / "checkpoints").glob("*"))
    worst = scores["worst_moment"]
    return {
        "scene": folder.name,
        "method": "gaussians4d",
        "preset": arguments.preset,
        "settings": arguments.set,
        "image_scale": arguments.image_scale,
        "budget_seconds": arguments.seconds,
        "protocol": scores["protocol"],
        "views": scores["views"],
        "psnr": scores["psnr"],
        "ssim": scores["ssim"],
        "worst_psnr": worst["psnr"],
        "worst_time": worst["time"],
        "per_moment": {f"{row['time']:g}": row["psnr"] for row in scores["per_moment"]},
        "train_psnr": summary["train_psnr"],
        "steps": summary["steps"],
        "step_ms": summary["seconds"] / max(summary["steps"], 1) * 1e3,
        "gaussians": summary["gaussians"],
        "still_share": summary["still_share"],
        "wall_seconds": round(wall, 2),
        "frame_ms": round(scores["seconds"] / scores["views"] * 1e3, 2),
        "device_gib": round(on_gpu / GIB, 3),
        "host_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
        "checkpoint_mib": round(size / 2**20, 2),
    }


def show(row: dict[str, Any]) -> None:
    """The row for people."""
    print(
        f"{row['scene']} {row['preset']} {row['budget_seconds']:g} s: test PSNR "
        f"{row['psnr']:.2f} dB, worst {row['worst_psnr']:.2f} at {row['worst_time']:g}, SSIM "
        f"{row['ssim']:.4f}, train {row['train_psnr']:.2f}; {row['steps']} steps of "
        f"{row['step_ms']:.2f} ms, {row['gaussians']:,} Gaussians, {row['still_share']:.0%} still, "
        f"{row['device_gib']:.2f} GiB on the GPU, {row['host_gib']:.2f} GiB of memory"
    )
    print("  " + "  ".join(f"{time}: {psnr:.1f}" for time, psnr in row["per_moment"].items()))


if __name__ == "__main__":
    sys.exit(main())
