"""Checks that a user can run in seconds on their own machine: `lumigraph simulate validate`. The
whole list of them is in tests/hardware."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from . import banks
from .analytic import evaluate, profile
from .claims import claims
from .cluster import ClusterSpec
from .cycle.model import follow_compiled, simulate_cycles
from .cycle.timing import TimingShape, simulate_reference
from .equations import pipeline_seconds
from .reports.acceptance import SIZES, closed_form_speeds, mean_speed
from .schedule import FrameWork, schedule
from .synthetic import synthetic_trace


@dataclass(frozen=True)
class Check:
    """One check and what came out."""

    id: str
    text: str
    found: str
    passed: bool


def validate() -> list[Check]:
    """Run all checks.

    Raises:
        MissingExtraError: numba is not installed.
    """
    return [_cycles(), _banks(), _fifo(), _back_ends(), _schedule(), _analytic(), _speeds()]


def _cycles() -> Check:
    trace = synthetic_trace("nerf", tiles=4)
    cluster = ClusterSpec.load("ngpc-8")
    result = simulate_cycles(trace.positions, trace.rays, trace.workload, cluster)
    lost = 0
    for t in result.timings:
        total = t.busy + t.conflict + t.miss + t.back_pressure + t.starve + t.idle
        lost += int(np.abs(total - t.cycles).sum()) + abs(t.samples - t.written)
    return Check("V1", "cycles and samples that are not accounted for", str(lost), lost == 0)


def _banks() -> Check:
    found = [banks.mean(banks.hashed_service(3, count)) for count in (4, 8, 16)]
    text = ", ".join(str(value) for value in found)
    return Check("V5", "cycles of hashed banks, 4, 8, 16", text, text == "5/2, 13/8, 45/32")


def _fifo() -> Check:
    law = banks.hashed_service(3, 8)
    weights = [float(share) for share in law.values()]
    service = np.random.default_rng(1).choice(list(law), p=weights, size=(20_000, 16))
    none = np.zeros((1, 1), np.uint8)
    shape = TimingShape(depth=8, interval=1)
    run = follow_compiled(service.astype(np.uint16), none, none, misses=False, shape=shape)
    found = run.cycles / 20_000
    good = abs(found / 1.691 - 1) < 0.01
    return Check("V6", "cycles a sample at FIFO depth 8 (1.691)", f"{found:.3f}", good)


def _back_ends() -> Check:
    rng = np.random.default_rng(2)
    service = rng.integers(1, 5, (400, 4))
    none = np.zeros((1, 1), np.uint8)
    different = 0
    for serial in (False, True):
        shape = TimingShape(serial=serial, depth=3, batch=8, input_fifo=16, tiles=(1, 2))
        compiled = follow_compiled(service.astype(np.uint16), none, none, misses=False, shape=shape)
        different += not compiled.same_as(simulate_reference(service, shape))
    return Check("V10", "runs in which Numba and NumPy differ", str(different), different == 0)


def _schedule() -> Check:
    worst = 0.0
    for batches in (1, 3, 8):
        for cluster, rest in ((1.0, 0.4), (0.3, 0.9)):
            wanted = pipeline_seconds(cluster, rest, batches=batches)
            worst = max(worst, abs(schedule(FrameWork(rest, cluster, 0), batches).seconds - wanted))
    return Check("V11", "schedule against the closed form, s", f"{worst:.1e}", worst < 1e-9)


def _analytic() -> Check:
    trace, cluster = synthetic_trace("nsdf", tiles=16), ClusterSpec.load("paper-ideal")
    closed = evaluate(profile(trace, cluster), trace.workload, cluster)
    one = cluster.with_settings({"nfp.count": 1})
    result = simulate_cycles(trace.positions, trace.rays, trace.workload, one)
    cycles = (result.frame_cycles - closed.latency_cycles) / len(trace.positions)
    error = closed.interval_cycles / cycles - 1
    return Check("V13", "analytic against cycle model", f"{100 * error:+.2f} %", abs(error) < 0.03)


def _speeds() -> Check:
    closed = closed_form_speeds()
    found = [mean_speed(closed, "hash", n) for n in SIZES]
    good = all(
        math.floor(v) == claims()[f"P8.{n}"].value for v, n in zip(found, SIZES, strict=True)
    )
    text = " / ".join(f"{value:.2f}" for value in found)
    return Check("A1", "mean speed-ups, fitted (12 / 20 / 33 / 39)", text, good)
