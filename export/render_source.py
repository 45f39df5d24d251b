"""What can be rendered to a video: a run, or Gaussians without a capture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import torch

from lumigraph.core import Cameras, Frame, GaussianCloud, Scene, cube
from lumigraph.core.errors import DataError
from lumigraph.export.splat_files.arrays import DEFAULT_MAX_GAUSSIANS
from lumigraph.export.splat_files.moving_file import is_moving_file, read_moving
from lumigraph.export.splat_files.moving_splats import MovingSplats
from lumigraph.export.splat_files.reading import read_splats

if TYPE_CHECKING:
    from lumigraph.training.method import Model

Background = Literal["black", "white"]
SCENE_TIMES = (0.0, 0.5, 1.0)
"""What is there at these tells where a moving scene is."""
_SEEN_OPACITY = 0.1
"""Gaussians less opaque say nothing about where the scene is."""
_HELD = 0.98
"""Part of the others that the scene's bounds hold; the rest are floaters and far surroundings."""


class Renders(Protocol):
    """What can be rendered: the model of a run, or anything else with this method."""

    def render(self, cameras: Cameras, *, channels: Sequence[str] = ...) -> Frame:
        """The frame of one camera (a batch of length 1)."""
        ...


class Source(Protocol):
    """A `training.Run`, or what else has a scene and a model."""

    def scene(self) -> Scene:
        """Cameras, bounds and what else is known."""
        ...

    def model(self, device: str | None = None) -> Renders:
        """Ready to render."""
        ...


@dataclass(frozen=True, eq=False)
class SplatSource:
    """Gaussians as a video takes them: a scene without cameras, and a model."""

    name: str
    """For messages, e.g. the file."""
    cloud: GaussianCloud
    antialiased: bool = False
    """Whether they were trained with the screen filter of Mip-Splatting."""
    background: Background = "black"
    """Behind them; no file says what it was."""
    moving: MovingSplats | None = None
    """Gaussians in space and time, of which `cloud` is what is there at times between."""

    def scene(self) -> Scene:
        """Bounds of the Gaussians that can be seen.

        Raises:
            DataError: none of them can be seen.
        """
        return self._scene

    @cached_property
    def _scene(self) -> Scene:
        cloud = self.cloud.to("cpu")
        seen = torch.sigmoid(cloud.opacity_logits) >= _SEEN_OPACITY
        means = cloud.means[seen & torch.isfinite(cloud.means).all(dim=1)].double()
        if len(means) == 0:
            raise DataError(f"{self.name}: holds no Gaussian that could be seen")
        middle = means.median(dim=0).values
        offsets = (means - middle).abs().amax(dim=1).sort().values
        half = float(offsets[round(_HELD * (len(offsets) - 1))])
        empty = Cameras.from_intrinsics(torch.empty(0, 4, 4), 1, 1, 1.0)
        bounds = cube(middle.float(), 2 * max(half, 1e-3))
        return Scene(self.name, self.name, empty, {}, bounds, background=self.background)

    def model(self, device: str | None = None) -> Model:
        """Ready to render."""
        from lumigraph.core.devices import choose_device
        from lumigraph.fields import Gaussians
        from lumigraph.renderers import SplatRenderer
        from lumigraph.training.method import Model

        chosen = choose_device(device or "auto")
        behind = torch.full((3,), 1.0 if self.background == "white" else 0.0, device=chosen)
        renderer = SplatRenderer(background=behind, antialiased=self.antialiased)
        if self.moving is not None:
            return Model(self.moving.field(chosen), renderer, chosen)
        return Model(Gaussians(self.cloud.to(chosen)), renderer, chosen)

    @classmethod
    def of_moving(
        cls, name: str, moving: MovingSplats, background: Background = "black"
    ) -> SplatSource:
        """Gaussians that move."""
        clouds = [moving.at(time) for time in SCENE_TIMES]
        whole = GaussianCloud.concatenate(clouds)
        return cls(name, whole, moving.antialiased, background, moving)


def open_source(
    source: Source | GaussianCloud | MovingSplats | str | Path,
    *,
    background: Background = "black",
    max_gaussians: int = DEFAULT_MAX_GAUSSIANS,
) -> Source:
    """A run by its folder, or Gaussians by their file.

    Args:
        source: a `training.Run`, its folder, a file of Gaussians, a cloud, or Gaussians that move.
        background: behind Gaussians of a file or cloud.
        max_gaussians: see `read_splats`.

    Raises:
        DataError: no such run or file.
    """
    if isinstance(source, GaussianCloud):
        return SplatSource("cloud", source, background=background)
    if isinstance(source, MovingSplats):
        return SplatSource.of_moving("cloud", source, background)
    if not isinstance(source, (str, Path)):
        return source
    path = Path(source)
    if path.is_dir() or not path.suffix:
        from lumigraph.training import Run

        return Run.open(path)
    if is_moving_file(path):
        moving = read_moving(path, max_gaussians=max_gaussians).splats
        return SplatSource.of_moving(str(path), moving, background)
    found = read_splats(path, max_gaussians=max_gaussians)
    return SplatSource(str(path), found.cloud, found.report.antialiased, background)
