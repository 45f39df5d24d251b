"""What an open viewer costs training while nobody looks.

    python benchmarks/viewer_cost.py [--method gaussians] [--steps 600] [--repeats 7] [--out x.json]

Runs of the built-in scene with and without a viewer alternate in one process, each with the same
seed. The time of a run is the wall clock from its first log line to its last. Measure on an idle
machine: the ratio of two medians is no better than their spread.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lumigraph.bench.results import document
from lumigraph.core import Scene
from lumigraph.core.devices import choose_device
from lumigraph.cuda.dispatch import backend_for
from lumigraph.datasets import load
from lumigraph.training import Event, RunConfig, StepEvent, TrainingControl, train, train_config
from lumigraph.training.files import write_json

MOST = 1.10  # of the time without a viewer


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print, and return the result."""
    arguments = parsed(words)
    scene = load("builtin:object")
    config = train_config(
        arguments.method,
        arguments.preset,
        steps=arguments.steps,
        log_every=min(20, arguments.steps // 2),
        device=arguments.device,
    )
    seconds: dict[str, list[float]] = {"alone": [], "viewer": []}
    timed_run(scene, config)  # builds kernels and fills caches
    for turn in range(arguments.repeats):
        order = ("alone", "viewer") if turn % 2 == 0 else ("viewer", "alone")
        for kind in order:
            with open_viewer(scene, config) if kind == "viewer" else contextlib.nullcontext() as by:
                seconds[kind].append(timed_run(scene, config, by))
        print(f"{turn + 1}/{arguments.repeats}  {line(seconds)}", flush=True)
    result = summary(seconds, config)
    if arguments.out is not None:
        write_json(arguments.out, result)
    return result


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=("nerf", "gaussians"), default="nerf")
    parser.add_argument("--preset", choices=("tiny", "small", "full"), default="tiny")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(words)
    if arguments.steps < 4 or arguments.repeats < 1:
        parser.error("--steps must be at least 4, --repeats at least 1")
    return arguments


@contextlib.contextmanager
def open_viewer(scene: Scene, config: RunConfig) -> Iterator[Any]:
    """A viewer on any free port that nobody opens, and the control that it has."""
    from lumigraph.viewer import serve_training

    control = TrainingControl()
    with serve_training(control, scene, config=config, port=0) as viewer:
        yield control, viewer.on_event


def timed_run(
    scene: Scene,
    config: RunConfig,
    beside: tuple[TrainingControl, Callable[[Event], None]] | None = None,
) -> float:
    """Seconds from the first log line of a run to its last."""
    control, tell = beside or (None, None)
    moments: list[float] = []

    def listen(event: Event) -> None:
        if tell is not None:
            tell(event)
        if isinstance(event, StepEvent):
            moments.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        train(scene, config, out=Path(folder) / "run", on_event=listen, control=control)
    return moments[-1] - moments[0]


def line(seconds: dict[str, list[float]]) -> str:
    """Medians in seconds, and their ratio."""
    alone, viewer = (statistics.median(seconds[kind]) for kind in ("alone", "viewer"))
    return f"alone {alone:.2f} s, with a viewer {viewer:.2f} s: {viewer / alone:.3f}"


def summary(seconds: dict[str, list[float]], config: RunConfig) -> dict[str, Any]:
    """The head of every result file, with the times, their medians and the ratio."""
    device = choose_device(config.device)
    medians = {kind: statistics.median(values) for kind, values in seconds.items()}
    return {
        **document("viewer-cost", device, backend_for(device), quick=False),
        "protocol": "runs of builtin:object with and without a viewer that nobody has open "
        "alternate in one process, each with the same seed; medians",
        "timing": "wall clock from the first log line to the last",
        "method": config.method,
        "preset": config.preset,
        "steps": config.planned_steps,
        "seconds": seconds,
        "medians": medians,
        "ratio": round(medians["viewer"] / medians["alone"], 4),
        "allowed_ratio": MOST,
    }


if __name__ == "__main__":
    found = main()
    print(f"ratio {found['ratio']:.3f}, allowed {MOST:.2f}")
    sys.exit(0 if found["ratio"] <= MOST else 1)
