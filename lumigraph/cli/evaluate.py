"""`lumigraph evaluate`: scores of a run on views it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from .terminal import Terminal

SCORE_KEYS = ("run", "protocol", "views", "psnr", "ssim", "lpips", "seconds")
"""What `--json` prints, in this order; then `per_moment` where the scene moves."""


@dataclass(frozen=True)
class Arguments:
    """Render the test views of a run, score them, and write the report."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    split: str = "test"
    """Which views: a split of the scene."""
    device: Literal["auto", "cpu", "cuda"] | None = None
    """Where to render; by default as in training."""
    json: bool = False
    """Print one final JSON object on stdout, everything else on stderr."""


def run(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    """Evaluate, write the report, and return the scores."""
    from lumigraph import training
    from lumigraph.training.report import write_report

    opened = training.Run.open(arguments.run)
    scores = evaluate_with_progress(
        opened, terminal, split=arguments.split, device=arguments.device
    )
    report = write_report(opened.path)
    terminal.facts([*score_rows(scores), ("report", report)])
    return scores


def evaluate_with_progress(
    opened: Any, terminal: Terminal, *, split: str = "test", device: str | None = None
) -> dict[str, Any]:
    """The scores that are printed."""
    from lumigraph import training

    with terminal.events("evaluating") as listener:
        scores = training.evaluate(opened, split=split, device=device, on_event=listener)
    moving = [key for key in ("per_moment",) if key in scores]
    return {key: scores.get(key) for key in (*SCORE_KEYS, *moving)}


def score_rows(scores: dict[str, Any]) -> list[tuple[str, object]]:
    """The scores for people; a mean without any finite value is unknown."""
    forms = (
        ("PSNR", "psnr", "{:.2f} dB"),
        ("SSIM", "ssim", "{:.4f}"),
        ("LPIPS", "lpips", "{:.4f}"),
    )
    rows: list[tuple[str, object]] = [
        ("protocol", scores["protocol"]),
        ("test views", scores["views"]),
    ]
    for name, key, form in forms:
        rows.append((name, "not measured" if scores[key] is None else form.format(scores[key])))
    found = [moment["psnr"] for moment in scores.get("per_moment", ())]
    known = [value for value in found if value is not None]
    if known:
        rows.append(("moments", f"{len(found)}, PSNR {min(known):.2f} to {max(known):.2f} dB"))
    return [*rows, ("evaluation time", f"{scores['seconds']:.1f} s")]
