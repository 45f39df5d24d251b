"""Scores of a run on its held-out views, with a named protocol stored beside the numbers."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumigraph.core import Scene
from lumigraph.core.errors import ConfigError, DataError

from .events import Listener, ViewEvent
from .files import write_json
from .metrics import lpips_function, psnr, ssim
from .pictures import write_image
from .registry import Scorer, scorer
from .run import Run

SIGNIFICANT = 6
VIEW_SCORES = ("psnr", "psnr_masked", "ssim", "lpips")
"""Of a view; the mean over views has the same name."""


def background_color(scene: Scene) -> Tensor:
    """What images with alpha are judged over: white unless the scene says black."""
    return torch.zeros(3) if scene.background == "black" else torch.ones(3)


def truth_image(scene: Scene, index: int) -> Tensor:
    """(H, W, 3) float in [0, 1]; images with alpha lie over the scene's background."""
    if scene.images is None:
        raise DataError(f"{scene.source}: has no images to compare with")
    image = scene.images.load(index).float() / 255
    if image.shape[2] == 3:
        return image
    return torch.lerp(
        background_color(scene).expand_as(image[..., :3]), image[..., :3], image[..., 3:]
    )


def protocol_name(scene: Scene, split: str) -> str:
    """How the scores were made, in words that can be compared."""
    shade = "black" if scene.background == "black" else "white"
    over = f"over {shade}" if scene.has_alpha else "no alpha"
    inside = {True: "alpha >= 0.5", False: "the mask"}[scene.has_alpha]
    masked = f"; psnr_masked where {inside}" if scene.has_alpha or scene.masks is not None else ""
    return f"{split} split, {over}, sRGB in [0, 1], mean over views{masked}"


def evaluate(
    run: Run, *, split: str = "test", device: str | None = None, on_event: Listener | None = None
) -> dict[str, Any]:
    """Render a split and score it; writes `evaluate.json` and `renders/<split>/`. A method that
    was trained on something else than photographs has scores of its own.

    Args:
        split: which cameras; held-out views are "test".
        device: where to render; None takes the configuration's.

    Returns:
        run, protocol, views, psnr (dB), psnr_masked (from the pixels of the object alone; None
        where neither alpha nor masks say which), ssim, lpips (None where its weights are missing),
        seconds of rendering, per_view, and for a moving scene per_moment and of those the
        worst_moment by PSNR. Views are rendered at their own time. Of methods with scores of their
        own: run, protocol, those scores by name (see `scores.SCORES`), and seconds.

    Raises:
        DataError: no such split, or no images.
    """
    score = scorer(run.config)
    if score is not None:
        return _scored(run, score, split=split, device=device, on_event=on_event)
    scene = run.scene()
    if split not in scene.splits:
        raise ConfigError(f"split {split!r}: unknown, the scene has {', '.join(scene.splits)}")
    indices = scene.split(split).tolist()
    model = run.model(device)
    rows: list[dict[str, Any]] = []
    spent = 0.0
    for place, index in enumerate(indices):
        begin = time.perf_counter()
        frame = model.render(scene.cameras[index])
        spent += time.perf_counter() - begin
        truth = truth_image(scene, index)
        prediction = frame.color.clamp(0, 1)
        folder = run.path / "renders" / split
        pictures = {"prediction": prediction, "truth": truth, "depth": frame.channel("depth")}
        for name, picture in pictures.items():
            write_image(folder / f"{place:03d}_{name}.png", picture)
        scores = _scores(prediction, truth, scene.outline(index))
        row = {"view": place, "image": _name(scene, index), **scores}
        if scene.cameras.times is not None:
            row["time"] = round(float(scene.cameras.times[index]), SIGNIFICANT)
        rows.append(row)
        if on_event is not None:
            on_event(ViewEvent(place, len(indices), float(scores["psnr"] or 0.0)))
    result = {
        "run": str(run.path),
        "protocol": protocol_name(scene, split),
        "views": len(rows),
        **{name: _mean([row[name] for row in rows]) for name in VIEW_SCORES},
        "seconds": round(spent, 3),
    }
    details = {"per_view": rows, **_by_moment(scene, rows)}
    write_json(Path(run.path) / "evaluate.json", {**result, **details})
    run.add_timing("evaluate", spent)
    return {**result, **details}


def _by_moment(scene: Scene, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """`per_moment` of a moving scene: mean scores of the views at each time, and `worst_moment`;
    else nothing."""
    if scene.cameras.times is None:
        return {}
    found = []
    for moment in sorted({row["time"] for row in rows}):
        views = [row for row in rows if row["time"] == moment]
        means = {name: _mean([row[name] for row in views]) for name in VIEW_SCORES}
        found.append({"time": moment, "views": len(views), **means})
    known = [row for row in found if row["psnr"] is not None]
    worst = min(known, key=lambda row: float(row["psnr"] or 0.0), default=None)
    return {"per_moment": found, "worst_moment": worst}


def _scored(
    run: Run, score: Scorer, *, split: str, device: str | None, on_event: Listener | None
) -> dict[str, Any]:
    """Scores of a method that has its own."""
    if split != "test":
        raise ConfigError(
            f"split {split!r}: method {run.config.method} has no splits; leave it out"
        )
    scene, model = run.scene(), run.model(device)
    begin = time.perf_counter()
    scores = score(scene, model, folder=run.path / "renders" / split, on_event=on_event)
    spent = time.perf_counter() - begin
    rounded = {
        name: round(value, SIGNIFICANT) if isinstance(value, float) else value
        for name, value in scores.items()
    }
    result = {"run": str(run.path), **rounded, "seconds": round(spent, 3)}
    write_json(run.path / "evaluate.json", result)
    run.add_timing("evaluate", spent)
    return result


def _name(scene: Scene, index: int) -> str:
    assert scene.images is not None
    return scene.images.name(index)


def _scores(prediction: Tensor, truth: Tensor, outline: Tensor | None) -> dict[str, float | None]:
    lpips = lpips_function()
    masked = None
    if outline is not None and bool(outline.any()):
        masked = round(psnr(prediction[outline], truth[outline]), SIGNIFICANT)
    return {
        "psnr": round(psnr(prediction, truth), SIGNIFICANT),
        "psnr_masked": masked,
        "ssim": round(ssim(prediction, truth), SIGNIFICANT),
        "lpips": None if lpips is None else round(lpips(prediction, truth), SIGNIFICANT),
    }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return round(sum(known) / len(known), SIGNIFICANT) if known else None
