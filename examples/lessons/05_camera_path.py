"""Lesson 5. A camera path: keyframes in a file, smooth motion between them, a video of a run.

Learnt here: what a keyframe holds, how paths are written, read and sampled, and the command that
renders one.

    python examples/lessons/05_camera_path.py [RUN] [--out path.json]

With RUN, a folder trained with `lumigraph train builtin:object`, it is rendered as well.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch

import lumigraph as lg
from lumigraph.core import CameraPath, Keyframe
from lumigraph.core.transforms import look_at


def descent(radius: float, count: int = 9) -> CameraPath:
    """Down a spiral around the origin, while the view narrows from 50 to 30 degrees."""
    keyframes = []
    for index in range(count):
        fraction = index / (count - 1)
        angle = 1.5 * math.pi * fraction
        eye = [math.cos(angle), math.sin(angle), 1.2 - 0.9 * fraction]
        position = torch.tensor(eye)
        position = position / position.norm() * radius
        keyframes.append(
            Keyframe(
                seconds=4.0 * fraction,
                camera_to_world=look_at(position, torch.zeros(3), up=[0.0, 0.0, 1.0]),
                field_of_view=50.0 - 20.0 * fraction,
            )
        )
    return CameraPath(keyframes, duration=4.0, fps=24.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path, help="run folder to render")
    parser.add_argument("--out", type=Path, default=Path("path.json"), help="file of the path")
    parser.add_argument("--quick", action="store_true", help="two small frames")
    arguments = parser.parse_args()

    path = descent(radius=4.0)
    path.to_file(arguments.out)
    print(f"{arguments.out}: {len(path.keyframes)} keyframes, {path.frame_count} frames")

    # Read back: damaged files and impossible keyframes are refused by name.
    path = CameraPath.from_file(arguments.out)
    cameras = path.cameras(width=320, height=240)
    moves = cameras.positions.diff(dim=0).norm(dim=1)
    print(f"from frame to frame the camera moves {moves.min():.3f} to {moves.max():.3f} units")

    if arguments.run is None:
        print(f"render it with: lumigraph render RUN --path {arguments.out}")
        return
    video = lg.export.video(
        lg.training.Run.open(arguments.run),
        path=path,
        out=arguments.out.with_suffix(".mp4"),
        size=(32, 24) if arguments.quick else (320, 240),
        frames=2 if arguments.quick else None,
        options=lg.export.PathOptions(overwrite=True),
    )
    print(f"{video.paths[0]}: {video.frames} frames in {video.seconds:.1f} s")


if __name__ == "__main__":
    main()
