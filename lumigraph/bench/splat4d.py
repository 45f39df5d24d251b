"""`lumigraph bench splat4d`: Gaussians in space and time, from parameters to pictures.

On a GPU 1 M of `inputs_splat4d.moving_scene` at 1352x1014 and 1920x1080 over 300 frames, from four
cameras in turn: frames a second of prepared Gaussians, slicing included; pictures from the
parameters themselves; those with all gradients. On a CPU 50 k at 400x400 beside the same pictures
from Gaussians in space: what slicing costs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumigraph.core.devices import choose_device
from lumigraph.core.errors import LumigraphError
from lumigraph.core.gaussian_cloud4d import GaussianCloud4D
from lumigraph.cuda.ops import (
    SplatCamera,
    render_gaussians,
    render_gaussians4d,
    render_prepared4d,
)
from lumigraph.fields import Gaussians4D

from . import results
from .inputs import generator_of
from .inputs_splat import orbit_cameras
from .inputs_splat4d import FRAMES, moving_blob, moving_scene, static_equivalent
from .kernels import OURS, compared_backend
from .splat_report import amount
from .timing import Call, Effort, Timing, kernel_profile, measure, rounded

Message = Callable[[str], None]

INFERENCE, FORWARD, BACKWARD = "prepared, forward", "forward", "+ backward to 65 numbers"
STATIC = "static"
SIZES = ((1352, 1014, 600.0), (1920, 1080, 400.0))  # pixels, and frames a second of the target
GPU_COUNT, CPU_COUNT, CPU_SIDE = 1_000_000, 50_000, 400
SLICING_TARGET = 1.5  # on a CPU: times the same picture from Gaussians in space
COLOR_BOUND = 2e-3  # of prepared pictures, relative: harmonics are in half precision on a GPU
CAMERAS = 4
MIDDLE = 0.5  # the time of the comparison with Gaussians in space


@dataclass(frozen=True)
class Scene:
    """What is rendered, in turn over frames and cameras."""

    name: str
    cloud: GaussianCloud4D
    cameras: list[SplatCamera]
    frames: int

    @property
    def device(self) -> torch.device:
        return self.cloud.device

    def time(self, turn: int) -> float:
        return turn % self.frames / max(self.frames - 1, 1)

    def camera(self, turn: int) -> SplatCamera:
        return self.cameras[turn % len(self.cameras)]


class Workload:
    """Pictures of a scene in three ways."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.field = Gaussians4D(scene.cloud).eval()
        self.prepared = self.field.prepared()
        leaves = [t for t in self.field.tensors if t is not None]
        self.leaves: list[Tensor] = leaves
        camera = scene.cameras[0]
        shape = (camera.height, camera.width, 3)
        drawn = torch.randn(*shape, generator=generator_of(3)) / (camera.width * camera.height)
        self.gradient = drawn.to(scene.device)

    def inference(self, turn: int) -> tuple[Tensor]:
        time_of = self.scene.time(turn)
        return (render_prepared4d(self.prepared, time_of, self.scene.camera(turn)).color,)

    def _color(self, turn: int) -> Tensor:
        means, times, rotors, log_scales, opacity_logits, harmonics = self.leaves[:6]
        return render_gaussians4d(
            means, times, rotors, log_scales, opacity_logits, harmonics, self.scene.time(turn),
            self.scene.camera(turn),
        ).color  # fmt: skip

    def forward(self, turn: int) -> tuple[Tensor]:
        with torch.no_grad():
            return (self._color(turn),)

    def backward(self, turn: int) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self._color(turn), self.leaves, self.gradient)

    def frames_per_second(self) -> float:
        """Of all frames one after another by the wall clock, the host's work included."""
        for turn in range(min(8, self.scene.frames)):
            self.inference(turn)
        _wait(self.scene.device)
        begin = time.perf_counter()
        for turn in range(self.scene.frames):
            self.inference(turn)
        _wait(self.scene.device)
        return self.scene.frames / (time.perf_counter() - begin)

    def apart(self, turn: int) -> float:
        """Relative distance of prepared pictures from the others."""
        ours, plain = self.inference(turn)[0], self.forward(turn)[0]
        return float((ours - plain).norm() / plain.norm().clamp_min(1e-12))

    def counts(self) -> dict[str, Any]:
        """How much there is in the middle of the clip."""
        rows = self.prepared.rows(MIDDLE)
        shown = self.prepared.sliced(MIDDLE).opacities > 1 / 255
        return {
            "scene": self.scene.name,
            "gaussians": len(self.scene.cloud),
            "frames": self.scene.frames,
            "always_listed": self.prepared.always,
            "listed_in_the_middle": len(rows),
            "there_in_the_middle": int(shown.sum()),
        }


def bench_splat4d(
    device: str = "auto",
    *,
    quick: bool = False,
    out: Path | None = None,
    on_message: Message = lambda text: None,
) -> dict[str, Any]:
    """Measure pictures of Gaussians in space and time.

    Args:
        device: "auto", "cpu" or "cuda".
        quick: tiny sizes and few calls.
        out: folder for `splat4d-<device>.json` and `.md`.
        on_message: told one line for each finding.

    Returns:
        What the JSON file holds.

    Raises:
        BackendError: only the torch twins can run there.
        LumigraphError: prepared pictures differ from the others; files are written all the same.
    """
    where = choose_device(device)
    content = results.document("splat4d", where, compared_backend(where), quick=quick)
    content |= {"rows": [], "scenes": [], "failures": []}
    if where.type == "cuda":
        _measure_gpu(content, where, quick, on_message)
    else:
        _measure_cpu(content, where, quick, on_message)
    if out is not None:
        paths = results.write(content, Path(out), markdown(content))
        on_message("wrote " + ", ".join(map(str, paths)))
    if content["failures"]:
        raise LumigraphError(f"bench splat4d: {content['failures'][0]}")
    return content


def gpu_scene(count: int, width: int, height: int, device: torch.device, frames: int) -> Scene:
    """`moving_scene(count)` from `CAMERAS` cameras around it."""
    poses, focal = orbit_cameras(CAMERAS, width=width)
    place = (focal, focal, width / 2, height / 2)
    cameras = [
        SplatCamera(pose[:3].contiguous(), place, width, height) for pose in poses.to(device)
    ]
    return Scene("capture", moving_scene(count).to(device), cameras, frames)


def cpu_scene(count: int, side: int, frames: int, *, endless: bool) -> Scene:
    """`moving_blob(count)` from 3 units away."""
    pose = torch.eye(4)[:3]
    pose[2, 3] = 3.0
    camera = SplatCamera(pose, (1.2 * side, 1.2 * side, side / 2, side / 2), side, side)
    name = "blob, endless lives" if endless else "blob"
    return Scene(name, moving_blob(count, endless=endless), [camera], frames)


def _measure_gpu(
    content: dict[str, Any], device: torch.device, quick: bool, on_message: Message
) -> None:
    count, frames = (2000, 4) if quick else (GPU_COUNT, FRAMES)
    effort = _effort(quick, Effort(seconds=1.5, fewest=8, most=2 * FRAMES))
    for width, height, target in ((64, 48, None),) if quick else SIZES:
        scene = gpu_scene(count, width, height, device, frames)
        workload = Workload(scene)
        _scene_row(content, workload, on_message)
        calls: dict[str, Call] = {
            INFERENCE: workload.inference,
            FORWARD: workload.forward,
            BACKWARD: workload.backward,
        }
        for passes, call in calls.items():
            row = _row(scene, passes, measure({OURS: call}, device, effort)[OURS])
            if passes == INFERENCE:
                row |= _speed(workload.frames_per_second(), target)
            _note(content, row, on_message)
        content["scenes"][-1]["gpu_kernels"] = kernel_profile(workload.inference, most=12)
        del workload, scene
        torch.cuda.empty_cache()


def _measure_cpu(
    content: dict[str, Any], device: torch.device, quick: bool, on_message: Message
) -> None:
    count, side, frames = (300, 48, 3) if quick else (CPU_COUNT, CPU_SIDE, FRAMES)
    effort = _effort(quick, Effort(seconds=3.0, fewest=5, most=30))
    for endless in (True, False):
        scene = cpu_scene(count, side, frames, endless=endless)
        workload = Workload(scene)
        _scene_row(content, workload, on_message)
        timings = measure(_at_one_time(workload), device, effort)
        base = timings[STATIC].median_ms
        for passes, timing in timings.items():
            row = _row(scene, passes, timing)
            if passes != STATIC:
                row["over_static"] = rounded(timing.median_ms / base)
            if endless and passes in (INFERENCE, FORWARD):
                target = None if quick else SLICING_TARGET
                row |= _held(row["over_static"], target)
            _note(content, row, on_message)


def _at_one_time(workload: Workload) -> dict[str, Call]:
    """Calls that make one picture again and again, the one from Gaussians in space among them."""
    scene = workload.scene
    turn = round(MIDDLE * (scene.frames - 1))
    cloud = static_equivalent(scene.cloud, scene.time(turn))
    still = cloud.tensors()

    def static(_: int) -> tuple[Tensor]:
        with torch.no_grad():
            return (render_gaussians(*still, scene.camera(turn)).color,)

    return {
        STATIC: static,
        INFERENCE: lambda _: workload.inference(turn),
        FORWARD: lambda _: workload.forward(turn),
        BACKWARD: lambda _: workload.backward(turn),
    }


def _effort(quick: bool, effort: Effort) -> Effort:
    return Effort(seconds=0.0, fewest=2, most=2) if quick else effort


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _scene_row(content: dict[str, Any], workload: Workload, on_message: Message) -> None:
    found = workload.counts()
    frames = workload.scene.frames
    apart = max(workload.apart(turn) for turn in {0, frames // 2, frames - 1})
    found["prepared_differ_by"] = rounded(apart, 2) if math.isfinite(apart) else None
    content["scenes"].append(found)
    on_message(scene_line(found))
    if not apart <= COLOR_BOUND:
        content["failures"].append(f"prepared pictures of {found['scene']} differ by {apart:.1e}")


def _row(scene: Scene, passes: str, timing: Timing) -> dict[str, Any]:
    camera = scene.cameras[0]
    return {
        "name": scene.name, "passes": passes, "size": len(scene.cloud),
        "image": f"{camera.width}x{camera.height}", OURS: timing.to_dict(),
    }  # fmt: skip


def _speed(found: float, target: float | None) -> dict[str, Any]:
    row: dict[str, Any] = {"frames_per_second": rounded(found)}
    return row if target is None else row | {"target_fps": target, "meets": found >= target}


def _held(found: float, target: float | None) -> dict[str, Any]:
    return {} if target is None else {"target_over_static": target, "meets": found <= target}


def _note(content: dict[str, Any], row: dict[str, Any], on_message: Message) -> None:
    content["rows"].append(row)
    on_message(row_line(row))


# ---- how it reads


def scene_line(found: dict[str, Any]) -> str:
    """How much there is to do."""
    return (
        f"{found['scene']}, {amount(found['gaussians'])} Gaussians, {found['frames']} frames: in "
        f"the middle {found['there_in_the_middle']} are there and "
        f"{found['listed_in_the_middle']} are listed, {found['always_listed']} of them always; "
        f"prepared pictures differ by "
        f"{found['prepared_differ_by']}"
    )


def row_line(row: dict[str, Any]) -> str:
    """One row."""
    parts = [f"{row['name']}, {row['passes']}, {row['image']}: {row[OURS]['median_ms']:g} ms"]
    if "peak_mib" in row[OURS]:
        parts.append(f"{row[OURS]['peak_mib']:.0f} MiB")
    if "frames_per_second" in row:
        parts.append(f"{row['frames_per_second']:g} frames/s over the clip")
    if "over_static" in row:
        parts.append(f"{row['over_static']:g}x the static picture")
    if "meets" in row:
        parts.append(f"target {'met' if row['meets'] else 'MISSED'}")
    return ", ".join(parts)


def markdown(content: dict[str, Any]) -> str:
    """The tables."""
    columns = ["scene", "passes", "Gaussians", "image", "ms", "frames/s over the clip"]
    columns += ["times the static picture", "peak MiB", "target", "met"]
    text = results.heading(content)
    text += results.table(columns, [_cells(row) for row in content["rows"]])
    for scene in content["scenes"]:
        text += f"\n{scene_line(scene)}.\n"
        if "gpu_kernels" in scene:
            profile = scene["gpu_kernels"]
            rows = [
                [row["name"].replace("|", "/"), f"{row['ms']:g}", f"{row['launches']:g}"]
                for row in profile["longest"]
            ]
            text += f"\nPrepared: {profile['kernel_ms']:g} ms of GPU kernels.\n\n"
            text += results.table(["kernel", "ms", "launches"], rows)
    return text


def _cells(row: dict[str, Any]) -> list[str]:
    target = ""
    if "target_fps" in row:
        target = f">= {row['target_fps']:g} frames/s"
    elif "target_over_static" in row:
        target = f"<= {row['target_over_static']:g}x"
    return [
        row["name"], row["passes"], amount(row["size"]), row["image"],
        results.milliseconds(row[OURS]),
        f"{row['frames_per_second']:g}" if "frames_per_second" in row else "",
        f"{row['over_static']:g}" if "over_static" in row else "",
        f"{row[OURS]['peak_mib']:.0f}" if "peak_mib" in row[OURS] else "",
        target, {True: "yes", False: "no", None: ""}[row.get("meets")],
    ]  # fmt: skip
