"""Pictures, depths and normals of the built-in object model.

Colours are averaged over 2x2 rays a pixel, albedo for each ray; light changes slowly, so it is
computed once for each part that a pixel sees. Alpha is straight and is the share of rays that meet
the model. Depth and normal belong to the ray through the pixel centre and are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lumigraph.datasets.object_model import shade
from lumigraph.datasets.sphere_tracing import (
    Array,
    Hits,
    Part,
    PinholeView,
    local_normals,
    rotated,
    trace,
)

OVERSAMPLING = 2
"""Rays along each side of a pixel."""
SRGB_STEPS = 1 << 14
"""Entries of the table from linear light to sRGB: finer than 8 bits everywhere."""


@dataclass(frozen=True)
class Geometry:
    """What the rays through the pixel centres of one picture meet."""

    depth: Array
    """(H, W) along the optical axis; 0 where nothing is met."""
    normal: Array
    """(H, W, 3) unit outward normals in the world; 0 where nothing is met."""


def render_pictures(parts: Sequence[Part], views: Sequence[PinholeView]) -> NDArray[np.uint8]:
    """Pictures of the model from C cameras of one size and focal length.

    Returns:
        (C, H, W, 4): sRGB and straight alpha, 8 bits each.
    """
    width, height = views[0].width, views[0].height
    hits = trace(parts, [view.refined(OVERSAMPLING) for view in views])
    color = np.zeros((hits.part.size, 3), np.float32)
    for index in range(len(parts)):
        found = np.flatnonzero(hits.part == index)
        if found.size:
            light = _radiance(parts, index, hits, found, width * OVERSAMPLING)
            color[found] = encode_srgb(light).T
    # Pictures follow each other, so their rows can be counted through.
    blocks = (len(views) * height, OVERSAMPLING, width, OVERSAMPLING)
    share = _block_mean((hits.part >= 0).astype(np.float32).reshape(blocks))
    total = _block_mean(color.reshape(*blocks, 3))
    straight = total / np.maximum(share, 1e-6)[..., None]
    picture = np.concatenate([straight, share[..., None]], axis=-1)
    eight_bits = np.asarray(np.rint(np.clip(picture, 0, 1) * 255), np.uint8)
    return eight_bits.reshape(len(views), height, width, 4)


def trace_geometry(parts: Sequence[Part], view: PinholeView) -> Geometry:
    """Exact depth and normal through every pixel centre."""
    hits = trace(parts, [view])
    met = hits.part >= 0
    forward = view.camera_to_world[:3, 2].astype(np.float32)[:, None]
    depth = np.where(met, hits.distance, 0) * (forward * hits.directions).sum(axis=0)
    normal = np.zeros((hits.part.size, 3), np.float32)
    for index, part in enumerate(parts):
        found = np.flatnonzero(hits.part == index)
        local = local_normals(part, part.to_local(hits.points(found)))
        normal[found] = rotated(part.rotation, local).T
    shape = (view.height, view.width)
    return Geometry(depth.astype(np.float32).reshape(shape), normal.reshape(*shape, 3))


def encode_srgb(linear: Array) -> Array:
    """Linear light in [0, 1] to sRGB; light beyond that range is clipped."""
    place = np.clip(linear, 0, 1) * np.float32(SRGB_STEPS) + np.float32(0.5)
    return _srgb_table()[place.astype(np.int32)]


@cache
def _srgb_table() -> Array:
    value = np.linspace(0, 1, SRGB_STEPS + 1)
    curve = np.where(value <= 0.0031308, 12.92 * value, 1.055 * value ** (1 / 2.4) - 0.055)
    return curve.astype(np.float32)


def _block_mean(values: Array) -> Array:
    """Mean over the axes 1 and 3, by slices: numpy's reductions are slow over short axes."""
    total = np.zeros((values.shape[0], values.shape[2], *values.shape[4:]), np.float32)
    for row in range(OVERSAMPLING):
        for column in range(OVERSAMPLING):
            total += values[:, row, :, column]
    return (total / OVERSAMPLING**2).astype(np.float32)


def _radiance(
    parts: Sequence[Part], index: int, hits: Hits, found: NDArray[np.intp], width: int
) -> Array:
    """Linear light (3, N) towards the camera from the rays ``found``, all on one part.

    ``width`` is that of the finely sampled pictures.
    """
    part = parts[index]
    points = hits.points(found)
    row, column = np.divmod(found, width)
    pixel = row // OVERSAMPLING * width + column // OVERSAMPLING
    # The last ray written to a pixel's slot speaks for the light of all of them.
    count = np.arange(found.size, dtype=np.int32)
    speaker = np.zeros(hits.part.size, np.int32)
    speaker[pixel] = count
    speaker = speaker[pixel]
    chosen = np.flatnonzero(speaker == count)
    place = np.zeros(found.size, np.int32)
    place[chosen] = count[: chosen.size]
    to_camera = -hits.directions[:, found[chosen]]
    light, highlight = shade(parts, index, points[:, chosen], to_camera)
    to_chosen = place[speaker]
    albedo = part.albedo(part.to_local(points))
    return np.asarray(albedo * light[:, to_chosen] + highlight[to_chosen], np.float32)
