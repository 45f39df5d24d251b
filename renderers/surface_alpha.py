"""Opacity of a sample from the signed distance there: the unbiased weights of NeuS.

With f the distance and n its gradient at the middle of a step of length dt along the unit direction
d, s the sharpness and rho the annealing ratio:

    c = -[max(0, 1/2 - cos/2) (1 - rho) + max(0, -cos) rho],   cos = d . n      rate of f, falling
    P = sigmoid(s (f - c dt/2)),   N = sigmoid(s (f + c dt/2))                  at the step's ends
    alpha = clip((P - N + e) / (P + e), 0, 1),   e = 1e-5

so that 1 - alpha = N / (P + e). Compositing takes the optical thickness -log(1 - alpha), whose
logarithms are formed directly: no digits are lost where alpha is close to 1.

Sources: NeuS, Wang et al. 2021, equation 13; the one-point form of NeuS2, Wang et al. 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPSILON = 1e-5
MOST_THICKNESS = 16.0  # alpha beyond it is 1 in fp32, and passes no gradient


def falling_rate(cosine: Tensor, annealing: float) -> Tensor:
    """(M,) c of the formula above, at most 0.

    Args:
        cosine: (M,) direction times gradient.
        annealing: rho in [0, 1]; below 1 surfaces seen from behind weigh too.
    """
    rate = torch.relu(-cosine)
    if annealing < 1:
        rate = torch.lerp(torch.relu(0.5 - 0.5 * cosine), rate, annealing)
    return -rate


def surface_thickness(
    distance: Tensor, cosine: Tensor, steps: Tensor, sharpness: Tensor, *, annealing: float = 1.0
) -> Tensor:
    """(M,) -log(1 - alpha) of samples, in [0, 16].

    Args:
        distance: (M,) signed distance in the middle of each step.
        cosine: (M,) direction times gradient of the distance.
        steps: (M,) lengths.
        sharpness: () inverse length.
        annealing: see `falling_rate`.

    Differentiable by all tensors but the steps.

    >>> one = torch.ones(1)
    >>> surface_thickness(0 * one, -one, 0.1 * one, torch.tensor(1e3))
    tensor([16.])
    """
    change = falling_rate(cosine, annealing) * steps / 2
    before = torch.sigmoid(sharpness * (distance - change))
    after = nn.functional.logsigmoid(sharpness * (distance + change))
    return (torch.log(before + EPSILON) - after).clamp(0, MOST_THICKNESS)


def surface_distances(
    weights: Tensor,
    ray_offsets: Tensor,
    rays: Tensor,
    *,
    distance: Tensor,
    cosine: Tensor,
    middles: Tensor,
    steps: Tensor,
) -> Tensor:
    """(N,) where each ray enters the surface, infinite where it does not. At the zero of the
    distance half of the light is gone: it lies in the step that takes the second half's first, and
    in it where the straight line through distance and slope is zero.

    Args:
        weights: (M,) of samples, near to far within a ray, one ray after another.
        ray_offsets: (N, 2) first sample and number of samples. rays: (M,) int64.
        distance, cosine: (M,) signed distance, and direction times gradient.
        middles, steps: (M,) place on the ray and length of each step.
    """
    total = weights.double().cumsum(0)
    before = torch.cat([total.new_zeros(1), total])[ray_offsets[:, 0].long()]
    past = (total - before[rays] >= 0.5).nonzero()[:, 0]
    ahead = (-distance / cosine.clamp(max=-1e-3)).clamp(-steps / 2, steps / 2)
    place = (middles + ahead)[past]
    far = place.new_full((len(ray_offsets),), torch.inf)
    return far.scatter_reduce(0, rays[past], place, "amin")


def logistic_density(distance: Tensor, sharpness: Tensor | float) -> Tensor:
    """(M,) s sig(s f) (1 - sig(s f)): how much surface there is, per unit of length."""
    share = torch.sigmoid(sharpness * distance)
    return sharpness * share * (1 - share)
