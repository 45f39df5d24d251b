"""Upkeep of an occupancy grid: draw cells, raise and decay their values, pack them for marching,
and find the cells that some camera sees.

Letters: K cascades of G^3 cells, M samples, C cameras. `values` (K * G^3,) float32 has cell
(x, y, z) of cascade k at ((k G + z) G + y) G + x; see `reference/occupancy.py` for what a value
means and how it changes. Nothing here is differentiable.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.core.shapes import check_shapes
from lumigraph.cuda.build import cpu_library
from lumigraph.cuda.dispatch import operation, pointer
from lumigraph.cuda.reference import occupancy as reference
from lumigraph.cuda.runtime import kernel

__all__ = [
    "occupancy_threshold",
    "pack_cells",
    "pinhole_projection",
    "sample_cells",
    "update_cells",
    "visible_cells",
]

BLOCK = 256  # threads
VERTICES_AT_ONCE = 2**18

Projection = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""Points (P, 3) in grid space and the number of a camera to pixels (P, 2) and depth (P,)."""


def sample_cells(
    bits: Tensor, *, resolution: int, cascades: int, uniform: int, occupied: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Draw cells to look at, and a random place in each.

    Args:
        bits: (K * G^3 / 8,) uint8, which cells are occupied now.
        uniform: cells drawn from all, evenly; K * G^3 gives every cell once.
        occupied: cells drawn from the occupied ones, at random.
        seed: the same seed gives the same draw on every device.

    Returns:
        Cells (M,) int32 and positions (M, 3) in grid space, the uniform ones first.

    Example:
        >>> bits = torch.zeros(64, dtype=torch.uint8)
        >>> bits[3] = 1
        >>> options = dict(resolution=8, cascades=1, uniform=0, seed=1)
        >>> sample_cells(bits, occupied=2, **options)[0].tolist()
        [24, 24]
    """
    check_shapes(("bits", bits, str(cascades * resolution**3 // 8)), dtype=torch.uint8)
    if uniform < 0 or occupied < 0 or uniform + occupied >= 2**31:
        raise InputError(f"uniform and occupied must be counts; got {uniform} and {occupied}")
    seed = (seed ^ seed >> 32) & 0x7FFFFFFF
    cells, positions = _sample(bits, resolution, cascades, uniform, occupied, seed)
    return cells, positions


def update_cells(
    values: Tensor,
    cells: Tensor,
    densities: Tensor,
    *,
    decay: float,
    scale: float,
    decay_all: bool = True,
) -> None:
    """Decay values, then raise those of the cells looked at; in place.

    Args:
        values: (K * G^3,) float32; negative ones stay.
        cells: (M,) int32, with repetitions.
        densities: (M,) float32 found there, per grid unit; NaN is passed over.
        decay: factor on the values before.
        scale: length that turns a density into a value, usually the minimum step.
        decay_all: of all cells; False: only of the cells looked at, each once. Where a round looks
            at a small part of the grid, the others would otherwise fade before their turn.
    """
    check_shapes(("cells", cells, "M"), ("densities", densities, "M"))
    check_shapes(("values", values, "_"), ("cells", cells, "_"))
    if not values.is_contiguous() or values.dtype != torch.float32:
        raise InputError("values must be a contiguous float32 tensor, it is changed in place")
    _update(values, cells.int(), densities.detach().float(), decay, scale, decay_all)


def occupancy_threshold(
    values: Tensor, *, resolution: int, most: float = 0.01, part_of_mean: float = 0.9
) -> Tensor:
    """Value above which a cell counts as occupied: () tensor, made without a host sync.

    Args:
        values: (K * G^3,).
        most: upper bound; 0.01 is 1 % opacity in one step.
        part_of_mean: of the mean over cascade 0, negative values counted as 0. Below 1, so that
            cells that are all alike, as at the start of training, all stay occupied.
    """
    mean = values[: resolution**3].clamp(min=0).mean()
    return (mean * part_of_mean).clamp(max=most)


def pack_cells(
    values: Tensor, threshold: Tensor | float, *, resolution: int, cascades: int
) -> tuple[Tensor, Tensor]:
    """`bits` and `coarse` of a `MarchGrid`: the cells with a value above the threshold, and in
    coarser cascades also those that hold an occupied cell of the next finer one.

    Args:
        values: (K * G^3,) float32.
        threshold: number, or () tensor on the same device.

    Returns:
        bits (K * G^3 / 8,) and coarse (K * (G / 8)^3,), uint8.

    Example:
        >>> values = torch.zeros(512)
        >>> values[9] = 1
        >>> bits, coarse = pack_cells(values, 0.5, resolution=8, cascades=1)
        >>> bits[:3].tolist(), coarse.tolist()
        ([0, 2, 0], [1])
    """
    if resolution % 8 or (cascades > 1 and resolution % 32):
        raise InputError(f"resolution must be a multiple of 8, with cascades of 32: {resolution}")
    check_shapes(("values", values, str(cascades * resolution**3)), dtype=torch.float32)
    if not isinstance(threshold, Tensor):
        threshold = values.new_tensor(threshold)
    bits, coarse = _pack(values, threshold, resolution, cascades)
    return bits, coarse


# ---- which cells cameras see: once at the start of training, so plain torch


def pinhole_projection(camera_to_world: Tensor, intrinsics: Tensor) -> Projection:
    """Projection of pinhole cameras, for `visible_cells`.

    Args:
        camera_to_world: (C, 4, 4), positions in grid space, rotations without scale.
        intrinsics: (C, 4) fx, fy, cx, cy in pixels.
    """
    check_shapes(("camera_to_world", camera_to_world, "C 4 4"), ("intrinsics", intrinsics, "C 4"))

    def project(points: Tensor, camera: int) -> tuple[Tensor, Tensor]:
        pose = camera_to_world[camera]
        local = (points - pose[:3, 3]) @ pose[:3, :3]
        depth = local[:, 2]
        pixels = local[:, :2] / depth[:, None] * intrinsics[camera, :2] + intrinsics[camera, 2:]
        return pixels, depth

    return project


@torch.no_grad()
def visible_cells(
    project: Projection,
    sizes: Tensor,
    *,
    resolution: int,
    cascades: int,
    margin: float = 0.0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Cells that at least one camera sees: with a corner in front of it and inside its image.

    Args:
        project: from grid space to pixels; `pinhole_projection`, or a function for a lens.
        sizes: (C, 2) width and height in pixels.
        margin: pixels by which images are taken to be larger.

    Returns:
        (K * G^3,) bool. Give the others a negative value and they stay empty.
    """
    check_shapes(("sizes", sizes, "C 2"))
    limits = [(int(width) + margin, int(height) + margin) for width, height in sizes.tolist()]
    masks = []
    for cascade in range(cascades):
        seen = _visible_vertices(project, limits, resolution, cascade, margin, device)
        side = [slice(0, -1), slice(1, None)]
        corners = [seen[z, y, x] for z in side for y in side for x in side]
        masks.append(torch.stack(corners).any(0).flatten())
    return torch.cat(masks)


def _visible_vertices(
    project: Projection,
    limits: list[tuple[float, float]],
    resolution: int,
    cascade: int,
    margin: float,
    device: torch.device | str,
) -> Tensor:
    """(G + 1, G + 1, G + 1) bool for the corners of one cascade's cells, [z, y, x]."""
    count = resolution + 1
    seen = torch.zeros(count**3, dtype=torch.bool, device=device)
    for begin in range(0, count**3, VERTICES_AT_ONCE):
        left = torch.arange(begin, min(begin + VERTICES_AT_ONCE, count**3), device=device)
        for camera, (width, height) in enumerate(limits):
            at = torch.stack([left % count, left // count % count, left // count**2], 1)
            points = (at.float() / resolution - 0.5) * 2**cascade + 0.5
            pixels, depth = project(points, camera)
            x, y = pixels.unbind(1)
            hit = (depth > 0) & (x >= -margin) & (x <= width) & (y >= -margin) & (y <= height)
            seen[left[hit]] = True
            left = left[~hit]  # no further camera needs to see it
            if not len(left):
                break
    return seen.reshape(count, count, count)


# ---- backends


def _sample_outputs(bits: Tensor, uniform: int, occupied: int) -> tuple[Tensor, Tensor]:
    samples = uniform + occupied
    cells = bits.new_empty(samples, dtype=torch.int32)
    return cells, bits.new_empty(samples, 3, dtype=torch.float32)


def _sample_cpu(
    bits: Tensor, resolution: int, cascades: int, uniform: int, occupied: int, seed: int
) -> tuple[Tensor, Tensor]:
    bits = bits.contiguous()
    cells, positions = _sample_outputs(bits, uniform, occupied)
    cpu_library().lg_occupancy_sample(
        pointer(bits, torch.uint8),
        (ctypes.c_int64 * 5)(uniform, occupied, resolution, cascades, seed),
        pointer(cells, torch.int32),
        pointer(positions),
    )
    return cells, positions


def _sample_cuda(
    bits: Tensor, resolution: int, cascades: int, uniform: int, occupied: int, seed: int
) -> tuple[Tensor, Tensor]:
    bits = bits.contiguous()
    cells, positions = _sample_outputs(bits, uniform, occupied)
    sums = cells
    if occupied:
        counts = bits.new_empty(len(bits), dtype=torch.int32)
        _launch("occupancy_count", len(bits), bits, counts, len(bits))
        sums = torch.cumsum(counts, 0, dtype=torch.int32)
    cell_count = cascades * resolution**3
    _launch(
        *("occupancy_sample", len(cells), bits, sums, cells, positions),
        *(uniform, len(cells), resolution, cell_count, seed),
    )
    return cells, positions


def _launch(name: str, elements: int, *arguments: Tensor | int | float) -> None:
    kernel("occupancy.cu", name)((-(-elements // BLOCK),), (BLOCK,), *arguments)


def _sample_fake(
    bits: Tensor, resolution: int, cascades: int, uniform: int, occupied: int, seed: int
) -> tuple[Tensor, Tensor]:
    return _sample_outputs(bits, uniform, occupied)


def _update_cpu(
    values: Tensor, cells: Tensor, densities: Tensor, decay: float, scale: float, decay_all: bool
) -> None:
    cells, densities = cells.contiguous(), densities.contiguous()
    cpu_library().lg_occupancy_update(
        pointer(values),
        pointer(cells, torch.int32),
        pointer(densities),
        ctypes.c_int64(len(values)),
        ctypes.c_int64(len(cells)),
        ctypes.c_float(decay),
        ctypes.c_float(scale),
        int(decay_all),
    )


def _update_cuda(
    values: Tensor, cells: Tensor, densities: Tensor, decay: float, scale: float, decay_all: bool
) -> None:
    cells, densities = cells.contiguous(), densities.contiguous()
    sizes = (len(cells), len(values))
    if decay_all:
        _launch("occupancy_decay", len(values), values, len(values), float(decay))
    else:
        before = values.clone()
        drawn = (values, before, cells, *sizes, float(decay))
        _launch("occupancy_decay_drawn", len(cells), *drawn)
    _launch("occupancy_raise", len(cells), values, cells, densities, *sizes, float(scale))


def _update_fake(
    values: Tensor, cells: Tensor, densities: Tensor, decay: float, scale: float, decay_all: bool
) -> None:
    return None


def _pack_outputs(values: Tensor) -> tuple[Tensor, Tensor]:
    empty = values.new_empty
    bits = empty(len(values) // 8, dtype=torch.uint8)
    return bits, empty(len(values) // 512, dtype=torch.uint8)


def _pack_cpu(
    values: Tensor, threshold: Tensor, resolution: int, cascades: int
) -> tuple[Tensor, Tensor]:
    values = values.contiguous()
    bits, coarse = _pack_outputs(values)
    cpu_library().lg_occupancy_pack(
        pointer(values),
        ctypes.c_float(float(threshold)),
        resolution,
        cascades,
        pointer(bits, torch.uint8),
        pointer(coarse, torch.uint8),
    )
    return bits, coarse


def _pack_cuda(
    values: Tensor, threshold: Tensor, resolution: int, cascades: int
) -> tuple[Tensor, Tensor]:
    values, threshold = values.contiguous(), threshold.float()
    bits, coarse = _pack_outputs(values)
    for cascade in range(cascades):
        elements = resolution**3 // 8
        _launch("occupancy_pack", elements, values, threshold, bits, resolution, cascade)
    _launch("occupancy_blocks", len(coarse), bits, coarse, resolution, len(coarse))
    return bits, coarse


def _pack_fake(
    values: Tensor, threshold: Tensor, resolution: int, cascades: int
) -> tuple[Tensor, Tensor]:
    return _pack_outputs(values)


_sample = operation(
    "occupancy_sample(Tensor bits, int resolution, int cascades, int uniform, int occupied, "
    "int seed) -> (Tensor, Tensor)",
    reference=reference.sample_cells,
    cpu=_sample_cpu,
    cuda=_sample_cuda,
    fake=_sample_fake,
)
_update = operation(
    "occupancy_update(Tensor(a!) values, Tensor cells, Tensor densities, float decay, "
    "float scale, bool decay_all) -> ()",
    reference=reference.update_cells,
    cpu=_update_cpu,
    cuda=_update_cuda,
    fake=_update_fake,
)
_pack = operation(
    "occupancy_pack(Tensor values, Tensor threshold, int resolution, int cascades) "
    "-> (Tensor, Tensor)",
    reference=reference.pack_cells,
    cpu=_pack_cpu,
    cuda=_pack_cuda,
    fake=_pack_fake,
)
