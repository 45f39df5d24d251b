"""Names of scores, and how they are shown to people. Imports no torch."""

from __future__ import annotations

import math
from typing import Any, NamedTuple


class Score(NamedTuple):
    """How a score is shown."""

    name: str
    form: str
    """Of the value, for `str.format`."""
    unit: str = ""
    optional: bool = False
    """Whether None says that there was nothing to measure, and is not worth a line."""


SCORES: dict[str, Score] = {
    "psnr": Score("PSNR", "{:.2f}", "dB"),
    "psnr_masked": Score("PSNR inside the outline", "{:.2f}", "dB", optional=True),
    "ssim": Score("SSIM", "{:.4f}"),
    "lpips": Score("LPIPS", "{:.4f}"),
    "relative_l2": Score("relative squared error", "{:.5f}"),
    "iou": Score("IoU", "{:.4f}"),
    "mape": Score("relative error of distances", "{:.2%}"),
    "distance_error": Score("error of distances near the surface", "{:.2e}", "of the side"),
    "normal_error": Score("error of normals", "{:.2f}", "degrees"),
    "density_psnr": Score("PSNR of densities", "{:.2f}", "dB"),
    "albedo_psnr": Score("PSNR of albedos", "{:.2f}", "dB"),
}
"""Key in `evaluate.json` -> how it is shown, in this order."""


def shown_scores(scores: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value of every score that an evaluation measured or tried to.

    >>> shown_scores({"psnr": 31.456, "psnr_masked": None, "lpips": None})
    [('PSNR', '31.46 dB'), ('LPIPS', 'not measured')]
    """
    rows = []
    for key, score in SCORES.items():
        value = scores.get(key)
        if value is not None:
            rows.append((score.name, f"{score.form.format(value)} {score.unit}".rstrip()))
        elif key in scores and not score.optional:
            rows.append((score.name, "not measured"))
    return rows


def score_tiles(scores: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, value and unit of every score with a finite value; those of held-out views are called
    test scores.

    >>> score_tiles({"views": 8, "psnr": 31.456, "lpips": None})
    [('test PSNR', '31.46', 'dB')]
    """
    whose = "test " if "views" in scores else ""
    return [
        (whose + score.name, score.form.format(scores[key]), score.unit)
        for key, score in SCORES.items()
        if isinstance(scores.get(key), float | int) and math.isfinite(scores[key])
    ]
