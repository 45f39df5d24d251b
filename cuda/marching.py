"""Marching rays through an occupancy grid: rays to packed samples in occupied space.

Letters: N rays, M samples, K cascades of G^3 cells. Positions, distances and steps are in grid
space, where the region of interest is the unit cube and cascade k covers the cube of side 2^k
centred at 0.5. Cell (x, y, z) of cascade k is bit `index & 7` of byte `index >> 3` of `bits`, with
index = ((k G + z) G + y) G + x. The lattice that samples lie on is in `reference/marching.py`.

On a GPU two kernels and a running sum do the work without a host sync; `march_rays` adds one to
cut the result to its length, `march_rays_padded` does not.
"""

from __future__ import annotations

import ctypes
import math
import struct
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.core.shapes import check_shapes
from lumigraph.cuda.build import cpu_library
from lumigraph.cuda.dispatch import operation, pointer
from lumigraph.cuda.reference import marching as reference
from lumigraph.cuda.runtime import kernel

__all__ = ["MarchGrid", "MarchedSamples", "march_rays", "march_rays_padded"]

BLOCK = 128  # threads
RUNS, LANES = 8, 8  # LG_RUNS and LG_LANES of kernels/marching.cu
HAS_JITTER, HAS_NEAR, HAS_FAR = 1, 2, 4  # the same
LARGEST_CASCADES = 8
SMALLEST_STEP = 1e-5  # below it float32 cannot tell neighbouring samples apart
FARTHEST = 1e6  # FARTHEST_START of common/march.h
INT32_MAX = 2**31 - 1


@dataclass(frozen=True, eq=False)
class MarchGrid:
    """Occupied cells, and how long steps through them are.

    >>> MarchGrid.with_steps(*full_grid(32, 2), resolution=32, cascades=2).cone
    0.00390625
    """

    bits: Tensor
    """(K * G^3 / 8,) uint8, one bit a cell."""
    coarse: Tensor
    """(K * (G / 8)^3,) uint8, 0 where a block of 8^3 cells is empty."""
    resolution: int
    """G: a multiple of 8, with several cascades of 32."""
    cascades: int
    """K."""
    minimum_step: float
    """Grid units; the only step length when cone is 0."""
    maximum_step: float
    """Grid units."""
    cone: float
    """Growth of the step with distance; 0 for constant steps."""

    def __post_init__(self) -> None:
        resolution, cascades = self.resolution, self.cascades
        if not 1 <= cascades <= LARGEST_CASCADES:
            raise InputError(f"cascades must be 1 to {LARGEST_CASCADES}; got {cascades}")
        factor = 8 if cascades == 1 else 32
        if resolution < factor or resolution % factor or cascades * resolution**3 > INT32_MAX:
            raise InputError(
                f"resolution must be a multiple of {factor} for {cascades} cascades, "
                f"with at most 2^31 cells in all; got {resolution}"
            )
        if not SMALLEST_STEP <= self.minimum_step <= self.maximum_step < math.inf:
            raise InputError(
                f"steps must satisfy {SMALLEST_STEP} <= minimum_step <= maximum_step; "
                f"got {self.minimum_step} and {self.maximum_step}"
            )
        if not 0 <= self.cone < 1:
            raise InputError(f"cone must be in [0, 1); got {self.cone}")
        check_shapes(
            ("bits", self.bits, str(cascades * resolution**3 // 8)),
            ("coarse", self.coarse, str(cascades * (resolution // 8) ** 3)),
            dtype=torch.uint8,
        )

    @classmethod
    def with_steps(
        cls, bits: Tensor, coarse: Tensor, *, resolution: int, cascades: int, steps: int = 1024
    ) -> MarchGrid:
        """The usual lengths: `steps` of them along the diagonal of the unit cube; with several
        cascades growing by 1/256 of the distance, up to a cell of the outermost cascade times
        sqrt(3)."""
        minimum = math.sqrt(3) / steps
        maximum = max(minimum, math.sqrt(3) * 2 ** (cascades - 1) / resolution)
        cone = 0.0 if cascades == 1 else 1 / 256
        return cls(bits, coarse, resolution, cascades, minimum, maximum, cone)


class MarchedSamples(NamedTuple):
    """Packed samples of N rays; fields as `core.Samples`, in grid space."""

    positions: Tensor
    """(M, 3)."""
    distances: Tensor
    """(M,) along the ray."""
    steps: Tensor
    """(M,) length that the sample stands for."""
    ray_indices: Tensor
    """(M,) int32, not falling; -1 for padding."""
    ray_offsets: Tensor
    """(N, 2) int32: first sample and number of samples."""
    counter: Tensor
    """(3,) int32: samples kept; samples wanted; rays up to the first that did not fit."""


def march_rays(
    origins: Tensor,
    directions: Tensor,
    grid: MarchGrid,
    *,
    jitter: Tensor | None = None,
    near: Tensor | float | None = None,
    far: Tensor | float | None = None,
    max_samples: int,
    max_samples_per_ray: int = 1024,
) -> MarchedSamples:
    """Samples of rays in occupied cells.

    Args:
        origins, directions: (N, 3) in grid space; directions of unit length. A ray that is not
            finite, or misses the outermost cascade, has no samples.
        grid: what is occupied, and the step lengths.
        jitter: (N,) in [0, 1), where in its first step a ray starts; 0.5 when None.
        near, far: distances between which samples lie, for all rays or (N,).
        max_samples: room in the result. The first ray that does not fit and all behind it have no
            samples; `counter` tells how many rays had room, and how many samples all rays want.
        max_samples_per_ray: a ray ends there.

    Returns:
        Samples in the order of the rays, near to far. Nothing is differentiable: a pose is refined
        through positions computed from `distances`.

    Raises:
        InputError: wrong shapes, or sizes that could pass 2^31 samples.

    Example:
        >>> grid = MarchGrid.with_steps(*full_grid(8, 1), resolution=8, cascades=1, steps=16)
        >>> origins, directions = torch.tensor([[0.5, 0.5, -2]]), torch.tensor([[0.0, 0, 1]])
        >>> march_rays(origins, directions, grid, max_samples=64).ray_offsets
        tensor([[0, 9]], dtype=torch.int32)
    """
    sizes = (max_samples, max_samples_per_ray)
    result = _march(origins, directions, grid, jitter, (near, far), sizes, pad=False)
    kept = int(result.counter[0])
    return result._replace(
        positions=result.positions[:kept],
        distances=result.distances[:kept],
        steps=result.steps[:kept],
        ray_indices=result.ray_indices[:kept],
    )


def march_rays_padded(
    origins: Tensor,
    directions: Tensor,
    grid: MarchGrid,
    *,
    jitter: Tensor | None = None,
    near: Tensor | float | None = None,
    far: Tensor | float | None = None,
    max_samples: int,
    max_samples_per_ray: int = 1024,
) -> MarchedSamples:
    """`march_rays` without a host sync: M is `max_samples`, so it may stand in a CUDA graph.

    Samples from `counter[0]` on are padding: ray -1, step 0, distance 0, position 0.5. They
    belong to no ray in `ray_offsets`, so compositing leaves them out.
    """
    sizes = (max_samples, max_samples_per_ray)
    return _march(origins, directions, grid, jitter, (near, far), sizes, pad=True)


def full_grid(resolution: int, cascades: int) -> tuple[Tensor, Tensor]:
    """`bits` and `coarse` of a grid whose cells are all occupied."""
    bits = torch.full((cascades * resolution**3 // 8,), 255, dtype=torch.uint8)
    return bits, torch.ones(cascades * (resolution // 8) ** 3, dtype=torch.uint8)


def _march(
    origins: Tensor,
    directions: Tensor,
    grid: MarchGrid,
    jitter: Tensor | None,
    extent: tuple[Tensor | float | None, Tensor | float | None],
    sizes: tuple[int, int],
    *,
    pad: bool,
) -> MarchedSamples:
    bounds = [t if isinstance(t, Tensor) else None for t in extent]
    check_shapes(
        ("origins", origins, "N 3"),
        ("directions", directions, "N 3"),
        ("jitter", jitter, "N"),
        ("near", bounds[0], "N"),
        ("far", bounds[1], "N"),
        ("grid.bits", grid.bits, "_"),
    )
    rays, (most, most_per_ray) = len(origins), sizes
    if most < 0 or most_per_ray < 1 or max(most, rays * most_per_ray) > INT32_MAX:
        raise InputError(
            f"max_samples={most} and max_samples_per_ray={most_per_ray} must be positive and, with "
            f"{rays} rays, stay below 2^31 samples; march fewer rays at once"
        )
    near, far = (t if isinstance(t, int | float) else None for t in extent)
    return MarchedSamples(
        *_march_rays(
            *(origins.detach(), directions.detach(), grid.bits, grid.coarse),
            *(t if t is None else t.detach() for t in (jitter, *bounds)),
            [grid.resolution, grid.cascades, most, most_per_ray, int(pad)],
            [
                grid.minimum_step,
                grid.maximum_step,
                grid.cone,
                0.0 if near is None else float(near),
                FARTHEST if far is None else float(far),
            ],
        )
    )


# ---- backends. sizes: G, K, most samples, most of one ray, pad; lengths: minimum and maximum
# step, cone, near, far (those of all rays where there is no tensor).

Six = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _march_reference(
    origins: Tensor,
    directions: Tensor,
    bits: Tensor,
    coarse: Tensor,
    jitter: Tensor | None,
    near: Tensor | None,
    far: Tensor | None,
    sizes: list[int],
    lengths: list[float],
) -> Six:
    each = origins.new_full
    rays = len(origins)
    result = reference.march_rays(
        origins,
        directions,
        bits,
        jitter=each((rays,), 0.5) if jitter is None else jitter,
        near=each((rays,), lengths[3]) if near is None else near,
        far=each((rays,), lengths[4]) if far is None else far,
        sizes=(sizes[0], sizes[1], sizes[2], sizes[3]),
        lattice=reference.Lattice(*lengths[:3]),
    )
    if not sizes[4]:
        return result
    padded = _padding(origins, sizes[2])
    for target, source in zip(padded, result[:4], strict=True):
        target[: len(source)] = source
    return *padded, result[4], result[5]


def _padding(like: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Positions, distances, steps and rays of samples that count for nothing."""
    return (
        like.new_full((count, 3), 0.5),
        like.new_zeros(count),
        like.new_zeros(count),
        like.new_full((count,), -1, dtype=torch.int32),
    )


def _outputs(origins: Tensor, most: int) -> Six:
    rays = len(origins)
    return (
        origins.new_empty(most, 3, dtype=torch.float32),
        origins.new_empty(most, dtype=torch.float32),
        origins.new_empty(most, dtype=torch.float32),
        origins.new_empty(most, dtype=torch.int32),
        origins.new_empty(rays, 2, dtype=torch.int32),
        origins.new_empty(3, dtype=torch.int32),
    )


def _plain(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.float().contiguous()


def _march_cpu(
    origins: Tensor,
    directions: Tensor,
    bits: Tensor,
    coarse: Tensor,
    jitter: Tensor | None,
    near: Tensor | None,
    far: Tensor | None,
    sizes: list[int],
    lengths: list[float],
) -> Six:
    rays, most = len(origins), sizes[2]
    near = near if near is not None else origins.new_full((rays,), lengths[3])
    far = far if far is not None else origins.new_full((rays,), lengths[4])
    inputs = [_plain(tensor) for tensor in (origins, directions, jitter, near, far)]
    bits, coarse = bits.contiguous(), coarse.contiguous()
    out = _outputs(origins, most)
    cpu_library().lg_march_rays(
        *(None if tensor is None else pointer(tensor) for tensor in inputs),
        pointer(bits, torch.uint8),
        pointer(coarse, torch.uint8),
        (ctypes.c_int64 * 5)(rays, *sizes[:4]),
        (ctypes.c_float * 3)(*lengths[:3]),
        *(pointer(tensor, None) for tensor in out),
    )
    if sizes[4]:
        kept = int(out[5][0])
        for tensor, value in zip(out[:4], (0.5, 0, 0, -1), strict=True):
            tensor[kept:] = value
    return out


def _march_cuda(
    origins: Tensor,
    directions: Tensor,
    bits: Tensor,
    coarse: Tensor,
    jitter: Tensor | None,
    near: Tensor | None,
    far: Tensor | None,
    sizes: list[int],
    lengths: list[float],
) -> Six:
    rays, most = len(origins), sizes[2]
    out = _outputs(origins, most)
    if not rays:
        out[5].zero_()
        for tensor, value in zip(out[:4], (0.5, 0, 0, -1), strict=True):
            tensor.fill_(value)
        return out
    given = (
        HAS_JITTER * (jitter is not None)
        | HAS_NEAR * (near is not None)
        | HAS_FAR * (far is not None)
    )
    origins, directions = origins.float().contiguous(), directions.float().contiguous()
    bits, coarse = bits.contiguous(), coarse.contiguous()
    optional = [origins if t is None else t.float().contiguous() for t in (jitter, near, far)]
    packed = struct.pack("7i5f", rays, *sizes[:4], given, sizes[4], *lengths)
    inputs = (origins, directions, *optional, bits, coarse)
    runs = origins.new_empty(RUNS, rays, 2, dtype=torch.int32)
    run_counts, counts = origins.new_empty(2, rays, dtype=torch.int32).unbind()
    defines = {"LG_RUNS": RUNS, "LG_LANES": LANES}
    kernel("marching.cu", "march_count", **defines)(
        (-(-rays // BLOCK),), (BLOCK,), *inputs, runs, run_counts, counts, packed
    )
    sums = torch.cumsum(counts, 0, dtype=torch.int32)
    kernel("marching.cu", "march_write", **defines)(
        (-(-rays * LANES // BLOCK),),
        (BLOCK,),
        *(*inputs, runs, run_counts, counts, sums),
        *(*out, packed),
    )
    return out


def _march_fake(
    origins: Tensor,
    directions: Tensor,
    bits: Tensor,
    coarse: Tensor,
    jitter: Tensor | None,
    near: Tensor | None,
    far: Tensor | None,
    sizes: list[int],
    lengths: list[float],
) -> Six:
    return _outputs(origins, sizes[2])


_march_rays = operation(
    "march_rays(Tensor origins, Tensor directions, Tensor bits, Tensor coarse, Tensor? jitter, "
    "Tensor? near, Tensor? far, int[] sizes, float[] lengths) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=_march_reference,
    cpu=_march_cpu,
    cuda=_march_cuda,
    fake=_march_fake,
)
