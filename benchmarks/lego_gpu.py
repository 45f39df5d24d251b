"""Quality within a time on the Lego scene: trains for a budget, then scores all test views.

    python benchmarks/lego_gpu.py DATA --out lego.json --runs full:10 gaussians/full:60

DATA is the folder `nerf_synthetic_lego`; a run is [METHOD/]PRESET:SECONDS, of method nerf where
none is named. Exits with 77 where there is no GPU (`--device cpu` runs there all the same). Results
are written after each run, behind those that the file holds already.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

TARGETS = {  # method -> seconds of training -> dB, on one GPU
    "nerf": {10.0: 30.0, 60.0: 33.0},
    "gaussians": {60.0: 33.0},
}
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
    content["rows"] = earlier_rows(arguments.out)
    scene = datasets.load(str(arguments.data))
    for wish in arguments.runs:
        name, _, seconds = wish.partition(":")
        method, _, preset = name.rpartition("/")
        left = arguments.within - (time.monotonic() - begin)
        if left < float(seconds) + EVALUATION_SECONDS:
            print(f"{wish}: left out, {left:.0f} s remain")
            continue
        wanted = Wish(method or "nerf", preset, float(seconds))
        row = score(scene, wanted, arguments.device)
        content["rows"].append(row)
        arguments.out.write_text(json.dumps(content, indent=2) + "\n")
        print(
            f"{wish} s: test PSNR {row['psnr']:.2f} dB, SSIM {row['ssim']:.4f}, "
            f"{row['steps']} steps of {row['step_ms']:.2f} ms, {row['rays_per_second']:.3g} rays/s"
            + (f", {row['gaussians']:,} Gaussians" if "gaussians" in row else ""),
            flush=True,
        )
    return 0


class Wish(NamedTuple):
    """One run."""

    method: str
    preset: str
    seconds: float


def earlier_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a file written before, so that several calls fill one."""
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return rows


def score(scene: Any, wish: Wish, device: str) -> dict[str, Any]:
    """Train for so long through the public functions and evaluate the test split."""
    from lumigraph import training

    rates: list[float] = []
    counts: list[int] = []

    def listen(event: training.Event) -> None:
        if isinstance(event, training.StepEvent):
            rates.append(event.rays_per_second)
            counts.append(int(event.extras.get("gaussians", 0)))

    method, preset, seconds = wish
    config = training.train_config(method, preset, seconds=seconds, device=device)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        run = training.train(scene, config, out=Path(folder) / "run", on_event=listen)
        wall = time.monotonic() - begin
        summary = run.train_summary()
        begin = time.monotonic()
        scores = training.evaluate(run)
        scored = time.monotonic() - begin
    target = TARGETS[method].get(seconds)
    size = {"gaussians": counts[-1]} if counts and counts[-1] else {}
    return {
        "method": method,
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
        **size,
    }


if __name__ == "__main__":
    sys.exit(main())
