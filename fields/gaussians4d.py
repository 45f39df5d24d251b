"""Gaussians in space and time that train: the tensors of `core.GaussianCloud4D`, and beside them
Gaussians that stand still.

    stored            shape        used as
    means             (G, 3)       where a Gaussian is at its own time, scene units
    times             (G,)         its own time; captures run over [0, 1]
    rotors            (G, 8)       a rotation of space and time, core/rotors.py
    log_scales        (G, 4)       exp: standard deviations along x, y, z, t before the rotation
    opacity_logits    (G,)         sigmoid: opacity at its own time
    harmonics         (G, K, 3)    color, as of `Gaussians`, seen from where the mean is at a time
    log_plateaus      (G,)         exp: half the time without fading; only where asked for

A row has 17 + 3 K numbers, 65 at degree 3. At a time such a Gaussian is one in space: its mean
moves with a constant velocity, its shape stays, its opacity fades in and out (maths in
`cuda.reference.gaussian_slicing`). Kernels do that on the fly. What does not change over time is
better kept in `still`, Gaussians in space that appear in the same pictures with less memory and
without that work.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lumigraph.core.errors import InputError
from lumigraph.core.gaussian_cloud import MAXIMUM_DEGREE, GaussianCloud
from lumigraph.core.gaussian_cloud4d import GaussianCloud4D
from lumigraph.core.transforms import rotation_from_quaternion
from lumigraph.cuda.dispatch import backend_for
from lumigraph.cuda.ops import (
    PreparedGaussians4D,
    SplatCamera,
    SplatImages,
    SplatOptions,
    prepare_gaussians4d,
    render_gaussians4d,
    render_prepared4d,
)
from lumigraph.cuda.reference.gaussian_slicing import SHORTEST, SlicedGaussians, slice_gaussians

from .gaussian_shapes import decomposed, shortest_axes
from .gaussians import Gaussians, grown_bands, shown_degree
from .protocols import GaussianTensors, ShownGaussians

FAINTEST = 1 / 255  # what has faded below that is not there


class Gaussian4DTensors(NamedTuple):
    """Raw parameters as in `core.GaussianCloud4D`; may need gradients."""

    means: Tensor
    times: Tensor
    rotors: Tensor
    log_scales: Tensor
    opacity_logits: Tensor
    harmonics: Tensor
    log_plateaus: Tensor | None = None


class Gaussians4D(nn.Module):
    """A moving field of Gaussians in space and time, and of Gaussians that stand still.

    Args:
        cloud: initial values, copied.
        still: initial values of those that stand still, copied; None: there are none.
        moments: (F,) ascending times in [0, 1] that the field is trained at; None is (0.0,).
        active_degree: degree of the harmonics that is shown; None shows all that are stored.
        shortest: standard deviation in time that none falls below when it is shown; about a tenth
            of the time between two frames keeps Gaussians from living within one picture alone.

    Raises:
        InputError: `active_degree` is not stored, or moments or `shortest` are out of range.

    Example:
        >>> field = Gaussians4D(GaussianCloud4D.empty(degree=1))
        >>> len(field), len(field.still), field.degree, field.active_degree
        (0, 0, 1, 1)
    """

    means: nn.Parameter
    times: nn.Parameter
    rotors: nn.Parameter
    log_scales: nn.Parameter
    opacity_logits: nn.Parameter
    harmonics: nn.Parameter
    log_plateaus: nn.Parameter | None
    moments: Tensor
    still: Gaussians

    def __init__(
        self,
        cloud: GaussianCloud4D,
        *,
        still: GaussianCloud | None = None,
        moments: Tensor | None = None,
        active_degree: int | None = None,
        shortest: float = SHORTEST,
    ) -> None:
        super().__init__()
        copy = cloud.mapped(lambda tensor: tensor.detach().clone())
        self.set_tensors(Gaussian4DTensors(*copy.tensors()))
        if still is None:
            still = GaussianCloud.empty(degree=cloud.degree, device=cloud.device)
        self.still = Gaussians(still)
        self.register_buffer("moments", _checked_moments(moments, cloud.device), persistent=False)
        if not (math.isfinite(shortest) and shortest > 0):
            raise InputError(f"shortest must be finite and above 0; got {shortest}")
        self.shortest = shortest
        self.active_degree = shown_degree(active_degree, self.degree)
        self._prepared: tuple[Any, PreparedGaussians4D] | None = None

    def train(self, mode: bool = True) -> Gaussians4D:
        """As of any module; beginning to train forgets what was prepared."""
        if mode:
            self._prepared = None
        return super().train(mode)

    def __len__(self) -> int:
        """Gaussians in space and time; those that stand still are `len(field.still)` more."""
        return self.means.shape[0]

    @property
    def degree(self) -> int:
        """Degree of the stored harmonics, 0 to 3."""
        return math.isqrt(self.harmonics.shape[1]) - 1

    @property
    def tensors(self) -> Gaussian4DTensors:
        """The parameters of the Gaussians in space and time, with all that is stored."""
        return Gaussian4DTensors(
            self.means, self.times, self.rotors, self.log_scales, self.opacity_logits,
            self.harmonics, self.log_plateaus,
        )  # fmt: skip

    def cloud(self) -> GaussianCloud4D:
        """The present values of those in space and time, without gradients and sharing memory."""
        return GaussianCloud4D(*self.tensors).mapped(torch.Tensor.detach)

    def set_tensors(self, tensors: Gaussian4DTensors) -> None:
        """Replace the parameters, by any number of rows; memory is taken over, not copied.

        Tensors that already are the parameters stay the same objects.
        """
        for name, tensor in zip(Gaussian4DTensors._fields, tensors, strict=True):
            if tensor is not None and not isinstance(tensor, nn.Parameter):
                tensor = nn.Parameter(tensor.detach().contiguous())
            setattr(self, name, tensor)

    def grow_harmonics(self, degree: int) -> None:
        """Show harmonics up to `degree` in both parts; bands not stored yet begin at 0.

        Replaces the parameters `harmonics` where they grow: an optimizer's moments must grow too.

        Raises:
            InputError: degree out of 0 to 3.
        """
        if not 0 <= degree <= MAXIMUM_DEGREE:
            raise InputError(f"degree must be 0 to {MAXIMUM_DEGREE}; got {degree}")
        if degree > self.degree:
            grown = grown_bands(self.harmonics.detach(), degree)
            self.set_tensors(self.tensors._replace(harmonics=grown))
        self.still.grow_harmonics(degree)
        self.active_degree = degree

    def render(
        self,
        time: float,
        camera: SplatCamera,
        options: SplatOptions | None = None,
        *,
        background: Tensor | None = None,
        extras: Tensor | None = None,
        screen_probe: Tensor | None = None,
    ) -> SplatImages:
        """Picture at a time, differentiable by all parameters: `render_gaussians4d` of this field.

        Rows of `extras`, `screen_probe` and the result's `splats` are the Gaussians in space and
        time and then those that stand still; `active_degree` takes the place of `options.degree`.
        """
        chosen = options or SplatOptions()
        tensors = self.tensors
        return render_gaussians4d(
            *tensors[:6],
            time,
            camera,
            SplatOptions(
                antialiased=chosen.antialiased, degree=self.active_degree, depth=chosen.depth,
                absolute=chosen.absolute,
            ),
            log_plateaus=tensors.log_plateaus,
            shortest=self.shortest,
            still=self.still.tensors if len(self.still) else None,
            background=background,
            extras=extras,
            screen_probe=screen_probe,
        )  # fmt: skip

    def prepared(self) -> PreparedGaussians4D:
        """Both parts made ready for pictures without gradients (`prepare_gaussians4d`).

        Kept until parameters are others or were changed in place; kernels that change them behind
        torch's back belong between `train()` and `eval()`, which forgets it.
        """
        tensors = [t for t in (*self.tensors, *self.still.tensors) if t is not None]
        known = [(t.data_ptr(), t._version, t.shape) for t in tensors]
        key = (known, self.active_degree, self.shortest, backend_for(self.means.device))
        if self._prepared is None or self._prepared[0] != key:
            cloud, still = self.cloud(), self.still.cloud()
            found = prepare_gaussians4d(
                cloud.means, cloud.times, cloud.rotors, cloud.log_scales, cloud.opacity_logits,
                cloud.harmonics, log_plateaus=cloud.log_plateaus, shortest=self.shortest,
                still=still.tensors(), degree=self.active_degree,
            )  # fmt: skip
            self._prepared = (key, found)
        return self._prepared[1]

    def shown_at(self, time: float | None) -> ShownGaussians:
        """What a renderer draws at a time in [0, 1]; None is the first of `moments`.

        In `eval()` mode that is `prepared()`; in training mode, when parameters change from frame
        to frame, the tensors themselves.
        """
        at = self._time(time)
        return ShownGaussians4D(self, at) if self.training else ShownPrepared4D(self.prepared(), at)

    @torch.no_grad()
    def gaussians_at(self, time: float | None = None) -> GaussianTensors:
        """Gaussians in space that look the same at a time, those that stand still included.

        Args:
            time: in [0, 1]; None is the first of `moments`.

        Returns:
            Raw tensors without gradients of what has not faded below 1/255 by then; harmonics with
            the active bands alone.
        """
        found = self.sliced_at(self._time(time))
        there = found.opacities >= FAINTEST
        rotations, log_scales = decomposed(found.axes[there])
        bands = (self.active_degree + 1) ** 2
        moving = GaussianTensors(
            found.means[there],
            rotations,
            log_scales,
            found.opacities[there].logit(eps=1e-7),
            self.harmonics[there, :bands],
        )
        if not len(self.still):
            return moving
        rest = GaussianCloud(*self.still.tensors).with_degree(self.active_degree).tensors()
        return GaussianTensors(*(torch.cat(pair) for pair in zip(moving, rest, strict=True)))

    def sliced_at(self, time: float) -> SlicedGaussians:
        """The Gaussians in space and time as they are at a time, differentiable, by the twin."""
        return slice_gaussians(
            self.means, self.times, self.rotors, self.log_scales, self.opacity_logits, time,
            log_plateaus=self.log_plateaus, shortest=self.shortest,
        )  # fmt: skip

    def _time(self, time: float | None) -> float:
        return float(self.moments[0]) if time is None else time


class ShownGaussians4D:
    """A field at one time, as `fields.protocols.ShownGaussians` asks for it."""

    def __init__(self, field: Gaussians4D, time: float) -> None:
        self._field, self._time = field, time

    @functools.cached_property
    def _sliced(self) -> SlicedGaussians:
        with torch.no_grad():
            return self._field.sliced_at(self._time)

    def means(self) -> Tensor:
        """(G + Z, 3)."""
        return torch.cat([self._sliced.means, self._field.still.means.detach()])

    def velocities(self) -> Tensor:
        """(G + Z, 3)."""
        still = torch.zeros_like(self._field.still.means)
        return torch.cat([self._sliced.velocities, still])

    def shortest_axes(self) -> Tensor:
        """(G + Z, 3)."""
        still = self._field.still.cloud()
        axes = rotation_from_quaternion(still.rotations) * still.log_scales.exp()[:, None, :]
        return shortest_axes(torch.cat([self._sliced.axes, axes]))

    def render(
        self,
        camera: SplatCamera,
        options: SplatOptions,
        *,
        background: Tensor | None = None,
        extras: Tensor | None = None,
    ) -> SplatImages:
        """Their picture."""
        return self._field.render(self._time, camera, options, background=background, extras=extras)


class ShownPrepared4D:
    """Prepared Gaussians at one time, as `fields.protocols.ShownGaussians` asks for it."""

    def __init__(self, prepared: PreparedGaussians4D, time: float) -> None:
        self._prepared, self._time = prepared, time

    @functools.cached_property
    def _sliced(self) -> SlicedGaussians:
        return self._prepared.sliced(self._time)

    def means(self) -> Tensor:
        """(A, 3)."""
        return self._sliced.means

    def velocities(self) -> Tensor:
        """(A, 3)."""
        return self._sliced.velocities

    def shortest_axes(self) -> Tensor:
        """(A, 3)."""
        return shortest_axes(self._sliced.axes)

    def render(
        self,
        camera: SplatCamera,
        options: SplatOptions,
        *,
        background: Tensor | None = None,
        extras: Tensor | None = None,
    ) -> SplatImages:
        """Their picture, without gradients."""
        return render_prepared4d(
            self._prepared, self._time, camera, options, background=background, extras=extras
        )


def _checked_moments(moments: Tensor | None, device: torch.device) -> Tensor:
    """(F,) on the device."""
    if moments is None:
        return torch.zeros(1, device=device)
    found = moments.detach().to(device, torch.float32)
    ascending = found.dim() == 1 and len(found) > 0 and bool((found.diff() > 0).all())
    if not ascending or float(found[0]) < 0 or float(found[-1]) > 1:
        raise InputError("moments must be ascending times in [0, 1], one or more")
    return found
