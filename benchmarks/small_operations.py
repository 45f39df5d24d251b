"""Runs every operation once on small inputs, then two training steps and a frame: a selection
short enough for compute-sanitizer. Exits with 77 where there is no GPU.

    compute-sanitizer --error-exitcode 9 python benchmarks/small_operations.py
"""

from __future__ import annotations

import sys

import torch

SKIPPED = 77


def main(device: torch.device) -> None:
    from lumigraph.bench.cases import all_cases
    from lumigraph.bench.inputs import benchmark_scene
    from lumigraph.training.config import train_config
    from lumigraph.training.method import Progress
    from lumigraph.training.nerf import NerfMethod

    for case in all_cases(device, quick=True):
        case.build(device)(0)
        print("ran", case.name, case.passes, flush=True)
    sizes = {"log2_table_size": 12, "batch_samples": 1024, "grid_resolution": 32}
    config = train_config("nerf", "full", device=device.type, march_steps=64, **sizes)
    scene = benchmark_scene(size=24, train=8, test=1)
    method = NerfMethod(scene, config, device)
    for step in range(2):
        method.step(Progress(step))
    method.renderer.render(method.field, scene.cameras[8].to(device), normals=True)
    if device.type == "cuda":
        torch.cuda.synchronize()
    print("ran training steps and a frame")


if __name__ == "__main__":
    if not torch.cuda.is_available():
        print("small operations: no GPU here, skipped")
        sys.exit(SKIPPED)
    main(torch.device("cuda"))
