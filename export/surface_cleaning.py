"""Triangles without noise: connected parts chosen by size, and fewer triangles for the same shape.
Letters: V vertices, T triangles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from lumigraph.core.errors import require

from .isosurface import Surface


def _parts(surface: Surface) -> NDArray[np.int64]:
    """(T,) number of the connected part of each triangle."""
    first, second, third = surface.triangles.T
    count = len(surface.vertices)
    rows, columns = np.concatenate([first, second]), np.concatenate([second, third])
    links = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(count, count))
    _, part = connected_components(links.tocsr(), directed=False)
    return np.asarray(part[first], np.int64)


def count_components(surface: Surface) -> int:
    """How many connected parts there are."""
    return len(np.unique(_parts(surface))) if len(surface.triangles) else 0


def without_cavities(surface: Surface) -> Surface:
    """A closed surface without the connected parts that face inward: the walls of cavities."""
    if len(surface.triangles) == 0:
        return surface
    part = _parts(surface)
    first, second, third = (surface.vertices[surface.triangles[:, k]] for k in range(3))
    volumes = np.einsum("ij,ij->i", first, np.cross(second, third))
    return surface.rows((np.bincount(part, volumes) > 0)[part])


def largest_components(
    surface: Surface, *, most: int | None, least_triangles: int
) -> tuple[Surface, int]:
    """The parts with the most triangles.

    Args:
        most: how many to keep; None keeps all.
        least_triangles: parts with fewer are dropped.

    Returns:
        What is left, and how many parts were dropped.
    """
    if len(surface.triangles) == 0:
        return surface, 0
    part = _parts(surface)
    numbers, sizes = np.unique(part, return_counts=True)
    order = np.argsort(-sizes, kind="stable")[:most]
    kept = numbers[order][sizes[order] >= least_triangles]
    return surface.rows(np.isin(part, kept)), len(numbers) - len(kept)


def decimated(surface: Surface, triangles: int) -> Surface:
    """About the same surface with at most so many triangles; colors are those of the nearest
    vertices before.

    Raises:
        MissingExtraError: fast-simplification is not installed.
    """
    if len(surface.triangles) <= triangles:
        return surface
    simplify = require("fast_simplification", extra="mesh").simplify
    vertices, faces = simplify(surface.vertices, surface.triangles, target_count=triangles)
    vertices = np.asarray(vertices, np.float64)
    _, nearest = cKDTree(surface.vertices).query(vertices)
    return Surface(vertices, np.asarray(faces, np.int64), surface.colors[nearest])


def vertex_normals(surface: Surface) -> NDArray[np.float64]:
    """(V, 3) unit outward normals, the mean of those of the triangles by area; 0 where none is."""
    corners = surface.vertices[surface.triangles]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(surface.vertices)
    for column in surface.triangles.T:
        for axis in range(3):
            normals[:, axis] += np.bincount(column, across[:, axis], minlength=len(normals))
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 0, normals / np.maximum(length, 1e-30), 0.0)
