"""Gaussians to pictures of one camera: `render_gaussians`.

Letters: G Gaussians, E extra channels, H W image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lumigraph.core.errors import InputError

from .camera import SplatCamera
from .drawing import screen_kind
from .fused import RenderOptions, splat_render
from .projection import bands_in_use, check_gaussians, project_gaussians
from .rasterization import MOST_EXTRAS, rasterize_splats
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
    absolute: bool = False
    """`screen_probe` receives sums over pixels of absolute gradients (AbsGS, Ye et al. 2024)."""


class SplatImages(NamedTuple):
    """What a camera sees."""

    color: Tensor
    """(H, W, 3), background included, not clamped."""
    transmittance: Tensor
    """(H, W) in [0, 1]: what is left of the light from behind."""
    depth: Tensor | None
    """(H, W) sum of weight times depth; divide by opacity for the mean."""
    median_depth: Tensor | None
    """(H, W) depth where half of the light is gone, 0 where it never is."""
    extras: Tensor | None
    """(H, W, E)."""
    splats: Tensor
    """(G, 12), not differentiable: see `projection.py`; column 5 is above 0 for what the camera
    could see."""

    @property
    def opacity(self) -> Tensor:
        """(H, W) in [0, 1]: 1 - transmittance."""
        return 1 - self.transmittance


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
        screen_probe: (G, 2) zeros that require grad: their gradient becomes that by the splats'
            positions on the screen, in 1 / pixels, which densification asks for.

    Returns:
        All images but the median are differentiable by everything that enters.

    Raises:
        InputError: tensors that do not fit each other or the camera, or a probe together with
            float64 tensors or more than 16 extras.
    """
    options = options or SplatOptions()
    further = (
        ("extras", extras, "G E"),
        ("background", background, "3"),
        ("screen_probe", screen_probe, "G 2"),
    )
    check_gaussians(means, rotations, scales, opacities, harmonics, camera, further)
    tensors = (means, rotations, scales, opacities, harmonics)
    if needs_steps(means, extras, screen_probe):
        return _in_steps(tensors, camera, options, background, extras)
    numbers = RenderOptions(
        int(camera.model), int(options.raw), int(options.antialiased),
        bands_in_use(harmonics, options.degree), camera.width, camera.height, int(options.depth),
        screen_kind(screen_probe, options.absolute),
    )  # fmt: skip
    color, left, _, far, median, blended, splats, _, _ = splat_render(
        *tensors, camera.world_to_camera,
        None if background is None else background.contiguous(),
        None if extras is None else extras.contiguous(), screen_probe, camera.numbers(),
        list(numbers),
    )  # fmt: skip
    return SplatImages(
        color,
        left,
        far if options.depth else None,
        median if options.depth else None,
        None if extras is None else blended,
        splats,
    )


def needs_steps(means: Tensor, extras: Tensor | None, screen_probe: Tensor | None) -> bool:
    """Whether no fused operation takes these. Raises InputError if none at all does."""
    found = means.dtype == torch.float64 or (extras is not None and extras.shape[1] > MOST_EXTRAS)
    if found and screen_probe is not None:
        raise InputError(
            f"screen_probe needs float32 and at most {MOST_EXTRAS} extras; leave one of them out"
        )
    return found


def _in_steps(
    tensors: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    camera: SplatCamera,
    options: SplatOptions,
    background: Tensor | None,
    extras: Tensor | None,
) -> SplatImages:
    """The three operations one after another: any dtype, any number of extras."""
    splats, depths = project_gaussians(
        *tensors, camera, raw=options.raw, antialiased=options.antialiased, degree=options.degree
    )
    return draw_in_steps(splats, depths, camera, options, background, extras)


def draw_in_steps(
    splats: Tensor,
    depths: Tensor,
    camera: SplatCamera,
    options: SplatOptions,
    background: Tensor | None,
    extras: Tensor | None,
) -> SplatImages:
    """Tile lists and blending of splats one after another: any dtype, any number of extras."""
    lists = splat_tiles(splats, depths, camera.width, camera.height)
    images = rasterize_splats(
        splats, lists, camera.width, camera.height,
        extras=extras, background=background, depth=options.depth,
    )  # fmt: skip
    return SplatImages(
        images.color,
        images.transmittance,
        images.depth,
        images.median_depth,
        images.extras,
        splats.detach(),
    )
