"""The pictures of inspect.md: the Gaussians of a run among its cameras, and the errors of its mesh.

    python docs/make_inspect_pictures.py runs/object

RUN comes from `lumigraph train builtin:object --method gaussians`. The truth is the surface where
the distance that the built-in scene was traced from is 0. Needs the extras geometry and mesh.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from skimage.measure import marching_cubes

import lumigraph as lg
from lumigraph.datasets.object_model import model
from lumigraph.export.mesh_reading import TriangleMesh

STEPS = 320
"""Samples of the exact distance along the side of the bounds."""


def true_mesh(scene: lg.core.Scene) -> TriangleMesh:
    """The surface of the built-in scene."""
    low, high = scene.bounds.double().numpy()
    axes = [np.linspace(low[axis], high[axis], STEPS) for axis in range(3)]
    slabs = []
    for x in axes[0]:
        points = np.stack(np.meshgrid(x, *axes[1:], indexing="ij")).reshape(3, -1)
        points = points.astype(np.float32)
        nearest = np.min([part.distance(part.to_local(points)) for part in model()], axis=0)
        slabs.append(nearest.reshape(STEPS, STEPS))
    spacing = tuple((high - low) / (STEPS - 1))
    vertices, triangles, _, _ = marching_cubes(np.stack(slabs), 0.0, spacing=spacing)
    return TriangleMesh.of(vertices + low, triangles, name="truth")


def error_picture(run: lg.training.Run, out: Path, size: tuple[int, int]) -> None:
    """The mesh of a run, colored by its distance to the truth."""
    with tempfile.TemporaryDirectory() as folder:
        lg.export.mesh(run, out=Path(folder) / "mesh.ply", frame="scene")
        mesh = lg.export.read_mesh(Path(folder) / "mesh.ply")
    error = lg.export.mesh_error(mesh, true_mesh(run.scene()))
    scores = error.scores
    detail = f"accuracy {scores.accuracy:.3g}, completeness {scores.completeness:.3g}"
    options = lg.viewer.PictureOptions(size=size, title="mesh of the run", subtitle=detail)
    item = lg.viewer.ErrorItem(mesh, error.vertex_distances)
    lg.viewer.picture([item], out=out, options=options)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("docs/images"))
    parser.add_argument("--size", type=int, nargs=2, default=(900, 600))
    arguments = parser.parse_args()
    run = lg.training.Run.open(arguments.run)
    size = (arguments.size[0], arguments.size[1])
    options = lg.viewer.PictureOptions(size=size)
    lg.viewer.picture_of_run(run, out=arguments.folder / "inspect-run.jpg", options=options)
    error_picture(run, arguments.folder / "inspect-error.jpg", size)


if __name__ == "__main__":
    main()
