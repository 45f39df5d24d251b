"""Gaussians in training: parameters, Adam's moments and statistics, and what may change their rows.

`GaussianState` holds all tensors with one row a Gaussian. Its few structural edits are the only
code that adds, removes or overwrites rows, so that moments and statistics always follow. A
`Strategy` decides which edits to make: where detail is missing, what is superfluous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lumigraph.core.errors import CheckpointError
from lumigraph.core.shapes import check_shapes
from lumigraph.fields import Gaussians, GaussianTensors
from lumigraph.fields.gaussians import grown_bands

from .schedule import Clock

NAMES = GaussianTensors._fields


@dataclass(frozen=True)
class ViewGradients:
    """What one view says about the Gaussians that it shows."""

    screen: Tensor | None
    """(G, 2) gradient of the loss by the projected means, pixels; plain or absolute."""
    visible: Tensor
    """(G,) bool."""
    width: int
    height: int


@dataclass
class EditCounts:
    """What a strategy did to the rows."""

    cloned: int = 0
    split: int = 0
    pruned: int = 0
    relocated: int = 0
    added: int = 0
    reset: bool = False
    """All opacities were lowered."""

    def __bool__(self) -> bool:
        return bool(self.cloned or self.split or self.pruned or self.relocated or self.added)


class Strategy(Protocol):
    """Decides how the number of Gaussians follows the scene."""

    statistics: Sequence[str]
    """Names of the numbers a Gaussian that it keeps in `GaussianState.statistics`."""
    absolute_gradients: bool
    """Whether `ViewGradients.screen` must be sums of absolute values over pixels."""

    def wants_gradients(self, clock: Clock) -> bool:
        """Whether `after_backward` has a use for the screen gradients of this step."""

    def after_backward(self, gaussians: GaussianState, view: ViewGradients) -> None:
        """Take in the gradients of a view, before the parameters move."""

    def after_step(
        self, gaussians: GaussianState, clock: Clock, *, means_rate: float
    ) -> EditCounts:
        """Change the rows, after the parameters moved.

        Args:
            clock: time of the schedule before and after the step.
            means_rate: learning rate of the means in this step, scene units.
        """

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must keep besides the rows: random numbers."""

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from `state`."""


class GaussianState:
    """The rows of a field in training.

    Args:
        field: whose parameters are edited.
        statistics: names of further numbers a Gaussian, kept as (G,) float32, at first 0.

    Example:
        >>> from lumigraph.core.gaussian_cloud import GaussianCloud
        >>> state = GaussianState(Gaussians(GaussianCloud.empty(degree=0)), ["count"])
        >>> len(state), sorted(state.state())[:2]
        (0, ['field.harmonics', 'field.log_scales'])
    """

    def __init__(self, field: Gaussians, statistics: Sequence[str] = ()) -> None:
        self.field = field
        self.moments: list[tuple[Tensor, Tensor]] = [
            (torch.zeros_like(tensor), torch.zeros_like(tensor)) for tensor in self.values()
        ]
        self.statistics = {name: self._zeros() for name in statistics}

    def __len__(self) -> int:
        return len(self.field)

    @property
    def device(self) -> torch.device:
        return self.field.means.device

    def values(self) -> GaussianTensors:
        """The parameters without gradients, sharing memory."""
        return GaussianTensors(*(tensor.detach() for tensor in self.field.tensors))

    def _zeros(self) -> Tensor:
        return torch.zeros(len(self), device=self.device)

    def rows(self, rows: Tensor) -> GaussianTensors:
        """Copies of some rows, by int64 indices."""
        return GaussianTensors(*(tensor.index_select(0, rows) for tensor in self.values()))

    @torch.no_grad()
    def rebuild(self, rows: Tensor | None, new: GaussianTensors | None = None) -> None:
        """Keep some rows and append others, in one copy.

        Args:
            rows: what stays, by a mask (G,) bool or int64 indices in the new order; None: all.
            new: appended rows; their moments and statistics are 0.
        """
        if rows is not None and rows.dtype == torch.bool:
            check_shapes(("means", self.field.means, "G 3"), ("rows", rows, "G"))
            rows = rows.nonzero()[:, 0]
        count = 0 if new is None else len(new.means)
        pieces = (None,) * len(NAMES) if new is None else new
        old = self.values()
        self.field.set_tensors(
            GaussianTensors(*(_rebuilt(*pair, rows) for pair in zip(old, pieces, strict=True)))
        )
        for place, moments in enumerate(self.moments):
            first, second = (_rebuilt(m, m.new_zeros(count, *m.shape[1:]), rows) for m in moments)
            self.moments[place] = (first, second)
        for name, values in self.statistics.items():
            self.statistics[name] = _rebuilt(values, values.new_zeros(count), rows)

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these: a mask (G,) bool, or int64 indices in the new order."""
        self.rebuild(rows)

    def append(self, new: GaussianTensors) -> None:
        """Add rows with moments of 0."""
        self.rebuild(None, new)

    def duplicate(self, rows: Tensor) -> None:
        """Append copies of rows (int64 indices); the copies' moments are 0."""
        self.append(self.rows(rows))

    @torch.no_grad()
    def write(self, rows: Tensor, new: GaussianTensors) -> None:
        """Overwrite rows (int64 indices) and set their moments and statistics to 0."""
        for tensor, value in zip(self.values(), new, strict=True):
            tensor.index_copy_(0, rows, value)
        self.reset_moments(rows)
        for values in self.statistics.values():
            values.index_fill_(0, rows, 0)

    @torch.no_grad()
    def reset_moments(self, rows: Tensor | None = None, *, names: Sequence[str] = NAMES) -> None:
        """Set Adam's moments to 0: of some rows (int64 indices) or all, of some parameters."""
        for name in names:
            for moment in self.moments[NAMES.index(name)]:
                if rows is None:
                    moment.zero_()
                else:
                    moment.index_fill_(0, rows, 0)

    def reset_statistics(self) -> None:
        for values in self.statistics.values():
            values.zero_()

    def grow_harmonics(self, degree: int) -> None:
        """Show harmonics up to `degree`; the moments grow with what is stored."""
        self.field.grow_harmonics(degree)
        place, stored = NAMES.index("harmonics"), self.field.degree
        first, second = self.moments[place]
        if first.shape != self.field.harmonics.shape:
            self.moments[place] = (grown_bands(first, stored), grown_bands(second, stored))

    def state(self) -> dict[str, Tensor]:
        """Live tensors by name, for a checkpoint."""
        state = {f"field.{name}": t for name, t in zip(NAMES, self.values(), strict=True)}
        for name, moments in zip(NAMES, self.moments, strict=True):
            state |= {f"moments.{name}.{k}": moment for k, moment in enumerate(moments)}
        return state | {f"statistics.{name}": v for name, v in self.statistics.items()}

    def restore(self, tensors: dict[str, Tensor], source: str = "checkpoint") -> None:
        """Take over the rows of a checkpoint, however many; `active_degree` is not among them.

        Raises:
            CheckpointError: a tensor is missing, or has another number of rows than the rest.
        """
        found = {name: tensors.get(name) for name in self.state()}
        missing = [name for name, tensor in found.items() if tensor is None]
        if missing:
            raise CheckpointError(f"{source}: holds no {missing[0]!r}; it belongs to another model")
        ready = {name: t.to(self.device).clone() for name, t in found.items() if t is not None}
        rows = {name: len(tensor) for name, tensor in ready.items()}
        odd = [name for name, count in rows.items() if count != rows["field.means"]]
        if odd:
            raise CheckpointError(
                f"{source}: {odd[0]!r} has {rows[odd[0]]} rows, 'field.means' has "
                f"{rows['field.means']}; the file is damaged"
            )
        self.field.set_tensors(GaussianTensors(*(ready[f"field.{name}"] for name in NAMES)))
        self.moments = [(ready[f"moments.{name}.0"], ready[f"moments.{name}.1"]) for name in NAMES]
        self.statistics = {name: ready[f"statistics.{name}"] for name in self.statistics}


def _rebuilt(old: Tensor, new: Tensor | None, rows: Tensor | None) -> Tensor:
    kept = old if rows is None else old.index_select(0, rows)
    return kept if new is None or not len(new) else torch.cat([kept, new])


def draw_rows(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` indices (int64) drawn with replacement, with probability proportional to `weights`.

    Args:
        weights: (G,) at least 0, their sum above 0.
    """
    ends = torch.cumsum(weights.double(), 0)
    places = torch.rand(count, generator=generator, device=weights.device, dtype=torch.float64)
    found = torch.searchsorted(ends, places * ends[-1], right=True)
    return found.clamp_max(len(weights) - 1)
