"""Surfaces within a time: trains method neus for a budget, scores held-out views and the mesh.

    python benchmarks/surface_scenes.py DATA --out surfaces.json --runs synth_object/small:60

DATA holds the scenes, folders with a true surface (`mesh.ply`, else `points_sfm.ply`); a run is
SCENE/PRESET:SECONDS. Exits with 77 where there is no GPU (`--device cpu` runs there all the same).
Results are written after each run, behind those that the file holds already.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TEST_VIEWS = {"dtu_scan24": "8,13,16,21,26,31,34"}
"""Of NeuS2; other scenes have a split of their own."""
TRUTHS = ("mesh.ply", "points_sfm.ply")
SKIPPED = 77


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", default=["synth_object/small:60"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--resolution", type=int, default=512, help="cells of the mesh on a side")
    parser.add_argument("--set", nargs="*", default=[], help="settings, NAME=JSON")
    parser.add_argument("--keep", type=Path, help="folder that receives meshes and pictures")
    arguments = parser.parse_args()
    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("surfaces: no GPU here, skipped")
        return SKIPPED
    from lumigraph.bench import results
    from lumigraph.cuda.dispatch import backend_for

    device = torch.device(arguments.device)
    content = results.document("surfaces", device, backend_for(device), quick=False)
    for name in ("timing", "protocol", "quick"):
        del content[name]
    known = arguments.out.is_file()
    content["rows"] = json.loads(arguments.out.read_text())["rows"] if known else []
    settings = dict(word.split("=", 1) for word in arguments.set)
    settings = {name: json.loads(value) for name, value in settings.items()}
    for wish in arguments.runs:
        name, _, seconds = wish.partition(":")
        scene, _, preset = name.rpartition("/")
        row = score(arguments, scene, preset, float(seconds), settings)
        content["rows"].append(row)
        arguments.out.write_text(json.dumps(content, indent=2) + "\n")
        print(json.dumps(row), flush=True)
    return 0


def score(
    arguments: argparse.Namespace, name: str, preset: str, seconds: float, settings: dict[str, Any]
) -> dict[str, Any]:
    """Train for so long through the public functions, evaluate views and mesh."""
    from lumigraph import export, training

    folder = arguments.data / name
    truth = next(folder / file for file in TRUTHS if (folder / file).is_file())
    config = training.train_config(
        "neus",
        preset,
        seconds=seconds,
        device=arguments.device,
        test_views=TEST_VIEWS.get(name),
        **settings,
    )
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "run"
        begin = time.monotonic()
        run = training.train(folder, config, out=out)
        wall = time.monotonic() - begin
        summary = run.train_summary()
        scores = training.evaluate(run)
        options = export.MeshOptions(resolution=arguments.resolution, overwrite=True)
        mesh = export.evaluate_mesh(run, truth, mesh_options=options)
        if arguments.keep is not None:
            keep(out, arguments.keep, f"{name}-{preset}")
    numbers = {key: value for key, value in mesh.numbers.items() if key not in ("file", "truth")}
    return {
        "scene": name,
        "preset": preset,
        "settings": settings,
        "budget_seconds": seconds,
        "steps": summary["steps"],
        "seconds": summary["seconds"],
        "wall_seconds": round(wall, 2),
        "train_psnr": summary["train_psnr"],
        **{key: scores[key] for key in ("protocol", "views", "psnr", "psnr_masked", "ssim")},
        "truth": truth.name,
        "mesh": numbers,
    }


def keep(run: Path, folder: Path, name: str) -> None:
    """Copy the mesh and the pictures of a view."""
    import shutil

    folder.mkdir(parents=True, exist_ok=True)
    for file in ("mesh.ply", "test/003_prediction.png"):
        source = run / "renders" / file
        if source.is_file():
            shutil.copy(source, folder / f"{name}-{source.name}")


if __name__ == "__main__":
    sys.exit(main())
