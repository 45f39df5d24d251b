"""A rendered view: what the viewer shows, the video shows and the evaluation scores.

Letters: H W image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lumigraph.core.color import colorize
from lumigraph.core.errors import InputError
from lumigraph.core.shapes import check_shapes

_SHOWN_OPACITY = 0.5  # a pixel less opaque than this takes no part in the automatic depth range


@dataclass(frozen=True, eq=False)
class Frame:
    """Images of one camera, all of the same size.

    >>> frame = Frame(torch.ones(2, 3, 3), torch.ones(2, 3), torch.ones(2, 3))
    >>> frame.width, frame.height, frame.channels
    (3, 2, ('color', 'opacity', 'depth'))
    >>> frame.channel("depth").shape
    torch.Size([2, 3, 3])
    """

    color: Tensor
    """(H, W, 3) sRGB in [0, 1]."""
    opacity: Tensor
    """(H, W) in [0, 1]: how much of the pixel the scene covers."""
    depth: Tensor
    """(H, W) depth along the optical axis in scene units, 0 where there is nothing."""
    normal: Tensor | None = None
    """(H, W, 3) unit surface normals in the scene frame, 0 where there is nothing."""
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """Further images (H, W) or (H, W, 3) by name."""

    def __post_init__(self) -> None:
        check_shapes(
            ("color", self.color, "H W 3"),
            ("opacity", self.opacity, "H W"),
            ("depth", self.depth, "H W"),
            ("normal", self.normal, "H W 3"),
        )

    @property
    def height(self) -> int:
        """Rows."""
        return self.color.shape[0]

    @property
    def width(self) -> int:
        """Columns."""
        return self.color.shape[1]

    @property
    def channels(self) -> tuple[str, ...]:
        """Names that :meth:`channel` takes for this frame."""
        normal = () if self.normal is None else ("normal",)
        return ("color", "opacity", "depth", *normal, *self.extras)

    def channel(self, name: str, *, depth_range: tuple[float, float] | None = None) -> Tensor:
        """One channel as a picture.

        Args:
            name: "color" (or "rgb"), "opacity", "depth", "normal" or a name of `extras`.
            depth_range: for "depth", the depths shown at the two ends of the colour map; None
                takes the range of this frame. Fix it for the frames of a video.

        Returns:
            (H, W, 3) float in [0, 1].

        Raises:
            InputError: this frame has no such channel; the message lists those it has.
        """
        name = {"rgb": "color"}.get(name, name)
        if name not in self.channels:
            raise InputError(
                f"channel {name!r} is not in this frame; choose from {', '.join(self.channels)}"
            )
        if name == "color":
            return _clean(self.color)
        if name == "opacity":
            return _clean(self.opacity)[..., None].expand_as(self.color).contiguous()
        if name == "depth":
            return self._depth_picture(depth_range)
        if name == "normal":
            assert self.normal is not None
            return _clean((self.normal + 1) / 2) * _clean(self.opacity)[..., None]
        return _extra_picture(self.extras[name])

    def depth_range(self) -> tuple[float, float]:
        """The 2nd and 98th percentile of the depths of opaque pixels; (0, 1) without any."""
        shown = (self.opacity > _SHOWN_OPACITY) & torch.isfinite(self.depth)
        depths = self.depth[shown].flatten()
        if depths.numel() == 0:
            return 0.0, 1.0
        ordered = depths.sort().values
        last = ordered.numel() - 1
        return float(ordered[round(0.02 * last)]), float(ordered[round(0.98 * last)])

    def to(self, device: torch.device | str) -> Frame:
        """The same frame on another device."""
        return Frame(
            color=self.color.to(device),
            opacity=self.opacity.to(device),
            depth=self.depth.to(device),
            normal=None if self.normal is None else self.normal.to(device),
            extras={name: value.to(device) for name, value in self.extras.items()},
        )

    def _depth_picture(self, depth_range: tuple[float, float] | None) -> Tensor:
        near, far = self.depth_range() if depth_range is None else depth_range
        if not (math.isfinite(near) and math.isfinite(far)):
            raise InputError(f"depth_range must be two finite depths; got {near} and {far}")
        extent = far - near if abs(far - near) > 1e-9 else 1.0
        # Near things are warm: the far end of the range has the first colour of the map.
        return colorize((far - self.depth) / extent) * _clean(self.opacity)[..., None]


def _clean(image: Tensor) -> Tensor:
    return torch.nan_to_num(image, nan=0.0).clamp(0, 1)


def _extra_picture(image: Tensor) -> Tensor:
    if image.dim() == 3:
        return _clean(image)
    finite = image[torch.isfinite(image)]
    low, high = (finite.min(), finite.max()) if finite.numel() else (0.0, 1.0)
    return colorize((image - low) / max(float(high - low), 1e-9))
