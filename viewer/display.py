"""From a frame to the picture on the screen: channel, exposure, background.

With the settings that a viewer opens with, the bytes are those that `lumigraph render` writes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lumigraph.core import Cameras, Frame
from lumigraph.core.color import colorize, linear_to_srgb, srgb_to_linear
from lumigraph.training import Model
from lumigraph.training.pictures import to_bytes

CHANNELS = ("color", "depth", "normal", "opacity", "error")
MOST_STOPS = 8.0
ERROR_SHOWN = 0.5
"""Difference to the photograph, as a mean over the channels, at the end of the color map."""


@dataclass(frozen=True)
class Look:
    """How a frame is shown."""

    channel: str = "color"
    """One of `CHANNELS`."""
    exposure: float = 0.0
    """Stops: twice as bright for each."""
    background: tuple[float, float, float] | None = None
    """sRGB behind the scene; None keeps that of the model."""
    photo_share: float = 0.0
    """How much of the photograph is blended over, in [0, 1]."""
    depth_range: tuple[float, float] | None = None
    """Depths at the ends of the color map; None takes those of each frame."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Channels that the renderer must make."""
        extra = ("normal",) if self.channel == "normal" else ()
        return ("color", "opacity", "depth", *extra)


@dataclass(frozen=True, eq=False)
class Photo:
    """A photograph as the viewer's camera would have taken it."""

    color: Tensor
    """(H, W, 3) sRGB."""
    inside: Tensor
    """(H, W) bool, where the photograph has pixels."""

    def to(self, device: torch.device) -> Photo:
        """The same on another device."""
        return Photo(self.color.to(device), self.inside.to(device))


def picture(frame: Frame, look: Look, *, behind: Tensor | None, photo: Photo | None) -> np.ndarray:
    """(H, W, 3) uint8 sRGB.

    Args:
        behind: (3,) or (H, W, 3) background that is in the frame's color; None if unknown.
        photo: the photograph of the camera that the viewer stands at.
    """
    if photo is not None:
        photo = photo.to(frame.color.device)
    if look.channel == "error":
        image = _error(frame, photo)
    else:
        image = frame.channel(look.channel, depth_range=look.depth_range)
    if look.channel == "color":
        image = _toned(image, frame, look, behind)
    if photo is not None and look.photo_share > 0 and look.channel != "error":
        share = look.photo_share * photo.inside[..., None]
        image = torch.lerp(image, photo.color, share)
    return to_bytes(image).cpu().numpy()


def background_of(model: Model, cameras: Cameras) -> Tensor | None:
    """What a model's renderer puts behind the scene, on its device: (3,) or (H, W, 3), or None."""
    behind = getattr(model.renderer, "background", None)
    if isinstance(behind, Tensor):
        return behind.detach()
    if callable(behind):
        width, height = cameras.size(0)
        with torch.no_grad():
            sky = behind(cameras.to(model.device).image_rays(0).directions)
        return sky.reshape(height, width, 3)
    return None


def _toned(image: Tensor, frame: Frame, look: Look, behind: Tensor | None) -> Tensor:
    if look.background is not None and behind is not None:
        through = (1 - frame.opacity.clamp(0, 1))[..., None]
        wanted = torch.tensor(look.background, device=image.device)
        image = (image + through * (wanted - behind)).clamp(0, 1)
    if look.exposure:
        image = linear_to_srgb(srgb_to_linear(image) * 2.0**look.exposure).clamp(0, 1)
    return image


def _error(frame: Frame, photo: Photo | None) -> Tensor:
    """Difference to the photograph as a color map; grey where there is none to compare with."""
    gray = frame.channel("color").mean(dim=2, keepdim=True).expand(-1, -1, 3) * 0.3 + 0.1
    if photo is None:
        return gray
    error = (frame.color - photo.color).abs().mean(dim=2) / ERROR_SHOWN
    return torch.where(photo.inside[..., None], colorize(error, colormap="heat"), gray)
