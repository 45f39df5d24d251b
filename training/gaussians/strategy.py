"""Gaussians in training: parameters, Adam's moments and statistics, and what may change their rows.
Which parameters there are, the field says: those in space, or those in space and time.

`GaussianState` holds all tensors with one row a Gaussian. Its few structural edits are the only
code that adds, removes or overwrites rows, so that moments and statistics always follow. A
`Strategy` decides which edits to make: where detail is missing, what is superfluous.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from lumigraph.core.errors import CheckpointError
from lumigraph.core.shapes import check_shapes
from lumigraph.fields.gaussians import grown_bands

from .schedule import Clock

Rows = TypeVar("Rows", bound=tuple[Any, ...])
"""The named tuple of a field's parameters, each (G, ...) or None."""


class RowField(Protocol[Rows]):
    """What `GaussianState` asks of a field of Gaussians."""

    @property
    def tensors(self) -> Rows: ...
    @property
    def degree(self) -> int: ...
    def set_tensors(self, tensors: Rows) -> None: ...
    def grow_harmonics(self, degree: int) -> None: ...


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


class Strategy(Protocol[Rows]):
    """Decides how the number of Gaussians follows the scene."""

    statistics: Sequence[str]
    """Names of the numbers a Gaussian that it keeps in `GaussianState.statistics`."""
    absolute_gradients: bool
    """Whether `ViewGradients.screen` must be sums of absolute values over pixels."""
    limit: int
    """There are never more rows than this; may change between steps."""

    def wants_gradients(self, clock: Clock) -> bool:
        """Whether `after_backward` has a use for the screen gradients of this step."""

    def after_backward(self, gaussians: GaussianState[Rows], view: ViewGradients) -> None:
        """Take in the gradients of a view, before the parameters move."""

    def after_step(
        self, gaussians: GaussianState[Rows], clock: Clock, *, means_rate: float
    ) -> EditCounts:
        """Change the rows, after the parameters moved.

        Args:
            clock: time of the schedule before and after the step.
            means_rate: learning rate of the means in this step, scene units.
        """

    def state(self) -> Tensor:
        """What a checkpoint must keep besides the rows: random numbers."""

    def restore(self, state: Tensor) -> None:
        """Go on from `state`."""


class GaussianState(Generic[Rows]):
    """The rows of a field in training.

    Args:
        field: whose parameters are edited.
        statistics: names of further numbers a Gaussian, kept as (G,) float32, at first 0.
        part: prefix of the names in a checkpoint, for one of several sets of rows.

    Example:
        >>> from lumigraph.core.gaussian_cloud import GaussianCloud
        >>> from lumigraph.fields import Gaussians
        >>> state = GaussianState(Gaussians(GaussianCloud.empty(degree=0)), ["count"])
        >>> len(state), sorted(state.state())[:2]
        (0, ['field.harmonics', 'field.log_scales'])
    """

    def __init__(
        self, field: RowField[Rows], statistics: Sequence[str] = (), *, part: str = ""
    ) -> None:
        self.field, self.part = field, part
        tensors = field.tensors
        fields: tuple[str, ...] = tensors._fields  # type: ignore[attr-defined]
        self.names = tuple(n for n, t in zip(fields, tensors, strict=True) if t is not None)
        self._places = tuple(fields.index(name) for name in self.names)
        self.moments: list[tuple[Tensor, Tensor]] = [
            (torch.zeros_like(tensor), torch.zeros_like(tensor)) for tensor in self._stored()
        ]
        self.statistics = {name: self._zeros() for name in statistics}

    def __len__(self) -> int:
        return len(self.field.tensors[0])

    @property
    def device(self) -> torch.device:
        device: torch.device = self.field.tensors[0].device
        return device

    def _stored(self) -> list[Tensor]:
        """The parameters that there are, without gradients, in the order of `names`."""
        tensors = self.field.tensors
        return [tensors[place].detach() for place in self._places]

    def _packed(self, tensors: Iterable[Tensor]) -> Rows:
        """The named tuple of tensors in the order of `names`."""
        given = dict(zip(self._places, tensors, strict=True))
        kind: Any = type(self.field.tensors)
        rows: Rows = kind(*(given.get(place) for place in range(len(kind._fields))))
        return rows

    def values(self) -> Rows:
        """The parameters without gradients, sharing memory."""
        return self._packed(self._stored())

    def parameters(self) -> list[Tensor]:
        """The parameters themselves, in the order of `names`."""
        tensors = self.field.tensors
        return [tensors[place] for place in self._places]

    def _zeros(self) -> Tensor:
        return torch.zeros(len(self), device=self.device)

    def rows(self, rows: Tensor) -> Rows:
        """Copies of some rows, by int64 indices."""
        return self._packed(tensor.index_select(0, rows) for tensor in self._stored())

    def joined(self, parts: Sequence[Rows]) -> Rows:
        """Rows of several sets, in order."""
        columns = zip(*([part[place] for place in self._places] for part in parts), strict=True)
        return self._packed(torch.cat(column) for column in columns)

    @torch.no_grad()
    def rebuild(self, rows: Tensor | None, new: Rows | None = None) -> None:
        """Keep some rows and append others, in one copy.

        Args:
            rows: what stays, by a mask (G,) bool or int64 indices in the new order; None: all.
            new: appended rows; their moments and statistics are 0.
        """
        old = self._stored()
        if rows is not None and rows.dtype == torch.bool:
            check_shapes(("means", old[0], "G 3"), ("rows", rows, "G"))
            rows = rows.nonzero()[:, 0]
        count = 0 if new is None else len(new[0])
        pieces = [None if new is None else new[place] for place in self._places]
        self.field.set_tensors(
            self._packed(_rebuilt(*pair, rows) for pair in zip(old, pieces, strict=True))
        )
        for place, moments in enumerate(self.moments):
            first, second = (_rebuilt(m, m.new_zeros(count, *m.shape[1:]), rows) for m in moments)
            self.moments[place] = (first, second)
        for name, values in self.statistics.items():
            self.statistics[name] = _rebuilt(values, values.new_zeros(count), rows)

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these: a mask (G,) bool, or int64 indices in the new order."""
        self.rebuild(rows)

    def append(self, new: Rows) -> None:
        """Add rows with moments of 0."""
        self.rebuild(None, new)

    def duplicate(self, rows: Tensor) -> None:
        """Append copies of rows (int64 indices); the copies' moments are 0."""
        self.append(self.rows(rows))

    @torch.no_grad()
    def write(self, rows: Tensor, new: Rows) -> None:
        """Overwrite rows (int64 indices) and set their moments and statistics to 0."""
        for tensor, place in zip(self._stored(), self._places, strict=True):
            tensor.index_copy_(0, rows, new[place])
        self.reset_moments(rows)
        for values in self.statistics.values():
            values.index_fill_(0, rows, 0)

    @torch.no_grad()
    def reset_moments(
        self, rows: Tensor | None = None, *, names: Sequence[str] | None = None
    ) -> None:
        """Set Adam's moments to 0: of some rows (int64 indices) or all, of some parameters."""
        for name in self.names if names is None else names:
            for moment in self.moments[self.names.index(name)]:
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
        place, stored = self.names.index("harmonics"), self.field.degree
        first, second = self.moments[place]
        if first.shape != self._stored()[place].shape:
            self.moments[place] = (grown_bands(first, stored), grown_bands(second, stored))

    def state(self) -> dict[str, Tensor]:
        """Live tensors by name, for a checkpoint."""
        state = {f"field.{n}": t for n, t in zip(self.names, self._stored(), strict=True)}
        for name, moments in zip(self.names, self.moments, strict=True):
            state |= {f"moments.{name}.{k}": moment for k, moment in enumerate(moments)}
        state |= {f"statistics.{name}": v for name, v in self.statistics.items()}
        return {f"{self.part}{name}": tensor for name, tensor in state.items()}

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
        means = f"{self.part}field.means"
        rows = {name: len(tensor) for name, tensor in ready.items()}
        odd = [name for name, count in rows.items() if count != rows[means]]
        if odd:
            raise CheckpointError(
                f"{source}: {odd[0]!r} has {rows[odd[0]]} rows, {means!r} has "
                f"{rows[means]}; the file is damaged"
            )
        part = {name.removeprefix(self.part): tensor for name, tensor in ready.items()}
        self.field.set_tensors(self._packed(part[f"field.{name}"] for name in self.names))
        self.moments = [(part[f"moments.{n}.0"], part[f"moments.{n}.1"]) for n in self.names]
        self.statistics = {name: part[f"statistics.{name}"] for name in self.statistics}


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
