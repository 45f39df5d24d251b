"""Lesson 7. The viewer from Python: things of your own in the scene, and what a click has hit.

Learnt here: how a run is served, that added things stand in the scene frame and hide behind its
surfaces, how clicks become points.

    python examples/lessons/07_viewer.py [RUN]

RUN is a folder that was trained, e.g. with `lumigraph train builtin:object`; without it one is
trained for some seconds. Open the printed address and click on the scene; Ctrl-C ends.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import lumigraph as lg
from lumigraph.viewer import Pick, Viewer


def pyramid(side: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (5, 3) and triangles (6, 3) of a pyramid on the plane z = 0."""
    half = side / 2
    base = [[-half, -half, 0], [half, -half, 0], [half, half, 0], [-half, half, 0]]
    vertices = np.array([*base, [0, 0, side]], dtype=np.float32)
    walls = [[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]]
    return vertices, np.array([*walls, [0, 2, 1], [0, 3, 2]], dtype=np.uint32)


def furnish(viewer: Viewer) -> None:
    """A mesh above the scene, and a plane through its middle that the scene sticks out of."""
    bounds = viewer.source.bounds
    side = float(bounds[1, 0] - bounds[0, 0])
    middle = bounds.mean(dim=0).numpy()
    # `viewer.scene` is viser's: everything that it can draw can be added
    vertices, triangles = pyramid(0.3 * side)
    above = tuple(middle + np.array([0, 0, 0.35 * side]))
    mesh = viewer.scene.add_mesh_simple(
        "/pyramid", vertices, triangles, color=(230, 120, 30), position=above, flat_shading=True
    )
    mesh.opacity = 0.9  # handles change what is shown already
    viewer.scene.add_grid(
        "/plane", width=side, height=side, plane="xy", position=tuple(middle), cell_size=side / 20
    )


def mark_clicks(viewer: Viewer) -> None:
    """A ball where somebody clicks, and its coordinates on the terminal."""
    side = float(viewer.source.bounds[1, 0] - viewer.source.bounds[0, 0])

    @viewer.on_pick
    def picked(pick: Pick) -> None:
        place = tuple(pick.position.tolist())
        viewer.scene.add_icosphere("/click", radius=0.01 * side, position=place, color=(0, 90, 230))
        own = ", ".join(f"{value:.3f}" for value in pick.source_position.tolist())
        print(f"({own}) in the capture's frame, {pick.distance:.3f} from the camera", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path, help="run folder")
    parser.add_argument("--port", type=int, default=None, help="8080, or a free one")
    parser.add_argument("--quick", action="store_true", help="few steps, and close at once")
    arguments = parser.parse_args()

    folder = arguments.run
    if folder is None:
        folder = Path("runs/lesson-7")
        steps = 20 if arguments.quick else 1500
        config = lg.training.train_config("nerf", "tiny", steps=steps)
        if not folder.exists():
            lg.training.train("builtin:object", config, out=folder)
    port = 0 if arguments.quick else arguments.port
    with lg.viewer.serve(folder, port=port) as viewer:
        furnish(viewer)
        mark_clicks(viewer)
        print(f"open {viewer.url}", flush=True)
        viewer.wait(0.2 if arguments.quick else None)


if __name__ == "__main__":
    main()
