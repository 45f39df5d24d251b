"""Gaussians in space and time to the splats of one moment: `project_gaussians4d`. Maths:
`reference/gaussian_slicing.py`, and from there on that of `projection.py`.

Letters: G Gaussians, K harmonics.
"""

from __future__ import annotations

import ctypes
import math
import struct
from typing import Any

import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.core.shapes import ShapeCheck, check_shapes
from lumigraph.cuda.build import cpu_library
from lumigraph.cuda.dispatch import library, operation, pointer
from lumigraph.cuda.reference import gaussian_slicing as reference
from lumigraph.cuda.reference.gaussian_slicing import SHORTEST
from lumigraph.cuda.reference.splat_projection import ProjectionOptions
from lumigraph.cuda.runtime import kernel

from .camera import SplatCamera
from .projection import (
    BLOCK,
    HARMONICS_COUNTS,
    SPLAT_ROW,
    aligned,
    bands_in_use,
    camera_bytes,
    contiguous,
    cpu_options,
)

__all__ = ["project_gaussians4d"]

Eight = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def project_gaussians4d(
    means: Tensor,
    times: Tensor,
    rotors: Tensor,
    log_scales: Tensor,
    opacity_logits: Tensor,
    harmonics: Tensor,
    time: float,
    camera: SplatCamera,
    *,
    log_plateaus: Tensor | None = None,
    shortest: float = SHORTEST,
    antialiased: bool = False,
    degree: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Where and how a camera sees Gaussians at a time.

    Args:
        means: (G, 3), times: (G,), rotors: (G, 8), log_scales: (G, 4), opacity_logits: (G,),
            harmonics: (G, K, 3) and log_plateaus: (G,) or None: raw, as in `core.GaussianCloud4D`.
        time: what is shown, any finite number; captures run over [0, 1].
        shortest: standard deviation in time that none falls below, for velocity and fading.
        antialiased, degree: as in `project_gaussians`.

    Returns:
        Splats (G, 12) and depths (G,) as `project_gaussians` has them; depths are infinite for what
        has faded below 1/255 at that time, too. Splats are differentiable by all tensors and
        `camera.world_to_camera`. Float64 takes the plain torch twin.

    Raises:
        InputError: shapes, dtypes or devices that do not fit, a time that is not finite, or a
            degree that is not stored.
    """
    check_gaussians4d(
        means, times, rotors, log_scales, opacity_logits, harmonics, log_plateaus, camera
    )
    moment = checked_moment(time, shortest)
    bands = bands_in_use(harmonics, degree)
    options = ProjectionOptions(int(camera.model), True, antialiased, bands)
    operate = _project if means.dtype == torch.float32 else reference.project
    splats, depths = operate(
        means, times, rotors, log_scales, opacity_logits, harmonics, log_plateaus,
        camera.world_to_camera, camera.numbers(), moment, options.to_numbers(),
    )  # fmt: skip
    return splats, depths


def checked_moment(time: float, shortest: float) -> list[float]:
    """Time and shortest duration as the operation takes them."""
    if not math.isfinite(time):
        raise InputError(f"time must be finite; got {time}")
    if not (math.isfinite(shortest) and shortest > 0):
        raise InputError(f"shortest must be finite and above 0; got {shortest}")
    return [float(time), float(shortest)]


def check_gaussians4d(
    means: Tensor,
    times: Tensor,
    rotors: Tensor,
    log_scales: Tensor,
    opacity_logits: Tensor,
    harmonics: Tensor,
    log_plateaus: Tensor | None,
    camera: SplatCamera,
    further: tuple[ShapeCheck, ...] = (),
) -> None:
    """Raises InputError when the tensors, and `further` ones, do not fit each other."""
    check_shapes(
        ("means", means, "G 3"),
        ("times", times, "G"),
        ("rotors", rotors, "G 8"),
        ("log_scales", log_scales, "G 4"),
        ("opacity_logits", opacity_logits, "G"),
        ("harmonics", harmonics, "G K 3"),
        ("log_plateaus", log_plateaus, "G"),
        ("camera.world_to_camera", camera.world_to_camera, "3 4"),
        *further,
        dtype=means.dtype if means.dtype == torch.float64 else torch.float32,
    )
    if harmonics.shape[1] not in HARMONICS_COUNTS:
        raise InputError(f"harmonics must have 1, 4, 9 or 16 rows; got {harmonics.shape[1]}")


def _outputs(means: Tensor) -> tuple[Tensor, Tensor]:
    count = means.shape[0]
    return means.new_empty(count, SPLAT_ROW), means.new_empty(count)


def _moment_bytes(moment: list[float]) -> bytes:
    return struct.pack("2f", *moment)  # struct Moment of common/gaussian4d.h


def _address(tensor: Tensor | None) -> ctypes.c_void_p | None:
    return None if tensor is None else pointer(tensor)


def _project_cpu(
    means: Tensor, times: Tensor, rotors: Tensor, log_scales: Tensor, opacity_logits: Tensor,
    harmonics: Tensor, log_plateaus: Tensor | None, world_to_camera: Tensor, camera: list[float],
    moment: list[float], options: list[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    inputs = contiguous(means, times, rotors, log_scales, opacity_logits, harmonics)
    (pose,) = contiguous(world_to_camera)
    plateaus = None if log_plateaus is None else log_plateaus.contiguous()
    splats, depths = _outputs(means)
    cpu_library().lg_splat_project4d(
        *map(pointer, inputs),
        _address(plateaus),
        pointer(pose),
        camera_bytes(camera),
        _moment_bytes(moment),
        cpu_options(options, harmonics),
        ctypes.c_int64(len(means)),
        pointer(splats),
        pointer(depths),
    )
    return splats, depths


def _kernel(
    name: str, options: list[int], harmonics: Tensor, log_plateaus: Tensor | None, **more: int
) -> Any:
    constants = {"LG_MODEL": options[0], "LG_BANDS": options[3], **more}
    constants["LG_PLATEAUS"] = int(log_plateaus is not None)
    return kernel("splat_project4d.cu", name, LG_ROWS=harmonics.shape[1], **constants)


def _project_cuda(
    means: Tensor, times: Tensor, rotors: Tensor, log_scales: Tensor, opacity_logits: Tensor,
    harmonics: Tensor, log_plateaus: Tensor | None, world_to_camera: Tensor, camera: list[float],
    moment: list[float], options: list[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    inputs = aligned(means, times, rotors, log_scales, opacity_logits, harmonics)
    (pose,) = contiguous(world_to_camera)
    plateaus = inputs[1] if log_plateaus is None else log_plateaus.contiguous()
    splats, depths = _outputs(means)
    count = len(means)
    _kernel("splat_project4d", options, harmonics, log_plateaus)(
        (-(-count // BLOCK),), (BLOCK,), *inputs, plateaus, pose, camera_bytes(camera),
        _moment_bytes(moment), options[2], count, splats, depths,
    )  # fmt: skip
    return splats, depths


def _project_fake(
    means: Tensor, times: Tensor, rotors: Tensor, log_scales: Tensor, opacity_logits: Tensor,
    harmonics: Tensor, log_plateaus: Tensor | None, world_to_camera: Tensor, camera: list[float],
    moment: list[float], options: list[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _outputs(means)


# ---- backward; without plateaus their gradient is empty, as is that of the pose where it is not
# wanted


def empty_gradients(tensors: list[Tensor], log_plateaus: Tensor | None, wants_pose: bool) -> Eight:
    means, times, rotors, log_scales, opacity_logits, harmonics, pose = tensors
    return (
        torch.empty_like(means),
        torch.empty_like(times),
        torch.empty_like(rotors),
        torch.empty_like(log_scales),
        torch.empty_like(opacity_logits),
        torch.empty_like(harmonics),
        means.new_empty(0) if log_plateaus is None else torch.empty_like(log_plateaus),
        pose.new_zeros(3, 4) if wants_pose else pose.new_empty(0),
    )


def project_backward_reference(
    gradient: Tensor, splats: Tensor, tensors: list[Tensor], log_plateaus: Tensor | None,
    camera: list[float], moment: list[float], options: list[int], wants_pose: bool,
) -> Eight:  # fmt: skip
    *gaussians, pose = tensors
    *found, by_plateaus, by_pose = reference.project_backward(
        gradient, [*gaussians, log_plateaus, pose], camera, moment, options
    )
    m, t, r, s, o, h = found
    assert m is not None and t is not None and r is not None and s is not None
    assert o is not None and h is not None and by_pose is not None
    empty = pose.new_empty(0)
    return (
        *(m, t, r, s, o, h),
        empty if by_plateaus is None else by_plateaus,
        by_pose if wants_pose else empty,
    )


def project_backward_cpu(
    gradient: Tensor, splats: Tensor, tensors: list[Tensor], log_plateaus: Tensor | None,
    camera: list[float], moment: list[float], options: list[int], wants_pose: bool,
) -> Eight:  # fmt: skip
    *inputs, pose = contiguous(*tensors)
    gradient = gradient.contiguous()
    plateaus = None if log_plateaus is None else log_plateaus.contiguous()
    out = empty_gradients([*inputs, pose], plateaus, wants_pose)
    cpu_library().lg_splat_project4d_backward(
        *map(pointer, inputs),
        _address(plateaus),
        pointer(pose),
        camera_bytes(camera),
        _moment_bytes(moment),
        cpu_options(options, inputs[5]),
        ctypes.c_int64(len(gradient)),
        pointer(splats),
        pointer(gradient),
        *map(pointer, out[:6]),
        None if plateaus is None else pointer(out[6]),
        pointer(out[7]) if wants_pose else None,
    )
    return out


def project_backward_cuda(
    gradient: Tensor, splats: Tensor, tensors: list[Tensor], log_plateaus: Tensor | None,
    camera: list[float], moment: list[float], options: list[int], wants_pose: bool,
) -> Eight:  # fmt: skip
    (*inputs, pose), (gradient,) = aligned(*tensors), aligned(gradient)
    plateaus = None if log_plateaus is None else log_plateaus.contiguous()
    out = empty_gradients([*inputs, pose], plateaus, wants_pose)
    count = len(gradient)
    run = _kernel("splat_project4d_backward", options, inputs[5], plateaus, LG_POSE=int(wants_pose))
    run(
        (-(-count // BLOCK),), (BLOCK,), *inputs, inputs[1] if plateaus is None else plateaus,
        pose, camera_bytes(camera), _moment_bytes(moment), options[2], count, splats, gradient,
        *out[:6], out[1] if plateaus is None else out[6], out[7] if wants_pose else gradient,
    )  # fmt: skip
    return out


def _backward_fake(
    gradient: Tensor, splats: Tensor, tensors: list[Tensor], log_plateaus: Tensor | None,
    camera: list[float], moment: list[float], options: list[int], wants_pose: bool,
) -> Eight:  # fmt: skip
    return empty_gradients(tensors, log_plateaus, wants_pose)


_project = operation(
    "splat_project4d(Tensor means, Tensor times, Tensor rotors, Tensor log_scales, "
    "Tensor opacity_logits, Tensor harmonics, Tensor? log_plateaus, Tensor world_to_camera, "
    "float[] camera, float[] moment, int[] options) -> (Tensor, Tensor)",
    reference=reference.project,
    cpu=_project_cpu,
    cuda=_project_cuda,
    fake=_project_fake,
)
_project_backward = operation(
    "splat_project4d_backward(Tensor gradient, Tensor splats, Tensor[] tensors, "
    "Tensor? log_plateaus, float[] camera, float[] moment, int[] options, bool wants_pose) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=project_backward_reference,
    cpu=project_backward_cpu,
    cuda=project_backward_cuda,
    fake=_backward_fake,
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *gaussians, log_plateaus, pose, ctx.camera, ctx.moment, ctx.options = inputs
    ctx.save_for_backward(*gaussians, pose, log_plateaus, output[0])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, log_plateaus, splats = ctx.saved_tensors
    wants_pose = bool(ctx.needs_input_grad[7])
    *found, by_plateaus, by_pose = _project_backward(
        gradient, splats, tensors, log_plateaus, ctx.camera, ctx.moment, ctx.options, wants_pose
    )
    return (
        *found,
        None if log_plateaus is None else by_plateaus,
        by_pose if wants_pose else None,
        *(None,) * 3,
    )


torch.library.register_autograd(
    "lumigraph::splat_project4d", _backward, setup_context=_save, lib=library
)
