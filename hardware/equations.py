"""The end-to-end model in closed form.

    t_cluster(N) = t / (a N)        a: frames of one processor in a GPU's frame time t
    t_rest       = r t / fusion     r: share of the frame that stays on the GPU
    two-stage pipeline over K batches:  t_frame = (K - 1) max(n, g) + n + g + K t_launch
                                        n = t_cluster / K,  g = t_rest / K
    K large, t_launch small:  speed-up = min(a N, fusion / r)

Amdahl's ceiling is fusion / r, reached from N = fusion / (r a) processors on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

RESOLUTIONS = {
    "FHD": (1920, 1080),
    "QHD": (2560, 1440),
    "4k": (3840, 2160),
    "5k": (5120, 2880),
    "8k": (7680, 4320),
}
FRAME_RATES = (30, 60, 90, 120)
FHD_PIXELS = 1920 * 1080


def pixels_of(resolution: str) -> int:
    """Pixels of a picture by the name of its size."""
    width, height = RESOLUTIONS[resolution]
    return width * height


def gap(frame_seconds: float, resolution: str, frames_per_second: float) -> float:
    """How many times too slow a GPU is that takes `frame_seconds` for 1920x1080; time grows with
    the pixels.

    >>> round(gap(0.23124, "4k", 60), 1)
    55.5
    """
    return frame_seconds * pixels_of(resolution) / FHD_PIXELS * frames_per_second


def speed_up(rate: float, rest: float, *, processors: int, rest_fusion: float) -> float:
    """End to end with full overlap."""
    return min(rate * processors, rest_fusion / rest)


def serial_speed_up(rate: float, rest: float, *, processors: int, rest_fusion: float) -> float:
    """The same without overlap of GPU and cluster."""
    return 1 / (1 / (rate * processors) + rest / rest_fusion)


def pipeline_seconds(
    cluster: float, rest: float, *, batches: int, launch: float = 0.0, overlap: bool = True
) -> float:
    """Frame time of a two-stage pipeline.

    Args:
        cluster, rest: seconds of a whole frame on the cluster and on the GPU.
        batches: K.
        launch: seconds for each batch.
    """
    if not overlap:
        return cluster + rest + batches * launch
    longest = max(cluster, rest) / batches
    return (batches - 1) * longest + (cluster + rest) / batches + batches * launch


def best_batches(cluster: float, rest: float, *, launch: float, most: int = 1024) -> int:
    """The power of two with the shortest frame; the smaller of equals."""
    options = [1 << k for k in range(int(math.log2(most)) + 1)]
    return min(
        options, key=lambda k: (pipeline_seconds(cluster, rest, batches=k, launch=launch), k)
    )


def plateau(rate: float, rest: float, *, rest_fusion: float, sizes: Sequence[int]) -> int | None:
    """The first size of cluster whose speed-up is at the ceiling; None beyond the largest."""
    ceiling = rest_fusion / rest
    # one part in a thousand: the calibrated set is given to four digits
    return next((n for n in sizes if rate * n >= ceiling * (1 - 1e-3)), None)


def power_gap_orders(frame_gap: float, *, gpu_watts: float, budget_watts: float) -> float:
    """Orders of magnitude between the power that a GPU of the same efficiency would take and a
    budget, e.g. of a headset."""
    return math.log10(frame_gap * gpu_watts / budget_watts)
