"""Gaussians that train: five tensors with the meaning of `core.GaussianCloud`, and nothing else.

    stored            shape        used as
    means             (G, 3)       as they are, in scene units
    rotations         (G, 4)       q / |q|, scalar first
    log_scales        (G, 3)       exp: standard deviations in scene units
    opacity_logits    (G,)         sigmoid
    harmonics         (G, K, 3)    color max(0, 0.5 + sum_k Y_k(d) harmonics[k])

Every tensor is contiguous, one row a Gaussian, so that optimizers, densification and exporters take
rows. A row has 11 + 3 K numbers: 14, 23, 38 or 59 for degree 0 to 3. The activations are part of
the rasteriser (`render_gaussians` with `raw=True`) and cost no tensors here.

K starts small and grows with `grow_harmonics`: bands that are not in use yet take no memory and no
time. `active_degree` may be lower than what is stored; only that many bands are shown.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lumigraph.core.errors import InputError
from lumigraph.core.gaussian_cloud import MAXIMUM_DEGREE, GaussianCloud

from .protocols import GaussianTensors


class Gaussians(nn.Module):
    """A primitive field of Gaussians that do not change with time.

    Args:
        cloud: initial values, copied.
        active_degree: degree of the harmonics that is shown; None shows all that are stored.

    Raises:
        InputError: `active_degree` is not stored.

    Example:
        >>> from lumigraph.core.gaussian_cloud import GaussianCloud
        >>> field = Gaussians(GaussianCloud.empty(degree=1))
        >>> len(field), field.degree, field.active_degree
        (0, 1, 1)
    """

    means: nn.Parameter
    rotations: nn.Parameter
    log_scales: nn.Parameter
    opacity_logits: nn.Parameter
    harmonics: nn.Parameter

    def __init__(self, cloud: GaussianCloud, *, active_degree: int | None = None) -> None:
        super().__init__()
        self.set_tensors(GaussianTensors(*(tensor.detach().clone() for tensor in cloud.tensors())))
        self.active_degree = shown_degree(active_degree, self.degree)

    @classmethod
    def from_cloud(cls, cloud: GaussianCloud) -> Gaussians:
        """The field that shows a cloud."""
        return cls(cloud)

    def __len__(self) -> int:
        return self.means.shape[0]

    @property
    def degree(self) -> int:
        """Degree of the stored harmonics, 0 to 3."""
        return math.isqrt(self.harmonics.shape[1]) - 1

    @property
    def tensors(self) -> GaussianTensors:
        """The five parameters with all that is stored."""
        return GaussianTensors(
            self.means, self.rotations, self.log_scales, self.opacity_logits, self.harmonics
        )

    def cloud(self) -> GaussianCloud:
        """The present values, without gradients and sharing memory."""
        return GaussianCloud(*(tensor.detach() for tensor in self.tensors))

    def gaussians_at(self, time: float | None = None) -> GaussianTensors:
        """Raw tensors to render, differentiable; the same at every time.

        Returns:
            harmonics: (G, K, 3) with the active bands alone.
        """
        tensors = self.tensors
        count = (self.active_degree + 1) ** 2
        if count == tensors.harmonics.shape[1]:
            return tensors
        return tensors._replace(harmonics=tensors.harmonics[:, :count])

    def grow_harmonics(self, degree: int) -> None:
        """Show harmonics up to `degree`; bands that were not stored begin at 0.

        Replaces the parameter `harmonics` where it grows: an optimizer's moments must grow too.

        Raises:
            InputError: degree out of 0 to 3.
        """
        if not 0 <= degree <= MAXIMUM_DEGREE:
            raise InputError(f"degree must be 0 to {MAXIMUM_DEGREE}; got {degree}")
        if degree > self.degree:
            self.set_tensors(
                self.tensors._replace(harmonics=grown_bands(self.harmonics.detach(), degree))
            )
        self.active_degree = degree

    def set_tensors(self, tensors: GaussianTensors) -> None:
        """Replace the parameters, by any number of rows; memory is taken over, not copied.

        Tensors that already are the parameters stay the same objects.
        """
        for name, tensor in zip(GaussianTensors._fields, tensors, strict=True):
            if not isinstance(tensor, nn.Parameter):
                tensor = nn.Parameter(tensor.detach().contiguous())
            setattr(self, name, tensor)


def shown_degree(asked: int | None, stored: int) -> int:
    """Degree of the harmonics that is shown: all that is stored where none is asked for.

    Raises:
        InputError: more is asked for than is stored.
    """
    if asked is None:
        return stored
    if not 0 <= asked <= stored:
        raise InputError(f"active_degree must be 0 to {stored}; got {asked}")
    return asked


def grown_bands(harmonics: Tensor, degree: int) -> Tensor:
    """(G, K, 3) with zeros appended up to (G, (degree + 1)^2, 3)."""
    rows, count, channels = harmonics.shape
    rest = harmonics.new_zeros(rows, (degree + 1) ** 2 - count, channels)
    return torch.cat([harmonics, rest], dim=1)
