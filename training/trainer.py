"""The training loop: schedule, events, log, checkpoints, clean stop. Methods do the steps."""

from __future__ import annotations

import dataclasses
import math
import random
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumigraph.core import Scene
from lumigraph.core.color import psnr
from lumigraph.core.devices import choose_device
from lumigraph.core.errors import ConfigError, DataError, InputError
from lumigraph.cuda.dispatch import backend_for

from .checkpoint import copy_state, load_checkpoint, save_checkpoint
from .config import TrainConfig
from .events import CheckpointEvent, FinishedEvent, Listener, MessageEvent, StepEvent
from .files import append_line, newest_checkpoint, read_lines, write_json, write_text, write_yaml
from .nerf import NerfMethod, StepResult
from .run import Run, load_scene, scene_record

KEPT_CHECKPOINTS = 2
# Runs of tens of thousands of steps gain from a long decay; a few thousand need every step.
SHORT_RUN, LONG_RUN = 6_000, 20_000  # steps
SHORT_DECAY, LONG_DECAY = (0.75, 0.1), (0.3, 0.03)  # where it starts, factor at the end
MOST_BAD_LOGS = 5  # log lines in a row without a finite loss before a run is given up


class DivergedError(InputError):
    """Training stopped because the loss was not finite for too long."""


def learning_rate_factor(config: TrainConfig, step: int, fraction: float) -> float:
    """Factor on the learning rates at a fraction of the run in [0, 1]: linear warm-up, constant
    until `decay_start`, then exponential down to `learning_rate_final`. Where the settings leave
    these open, they follow the length of the run in steps, planned or by its pace so far."""
    warmup = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    total = config.planned_steps or step / max(fraction, 1e-6)
    long = min(max((total - SHORT_RUN) / (LONG_RUN - SHORT_RUN), 0.0), 1.0)
    start, final = (a + long * (b - a) for a, b in zip(SHORT_DECAY, LONG_DECAY, strict=True))
    start = start if config.decay_start is None else config.decay_start
    final = final if config.learning_rate_final is None else config.learning_rate_final
    late = max(0.0, fraction - start) / max(1.0 - start, 1e-9)
    return warmup * final**late


def train(
    data: Scene | str | Path,
    config: TrainConfig | None = None,
    *,
    out: str | Path,
    on_event: Listener | None = None,
) -> Run:
    """Train on a scene and keep everything in the run folder `out`.

    Ctrl-C stops cleanly: a checkpoint is written and the run can be resumed.

    Args:
        data: a scene, or what `datasets.load` takes.
        config: settings; None takes the preset `tiny` of method `nerf`.
        on_event: told about steps, checkpoints and the end.

    Raises:
        DataError: the data cannot be read, or `out` already holds a run.
        DivergedError: the loss stayed non-finite; the last good checkpoint is kept.
    """
    config = config or TrainConfig()
    folder = Path(out)
    if (folder / "config.yaml").exists():
        raise DataError(f"{folder}: already holds a run; resume it, or choose another folder")
    begin = time.perf_counter()
    scene = data if isinstance(data, Scene) else load_scene(data, config)
    loaded = time.perf_counter() - begin
    loop = _Loop(scene, config, folder, on_event)
    write_yaml(folder / "config.yaml", config.to_dict())
    write_json(folder / "scene.json", scene_record(scene))
    write_text(folder / "metrics.jsonl", "")
    run = Run(folder, config, given=scene)
    run.add_timing("load data", loaded)
    return loop.run(run)


def resume(
    path: str | Path,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    on_event: Listener | None = None,
) -> Run:
    """Go on exactly where the newest checkpoint of a run stands.

    Args:
        steps, seconds: a new end for the whole run (counted from its start); None keeps the old.

    Raises:
        CheckpointError: no checkpoint, or one that does not fit.
    """
    run = Run.open(path)
    if steps is not None or seconds is not None:
        config = dataclasses.replace(run.config, steps=steps, seconds=seconds)
        run = dataclasses.replace(run, config=config)
    checkpoint = newest_checkpoint(run.path)
    tensors, header = load_checkpoint(checkpoint)
    loop = _Loop(run.scene(), run.config, run.path, on_event)
    loop.restore(tensors, header, checkpoint)
    write_yaml(run.path / "config.yaml", run.config.to_dict())
    return loop.run(run)


class _Loop:
    """One run while it trains."""

    def __init__(
        self, scene: Scene, config: TrainConfig, folder: Path, on_event: Listener | None
    ) -> None:
        self.config, self.folder = config, folder
        self.device = choose_device(config.device)
        torch.manual_seed(config.seed)
        random.seed(config.seed)
        self.method = NerfMethod(scene, config, self.device)
        self._listener = on_event
        self.done = 0
        self.elapsed = 0.0
        self._pending: list[StepResult] = []
        self._last: StepEvent | None = None
        self._bad_logs = 0
        self._board = _tensorboard(folder) if config.tensorboard else None

    def _tell(self, event: Any) -> None:
        if self._listener is not None:
            self._listener(event)

    @property
    def fraction(self) -> float:
        """How much of the planned steps or time is used."""
        planned = self.config.planned_steps
        if planned is not None:
            return min(1.0, self.done / planned)
        assert self.config.seconds is not None
        return min(1.0, self.elapsed / self.config.seconds)

    def run(self, run: Run) -> Run:
        interrupted = False
        saved_at = self.elapsed
        try:
            while self.fraction < 1.0:
                self._step()
                if self.elapsed - saved_at > self.config.checkpoint_every_seconds:
                    self.save()
                    saved_at = self.elapsed
        except KeyboardInterrupt:
            interrupted = True
            self._tell(MessageEvent("stopped by the user; saving"))
        self._log(force=True)
        self.save()
        self._finish(run, interrupted)
        return run

    def _step(self) -> None:
        begin = time.perf_counter()
        rate = learning_rate_factor(self.config, self.done, self.fraction)
        self._pending.append(self.method.step(self.done, rate))
        self.done += 1
        if self.done % self.config.log_every == 0:
            self._synchronize()
        self.elapsed += time.perf_counter() - begin
        if self.done % self.config.log_every == 0:
            self._log()

    def _synchronize(self) -> None:
        # without it the host runs ahead of a GPU and a time budget would be overrun
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _log(self, force: bool = False) -> None:
        if not self._pending:
            return
        results, self._pending = self._pending, []
        loss = float(torch.stack([r.loss.float() for r in results]).mean())
        error = float(torch.stack([r.squared_error.float() for r in results]).mean())
        rays = sum(r.rays for r in results)
        samples = float(torch.stack([r.samples.float() for r in results]).sum())
        since = self._last.elapsed if self._last else 0.0
        event = StepEvent(
            step=self.done,
            steps_total=self.config.planned_steps,
            loss=loss,
            psnr=psnr(max(error, 1e-12)) if math.isfinite(error) else math.nan,
            rays_per_second=rays / max(self.elapsed - since, 1e-9),
            samples_per_ray=samples / max(rays, 1),
            learning_rate=self.config.learning_rate
            * learning_rate_factor(self.config, self.done, self.fraction),
            elapsed=self.elapsed,
            budget_fraction=self.fraction,
        )
        self._last = event
        row = {
            "step": event.step,
            "elapsed": round(event.elapsed, 4),
            **{
                name: _number(getattr(event, name))
                for name in ("loss", "psnr", "rays_per_second", "samples_per_ray", "learning_rate")
            },
        }
        append_line(self.folder / "metrics.jsonl", row)
        if self._board is not None:
            for name in ("loss", "psnr", "learning_rate"):
                self._board.add_scalar(name, row[name], self.done)
        self._tell(event)
        self._check_finite(loss, force)

    def _check_finite(self, loss: float, last: bool) -> None:
        self._bad_logs = 0 if math.isfinite(loss) else self._bad_logs + 1
        if self._bad_logs >= MOST_BAD_LOGS and not last:
            raise DivergedError(
                f"{self.folder}: the loss is not finite since step "
                f"{self.done - MOST_BAD_LOGS * self.config.log_every}; try a smaller step with "
                "--set learning_rate=0.003; the last good checkpoint is kept"
            )

    def save(self) -> None:
        """Write a checkpoint and drop all but the newest few."""
        path = self.folder / "checkpoints" / f"step-{self.done:08d}.safetensors"
        method = self.method
        tensors = {**method.state(), **method.random_state(), **method.small_state()}
        header = {"step": self.done, "elapsed": self.elapsed, **method.header()}
        save_checkpoint(path, tensors, header)
        for old in sorted(path.parent.glob("step-*.safetensors"))[:-KEPT_CHECKPOINTS]:
            old.unlink(missing_ok=True)
        self._tell(CheckpointEvent(self.done, str(path)))

    def restore(self, tensors: dict[str, Tensor], header: dict[str, Any], path: Path) -> None:
        copy_state(self.method.state(), tensors, path)
        self.method.restore(tensors, header)
        self.done, self.elapsed = int(header["step"]), float(header["elapsed"])
        kept = [r for r in read_lines(self.folder / "metrics.jsonl") if r["step"] <= self.done]
        write_text(self.folder / "metrics.jsonl", "")
        for row in kept:
            append_line(self.folder / "metrics.jsonl", row)
        if self.fraction >= 1.0:
            raise ConfigError(
                f"{self.folder}: the run is finished at step {self.done}; "
                "give a later end with --steps or --seconds"
            )

    def _finish(self, run: Run, interrupted: bool) -> None:
        bad = self.method.bad_gradients()
        if bad:
            self._tell(MessageEvent(f"{bad} gradient entries were not finite and were left out"))
        last_psnr = self._last.psnr if self._last else math.nan
        summary = {
            "run": str(run.path),
            "method": self.config.method,
            "preset": self.config.preset,
            "steps": self.done,
            "seconds": round(self.elapsed, 3),
            "train_psnr": _number(last_psnr),
            "backend": backend_for(self.device),
            "device": _device_name(self.device),
        }
        write_json(run.path / "train.json", {**summary, "interrupted": interrupted})
        run.add_timing("train", self.elapsed)
        if self._board is not None:
            self._board.close()
        self._tell(FinishedEvent(summary))
        if interrupted:
            raise KeyboardInterrupt


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return round(value, 6) if math.isfinite(value) else None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _tensorboard(folder: Path) -> Any:
    from lumigraph.core.errors import require

    require("tensorboard", extra="tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"))
