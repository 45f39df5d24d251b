"""Kernels of NVIDIA Warp: closest point of a mesh, with a sign. Import it on use only: it needs the
package `warp-lang`, whose kernels want their annotations as objects."""

# Warp reads annotations that are calls, and turns functions without results into kernels.
# mypy: ignore-errors

import warp as wp


@wp.kernel
def signed_by_normals(
    mesh: wp.uint64,
    points: wp.array(dtype=wp.vec3),
    reach: float,
    distances: wp.array(dtype=float),
):
    """Sign of the angle-weighted normal at the closest point: exact for closed surfaces."""
    thread = wp.tid()
    query = wp.mesh_query_point_sign_normal(mesh, points[thread], reach)
    closest = wp.mesh_eval_position(mesh, query.face, query.u, query.v)
    distances[thread] = query.sign * wp.length(closest - points[thread])


@wp.kernel
def signed_by_winding(
    mesh: wp.uint64,
    points: wp.array(dtype=wp.vec3),
    reach: float,
    distances: wp.array(dtype=float),
):
    """Inside where the surface winds around the point by more than a half: for open surfaces."""
    thread = wp.tid()
    query = wp.mesh_query_point_sign_winding_number(mesh, points[thread], reach)
    closest = wp.mesh_eval_position(mesh, query.face, query.u, query.v)
    distances[thread] = query.sign * wp.length(closest - points[thread])
