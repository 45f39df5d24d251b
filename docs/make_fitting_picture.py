"""The picture of fitting.md: frames of three runs side by side.

    python docs/make_fitting_picture.py IMAGE_RUN SDF_RUN VOLUME_RUN

of methods image, sdf and volume, trained on albert.exr, armadillo.obj and builtin:cloud.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

import lumigraph as lg
from lumigraph.training.pictures import to_bytes

TARGET = Path(__file__).with_name("images") / "fitting.jpg"
SIZE = (320, 320)
SAMPLES = 32
VIEWS = {"image": 0, "sdf": 7, "volume": 0}


def frame(path: Path) -> np.ndarray:
    """(H, W, 3) bytes of one run."""
    run = lg.training.Run.open(path)
    if run.config.method == "volume":
        config = dataclasses.replace(run.config, samples_per_pixel=SAMPLES)
        run = dataclasses.replace(run, config=config)
    camera = run.scene().cameras[VIEWS[run.config.method]]
    width, height = camera.size(0)
    side = min(width, height)
    square = camera.cropped((width - side) // 2, (height - side) // 2, side, side)
    return to_bytes(run.model().render(square.resized_to(*SIZE)).color).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs=3)
    frames = [frame(path) for path in parser.parse_args().runs]
    Image.fromarray(np.concatenate(frames, axis=1)).save(TARGET, quality=88)


if __name__ == "__main__":
    main()
