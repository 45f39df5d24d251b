"""Surfaces that move: rendered in their own frame by cameras that are moved instead.

A rigid motion takes the scene to the frame in which the field was learnt. Moving a camera by it
shows the same picture with the same depths; only normals have to be turned back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from lumigraph.core import Cameras, Frame, Similarity
from lumigraph.fields.protocols import MovingSurfaceField, SurfaceField, SurfaceMoment

from .occupancy import OccupancyGrid
from .surface import SurfaceRenderer

OnChunk = Callable[[float], bool]


class MovedSurfaceRenderer(SurfaceRenderer):
    """A surface renderer whose pictures show the field where a motion has put it.

    Args:
        motion: gives the rigid motion from the scene's frame to the field's, whenever a picture
            is made. Rays (`render_rays`) are in the field's frame.
        others: see `SurfaceRenderer`.
    """

    def __init__(
        self,
        occupancy: OccupancyGrid,
        *,
        motion: Callable[[], Similarity],
        background: Tensor,
        near: float = 0.0,
    ) -> None:
        super().__init__(occupancy, background=background, near=near)
        self.motion = motion

    def render(
        self,
        field: SurfaceField,
        cameras: Cameras,
        *,
        normals: bool = True,
        on_chunk: OnChunk | None = None,
    ) -> Frame:
        """See `SurfaceRenderer.render`; cameras and normals are in the scene's frame."""
        motion = self.motion()
        moved = cameras.with_poses(motion.apply_poses(cameras.camera_to_world))
        frame = super().render(field, moved, normals=normals, on_chunk=on_chunk)
        if frame.normal is None:
            return frame
        normal = motion.inverse().apply_directions(frame.normal)
        return dataclasses.replace(frame, normal=normal)


class MovingSurfaceRenderer:
    """Renders a field of several moments, each picture at the time of its camera.

    Args:
        background: (3,) sRGB behind everything.
        near: distance before which there is nothing, in grid units.
    """

    def __init__(self, *, background: Tensor, near: float = 0.0) -> None:
        self.background, self.near = background, near

    def to(self, device: torch.device) -> MovingSurfaceRenderer:
        self.background = self.background.to(device)
        return self

    def still(self, moment: SurfaceMoment) -> MovedSurfaceRenderer:
        """The renderer of one moment, for its field."""
        return MovedSurfaceRenderer(
            cast(OccupancyGrid, moment.occupancy),
            motion=lambda: moment.motion,
            background=self.background,
            near=self.near,
        )

    def render(
        self,
        field: MovingSurfaceField,
        cameras: Cameras,
        *,
        normals: bool = True,
        on_chunk: OnChunk | None = None,
    ) -> Frame:
        """See `SurfaceRenderer.render`. A camera without a time shows the first moment."""
        time = None if cameras.times is None else float(cameras.times[0])
        moment = field.at_time(time)
        still = self.still(moment)
        return still.render(moment.field, cameras, normals=normals, on_chunk=on_chunk)
