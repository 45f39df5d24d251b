"""`lumigraph bench kernels`: every operation, ours against its torch twin and against peers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lumigraph.core.devices import choose_device
from lumigraph.core.errors import BackendError, LumigraphError
from lumigraph.cuda.dispatch import backend_for, backend_override

from . import peers, results
from .cases import Case, Tensors, all_cases
from .timing import Call, Effort, Timing, measure, rounded

OURS, TWIN = "ours", "torch"
TOLERANCE_CPU, TOLERANCE_GPU = 1e-3, 5e-2  # relative; a GPU works in fp16
Message = Callable[[str], None]


def bench_kernels(
    device: str = "auto",
    *,
    quick: bool = False,
    only: str = "",
    out: Path | None = None,
    on_message: Message = lambda text: None,
) -> dict[str, Any]:
    """Measure the operations that `device` runs.

    Args:
        device: "auto", "cpu" or "cuda".
        quick: tiny sizes and few calls.
        only: measure the cases whose name holds this text.
        out: folder for `kernels-<device>.json` and `.md`.
        on_message: told one line for each case.

    Returns:
        What the JSON file holds.

    Raises:
        BackendError: only the torch twins can run there, so nothing can be compared.
        LumigraphError: cases failed; the files are written all the same.
    """
    where = choose_device(device)
    backend = compared_backend(where)
    content = results.document("kernels", where, backend, quick=quick)
    if where.type == "cuda":
        recorded = peers.recorded_peers()
        content["recorded"] = {key: recorded[key] for key in ("source", "label", "notes")}
    rows = content["rows"] = []
    for case in all_cases(where, quick=quick):
        if only in case.name:
            rows.append(_row(case, where, _effort(where, quick)))
            on_message(line(rows[-1]))
    failed = [row for row in rows if "error" in row or not row["agrees"]]
    content["failures"] = [_title(row) for row in failed]
    if out is not None:
        paths = results.write(content, Path(out), markdown(content))
        on_message("wrote " + ", ".join(map(str, paths)))
    if failed:
        raise LumigraphError(
            f"{len(failed)} of {len(rows)} cases failed; the first: {line(failed[0])}"
        )
    return content


def compared_backend(device: torch.device) -> str:
    """Name of our back end on a device.

    Raises:
        BackendError: there are only the torch twins.
    """
    backend = backend_for(device)
    if backend == "torch":
        raise BackendError(
            f"only the torch twins run on {device.type}, so there is nothing to compare; "
            "unset LUMIGRAPH_BACKEND, or see lumigraph doctor for what is missing"
        )
    return backend


def under_torch(call: Call) -> Call:
    """The same call, served by the torch twins."""

    def twin(turn: int) -> Any:
        with backend_override("torch"):
            return call(turn)

    return twin


def _effort(device: torch.device, quick: bool) -> Effort:
    if quick:
        return Effort(seconds=0.0, fewest=2, most=2)
    if device.type == "cuda":
        return Effort(seconds=0.3, fewest=8, most=200)
    return Effort(seconds=1.0, fewest=3, most=50)


def _title(row: dict[str, Any]) -> str:
    return f"{row['name']}, {row['passes']}, {row['inputs']}, {results.power(row['size'])}"


def _row(case: Case, device: torch.device, effort: Effort) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": case.name,
        "passes": case.passes,
        "inputs": case.inputs,
        "size": case.size,
    }
    try:
        row |= _compared(case, device, effort)
    except Exception as error:  # one broken case must not cost the figures of all others
        return {**row, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if device.type == "cuda" and (known := peers.recorded(case)) is not None:
        row["recorded"] = {**known, "ratio": rounded(known["ms"] / row[OURS]["median_ms"])}
    return row


def _compared(case: Case, device: torch.device, effort: Effort) -> dict[str, Any]:
    contenders: dict[str, Call] = {
        OURS: case.build(device),
        TWIN: under_torch(case.build(device)),
    }
    first = {name: call(0) for name, call in contenders.items()}
    apart = difference(first[OURS], first[TWIN])
    del first
    missing = {}
    for name, build in peers.live(case, device).items():
        try:
            call = build(device)
            call(0)
            contenders[name] = call
        except Exception as error:  # a peer that does not run here is reported, ours still count
            missing[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    timings = measure(contenders, device, effort)
    mine = timings[OURS].median_ms
    row: dict[str, Any] = {
        OURS: timings[OURS].to_dict(),
        TWIN: timings[TWIN].to_dict(),
        "ratio": rounded(timings[TWIN].median_ms / mine),
        "difference": rounded(apart, 2) if math.isfinite(apart) else None,
        "agrees": apart <= (TOLERANCE_GPU if device.type == "cuda" else TOLERANCE_CPU),
        "peers": {
            name: {**timing.to_dict(), "ratio": rounded(timing.median_ms / mine)}
            for name, timing in timings.items()
            if name not in (OURS, TWIN)
        },
        **_target(case, device, timings),
    }
    return {**row, "peers_failed": missing} if missing else row


def _target(case: Case, device: torch.device, timings: dict[str, Timing]) -> dict[str, Any]:
    mine = timings[OURS].median_ms
    if device.type == "cpu" and case.cpu_ratio is not None:
        ratio = timings[TWIN].median_ms / mine
        return {"target_ratio": case.cpu_ratio, "meets": ratio >= case.cpu_ratio}
    if device.type == "cuda" and case.gpu_ms is not None:
        return {"target_ms": case.gpu_ms, "meets": mine <= case.gpu_ms}
    return {}


def difference(found: Tensors, wanted: Tensors) -> float:
    """Largest relative distance |found - wanted| / |wanted| over pairs of tensors; infinite where
    shapes differ.

    >>> difference((torch.tensor([3.0, 4.0]),), (torch.tensor([3.0, 5.0]),)) < 0.2
    True
    """
    worst = 0.0
    for mine, other in zip(found, wanted, strict=True):
        if mine.shape != other.shape:
            return float("inf")
        if not bool(torch.isfinite(mine).all()):
            return float("nan")
        a, b = mine.detach().double(), other.detach().double()
        worst = max(worst, float((a - b).norm() / b.norm().clamp_min(1e-30)))
    return worst


def line(row: dict[str, Any]) -> str:
    """One row for the terminal."""
    if "error" in row:
        return f"{_title(row)}: failed, {row['error']}"
    text = f"{_title(row)}: {row[OURS]['median_ms']:g} ms, torch twin {row['ratio']:.3g}x"
    if not row["agrees"]:
        text += f", but the results differ by {_apart(row)}"
    others = [(name, peer["ratio"]) for name, peer in row["peers"].items()]
    if "recorded" in row:
        others.append((f"{row['recorded']['peer']} as recorded", row["recorded"]["ratio"]))
    return ", ".join([text, *(f"{name} {ratio:.3g}x" for name, ratio in others)])


def _apart(row: dict[str, Any]) -> str:
    return "not comparable" if row["difference"] is None else f"{row['difference']:.1e}"


def markdown(content: dict[str, Any]) -> str:
    """The table; ratios are the other's time over ours."""
    installed = sorted({name for row in content["rows"] for name in row.get("peers", {})})
    columns = ["operation", "passes", "inputs", "size", "ours ms", "torch ms", "torch / ours"]
    columns += ["target", "met", "differs by"]
    columns += [text for name in installed for text in (f"{name} ms", f"{name} / ours")]
    label = content.get("recorded", {}).get("label", "recorded")
    columns += [f"peer, {label}, ms", "peer / ours", "peak MiB", "torch peak MiB"]
    rows = [_cells(row, installed) for row in content["rows"]]
    text = results.heading(content) + results.table(columns, rows)
    if "recorded" in content:
        text += f"\nPeers' recorded figures: {content['recorded']['source']}. "
        text += f"{content['recorded']['notes']}\n"
    return text


def _cells(row: dict[str, Any], installed: list[str]) -> list[str]:
    head = [row["name"], row["passes"], row["inputs"], results.power(row["size"])]
    if "error" in row:
        return [*head, row["error"].replace("|", "/"), *[""] * (9 + 2 * len(installed))]
    target = ""
    if "target_ratio" in row:
        target = f">= {row['target_ratio']:g}x"
    elif "target_ms" in row:
        target = f"<= {row['target_ms']:g} ms"
    met = {True: "yes", False: "no", None: ""}[row.get("meets")]
    cells = [
        *head,
        results.milliseconds(row[OURS]),
        results.milliseconds(row[TWIN]),
        f"{row['ratio']:.3g}",
        target,
        met,
        _apart(row),
    ]
    for name in installed:
        peer = row["peers"].get(name)
        cells += [results.milliseconds(peer), f"{peer['ratio']:.3g}" if peer else ""]
    known = row.get("recorded")
    cells += [f"{known['peer']} {known['ms']:g}", f"{known['ratio']:.3g}"] if known else ["", ""]
    return cells + [
        f"{row[who]['peak_mib']:.0f}" if "peak_mib" in row[who] else "" for who in (OURS, TWIN)
    ]
