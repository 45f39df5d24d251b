"""Names of scores, and how they are shown to people. Imports no torch."""

from __future__ import annotations

SCORES: dict[str, tuple[str, str]] = {
    "psnr": ("PSNR", "{:.2f} dB"),
    "ssim": ("SSIM", "{:.4f}"),
    "lpips": ("LPIPS", "{:.4f}"),
    "relative_l2": ("relative squared error", "{:.5f}"),
    "iou": ("IoU", "{:.4f}"),
    "mape": ("relative error of distances", "{:.2%}"),
    "distance_error": ("error of distances near the surface", "{:.2e} of the side"),
    "normal_error": ("error of normals", "{:.2f} degrees"),
    "density_psnr": ("PSNR of densities", "{:.2f} dB"),
    "albedo_psnr": ("PSNR of albedos", "{:.2f} dB"),
}
"""Key in `evaluate.json` -> name, and form of the value."""


def shown_scores(scores: dict[str, object]) -> list[tuple[str, str]]:
    """Name and value of every score that an evaluation measured or tried to.

    >>> shown_scores({"psnr": 31.456, "lpips": None})
    [('PSNR', '31.46 dB'), ('LPIPS', 'not measured')]
    """
    return [
        (name, "not measured" if scores[key] is None else form.format(scores[key]))
        for key, (name, form) in SCORES.items()
        if key in scores
    ]
