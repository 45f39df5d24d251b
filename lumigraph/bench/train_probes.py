"""What `bench train` finds out about a method in training besides the time of its steps."""

from __future__ import annotations

import functools
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lumigraph.core import Scene
from lumigraph.core.color import psnr
from lumigraph.training import train
from lumigraph.training.config import NerfConfig, config_from_dict
from lumigraph.training.events import Event, StepEvent
from lumigraph.training.method import Progress
from lumigraph.training.nerf import NerfMethod

from .timing import Timing, rounded, summary

# Private, but these are the stages: the split follows `NerfMethod.step` without repeating it.
STAGES = {
    "occupancy update": "_update_occupancy",
    "draw pixels": "sampler.sample",
    "march, shade, composite, gradients": "_fused_step",
    "optimizer": "_optimize",
    "adapt the batch": "_adapt",
}


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def stage_split(method: NerfMethod, *, first_step: int, steps: int) -> dict[str, float]:
    """Mean milliseconds of each stage of a step, each waited for."""
    spent: dict[str, float] = defaultdict(float)
    patched: list[tuple[Any, str]] = []

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*arguments: Any, **options: Any) -> Any:
            _synchronize(method.device)
            begin = time.perf_counter()
            result = function(*arguments, **options)
            _synchronize(method.device)
            spent[name] += time.perf_counter() - begin
            return result

        return run

    try:
        for name, place in STAGES.items():
            *path, attribute = place.split(".")
            owner: Any = functools.reduce(getattr, path, method)
            setattr(owner, attribute, timed(name, getattr(owner, attribute)))
            patched.append((owner, attribute))
        for step in range(first_step, first_step + steps):
            method.step(Progress(step))
    finally:
        for changed, attribute in patched:
            delattr(changed, attribute)  # the instance's; the class keeps its own
    return {name: rounded(spent[name] / steps * 1e3) for name in STAGES}


def held_out_psnr(method: NerfMethod, scene: Scene) -> float:
    """Mean PSNR in dB over the test views, on white."""
    assert scene.images is not None
    values = []
    for index in scene.split("test").tolist():
        frame = method.renderer.render(method.field, scene.cameras[index].to(method.device))
        rgba = scene.images.load(index).to(method.device).float() / 255
        truth = torch.lerp(torch.ones_like(rgba[..., :3]), rgba[..., :3], rgba[..., 3:])
        values.append(float(psnr((frame.color.clamp(0, 1) - truth).square().mean())))
    return sum(values) / len(values)


def frame_timing(method: NerfMethod, scene: Scene, size: int, *, calls: int = 5) -> Timing:
    """Wall time of a frame of size x size pixels of the first test camera."""
    camera = scene.cameras[int(scene.split("test")[0])].resized_to(size, size).to(method.device)
    times = []
    for _ in range(calls + 1):
        _synchronize(method.device)
        begin = time.perf_counter()
        method.renderer.render(method.field, camera)
        _synchronize(method.device)
        times.append((time.perf_counter() - begin) * 1e3)
    return summary(times[1:])


def public_step_ms(scene: Scene, config: NerfConfig, steps: int) -> float:
    """Wall time of a step through `training.train`, over the second half of a run of `steps`."""
    settings = {**config.to_dict(), "steps": steps, "log_every": max(steps // 10, 1)}
    seen: list[StepEvent] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepEvent):
            seen.append(event)

    with tempfile.TemporaryDirectory() as folder:
        train(scene, config_from_dict(settings), out=Path(folder) / "run", on_event=listen)
    half = next(event for event in seen if event.step >= steps // 2)
    return (seen[-1].elapsed - half.elapsed) / max(seen[-1].step - half.step, 1) * 1e3
