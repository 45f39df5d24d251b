"""Times the CUDA kernels of a training run: compiled cold into an empty cache, and loaded warm by
a second process. Needs a GPU; exits with 77 where there is none.

    python benchmarks/compile_times.py --out compile.json
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TARGET_COLD, TARGET_WARM = 10.0, 0.2  # seconds, all kernels together
SKIPPED = 77
PRESETS = ("full", "small", "gaussians/full")  # [METHOD/]PRESET, nerf where none is named


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--child", choices=PRESETS)
    arguments = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("compile times: no GPU here, skipped")
        return SKIPPED
    if arguments.child:
        arguments.out.write_text(json.dumps(timed_loads(arguments.child)))
        return 0
    from lumigraph.bench import results

    device = torch.device("cuda")
    content = results.document("compile", device, "cuda", quick=False)
    for name in ("timing", "seed", "protocol", "quick"):
        del content[name]
    content["presets"] = {preset: cold_and_warm(preset) for preset in PRESETS}
    arguments.out.write_text(json.dumps(content, indent=2) + "\n")
    for preset, row in content["presets"].items():
        print(
            f"{preset}: {row['kernels']} kernels in {row['modules']} modules, cold "
            f"{row['cold_seconds']:.2f} s (target {TARGET_COLD:g}), warm "
            f"{row['warm_seconds']:.3f} s (target {TARGET_WARM:g})"
        )
        for kernel in row["slowest_cold"]:
            print(f"    {kernel['seconds']:.2f} s  {kernel['kernel']}")
    return 0


def cold_and_warm(preset: str) -> dict[str, Any]:
    """Two fresh processes over one cache that starts empty."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "LUMIGRAPH_CACHE": str(Path(folder) / "cache")}
        rows = []
        for _ in range(2):
            out = Path(folder) / "loads.json"
            command = [sys.executable, __file__, "--child", preset, "--out", str(out)]
            subprocess.run(command, check=True, env=environment)
            rows.append(json.loads(out.read_text()))
    cold, warm = rows
    total = [sum(load["seconds"] for load in loads) for loads in rows]
    slowest = sorted(cold, key=lambda load: -load["seconds"])[:5]
    return {
        "kernels": len(cold),
        "modules": len({load["module"] for load in cold}),
        "cold_seconds": round(total[0], 3),
        "warm_seconds": round(total[1], 4),
        "meets": total[0] <= TARGET_COLD and total[1] <= TARGET_WARM,
        "same_kernels": [load["kernel"] for load in cold] == [load["kernel"] for load in warm],
        "slowest_cold": slowest,
    }


def timed_loads(preset: str) -> list[dict[str, Any]]:
    """Load times of all kernels that steps, a frame and a normal map of the preset ask for."""
    import torch

    from lumigraph.bench.inputs import benchmark_scene
    from lumigraph.cuda import runtime
    from lumigraph.training.config import train_config
    from lumigraph.training.method import Progress
    from lumigraph.training.registry import build_method

    loads: list[dict[str, Any]] = []
    load = runtime.Kernel.load

    @functools.wraps(load)
    def timed(self: runtime.Kernel, device: int) -> int:
        begin = time.perf_counter()
        function = load(self, device)
        seconds = time.perf_counter() - begin
        loads.append(
            {
                "kernel": repr(self),
                "module": f"{self.file} {' '.join(self.defines)}",
                "seconds": round(seconds, 5),
            }
        )
        return function

    torch.zeros(1, device="cuda")  # the context is no part of it
    runtime.Kernel.load = timed  # type: ignore[method-assign]
    scene = benchmark_scene(size=64, train=8, test=1)
    name, _, size = preset.rpartition("/")
    config = train_config(name or "nerf", size, device="cuda")
    method = build_method(scene, config, torch.device("cuda"))
    for step in range(6):
        method.step(Progress(step))
    camera = scene.cameras[8].to("cuda")
    method.renderer.render(method.field, camera, normals=True)
    torch.cuda.synchronize()
    return loads


if __name__ == "__main__":
    sys.exit(main())
