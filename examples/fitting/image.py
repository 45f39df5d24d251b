"""One picture as a network: trained on random pixels, scored over all of them, written as a file.

The picture may have any number of pixels; OpenEXR files are fitted as linear light.

    python examples/fitting/image.py PICTURE [--steps 2000] [--encoding hashgrid] [--out runs/image]

Without PICTURE: albert.exr of image_fitting below LUMIGRAPH_TEST_DATA, or below data/.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import lumigraph as lg

DATA = Path(os.environ.get("LUMIGRAPH_TEST_DATA", "data")) / "image_fitting" / "albert.exr"
QUICK: dict[str, Any] = {"steps": 3, "batch_samples": 256, "log2_table_size": 10}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, default=DATA, help="picture")
    parser.add_argument("--steps", type=int, default=2000, help="training steps")
    parser.add_argument("--encoding", default="hashgrid", help="or densegrid, low_res_densegrid")
    parser.add_argument("--preset", default="tiny", help="tiny on a CPU, full on a GPU")
    parser.add_argument("--out", type=Path, default=Path("runs/image"), help="run folder")
    parser.add_argument("--quick", action="store_true", help="three steps: only to see it work")
    arguments = parser.parse_args()

    settings = QUICK if arguments.quick else {"steps": arguments.steps}
    config = lg.training.train_config(
        "image", arguments.preset, encoding=arguments.encoding, **settings
    )
    run = lg.training.train(arguments.data, config, out=arguments.out, on_event=show)

    scores = lg.training.evaluate(run)
    print(f"PSNR {scores['psnr']:.2f} dB; {scores['protocol']}")
    suffix = ".exr" if run.model().field.is_linear else ".png"
    print(lg.export.picture(run, out=run.path / f"fitted{suffix}").line())


def show(event: lg.training.Event) -> None:
    if isinstance(event, lg.training.StepEvent) and event.step % 100 == 0:
        print(f"step {event.step}  loss {event.loss:.5f}  PSNR {event.psnr:.2f} dB")


if __name__ == "__main__":
    try:
        main()
    except lg.core.InputError as error:
        raise SystemExit(f"error: {error}") from error
