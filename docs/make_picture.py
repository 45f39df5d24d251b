"""The picture at the head of README.md: test views of a run as truth, prediction, depth, normals.

    python docs/make_picture.py runs/object --views 1 10 --out docs/images/object.jpg

RUN comes from `lumigraph train builtin:object`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import imageio.v3 as iio
import torch

import lumigraph as lg
from lumigraph.training.evaluation import truth_image
from lumigraph.training.pictures import to_bytes

GAP = 8  # white pixels between pictures


def row(run: lg.training.Run, model: lg.training.Model, view: int) -> torch.Tensor:
    """One test view, four pictures side by side."""
    scene = run.scene()
    index = int(scene.split("test")[view])
    frame = model.render(scene.cameras[index], channels=("color", "depth", "normal"))
    paper = 1 - frame.opacity[..., None].clamp(0, 1)  # both lie over black
    depth, normal = (frame.channel(name) + paper for name in ("depth", "normal"))
    pictures = [truth_image(scene, index), frame.color.clamp(0, 1), depth, normal]
    gap = torch.ones(frame.height, GAP, 3)
    parts = [part for picture in pictures for part in (gap, picture)]
    return torch.cat(parts[1:], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--views", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--out", type=Path, default=Path("docs/images/object.jpg"))
    arguments = parser.parse_args()
    run = lg.training.Run.open(arguments.run)
    model = run.model()
    rows = [row(run, model, view) for view in arguments.views]
    iio.imwrite(arguments.out, to_bytes(torch.cat(rows, dim=0)).numpy(), quality=90)


if __name__ == "__main__":
    main()
