"""Points spread evenly over the surface of a mesh."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lumigraph.core.errors import DataError

from .mesh_reading import Points, TriangleMesh


def sample_surface(
    mesh: TriangleMesh, count: int, *, seed: int
) -> tuple[Points, NDArray[np.int64]]:
    """Points (count, 3) spread evenly over the area of a mesh, and the triangle (count,) of each.

    Raises:
        DataError: the mesh has no area.
    """
    corners = mesh.vertices[mesh.triangles]
    sides = corners[:, 1:] - corners[:, :1]
    areas = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1) / 2
    total = np.cumsum(areas)
    if not total[-1] > 0:
        raise DataError(
            f"{mesh.name}: its triangles have no area; give a file with a surface in it"
        )
    random = np.random.default_rng(seed)
    # One point in each of `count` equal shares of the area: more even than independent ones.
    places = (np.arange(count) + random.random(count)) / count * total[-1]
    chosen = np.minimum(np.searchsorted(total, places, side="right"), len(total) - 1)
    weights = random.random((count, 2))
    outside = weights.sum(axis=1) > 1
    weights[outside] = 1 - weights[outside]
    return corners[chosen, 0] + (weights[:, :, None] * sides[chosen]).sum(axis=1), chosen
