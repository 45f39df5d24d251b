"""`lumigraph bench train`: whole training steps of method `nerf`, ours against the torch twins.

Both sides start from the same state, trained until the occupancy grid follows the scene, and take
windows of 16 steps in turn, each with one update of that grid. On a GPU also the time of a step
through `training.train`, the split by stage, a frame of 400x400, and the longest kernels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lumigraph.core import Scene
from lumigraph.core.devices import choose_device
from lumigraph.cuda.dispatch import backend_override
from lumigraph.training.config import NerfConfig, train_config
from lumigraph.training.method import Progress
from lumigraph.training.nerf import NerfMethod

from . import peers, results
from .inputs import benchmark_scene
from .kernels import OURS, TWIN, compared_backend
from .timing import Effort, Timing, kernel_profile, measure, rounded, summary
from .train_probes import frame_timing, held_out_psnr, public_step_ms, stage_split

WINDOW = 16  # steps between two updates of the occupancy grid, once it has settled
SETTLED = 256  # steps, as in training/nerf.py
TARGET_RATIO, TARGET_MS = 8.0, 5.0


@dataclass(frozen=True)
class Plan:
    """Sizes of one benchmark run.

    Attributes:
        image_size: of the scene's pictures.
        warm_up: steps before the windows, a multiple of `WINDOW` and not below `SETTLED`.
        quality_steps: when test views are scored during the warm-up.
        windows: of each contender.
        public_steps: of the run through `training.train`.
        frame_size: of the timed frame.
    """

    config: NerfConfig
    image_size: int
    warm_up: int
    quality_steps: tuple[int, ...]
    windows: int
    public_steps: int
    frame_size: int


def bench_train(
    device: str = "auto",
    *,
    quick: bool = False,
    out: Path | None = None,
    on_message: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure whole training steps.

    Args:
        device: "auto", "cpu" (preset tiny, 2^14 samples) or "cuda" (preset full, 2^18 samples).
        quick: tiny sizes and few steps.
        out: folder for `train-<device>.json` and `.md`.
        on_message: told one line for each finding.

    Returns:
        What the JSON file holds.

    Raises:
        BackendError: only the torch twins can run there, so nothing can be compared.
    """
    where = choose_device(device)
    backend = compared_backend(where)
    content = results.document("train", where, backend, quick=quick)
    plan = make_plan(where, quick)
    scene = benchmark_scene(size=plan.image_size)
    content |= {"preset": plan.config.preset, "batch_samples": plan.config.batch_samples}
    content["scene"] = f"{scene.name}, 100 pictures of {plan.image_size}x{plan.image_size}"
    method = NerfMethod(scene, plan.config, where)
    content["quality"] = _warm_up(method, scene, plan, on_message)
    content |= _windows(method, scene, plan, on_message)
    content["stages_ms"] = stage_split(method, first_step=_next_window(plan), steps=WINDOW)
    size = plan.frame_size
    content["frame"] = {
        "size": f"{size}x{size}",
        **frame_timing(method, scene, size).to_dict(),
    }
    content["public_step_ms"] = rounded(public_step_ms(scene, plan.config, plan.public_steps))
    on_message(f"a step through training.train: {content['public_step_ms']:g} ms")
    if where.type == "cuda":
        content |= _gpu_findings(method, plan, content["public_step_ms"])
    else:
        content |= {"target_ratio": TARGET_RATIO, "meets": content["ratio"] >= TARGET_RATIO}
    if out is not None:
        paths = results.write(content, Path(out), markdown(content))
        on_message("wrote " + ", ".join(map(str, paths)))
    return content


def make_plan(device: torch.device, quick: bool) -> Plan:
    """The sizes for a device."""
    if quick:
        sizes = {"log2_table_size": 12, "batch_samples": 1024, "grid_resolution": 32}
        config = train_config("nerf", "tiny", device=device.type, march_steps=64, **sizes)
        return Plan(config, 24, SETTLED, (SETTLED,), 1, 10, 32)
    if device.type == "cuda":
        config = train_config("nerf", "full", device="cuda")
        return Plan(config, 400, 1008, (100, 200, 500, 1000), 3, 600, 400)
    config = train_config("nerf", "tiny", device="cpu")
    return Plan(config, 200, 304, (100, 200), 3, 300, 400)


def _synchronize(method: NerfMethod) -> None:
    if method.device.type == "cuda":
        torch.cuda.synchronize(method.device)


def _warm_up(
    method: NerfMethod, scene: Scene, plan: Plan, on_message: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Train, and score the test views at the planned steps; scoring is not counted as time."""
    rows: list[dict[str, Any]] = []
    spent = 0.0
    begin = time.perf_counter()
    for step in range(plan.warm_up):
        method.step(Progress(step))
        if step + 1 in plan.quality_steps:
            _synchronize(method)
            spent += time.perf_counter() - begin
            psnr = held_out_psnr(method, scene)
            row = {"step": step + 1, "psnr": round(psnr, 2), "seconds": round(spent, 3)}
            rows.append(row)
            on_message(f"step {step + 1}: {psnr:.2f} dB on test views after {spent:.2f} s")
            begin = time.perf_counter()
    return rows


def _copy(method: NerfMethod, scene: Scene, config: NerfConfig) -> NerfMethod:
    """Another method in the same state, random numbers included."""
    other = NerfMethod(scene, config, method.device)
    tensors = {**method.state(), **method.random_state(), **method.small_state()}
    other.restore(tensors, method.header(), Path("the method in hand"))
    return other


def _windows(
    method: NerfMethod, scene: Scene, plan: Plan, on_message: Callable[[str], None]
) -> dict[str, Any]:
    twin = _copy(method, scene, plan.config)
    times: dict[str, list[float]] = {OURS: [], TWIN: []}
    counts: list[tuple[int, int]] = []
    for window in range(plan.windows):
        first = plan.warm_up + window * WINDOW
        took, found = _window(method, first)
        times[OURS].append(took)
        counts.append(found)
        with backend_override("torch"):
            times[TWIN].append(_window(twin, first)[0])
    timings = {name: summary(values) for name, values in times.items()}
    ratio = timings[TWIN].median_ms / timings[OURS].median_ms
    on_message(f"step: {timings[OURS].median_ms:.4g} ms, torch twin {ratio:.3g}x")
    rays, samples = counts[-1]
    return {
        OURS: _of_windows(timings[OURS]),
        TWIN: _of_windows(timings[TWIN]),
        "ratio": rounded(ratio),
        "rays": rays,
        "samples": samples,
    }


def _window(method: NerfMethod, first: int) -> tuple[float, tuple[int, int]]:
    """Milliseconds of a step, by the wall clock, and the rays and samples of the last one."""
    _synchronize(method)
    begin = time.perf_counter()
    for step in range(first, first + WINDOW):
        result = method.step(Progress(step))
    _synchronize(method)
    took = (time.perf_counter() - begin) / WINDOW * 1e3
    assert result.samples is not None
    return took, (result.rays, int(result.samples))


def _of_windows(timing: Timing) -> dict[str, Any]:
    content = timing.to_dict()
    return {**content, "windows": content.pop("calls"), "steps_of_a_window": WINDOW}


def _next_window(plan: Plan) -> int:
    return plan.warm_up + plan.windows * WINDOW


def _gpu_findings(method: NerfMethod, plan: Plan, public_ms: float) -> dict[str, Any]:
    first = _next_window(plan) + WINDOW

    def window(turn: int) -> None:
        for step in range(first, first + WINDOW):
            method.step(Progress(step))

    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    events = measure({OURS: window}, method.device, Effort(seconds=0.5, fewest=4, most=20))[OURS]
    profile = kernel_profile(window, calls=1, most=16)
    for value in (profile, *profile["longest"]):
        for key in ("kernel_ms", "kernels", "ms", "launches"):
            if key in value:
                value[key] = rounded(value[key] / WINDOW)
    recorded = peers.recorded_peers()
    return {
        "event_step_ms": rounded(events.median_ms / WINDOW),
        "resident_mib": round(before / 2**20, 1),
        "peak_mib": None if events.peak_mib is None else round(events.peak_mib, 1),
        "gpu_kernels": profile,
        "target_ms": TARGET_MS,
        "meets": public_ms <= TARGET_MS,
        "recorded": {
            **recorded["train"],
            "source": recorded["source"],
            "label": recorded["label"],
        },
    }


def markdown(content: dict[str, Any]) -> str:
    """Tables of the step, its stages, and the quality reached."""
    known = content.get("recorded")
    recorded = f"{known['peer']}, {known['label']}" if known else "recorded"
    columns = ["", "ours", "torch twin", "torch / ours", "target", "met", recorded]
    met = {True: "yes", False: "no"}[content["meets"]]
    gpu = content["device"] == "cuda"
    ratio_target = "" if gpu else f">= {content['target_ratio']:g}x"
    rows = [
        [
            "step, ms",
            results.milliseconds(content[OURS]),
            results.milliseconds(content[TWIN]),
            f"{content['ratio']:.3g}",
            ratio_target,
            "" if gpu else met,
            f"{known['step_ms']:g}" if known else "",
        ],
        ["step through training.train, ms", f"{content['public_step_ms']:g}", "", "", "", "", ""],
        [
            f"frame {content['frame']['size']}, ms",
            results.milliseconds(content["frame"]),
            *[""] * 4,
            "-".join(f"{ms:g}" for ms in known["frame_400x400_ms"]) if known else "",
        ],
    ]
    if known:
        rows[1][4:6] = [f"<= {content['target_ms']:g} ms", met]
        profile = content["gpu_kernels"]
        ours = f"{profile['kernel_ms']:g} in {profile['kernels']:g}"
        theirs = f"{known['kernel_ms']:g} in {known['kernels']}"
        rows.append(["GPU kernels of a step, ms in launches", ours, *[""] * 4, theirs])
    head = f"{content['preset']} preset, {content['scene']}; {content['rays']} rays and "
    head += f"{content['samples']} samples in the last step.\n\n"
    return results.heading(content) + head + results.table(columns, rows) + _details(content)


def _details(content: dict[str, Any]) -> str:
    known = content.get("recorded", {"quality": []})
    theirs = {row["step"]: row for row in known["quality"]}
    columns = ["after step", "test PSNR, dB", "after s", "recorded PSNR, dB", "recorded after s"]
    rows = []
    for row in content["quality"]:
        other = theirs.get(row["step"])
        cells = [str(row["step"]), f"{row['psnr']:.2f}", f"{row['seconds']:.2f}"]
        rows.append([*cells, *([f"{other['psnr']}", f"{other['seconds']}"] if other else ["", ""])])
    text = "\n" + results.table(columns, rows)
    stages = [[name, f"{value:g}"] for name, value in content["stages_ms"].items()]
    text += "\nStages, waited for one by one, so that their sum is more than a step takes.\n\n"
    text += results.table(["stage", "ms of a step, mean"], stages)
    if "gpu_kernels" in content:
        longest = [
            [row["name"].replace("|", "/"), f"{row['ms']:g}", f"{row['launches']:g}"]
            for row in content["gpu_kernels"]["longest"]
        ]
        text += "\n" + results.table(["kernel", "ms of a step", "launches"], longest)
    return text
