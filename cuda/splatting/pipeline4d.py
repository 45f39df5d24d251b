"""Gaussians in space and time to pictures of one camera: `render_gaussians4d`.

Letters: G Gaussians in space and time, Z still ones, E extra channels, H W image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lumigraph.cuda.reference.gaussian_slicing import SHORTEST

from .camera import SplatCamera
from .drawing import DrawOptions, screen_kind, splat_draw
from .pipeline import SplatImages, SplatOptions, draw_in_steps, needs_steps
from .projection import bands_in_use, check_gaussians, project_gaussians
from .projection4d import check_gaussians4d, project_gaussians4d

__all__ = ["Five", "render_gaussians4d"]

Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def render_gaussians4d(
    means: Tensor,
    times: Tensor,
    rotors: Tensor,
    log_scales: Tensor,
    opacity_logits: Tensor,
    harmonics: Tensor,
    time: float,
    camera: SplatCamera,
    options: SplatOptions | None = None,
    *,
    log_plateaus: Tensor | None = None,
    shortest: float = SHORTEST,
    still: Five | None = None,
    background: Tensor | None = None,
    extras: Tensor | None = None,
    screen_probe: Tensor | None = None,
) -> SplatImages:
    """What a camera sees of Gaussians at a time: slice, project, sort and blend.

    Args:
        means, times, rotors, log_scales, opacity_logits, harmonics, log_plateaus, shortest: see
            `project_gaussians4d`.
        time: what is shown; captures run over [0, 1].
        options: `raw` plays no part, all tensors are; `degree` is that of both parts, as far as
            they store it.
        still: Gaussians that are the same at every time, in one picture with the others: raw means,
            rotations, scales, opacities and harmonics as `render_gaussians` takes them, Z of them.
        background: (3,) color behind everything; None is black.
        extras: (G + Z, E) further values to blend.
        screen_probe: (G + Z, 2) zeros that require grad: see `render_gaussians`.

    Returns:
        Images as those of `render_gaussians`; `splats` is (G + Z, 12), first those of the Gaussians
        in space and time.

    Raises:
        InputError: tensors that do not fit each other or the camera, a time that is not finite, or
            a probe together with float64 tensors or more than 16 extras.
    """
    options = options or SplatOptions()
    rows = len(means) + (0 if still is None else len(still[0]))
    further = (
        ("extras", extras, f"{rows} E"),
        ("background", background, "3"),
        ("screen_probe", screen_probe, f"{rows} 2"),
    )
    check_gaussians4d(
        means, times, rotors, log_scales, opacity_logits, harmonics, log_plateaus, camera, further
    )
    if still is not None:
        check_gaussians(*still, camera)
    splats, depths = project_gaussians4d(
        means, times, rotors, log_scales, opacity_logits, harmonics, time, camera,
        log_plateaus=log_plateaus, shortest=shortest, antialiased=options.antialiased,
        degree=options.degree if still is None else lower_degree(harmonics, options.degree),
    )  # fmt: skip
    if still is not None and len(still[0]):
        more, more_depths = project_gaussians(
            *still, camera, antialiased=options.antialiased,
            degree=lower_degree(still[4], options.degree),
        )  # fmt: skip
        splats, depths = torch.cat([splats, more]), torch.cat([depths, more_depths])
    return draw(splats, depths, camera, options, background, extras, screen_probe)


def lower_degree(harmonics: Tensor, degree: int | None) -> int:
    """The degree in use, or the one that is stored where that is lower."""
    stored = bands_in_use(harmonics, None) - 1
    return stored if degree is None else min(degree, stored)


def draw(
    splats: Tensor,
    depths: Tensor,
    camera: SplatCamera,
    options: SplatOptions,
    background: Tensor | None,
    extras: Tensor | None,
    screen_probe: Tensor | None,
) -> SplatImages:
    """Pictures of splats, in one operation where it takes them."""
    if needs_steps(splats, extras, screen_probe):
        return draw_in_steps(splats, depths, camera, options, background, extras)
    numbers = DrawOptions(
        camera.width, camera.height, int(options.depth),
        screen_kind(screen_probe, options.absolute),
    )  # fmt: skip
    color, left, _, far, median, blended, _, _ = splat_draw(
        splats, depths,
        None if background is None else background.contiguous(),
        None if extras is None else extras.contiguous(), screen_probe, list(numbers),
    )  # fmt: skip
    return SplatImages(
        color,
        left,
        far if options.depth else None,
        median if options.depth else None,
        None if extras is None else blended,
        splats.detach(),
    )
