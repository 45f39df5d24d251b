"""Scores of a picture against the truth: PSNR, SSIM, LPIPS. Pictures are (H, W, 3) in [0, 1]."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from lumigraph.core import color

MIN_SSIM_SIDE = 11  # the window


def psnr(prediction: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, for a peak of 1; infinite for equal pictures."""
    return color.psnr(torch.mean((prediction.double() - truth.double()) ** 2))


def ssim(prediction: Tensor, truth: Tensor) -> float:
    """Structural similarity (Wang et al. 2004: Gaussian window 11, sigma 1.5); 1 is equal."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    if min(prediction.shape[:2]) < MIN_SSIM_SIDE:
        return math.nan
    value = structural_similarity_index_measure(
        prediction.permute(2, 0, 1)[None], truth.permute(2, 0, 1)[None], data_range=1.0
    )
    assert isinstance(value, Tensor)
    return float(value)


@functools.cache
def lpips_function() -> Callable[[Tensor, Tensor], float] | None:
    """LPIPS (AlexNet), or None where torchvision or its weights are not at hand.

    Nothing is downloaded: the weights count as available when torch's hub folder has them.
    """
    try:
        import torchvision  # noqa: F401
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
    except ImportError:
        return None
    from pathlib import Path

    weights = Path(torch.hub.get_dir()) / "checkpoints" / "alexnet-owt-7be5be79.pth"
    if not weights.is_file():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)

    def score(prediction: Tensor, truth: Tensor) -> float:
        with torch.no_grad():
            pair = [image.permute(2, 0, 1)[None].clamp(0, 1) for image in (prediction, truth)]
            return float(network(*pair))

    return score
