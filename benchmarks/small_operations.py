"""Runs every operation once on small inputs, then training steps and a frame: a selection short
enough for compute-sanitizer. Exits with 77 where there is no GPU.

    compute-sanitizer --error-exitcode 9 python benchmarks/small_operations.py [PART]...

Parts: nerf, splats, splats4d.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

SKIPPED = 77


PARTS = ("nerf", "splats", "splats4d")


def main(parts: Sequence[str], device: torch.device) -> None:
    for part in parts:
        {"nerf": nerf, "splats": splats, "splats4d": splats4d}[part](device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    print(f"ran {' and '.join(parts)}")


def nerf(device: torch.device) -> None:
    """The operations of method nerf, two steps and a frame."""
    from lumigraph.bench.cases import all_cases

    for case in all_cases(device, quick=True):
        case.build(device)(0)
        print("ran", case.name, case.passes, flush=True)
    sizes = {"log2_table_size": 12, "batch_samples": 1024, "grid_resolution": 32}
    steps_and_frame("nerf", device, march_steps=64, **sizes)


def splats(device: torch.device) -> None:
    """The operations of method gaussians, small and with a few large splats, steps and a frame."""
    from lumigraph.bench.splat import gpu_rows, make_plan
    from lumigraph.bench.splat_cases import capture_inputs

    plan = make_plan(device, quick=True)
    for count, width, height in ((plan.counts[0], plan.width, plan.height), (2000, 75, 50)):
        inputs = capture_inputs(count, width, height, device)
        for row in gpu_rows(inputs, plan, peers=False):
            row.make()(0)
            print("ran", row.name, row.passes, flush=True)
    steps_and_frame("gaussians", device, initial_gaussians=500, max_gaussians=800)


def splats4d(device: torch.device) -> None:
    """Pictures of Gaussians in space and time, prepared and not, and their gradients."""
    from lumigraph.bench.splat4d import Workload, gpu_scene

    for count, width, height in ((300, 48, 48), (2000, 75, 50)):
        workload = Workload(gpu_scene(count, width, height, device, frames=3))
        for call in (workload.inference, workload.forward, workload.backward):
            for turn in range(3):
                call(turn)
        print("ran", count, "Gaussians in space and time", flush=True)


def steps_and_frame(name: str, device: torch.device, **settings: int) -> None:
    """Two training steps, and a frame of a view that they did not see."""
    from lumigraph.bench.inputs import benchmark_scene
    from lumigraph.training.config import train_config
    from lumigraph.training.method import Progress
    from lumigraph.training.registry import build_method

    scene = benchmark_scene(size=24, train=8, test=1)
    config = train_config(name, "full", device=device.type, **settings)
    method = build_method(scene, config, device)
    for step in range(2):
        method.step(Progress(step))
    method.renderer.render(method.field, scene.cameras[8].to(device), normals=True)
    print("ran training steps and a frame of", name, flush=True)


if __name__ == "__main__":
    if not torch.cuda.is_available():
        print("small operations: no GPU here, skipped")
        sys.exit(SKIPPED)
    unknown = [word for word in sys.argv[1:] if word not in PARTS]
    if unknown:
        sys.exit(f"small operations: unknown part {unknown[0]!r}, use {' or '.join(PARTS)}")
    main(sys.argv[1:] or PARTS, torch.device("cuda"))
