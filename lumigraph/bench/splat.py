"""`lumigraph bench splat`: Gaussian splatting, ours against the torch twins and against gsplat.

On a GPU 100 k, 1 M and 3 M Gaussians of the protocol's scene at 1920x1080 from four cameras in
turn: pictures, gradients to all 59 numbers of a Gaussian, whole steps, stages, memory, and the
distance from gsplat's results where it is installed. On a CPU 50 k Gaussians at 400x400, against
the torch twins in the same process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lumigraph.core.devices import choose_device
from lumigraph.core.errors import LumigraphError

from . import results, splat_peers, splat_report
from .kernels import OURS, TWIN, compared_backend, difference, under_torch
from .peers import recorded_peers
from .splat_cases import (
    SplatInputs,
    SplatTraining,
    SplatWorkload,
    adam_call,
    blob_inputs,
    capture_inputs,
    loss_call,
)
from .splat_peers import GSPLAT
from .timing import Call, Effort, kernel_profile, measure, rounded

Message = Callable[[str], None]

FORWARD, BACKWARD = "forward", "+ backward to 59 numbers"
STEP, SSIM_STEP = "step, L1 and Adam", "step, L1, SSIM and Adam"
SPLATTING, BLENDING, LOSS, ADAM = "splatting", "blending", "L1 and SSIM", "Adam"
ALL_ROWS, VISIBLE_ROWS, VISIBLE_SHARE = "all Gaussians", "74 % of them visible", 0.74
TOLERANCE = 1e-3  # relative distance from the twin
MIDDLE_SIZE = 1_000_000  # the size of the targets, of the loss and of Adam
CPU_SIZE = 50_000
TARGETS_MS = {FORWARD: 1.0, BACKWARD: 2.2, STEP: 3.0}  # at MIDDLE_SIZE on one H100
TARGET_PEAK_MIB = 400.0  # of BACKWARD
TARGET_RATIO = 40.0  # of blending forward and backward on a CPU


@dataclass(frozen=True)
class Plan:
    """Sizes of one benchmark run.

    Attributes:
        counts: of Gaussians.
        width, height: of the pictures, pixels.
        effort: of every measurement.
    """

    counts: tuple[int, ...]
    width: int
    height: int
    effort: Effort


@dataclass(frozen=True)
class Row:
    """One measurement of ours, perhaps with its twin and with gsplat. A call is made when its row's
    turn comes, so that only one row's tensors are there at a time."""

    name: str
    passes: str
    size: int
    make: Callable[[], Call]
    twin: bool = False
    gsplat: Callable[[], Call] | None = None
    targets: Mapping[str, float] = field(default_factory=dict)


def bench_splat(
    device: str = "auto",
    *,
    quick: bool = False,
    out: Path | None = None,
    on_message: Message = lambda text: None,
) -> dict[str, Any]:
    """Measure splatting.

    Args:
        device: "auto", "cpu" or "cuda".
        quick: tiny sizes and few calls.
        out: folder for `splat-<device>.json` and `.md`.
        on_message: told one line for each finding.

    Returns:
        What the JSON file holds.

    Raises:
        BackendError: only the torch twins can run there, so nothing can be compared.
        LumigraphError: rows failed, or differ from the twin or from gsplat; the files are written
            all the same.
    """
    where = choose_device(device)
    content = results.document("splat", where, compared_backend(where), quick=quick)
    gpu, plan = where.type == "cuda", make_plan(where, quick)
    if gpu:
        known = recorded_peers()
        content["recorded"] = {key: known[key] for key in ("source", "label", "splatting_notes")}
        content["gsplat"] = _gsplat_version()
    content |= {"rows": [], "scenes": [], "failures": []}
    for count in plan.counts:
        if gpu:
            inputs = capture_inputs(count, plan.width, plan.height, where)
        else:
            inputs = blob_inputs(count, plan.width, where)
        _measure_size(content, inputs, plan, on_message)
    if out is not None:
        paths = results.write(content, Path(out), splat_report.markdown(content))
        on_message("wrote " + ", ".join(map(str, paths)))
    if content["failures"]:
        raise LumigraphError(
            f"{len(content['failures'])} findings failed; the first: {content['failures'][0]}"
        )
    return content


def make_plan(device: torch.device, quick: bool) -> Plan:
    """The sizes for a device."""
    if quick:
        return Plan((300,), 48, 48, Effort(seconds=0.0, fewest=2, most=2))
    if device.type == "cuda":
        counts = (100_000, MIDDLE_SIZE, 3_000_000)
        return Plan(counts, 1920, 1080, Effort(seconds=0.3, fewest=8, most=200))
    return Plan((CPU_SIZE,), 400, 400, Effort(seconds=2.0, fewest=3, most=20))


def _gsplat_version() -> str | None:
    if not splat_peers.installed():
        return None
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(GSPLAT)
    except PackageNotFoundError:
        return "of unknown version"


def _measure_size(
    content: dict[str, Any], inputs: SplatInputs, plan: Plan, on_message: Message
) -> None:
    """Rows, stages and distances of one size, added to the document."""
    gpu = inputs.device.type == "cuda"
    workload = SplatWorkload(inputs)
    scene = workload.counts()
    on_message(splat_report.scene_line(scene))
    for row in gpu_rows(inputs, plan) if gpu else cpu_rows(inputs):
        found = _measured(row, inputs.device, plan.effort)
        content["rows"].append(found)
        on_message(splat_report.row_line(found))
        if "error" in found or not found.get("agrees", True):
            content["failures"].append(splat_report.title(found))
    stages = measure(workload.stages(), inputs.device, plan.effort)
    scene["stages"] = {name: timing.to_dict() for name, timing in stages.items()}
    on_message(splat_report.stages_line(scene))
    if gpu:
        scene["gpu_kernels"] = kernel_profile(workload.backward, calls=4, most=12)
        if splat_peers.installed():
            scene[GSPLAT] = _distance(workload, inputs, content, on_message)
    content["scenes"].append(scene)


def _distance(
    workload: SplatWorkload, inputs: SplatInputs, content: dict[str, Any], on_message: Message
) -> dict[str, Any]:
    """How far gsplat's results lie from ours."""
    try:
        found = splat_peers.equality(workload, splat_peers.GsplatWorkload(inputs))
    except Exception as error:  # a peer that does not run here must not cost our figures
        return {"error": _short(error)}
    if not found["meets"]:
        content["failures"].append(f"results beside gsplat's, {len(workload.leaves[0])} Gaussians")
    on_message(splat_report.distance_line(found))
    return found


def gpu_rows(inputs: SplatInputs, plan: Plan, *, peers: bool = True) -> list[Row]:
    """Rows of one size on a GPU, with `peers` those of gsplat where it is installed."""
    size = len(inputs.gaussians.means)
    theirs = _gsplat_calls(inputs) if peers and splat_peers.installed() else {}
    calls: dict[str, Callable[[], Call]] = {
        FORWARD: lambda: SplatWorkload(inputs).forward,
        BACKWARD: lambda: SplatWorkload(inputs).backward,
        STEP: lambda: SplatTraining(inputs).step,
        SSIM_STEP: lambda: SplatTraining(inputs, ssim=True).step,
    }
    rows = []
    for passes, make in calls.items():
        targets = {}
        if size == MIDDLE_SIZE and passes in TARGETS_MS:
            targets = {"target_ms": TARGETS_MS[passes]}
            if passes == BACKWARD:
                targets["target_peak_mib"] = TARGET_PEAK_MIB
        peer = theirs.get(passes)
        rows.append(Row(SPLATTING, passes, size, make, gsplat=peer, targets=targets))
    if size == MIDDLE_SIZE or len(plan.counts) == 1:
        rows += _shared_rows(inputs)
    return rows


def _shared_rows(inputs: SplatInputs) -> list[Row]:
    """The loss, and the optimizer."""
    width, height, device = inputs.width, inputs.height, inputs.device
    gaussians, size = inputs.gaussians, len(inputs.gaussians.means)
    return [
        Row(LOSS, "+ backward", width * height, lambda: loss_call(width, height, device), True),
        Row(ADAM, ALL_ROWS, size, lambda: adam_call(gaussians), True),
        Row(
            ADAM, VISIBLE_ROWS, size,
            lambda: adam_call(gaussians, visible_share=VISIBLE_SHARE), True,
        ),
    ]  # fmt: skip


def _gsplat_calls(inputs: SplatInputs) -> dict[str, Callable[[], Call]]:
    return {
        FORWARD: lambda: splat_peers.GsplatWorkload(inputs).forward,
        BACKWARD: lambda: splat_peers.GsplatWorkload(inputs).backward,
        STEP: lambda: splat_peers.GsplatTraining(inputs).step,
    }


def cpu_rows(inputs: SplatInputs) -> list[Row]:
    """Rows on a CPU. The twin blends for half a minute, so it is measured where it is compared."""
    size = len(inputs.gaussians.means)
    targets = {"target_ratio": TARGET_RATIO} if size == CPU_SIZE else {}
    raster = Row(
        BLENDING, "+ backward", size, lambda: SplatWorkload(inputs).raster(), True, targets=targets
    )
    return [
        raster,
        Row(SPLATTING, FORWARD, size, lambda: SplatWorkload(inputs).forward, True),
        Row(SPLATTING, BACKWARD, size, lambda: SplatWorkload(inputs).backward),
        Row(SPLATTING, STEP, size, lambda: SplatTraining(inputs).step),
        Row(SPLATTING, SSIM_STEP, size, lambda: SplatTraining(inputs, ssim=True).step),
        *_shared_rows(inputs),
    ]


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _measured(row: Row, device: torch.device, effort: Effort) -> dict[str, Any]:
    """The row's figures; what fails is reported in their place."""
    found: dict[str, Any] = {"name": row.name, "passes": row.passes, "size": row.size}
    try:
        found |= _compared(row, device, effort)
    except Exception as error:  # one broken row must not cost the figures of all others
        return {**found, "error": _short(error)}
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()
    known = splat_peers.recorded(row.name, row.passes, row.size)
    if device.type == "cuda" and known is not None:
        found["recorded"] = {**known, "ratio": rounded(known["ms"] / found[OURS]["median_ms"])}
    return found


def _compared(row: Row, device: torch.device, effort: Effort) -> dict[str, Any]:
    contenders: dict[str, Call] = {OURS: row.make()}
    first = contenders[OURS](0)
    found: dict[str, Any] = {}
    if row.twin:
        contenders[TWIN] = under_torch(row.make())
        apart = difference(first, contenders[TWIN](0))
        found["difference"] = rounded(apart, 2) if math.isfinite(apart) else None
        found["agrees"] = apart <= TOLERANCE
    del first
    if row.gsplat is not None:
        try:
            call = row.gsplat()
            call(0)
            contenders[GSPLAT] = call
        except Exception as error:  # a peer that does not run here is reported, ours still count
            found["peers_failed"] = {GSPLAT: _short(error)}
    timings = measure(contenders, device, effort)
    mine = timings[OURS].median_ms
    found |= {OURS: timings[OURS].to_dict(), "peers": {}}
    if row.twin:
        found |= {
            TWIN: timings[TWIN].to_dict(),
            "ratio": rounded(timings[TWIN].median_ms / mine),
        }
    if GSPLAT in timings:
        ratio = rounded(timings[GSPLAT].median_ms / mine)
        found["peers"] = {GSPLAT: {**timings[GSPLAT].to_dict(), "ratio": ratio}}
    return found | _targets(row, found)


def _targets(row: Row, found: dict[str, Any]) -> dict[str, Any]:
    """The row's targets, and whether all are met."""
    if not row.targets:
        return {}
    checks = {
        "target_ms": lambda most: found[OURS]["median_ms"] <= most,
        "target_peak_mib": lambda most: found[OURS].get("peak_mib", math.inf) <= most,
        "target_ratio": lambda least: found["ratio"] >= least,
    }
    met = all(checks[name](value) for name, value in row.targets.items())
    return {**row.targets, "meets": met}
