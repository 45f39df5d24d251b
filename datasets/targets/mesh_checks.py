"""Whether triangles close off an inside. Letters: V vertices, T triangles, E edges."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumigraph.datasets.mesh_reading import Points

Triangles = NDArray[np.int64]


class Edges(NamedTuple):
    """Edges by how many triangles meet there."""

    total: int
    open: int
    """With one triangle, or with two that do not agree which side is outside."""
    crowded: int
    """With more than two triangles."""


def merged(vertices: Points, triangles: Triangles) -> tuple[Points, Triangles]:
    """Vertices at the same place as one; triangles with fewer than three corners are left out.

    Files keep one vertex for each normal or texture coordinate, which tears closed surfaces open.
    """
    places, index = np.unique(vertices, axis=0, return_inverse=True)
    joined = index.reshape(-1)[triangles]
    whole = (
        (joined[:, 0] != joined[:, 1])
        & (joined[:, 1] != joined[:, 2])
        & (joined[:, 2] != joined[:, 0])
    )
    return places, joined[whole]


def edges(triangles: Triangles) -> Edges:
    """Count the edges of triangles (T, 3) whose vertices are merged.

    >>> edges(np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]]))
    Edges(total=6, open=0, crowded=0)
    """
    directed = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    ordered = np.sort(directed, axis=1)
    forward = np.where(directed[:, 0] < directed[:, 1], 1, -1)
    _, index, counts = np.unique(ordered, axis=0, return_inverse=True, return_counts=True)
    balance = np.bincount(index.reshape(-1), weights=forward, minlength=len(counts))
    crowded = counts > 2
    return Edges(len(counts), int(((balance != 0) & ~crowded).sum()), int(crowded.sum()))


def signed_volume(vertices: Points, triangles: Triangles) -> float:
    """Volume inside of a closed surface; negative where its triangles face inwards."""
    centered = vertices - vertices.mean(axis=0)
    a, b, c = (centered[triangles[:, k]] for k in range(3))
    return float((a * np.cross(b, c)).sum() / 6)
