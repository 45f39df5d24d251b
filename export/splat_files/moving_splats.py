"""Gaussians that move and those that stand still beside them, in one frame: what a .lg4d holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lumigraph.core import GaussianCloud, GaussianCloud4D, Similarity
from lumigraph.cuda.reference.gaussian_slicing import SHORTEST
from lumigraph.export.splat_files.moving_arrays import MovingArrays, arrays_of, clouds_of
from lumigraph.fields import Gaussians4D


@dataclass(frozen=True, eq=False)
class MovingSplats:
    """Gaussians over time, on the CPU."""

    cloud: GaussianCloud4D
    """Those in space and time."""
    still: GaussianCloud
    """Those that stand still."""
    moments: Tensor
    """(F,) times in [0, 1] that they were trained at, ascending."""
    antialiased: bool = False
    """Whether they were trained with the screen filter of Mip-Splatting."""
    shortest: float = SHORTEST
    """Standard deviation in time that none falls below."""

    def __len__(self) -> int:
        """Of both kinds."""
        return len(self.cloud) + len(self.still)

    @classmethod
    def of_field(cls, field: Gaussians4D, *, antialiased: bool = False) -> MovingSplats:
        """The present Gaussians of a field, with the harmonics that it shows."""
        degree = field.active_degree
        return cls(
            field.cloud().to("cpu").with_degree(degree),
            field.still.cloud().to("cpu").with_degree(degree),
            field.moments.cpu(),
            antialiased,
            field.shortest,
        )

    @classmethod
    def of_arrays(
        cls, arrays: MovingArrays, moments: Tensor, *, antialiased: bool = False
    ) -> MovingSplats:
        """Those of a file."""
        return cls(*clouds_of(arrays), moments, antialiased)

    def arrays(self) -> MovingArrays:
        """For files."""
        return arrays_of(self.cloud, self.still, shortest=self.shortest)

    def transformed(self, similarity: Similarity) -> MovingSplats:
        """Moved to another frame; time stays."""
        return MovingSplats(
            self.cloud.transformed(similarity),
            self.still.transformed(similarity),
            self.moments,
            self.antialiased,
            self.shortest,
        )

    @cached_property
    def _field(self) -> Gaussians4D:
        return self.field("cpu")

    def field(self, device: torch.device | str) -> Gaussians4D:
        """To be rendered."""
        return Gaussians4D(
            self.cloud.to(device),
            still=self.still.to(device),
            moments=self.moments.to(device),
            shortest=self.shortest,
        )

    def at(self, time: float) -> GaussianCloud:
        """What is there at a time in [0, 1]."""
        return GaussianCloud(*self._field.gaussians_at(time))
