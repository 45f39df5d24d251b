"""The mesh of surfaces.md: what two cameras of a capture see of it, in gray and in its colors.

    python docs/make_surface_picture.py dtu_scan24 mesh.ply

MESH lies in the frame of the data. Needs the extra geometry.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import imageio.v3 as iio
import numpy as np

import lumigraph as lg
from lumigraph.viewer import PictureView

VIEWS = (8, 30)
SIZE = (560, 420)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("mesh", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images/surface-mesh.jpg"))
    arguments = parser.parse_args()
    scene = lg.datasets.load(arguments.data)
    poses = scene.normalization.inverse().apply_poses(scene.cameras.camera_to_world.double())
    cameras = scene.cameras.with_poses(poses.float())
    mesh = lg.export.read_mesh(arguments.mesh)
    options = lg.viewer.PictureOptions(size=SIZE, background="white", legend=False, axes=False)
    rows = []
    for view in VIEWS:
        seen = PictureView.of_camera(cameras, view, SIZE)
        items = [lg.viewer.MeshItem(mesh, color=color) for color in ("#c8c8c8", None)]
        row = [lg.viewer.picture([item], view=seen, options=options).image for item in items]
        rows.append(np.concatenate(row, axis=1))
    iio.imwrite(arguments.out, np.concatenate(rows, axis=0), quality=88)


if __name__ == "__main__":
    main()
