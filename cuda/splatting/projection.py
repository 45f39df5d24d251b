"""Gaussians to splats: `project_gaussians`. Maths: `reference/splat_projection.py`.

Letters: G Gaussians, K harmonics. A splat is a row of 12 numbers:

    0, 1  x, y     position, pixels           6-8    color
    2-4   a, b, c  inverse covariance         9      depth along the axis (FISHEYE: distance)
    5     opacity  0 for a culled Gaussian    10, 11 half sides of its box, see common/splat.h
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
from lumigraph.cuda.reference import splat_projection as reference
from lumigraph.cuda.reference.splat_projection import ProjectionOptions
from lumigraph.cuda.runtime import kernel

from .camera import SplatCamera

__all__ = ["SPLAT_ROW", "project_gaussians"]

SPLAT_ROW = 12
BLOCK = 128  # threads, as in kernels/splat_project.cu
HARMONICS_COUNTS = (1, 4, 9, 16)

Six = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def project_gaussians(
    means: Tensor,
    rotations: Tensor,
    scales: Tensor,
    opacities: Tensor,
    harmonics: Tensor,
    camera: SplatCamera,
    *,
    raw: bool = True,
    antialiased: bool = False,
    degree: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Where and how a camera sees Gaussians.

    Args:
        means: (G, 3) scene units. rotations: (G, 4) w x y z, any length above 0.
        scales: (G, 3), opacities: (G,): with `raw` natural logarithms and logits, else lengths and
            numbers in [0, 1].
        harmonics: (G, K, 3) with K 1, 4, 9 or 16; color = max(0, 0.5 + sum of Y_k harmonics_k).
        antialiased: take from the opacity what the low-pass adds to the area (Mip-Splatting, Yu et
            al. 2024, section 4.2).
        degree: of the harmonics in use; None takes all that are stored.

    Returns:
        Splats (G, 12), see above, and depths (G,), infinite for what cannot be seen: behind the
        near plane, outside the image, fainter than 1/255, or not finite. Splats are differentiable
        by the five tensors and `camera.world_to_camera`. Float64 takes the plain torch twin.

    Raises:
        InputError: shapes, dtypes or devices that do not fit, or a degree that is not stored.

    >>> camera = SplatCamera(torch.eye(4)[:3], (8.0, 8.0, 4.0, 4.0), 8, 8)
    >>> one = (torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([[1.0, 0, 0, 0]]))
    >>> splats, depths = project_gaussians(
    ...     *one, torch.zeros(1, 3), torch.zeros(1), torch.zeros(1, 1, 3), camera
    ... )
    >>> splats[0, :2].tolist(), depths.tolist()
    ([4.0, 4.0], [2.0])
    """
    check_gaussians(means, rotations, scales, opacities, harmonics, camera)
    bands = bands_in_use(harmonics, degree)
    options = ProjectionOptions(int(camera.model), raw, antialiased, bands)
    operate = _project if means.dtype == torch.float32 else reference.project
    splats, depths = operate(
        means, rotations, scales, opacities, harmonics, camera.world_to_camera,
        camera.numbers(), options.to_numbers(),
    )  # fmt: skip
    return splats, depths


def bands_in_use(harmonics: Tensor, degree: int | None) -> int:
    """Bands 0 to `degree`, or all that are stored. Raises InputError for more than those."""
    stored = math.isqrt(harmonics.shape[1]) - 1
    used = stored if degree is None else degree
    if not 0 <= used <= stored:
        raise InputError(f"degree must be 0 to {stored}, the stored one; got {degree}")
    return used + 1


def check_gaussians(
    means: Tensor,
    rotations: Tensor,
    scales: Tensor,
    opacities: Tensor,
    harmonics: Tensor,
    camera: SplatCamera,
    further: tuple[ShapeCheck, ...] = (),
) -> None:
    """Raises InputError when the tensors, and `further` ones, do not fit each other."""
    check_shapes(
        ("means", means, "G 3"),
        ("rotations", rotations, "G 4"),
        ("scales", scales, "G 3"),
        ("opacities", opacities, "G"),
        ("harmonics", harmonics, "G K 3"),
        ("camera.world_to_camera", camera.world_to_camera, "3 4"),
        *further,
        dtype=means.dtype if means.dtype == torch.float64 else torch.float32,
    )
    if harmonics.shape[1] not in HARMONICS_COUNTS:
        raise InputError(f"harmonics must have 1, 4, 9 or 16 rows; got {harmonics.shape[1]}")


def _outputs(means: Tensor) -> tuple[Tensor, Tensor]:
    count = means.shape[0]
    return means.new_empty(count, SPLAT_ROW), means.new_empty(count)


def contiguous(*tensors: Tensor) -> list[Tensor]:
    return [tensor.contiguous() for tensor in tensors]


def aligned(*tensors: Tensor) -> list[Tensor]:
    """Contiguous, and at addresses that 16-byte accesses can take."""
    return [t if t.data_ptr() % 16 == 0 else t.clone() for t in contiguous(*tensors)]


def cpu_options(options: list[int], harmonics: Tensor) -> ctypes.Array[ctypes.c_int32]:
    return (ctypes.c_int32 * 5)(*options, harmonics.shape[1])


def camera_bytes(camera: list[float]) -> bytes:
    return struct.pack(f"{len(camera)}f", *camera)


def project_cpu(
    means: Tensor, rotations: Tensor, scales: Tensor, opacities: Tensor, harmonics: Tensor,
    world_to_camera: Tensor, camera: list[float], options: list[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    inputs = contiguous(means, rotations, scales, opacities, harmonics, world_to_camera)
    splats, depths = _outputs(means)
    cpu_library().lg_splat_project(
        *map(pointer, inputs),
        camera_bytes(camera),
        cpu_options(options, harmonics),
        ctypes.c_int64(len(means)),
        pointer(splats),
        pointer(depths),
    )
    return splats, depths


def _kernel(name: str, options: list[int], harmonics: Tensor, **more: int) -> Any:
    model, raw, _, bands = options
    constants = {"LG_MODEL": model, "LG_RAW": raw, "LG_BANDS": bands, **more}
    return kernel("splat_project.cu", name, LG_ROWS=harmonics.shape[1], **constants)


def project_cuda(
    means: Tensor, rotations: Tensor, scales: Tensor, opacities: Tensor, harmonics: Tensor,
    world_to_camera: Tensor, camera: list[float], options: list[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    inputs = aligned(means, rotations, scales, opacities, harmonics, world_to_camera)
    splats, depths = _outputs(means)
    count = len(means)
    _kernel("splat_project", options, harmonics)(
        (-(-count // BLOCK),), (BLOCK,), *inputs, camera_bytes(camera), options[2], count,
        splats, depths,
    )  # fmt: skip
    return splats, depths


def _project_fake(
    means: Tensor, rotations: Tensor, scales: Tensor, opacities: Tensor, harmonics: Tensor,
    world_to_camera: Tensor, camera: list[float], options: list[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _outputs(means)


# ---- backward; the last result is the pose's gradient, empty when it is not wanted


def empty_gradients(tensors: list[Tensor], wants_pose: bool) -> Six:
    m, r, s, o, h = map(torch.empty_like, tensors[:5])
    pose = tensors[5].new_zeros(3, 4) if wants_pose else tensors[5].new_empty(0)
    return m, r, s, o, h, pose


def project_backward_reference(
    gradient: Tensor, splats: Tensor, tensors: list[Tensor], camera: list[float],
    options: list[int], wants_pose: bool,
) -> Six:  # fmt: skip
    *by_gaussians, pose = reference.project_backward(gradient, tensors, camera, options)
    means, rotations, scales, opacities, harmonics = by_gaussians
    pose = pose if wants_pose else pose.new_empty(0)
    return means, rotations, scales, opacities, harmonics, pose


def project_backward_cpu(
    gradient: Tensor, splats: Tensor, tensors: list[Tensor], camera: list[float],
    options: list[int], wants_pose: bool,
) -> Six:  # fmt: skip
    inputs, gradient = contiguous(*tensors), gradient.contiguous()
    out = empty_gradients(inputs, wants_pose)
    cpu_library().lg_splat_project_backward(
        *map(pointer, inputs),
        camera_bytes(camera),
        cpu_options(options, inputs[4]),
        ctypes.c_int64(len(gradient)),
        pointer(splats),
        pointer(gradient),
        *map(pointer, out[:5]),
        pointer(out[5]) if wants_pose else None,
    )
    return out


def project_backward_cuda(
    gradient: Tensor, splats: Tensor, tensors: list[Tensor], camera: list[float],
    options: list[int], wants_pose: bool, screen: Tensor | None = None, screen_kind: int = 0,
    moments: bool = False,
) -> Six:  # fmt: skip
    """With `moments` the gradient by splats comes as blending adds it up, and `screen` (G, 2)
    receives that by screen positions if `screen_kind` says which."""
    inputs, (gradient,) = aligned(*tensors), aligned(gradient)
    out = empty_gradients(inputs, wants_pose)
    count = len(gradient)
    constants = {"LG_POSE": int(wants_pose), "LG_MOMENTS": int(moments)}
    _kernel("splat_project_backward", options, inputs[4], **constants)(
        (-(-count // BLOCK),), (BLOCK,), *inputs, camera_bytes(camera), options[2], count,
        splats, gradient, *out[:5], out[5] if wants_pose else gradient,
        gradient if screen is None else screen, 0 if screen is None else screen_kind,
    )  # fmt: skip
    return out


def _backward_cuda(
    gradient: Tensor, splats: Tensor, tensors: list[Tensor], camera: list[float],
    options: list[int], wants_pose: bool,
) -> Six:  # fmt: skip
    return project_backward_cuda(gradient, splats, tensors, camera, options, wants_pose)


def _backward_fake(
    gradient: Tensor, splats: Tensor, tensors: list[Tensor], camera: list[float],
    options: list[int], wants_pose: bool,
) -> Six:  # fmt: skip
    return empty_gradients(tensors, wants_pose)


_project = operation(
    "splat_project(Tensor means, Tensor rotations, Tensor scales, Tensor opacities, "
    "Tensor harmonics, Tensor world_to_camera, float[] camera, int[] options) "
    "-> (Tensor, Tensor)",
    reference=reference.project,
    cpu=project_cpu,
    cuda=project_cuda,
    fake=_project_fake,
)
_project_backward = operation(
    "splat_project_backward(Tensor gradient, Tensor splats, Tensor[] tensors, float[] camera, "
    "int[] options, bool wants_pose) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=project_backward_reference,
    cpu=project_backward_cpu,
    cuda=_backward_cuda,
    fake=_backward_fake,
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.camera, ctx.options = inputs
    ctx.save_for_backward(*tensors, output[0])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, splats = ctx.saved_tensors
    wants_pose = bool(ctx.needs_input_grad[5])
    found = _project_backward(gradient, splats, tensors, ctx.camera, ctx.options, wants_pose)
    return (*found[:5], found[5] if wants_pose else None, None, None)


torch.library.register_autograd(
    "lumigraph::splat_project", _backward, setup_context=_save, lib=library
)
