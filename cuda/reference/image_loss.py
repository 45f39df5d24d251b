"""L1 and structural dissimilarity of two pictures in plain torch: the definition of correct.

With prediction p, target t and weight w of a pixel, d = |p - t|, and means over all H W C numbers:

    loss = (1 - a) mean(w d) + a mean(w (1 - SSIM))
    SSIM = (2 m_p m_t + C1) (2 s_pt + C2) / ((m_p^2 + m_t^2 + C1) (s_p^2 + s_t^2 + C2))

after Wang et al. 2004, with moments under a Gaussian window of 11 x 11 pixels, sigma 1.5, zeros
outside of the picture, C1 = 0.01^2 and C2 = 0.03^2. Where w = 0 (or is not above 0) the target
takes the place of the prediction, so that an ignored pixel does not reach its neighbours through
the window. The mean divides by the number of pixels, not by the sum of the weights: a pixel pulls
as hard in a picture of which little is seen as in a whole one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv2d

REACH = 5  # of the window to each side, pixels
SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2


class ImageLoss(NamedTuple):
    """Scalars on the device of the pictures. Without weights, and with those of a mask,
    `loss` = mean(w) ((1 - ssim_weight) l1 + ssim_weight (1 - ssim))."""

    loss: Tensor
    """To be minimised; alone in having a gradient."""
    l1: Tensor
    """Weighted mean of |prediction - target|; 0 when no pixel counts."""
    ssim: Tensor
    """Weighted mean of SSIM, in [-1, 1]; 1 when no pixel counts, NaN when `ssim_weight` is 0."""
    squared_error: Tensor
    """Weighted mean of (prediction - target)^2; 0 when no pixel counts."""


def image_loss(
    prediction: Tensor, target: Tensor, weight: Tensor | None, ssim_weight: float
) -> ImageLoss:
    """Loss and scores of a picture (H, W, C); differentiable by the prediction.

    Args:
        weight: (H, W), or None for ones.
        ssim_weight: share of the dissimilarity; 0 leaves SSIM out.
    """
    target = target.detach()
    share = torch.ones_like(target[..., 0]) if weight is None else weight.detach()
    share = torch.where(share > 0, share, 0)
    prediction = torch.where(share[..., None] > 0, prediction, target)
    share = share[..., None].expand_as(target)
    count, total = max(target.numel(), 1), share.sum()

    def mean(values: Tensor, empty: float) -> Tensor:
        found = (share * values).sum() / total
        return torch.where(total > 0, found, empty).detach()

    difference = prediction - target
    loss = (1 - ssim_weight) * (share * difference.abs()).sum() / count
    similarity = torch.full_like(target, float("nan"))
    if ssim_weight:
        similarity = ssim_map(prediction, target)
        loss = loss + ssim_weight * (share * (1 - similarity)).sum() / count
    ssim = mean(similarity, 1.0) if ssim_weight else loss.new_tensor(float("nan"))
    return ImageLoss(loss, mean(difference.abs(), 0.0), ssim, mean(difference.square(), 0.0))


def ssim_map(first: Tensor, second: Tensor) -> Tensor:
    """(H, W, C) similarity of two pictures of that shape at every pixel."""
    if not first.numel():
        return torch.ones_like(first)
    m_p, m_t = windowed(first), windowed(second)
    s_p = windowed(first * first) - m_p * m_p
    s_t = windowed(second * second) - m_t * m_t
    s_pt = windowed(first * second) - m_p * m_t
    above = (2 * m_p * m_t + C1) * (2 * s_pt + C2)
    return above / ((m_p * m_p + m_t * m_t + C1) * (s_p + s_t + C2))


def windowed(image: Tensor) -> Tensor:
    """Mean of (H, W, C) under the window at every pixel, zeros outside of the picture."""
    places = torch.arange(-REACH, REACH + 1, dtype=image.dtype, device=image.device)
    taps = torch.exp(-places * places / (2 * SIGMA**2))
    taps = taps / taps.sum()
    planes = image.permute(2, 0, 1)[:, None]
    rows = conv2d(planes, taps[None, None, :, None], padding=(REACH, 0))
    return conv2d(rows, taps[None, None, None, :], padding=(0, REACH))[:, 0].permute(1, 2, 0)
