"""Gaussians to pictures of one camera: `render_gaussians`. Letters: G Gaussians, H W image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from .camera import SplatCamera
from .projection import project_gaussians
from .rasterization import rasterize_splats
from .tiles import splat_tiles

__all__ = ["SplatImages", "SplatOptions", "render_gaussians"]


@dataclass(frozen=True)
class SplatOptions:
    """How Gaussians are read and what is made of them."""

    raw: bool = True
    """Scales are natural logarithms, opacities logits: what training moves and files hold."""
    antialiased: bool = False
    """Dim small splats by the area that the low-pass adds to them."""
    degree: int | None = None
    """Of the harmonics in use, at most the stored one; None takes all."""
    depth: bool = False
    """Also make the two depth images."""


class SplatImages(NamedTuple):
    """What a camera sees."""

    color: Tensor
    """(H, W, 3), background included, not clamped."""
    opacity: Tensor
    """(H, W) in [0, 1]."""
    depth: Tensor | None
    """(H, W) sum of weight times depth; divide by opacity for the mean."""
    median_depth: Tensor | None
    """(H, W) depth where half of the light is gone, 0 where it never is."""
    extras: Tensor | None
    """(H, W, E)."""
    splats: Tensor
    """(G, 12): see `projection.py`; column 5 is above 0 for what the camera could see."""


def render_gaussians(
    means: Tensor,
    rotations: Tensor,
    scales: Tensor,
    opacities: Tensor,
    harmonics: Tensor,
    camera: SplatCamera,
    options: SplatOptions | None = None,
    *,
    background: Tensor | None = None,
    extras: Tensor | None = None,
    screen_probe: Tensor | None = None,
) -> SplatImages:
    """Project, sort and blend Gaussians.

    Args:
        means, rotations, scales, opacities, harmonics: see `project_gaussians`.
        camera: where from, on the same device.
        options: how to read the tensors, and what to make.
        background: (3,) color behind everything; None is black.
        extras: (G, E) further values to blend.
        screen_probe: see `rasterize_splats`.

    Returns:
        All images but the median are differentiable by everything that enters.

    Raises:
        InputError: tensors that do not fit each other or the camera.
    """
    options = options or SplatOptions()
    splats, depths = project_gaussians(
        means, rotations, scales, opacities, harmonics, camera,
        raw=options.raw, antialiased=options.antialiased, degree=options.degree,
    )  # fmt: skip
    lists = splat_tiles(splats, depths, camera.width, camera.height)
    images = rasterize_splats(
        splats, lists, camera.width, camera.height,
        extras=extras, background=background, depth=options.depth, screen_probe=screen_probe,
    )  # fmt: skip
    return SplatImages(
        images.color,
        1 - images.transmittance,
        images.depth,
        images.median_depth,
        images.extras,
        splats,
    )
