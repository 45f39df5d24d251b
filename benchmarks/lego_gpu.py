"""Quality within a time on the Lego scene: trains for a budget, then scores all test views.

    python benchmarks/lego_gpu.py DATA --out lego.json --runs full:10 full:60 small:10 small:60

DATA is the folder `nerf_synthetic_lego`. Exits with 77 where there is no GPU (`--device cpu` runs
there all the same). Results are written after each run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TARGETS = {10.0: 30.0, 60.0: 33.0}  # seconds of training -> dB, on one GPU
SKIPPED = 77
EVALUATION_SECONDS = 25.0  # allowed for scoring when asking whether a run still fits


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", default=["full:10", "full:60", "small:10", "small:60"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--within", type=float, default=1e9, help="seconds for everything")
    arguments = parser.parse_args()
    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("lego: no GPU here, skipped")
        return SKIPPED
    from lumigraph import datasets
    from lumigraph.bench import results
    from lumigraph.cuda.dispatch import backend_for

    begin = time.monotonic()
    device = torch.device(arguments.device)
    content = results.document("lego", device, backend_for(device), quick=False)
    for name in ("timing", "protocol", "quick"):
        del content[name]
    content["rows"] = []
    scene = datasets.load(str(arguments.data))
    for wish in arguments.runs:
        preset, _, seconds = wish.partition(":")
        left = arguments.within - (time.monotonic() - begin)
        if left < float(seconds) + EVALUATION_SECONDS:
            print(f"{wish}: left out, {left:.0f} s remain")
            continue
        row = score(scene, preset, float(seconds), arguments.device)
        content["rows"].append(row)
        arguments.out.write_text(json.dumps(content, indent=2) + "\n")
        print(
            f"{preset}, {seconds} s: test PSNR {row['psnr']:.2f} dB, SSIM {row['ssim']:.4f}, "
            f"{row['steps']} steps of {row['step_ms']:.2f} ms, {row['rays_per_second']:.3g} rays/s",
            flush=True,
        )
    return 0


def score(scene: Any, preset: str, seconds: float, device: str) -> dict[str, Any]:
    """Train for `seconds` through the public functions and evaluate the test split."""
    from lumigraph import training

    rates: list[float] = []

    def listen(event: training.Event) -> None:
        if isinstance(event, training.StepEvent):
            rates.append(event.rays_per_second)

    config = training.train_config("nerf", preset, seconds=seconds, device=device)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        run = training.train(scene, config, out=Path(folder) / "run", on_event=listen)
        wall = time.monotonic() - begin
        summary = run.train_summary()
        begin = time.monotonic()
        scores = training.evaluate(run)
        scored = time.monotonic() - begin
    target = TARGETS.get(seconds)
    return {
        "preset": preset,
        "budget_seconds": seconds,
        "psnr": scores["psnr"],
        "ssim": scores["ssim"],
        "protocol": scores["protocol"],
        "views": scores["views"],
        "target_psnr": target,
        "meets": None if target is None else scores["psnr"] >= target,
        "steps": summary["steps"],
        "seconds": summary["seconds"],
        "step_ms": summary["seconds"] / max(summary["steps"], 1) * 1e3,
        "rays_per_second": rates[len(rates) // 2] if rates else 0.0,
        "train_psnr": summary["train_psnr"],
        "wall_seconds": round(wall, 2),
        "frame_ms": round(scores["seconds"] / scores["views"] * 1e3, 2),
        "evaluate_wall_seconds": round(scored, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
