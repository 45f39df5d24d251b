"""Meshes from files, by the names of this room; `datasets.mesh_reading` reads them."""

from __future__ import annotations

from lumigraph.datasets.mesh_reading import MeshPart, Points, TriangleMesh, read_mesh

__all__ = ["MeshPart", "Points", "TriangleMesh", "read_mesh"]
