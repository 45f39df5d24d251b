"""Gaussians as the browser draws them: covariances, base colors, opacities."""

from __future__ import annotations

import numpy as np
import torch

from lumigraph.core import GaussianCloud
from lumigraph.core.harmonics import Y_0
from lumigraph.core.transforms import rotation_from_quaternion

MOST_GAUSSIANS = 1_000_000
"""Sent to a browser; of more, the most opaque and largest."""


def browser_gaussians(cloud: GaussianCloud) -> dict[str, np.ndarray]:
    """Arguments of viser's `add_gaussian_splats`: centers (G, 3), covariances (G, 3, 3), rgbs
    (G, 3) in [0, 1] and opacities (G, 1). Harmonics above the constant are left out."""
    cloud = cloud.to("cpu")
    opacity = cloud.opacity_logits.sigmoid()
    if len(cloud) > MOST_GAUSSIANS:
        weight = opacity.log() + cloud.log_scales.sort(dim=1).values[:, 1:].sum(dim=1)
        kept = weight.topk(MOST_GAUSSIANS).indices.sort().values
        cloud, opacity = cloud.select(kept), opacity[kept]
    turn = rotation_from_quaternion(torch.nn.functional.normalize(cloud.rotations, dim=1))
    axes = turn * cloud.log_scales.exp()[:, None, :]
    color = (0.5 + Y_0 * cloud.harmonics[:, 0]).clamp(0, 1)
    return {
        "centers": cloud.means.numpy(),
        "covariances": (axes @ axes.transpose(1, 2)).numpy(),
        "rgbs": color.numpy(),
        "opacities": opacity[:, None].numpy(),
    }
