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

from .checkpoint import load_checkpoint, save_checkpoint
from .config import RunConfig, train_config
from .control import TrainingControl, synchronize
from .events import CheckpointEvent, FinishedEvent, Listener, MessageEvent, StepEvent
from .files import append_line, newest_checkpoint, read_lines, write_json, write_text, write_yaml
from .method import Model, MomentMethod, Progress, StepResult
from .moment_files import MomentRecord, write_moment
from .registry import build_method, planned_steps
from .run import Run, load_scene, scene_record

KEPT_CHECKPOINTS = 2
KNOWN_PACE = 0.01  # fraction of a time budget from which its number of steps can be told
MOST_BAD_LOGS = 5  # log lines in a row without a finite loss before a run is given up


class DivergedError(InputError):
    """Training stopped because the loss was not finite for too long."""


def train(
    data: Scene | str | Path,
    config: RunConfig | None = None,
    *,
    out: str | Path,
    on_event: Listener | None = None,
    control: TrainingControl | None = None,
) -> Run:
    """Train on a scene and keep everything in the run folder `out`.

    Ctrl-C stops cleanly: a checkpoint is written and the run can be resumed.

    Args:
        data: a scene, or what `datasets.load` takes.
        config: settings; None takes the preset `tiny` of method `nerf`.
        on_event: told about steps, checkpoints and the end, in this thread.
        control: pauses, stops and shows the run, from other threads.

    Raises:
        DataError: the data cannot be read, or `out` already holds a run.
        DivergedError: the loss stayed non-finite; the last good checkpoint is kept.
    """
    config = config or train_config()
    folder = Path(out)
    control = control or TrainingControl()
    with control.steering():
        if (folder / "config.yaml").exists():
            raise DataError(f"{folder}: already holds a run; resume it, or choose another folder")
        begin = time.perf_counter()
        scene = data if isinstance(data, Scene) else load_scene(data, config)
        loaded = time.perf_counter() - begin
        loop = _Loop(scene, config, folder, on_event, control)
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
    control: TrainingControl | None = None,
) -> Run:
    """Go on exactly where the newest checkpoint of a run stands.

    Args:
        steps, seconds: a new end for the whole run (counted from its start); None keeps the old.
        on_event, control: as in `train`.

    Raises:
        CheckpointError: no checkpoint, or one that does not fit.
    """
    control = control or TrainingControl()
    with control.steering():
        run = Run.open(path)
        if steps is not None or seconds is not None:
            config = dataclasses.replace(run.config, steps=steps, seconds=seconds)
            run = dataclasses.replace(run, config=config)
        checkpoint = newest_checkpoint(run.path)
        tensors, header = load_checkpoint(checkpoint)
        loop = _Loop(run.scene(), run.config, run.path, on_event, control)
        loop.restore(tensors, header, checkpoint)
        write_yaml(run.path / "config.yaml", run.config.to_dict())
        return loop.run(run)


class _Loop:
    """One run while it trains."""

    def __init__(
        self,
        scene: Scene,
        config: RunConfig,
        folder: Path,
        on_event: Listener | None,
        control: TrainingControl,
    ) -> None:
        self.config, self.folder, self.control = config, folder, control
        self.device = choose_device(config.device)
        torch.manual_seed(config.seed)
        random.seed(config.seed)
        self.planned = planned_steps(scene, config)
        self.method = build_method(scene, config, self.device)
        self._listener = on_event
        self.done = 0
        self.elapsed = 0.0
        self._pending: list[StepResult] = []
        self._finished: MomentRecord | None = None
        self._last: StepEvent | None = None
        self._shown: Model | None = None
        self._bad_logs = 0
        self._board = _tensorboard(folder) if config.tensorboard else None

    def _tell(self, event: Any) -> None:
        if self._listener is not None:
            self._listener(event)

    @property
    def fraction(self) -> float:
        """How much of the planned steps or time is used."""
        if self.planned is not None:
            return min(1.0, self.done / self.planned)
        assert self.config.seconds is not None
        return min(1.0, self.elapsed / self.config.seconds)

    def _progress(self) -> Progress:
        done, fraction = self.done, self.fraction
        planned = self.planned
        if planned is None:
            known = fraction > KNOWN_PACE
            planned = round(done / fraction) if known else self.config.default_steps
        rate = self.config.learning_rate_factor(done, fraction)
        return Progress(done, fraction, max(planned, 1), rate)

    def run(self, run: Run) -> Run:
        interrupted = stopped = False
        self.control.attach(self._model, self.done)
        for note in self.method.notes():
            self._tell(MessageEvent(note))
        saved_at = self.elapsed
        try:
            while self.fraction < 1.0:
                if self.control.asked and not self._heed():
                    stopped = True
                    break
                self._step()
                if self.elapsed - saved_at > self.config.checkpoint_every_seconds:
                    self.save()
                    saved_at = self.elapsed
        except KeyboardInterrupt:
            interrupted = True
        if interrupted or stopped:
            self._tell(MessageEvent("stopped by the user; saving"))
        self._log(force=True)
        self.save()
        self._finish(run, interrupted=interrupted or stopped)
        if interrupted:
            raise KeyboardInterrupt
        return run

    def _model(self) -> Model:
        """The same object as long as its parts are; a method may bring its renderer up to date."""
        field, renderer = self.method.field, self.method.renderer
        shown = self._shown
        if shown is None or shown.field is not field or shown.renderer is not renderer:
            shown = self._shown = Model(field, renderer, self.device)
        return shown

    def _heed(self) -> bool:
        """Between two steps, do what the control asks; False where it says stop."""
        begin = time.perf_counter()
        synchronize(self.device)
        self.elapsed += time.perf_counter() - begin
        while (order := self.control.next_order()) != "go":
            if order == "stop":
                return False
            if order == "save":
                self._save_if_possible()
            else:
                self._tell(MessageEvent(f"{order} at step {self.done}"))
        return True

    def _save_if_possible(self) -> None:
        try:
            self.save()
        except DataError as error:
            self._tell(MessageEvent(f"no checkpoint: {error}"))

    def _step(self) -> None:
        begin = time.perf_counter()
        # waking the engine's own thread takes longer than the backward of a small step
        with torch.autograd.set_multithreading_enabled(False):
            result = self.method.step(self._progress())
        self._finished = result.finished
        self._pending.append(dataclasses.replace(result, finished=None))
        self.done += 1
        if self.done % self.config.log_every == 0:
            # without it the host runs ahead of a GPU and a time budget would be overrun
            synchronize(self.device)
        self.elapsed += time.perf_counter() - begin
        self._write_finished()
        self.control.step = self.done
        if self.done % self.config.log_every == 0:
            self._log()

    def _write_finished(self) -> None:
        if self._finished is not None:
            write_moment(self.folder, self._finished)
        self._finished = None

    def _log(self, force: bool = False) -> None:
        if not self._pending:
            return
        results, self._pending = self._pending, []
        loss = float(torch.stack([r.loss.float() for r in results]).mean())
        error = float(torch.stack([r.squared_error.float() for r in results]).mean())
        rays = sum(r.rays for r in results)
        samples = [r.samples.float() for r in results if r.samples is not None]
        since = self._last.elapsed if self._last else 0.0
        rate = results[-1].rate
        event = StepEvent(
            step=self.done,
            steps_total=self.planned,
            loss=loss,
            psnr=psnr(max(error, 1e-12)) if math.isfinite(error) else math.nan,
            rays_per_second=rays / max(self.elapsed - since, 1e-9),
            samples_per_ray=float(torch.stack(samples).sum()) / max(rays, 1) if samples else None,
            learning_rate=self.config.main_rate * (self._progress().rate if rate is None else rate),
            elapsed=self.elapsed,
            budget_fraction=self.fraction,
            extras=dict(results[-1].extras),
        )
        self._last = event
        row = metrics_row(event)
        append_line(self.folder / "metrics.jsonl", row)
        if self._board is not None:
            for name in ("loss", "psnr", "learning_rate", *event.extras):
                self._board.add_scalar(name, row[name], self.done)
        self._tell(event)
        self._check_finite(loss, force)

    def _check_finite(self, loss: float, last: bool) -> None:
        self._bad_logs = 0 if math.isfinite(loss) else self._bad_logs + 1
        if self._bad_logs >= MOST_BAD_LOGS and not last:
            raise DivergedError(
                f"{self.folder}: the loss is not finite since step "
                f"{self.done - MOST_BAD_LOGS * self.config.log_every}; try a smaller step with "
                f"--set {self.config.MAIN_RATE}={0.3 * self.config.main_rate:.2g}; the last good "
                "checkpoint is kept"
            )

    def save(self) -> None:
        """Write a checkpoint and drop all but the newest few."""
        path = self.folder / "checkpoints" / f"step-{self.done:08d}.safetensors"
        method = self.method
        self._write_finished()  # an interrupt may have come in between
        if isinstance(method, MomentMethod):
            write_moment(self.folder, method.moment())
        tensors = {**method.state(), **method.random_state(), **method.small_state()}
        header = {"step": self.done, "elapsed": self.elapsed, **method.header()}
        save_checkpoint(path, tensors, header)
        for old in sorted(path.parent.glob("step-*.safetensors"))[:-KEPT_CHECKPOINTS]:
            old.unlink(missing_ok=True)
        self._tell(CheckpointEvent(self.done, str(path)))

    def restore(self, tensors: dict[str, Tensor], header: dict[str, Any], path: Path) -> None:
        self.method.restore(tensors, header, path)
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

    def _finish(self, run: Run, *, interrupted: bool) -> None:
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
            **(self._last.extras if self._last else {}),
        }
        write_json(run.path / "train.json", {**summary, "interrupted": interrupted})
        run.add_timing("train", self.elapsed)
        if self._board is not None:
            self._board.close()
        self._tell(FinishedEvent(summary))


def metrics_row(event: StepEvent) -> dict[str, float | None]:
    """A line of `metrics.jsonl`; what a method does not count is left out."""
    names = ("loss", "psnr", "rays_per_second", "samples_per_ray", "learning_rate")
    numbers = {name: getattr(event, name) for name in names}
    if event.samples_per_ray is None:
        del numbers["samples_per_ray"]
    row: dict[str, float | None] = {"step": event.step, "elapsed": round(event.elapsed, 4)}
    return row | {name: _number(value) for name, value in {**numbers, **event.extras}.items()}


def _number(value: float) -> float | None:
    """Seven significant digits of a float; JSON knows no NaN."""
    if isinstance(value, int):
        return value
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _tensorboard(folder: Path) -> Any:
    from lumigraph.core.errors import require

    require("tensorboard", extra="tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"))
