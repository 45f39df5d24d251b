"""Gaussians in space and time made ready for pictures alone: `prepare_gaussians4d`,
`render_prepared4d`.

Velocity, shape and rate of fading do not depend on the time: they are computed once, and a frame
costs a multiply-add, an exponential and the projection for each Gaussian. Rows are in an order by
activity: first those seen at most times, then the others by the beginning of their lives. Time is
cut into segments, each with the list of those of the others that are not faded all through it, so
that a frame touches what is there alone. Gaussians that stand still are rows that never fade.
Harmonics are kept in half precision for a GPU.

Letters: G rows, A rows of a segment, K harmonics, P numbers of a row of harmonics.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.core.shapes import check_shapes
from lumigraph.cuda.build import cpu_library
from lumigraph.cuda.dispatch import backend_for, operation, pointer
from lumigraph.cuda.reference import gaussian_slicing as reference
from lumigraph.cuda.reference.gaussian_slicing import SHORTEST
from lumigraph.cuda.runtime import kernel

from .camera import SplatCamera
from .pipeline import SplatImages, SplatOptions
from .pipeline4d import Five, draw
from .projection import (
    BLOCK,
    SPLAT_ROW,
    aligned,
    bands_in_use,
    camera_bytes,
    check_gaussians,
    contiguous,
)
from .projection4d import check_gaussians4d, checked_moment

__all__ = ["PreparedGaussians4D", "prepare_gaussians4d", "render_prepared4d"]

PLANES = 5  # of four numbers a row, see reference.prepared_planes
SEGMENTS = 64  # of [0, 1]
ALWAYS_SHARE = 0.5  # of the segments: rows that are there in more of them are in no list
PADDING = 8  # numbers: rows of harmonics are whole 16-byte words in half precision
LARGEST_HALF = 65504.0
MARGIN = 1e-3  # relative, on lives: rounding must not make them shorter


@dataclass(frozen=True, eq=False)
class PreparedGaussians4D:
    """What `prepare_gaussians4d` makes; for pictures, without gradients."""

    planes: Tensor
    """(5, G, 4): see `reference.prepared_planes`."""
    harmonics: Tensor
    """(G, P): of the bands in use, half precision on a GPU; P is 3 K, rounded up to 8."""
    always: int
    """The first rows, which take part in every frame."""
    lists: Tensor
    """(L,) int32, segment after segment: further rows that take part."""
    starts: tuple[int, ...]
    """Where each segment's list begins, and L."""
    degree: int
    """Of the harmonics in use."""

    def __len__(self) -> int:
        return self.planes.shape[1]

    @property
    def device(self) -> torch.device:
        return self.planes.device

    def segment(self, time: float) -> Tensor:
        """(A - always,) int32: rows that take part at a time beside those that always do."""
        place = min(max(int(math.floor(time * SEGMENTS)), 0), SEGMENTS - 1)
        return self.lists[self.starts[place] : self.starts[place + 1]]

    def rows(self, time: float) -> Tensor:
        """(A,) int64: all rows that take part at a time, in the order of a picture's splats."""
        first = torch.arange(self.always, device=self.device)
        return torch.cat([first, self.segment(time).long()])

    def sliced(self, time: float) -> reference.SlicedGaussians:
        """Those rows as they are at a time."""
        return reference.prepared_slice(self.planes[:, self.rows(time)], time)


@torch.no_grad()
def prepare_gaussians4d(
    means: Tensor,
    times: Tensor,
    rotors: Tensor,
    log_scales: Tensor,
    opacity_logits: Tensor,
    harmonics: Tensor,
    *,
    log_plateaus: Tensor | None = None,
    shortest: float = SHORTEST,
    still: Five | None = None,
    degree: int | None = None,
) -> PreparedGaussians4D:
    """Do once what does not depend on the time.

    Args:
        means, times, rotors, log_scales, opacity_logits, harmonics, log_plateaus, shortest, still:
            as in `render_gaussians4d`, float32.
        degree: of the harmonics in use; None takes all that are stored.

    Returns:
        Copies; changes of the tensors do not reach them. Gaussians that are never seen, or not
        finite, are left out.

    Raises:
        InputError: tensors that do not fit each other.
    """
    nowhere = torch.eye(4, device=means.device)[:3]
    camera = SplatCamera(nowhere, (1.0, 1.0, 0.0, 0.0), 1, 1)
    check_gaussians4d(
        means, times, rotors, log_scales, opacity_logits, harmonics, log_plateaus, camera
    )
    if means.dtype != torch.float32:
        raise InputError("prepared Gaussians are float32; got float64")
    checked_moment(0.0, shortest)
    stored = bands_in_use(harmonics, None) - 1
    if still is not None:
        check_gaussians(*still, camera)
        stored = max(stored, bands_in_use(still[4], None) - 1)
    chosen = stored if degree is None else degree
    if not 0 <= chosen <= stored:
        raise InputError(f"degree must be 0 to {stored}, the stored one; got {degree}")
    planes = reference.prepared_planes(
        means, times, rotors, log_scales, opacity_logits, log_plateaus, shortest
    )
    colors = _padded(harmonics, chosen)
    if still is not None:
        planes = torch.cat([planes, reference.still_planes(*still[:4])], dim=1)
        colors = torch.cat([colors, _padded(still[4], chosen)])
    return _listed(planes, colors, chosen)


def _padded(harmonics: Tensor, degree: int) -> Tensor:
    """(G, P) the first bands, zeros for what is not stored."""
    count = 3 * (degree + 1) ** 2
    used = harmonics.flatten(1)[:, :count]
    width = -(-count // PADDING) * PADDING
    return torch.nn.functional.pad(used, (0, width - used.shape[1]))


def _listed(planes: Tensor, colors: Tensor, degree: int) -> PreparedGaussians4D:
    """Rows in their order, and the lists."""
    time, plateau, duration, peak = planes[0].unbind(1)
    finite = planes.isfinite()
    finite[0, :, 1:3] |= planes[0, :, 1:3] == torch.inf  # lives may be endless
    seen = finite.all(2).all(0) & (255 * peak > 1) & colors.isfinite().all(1)
    reach = plateau + duration * (2 * (255 * peak).log().clamp_min(0)).sqrt()
    reach = reach * (1 + MARGIN) + MARGIN / SEGMENTS
    begin, end = (
        ((time + sign * reach) * SEGMENTS).nan_to_num(0, 1e9, -1e9).floor().clamp(0, SEGMENTS - 1)
        for sign in (-1, 1)
    )
    always = end - begin + 1 > ALWAYS_SHARE * SEGMENTS
    # those that are always there, the others by their beginning, the invisible ones at the end
    keys = torch.where(always, -1.0, begin).masked_fill(~seen, SEGMENTS)
    order = torch.sort(keys, stable=True)[1][: int(seen.sum())]
    planes, colors = planes[:, order].contiguous(), colors[order]
    begin, end, always = begin[order].long(), end[order].long(), always[order]
    first = int(always.sum())
    rows = torch.arange(first, len(order), device=planes.device)
    counts = (end - begin + 1)[first:]
    entries = rows.repeat_interleave(counts)
    ends = counts.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    place = torch.arange(total, device=planes.device)
    place = place - (ends - counts).repeat_interleave(counts) + begin[entries]
    by_segment = torch.sort(place, stable=True)[1]
    sizes = torch.bincount(place, minlength=SEGMENTS)
    starts = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    if backend_for(planes.device) in ("cuda", "emu"):
        colors = colors.clamp(-LARGEST_HALF, LARGEST_HALF).half()
    lists = entries[by_segment].to(torch.int32)
    return PreparedGaussians4D(
        planes, colors.contiguous(), first, lists, tuple(starts.tolist()), degree
    )


def render_prepared4d(
    prepared: PreparedGaussians4D,
    time: float,
    camera: SplatCamera,
    options: SplatOptions | None = None,
    *,
    background: Tensor | None = None,
    extras: Tensor | None = None,
) -> SplatImages:
    """The picture of `render_gaussians4d`, without gradients.

    Colors differ by less than 1e-3 on a GPU, where harmonics are in half precision.

    Args:
        time: any finite number.
        options: `degree` as far as it was prepared; `raw` and `absolute` play no part.
        extras: (A, E) of `prepared.rows(time)`.

    Returns:
        `splats` is (A, 12).
    """
    options = options or SplatOptions()
    checked_moment(time, SHORTEST)
    degree = prepared.degree
    if options.degree is not None:
        degree = min(degree, options.degree)
    listed = prepared.segment(time)
    rows = prepared.always + len(listed)
    check_shapes(
        ("prepared.planes", prepared.planes, "5 G 4"),
        ("camera.world_to_camera", camera.world_to_camera, "3 4"),
        ("background", background, "3"),
        ("extras", extras, f"{rows} E"),
        dtype=torch.float32,
    )
    with torch.no_grad():
        splats, depths = _project(
            prepared.planes, prepared.harmonics, listed, prepared.always, camera.world_to_camera,
            camera.numbers(), time, [int(camera.model), int(options.antialiased), degree + 1],
        )  # fmt: skip
        return draw(splats, depths, camera, options, background, extras, None)


def _outputs(planes: Tensor, listed: Tensor, always: int) -> tuple[Tensor, Tensor]:
    count = always + len(listed)
    return planes.new_empty(count, SPLAT_ROW), planes.new_empty(count)


def _project_cpu(
    planes: Tensor, harmonics: Tensor, listed: Tensor, always: int, world_to_camera: Tensor,
    camera: list[float], time: float, options: list[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    (pose,), harmonics = contiguous(world_to_camera), harmonics.float()
    splats, depths = _outputs(planes, listed, always)
    cpu_library().lg_splat_prepared(
        *(pointer(planes), pointer(harmonics), pointer(listed, torch.int32), pointer(pose)),
        camera_bytes(camera),
        (ctypes.c_int32 * 4)(*options, harmonics.shape[1]),
        ctypes.c_float(time),
        *(ctypes.c_int64(always), ctypes.c_int64(len(depths)), ctypes.c_int64(planes.shape[1])),
        *(pointer(splats), pointer(depths)),
    )
    return splats, depths


def _project_cuda(
    planes: Tensor, harmonics: Tensor, listed: Tensor, always: int, world_to_camera: Tensor,
    camera: list[float], time: float, options: list[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    (planes, harmonics), (pose,) = aligned(planes, harmonics.half()), contiguous(world_to_camera)
    splats, depths = _outputs(planes, listed, always)
    model, antialiased, bands = options
    constants = {"LG_MODEL": model, "LG_BANDS": bands, "LG_WIDTH": harmonics.shape[1]}
    kernel("splat_prepared.cu", "splat_prepared", **constants)(
        (-(-len(depths) // BLOCK),), (BLOCK,), planes, harmonics, listed, pose,
        camera_bytes(camera), time, antialiased, always, len(depths), planes.shape[1], splats,
        depths,
    )  # fmt: skip
    return splats, depths


def _project_fake(
    planes: Tensor, harmonics: Tensor, listed: Tensor, always: int, world_to_camera: Tensor,
    camera: list[float], time: float, options: list[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _outputs(planes, listed, always)


_project = operation(
    "splat_prepared(Tensor planes, Tensor harmonics, Tensor listed, int always, "
    "Tensor world_to_camera, float[] camera, float time, int[] options) -> (Tensor, Tensor)",
    reference=reference.project_prepared,
    cpu=_project_cpu,
    cuda=_project_cuda,
    fake=_project_fake,
)
