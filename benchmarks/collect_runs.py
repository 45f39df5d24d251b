"""Gathers finished and evaluated run folders into one result file: settings that differ from the
preset, training summary, scores and protocol, machine and versions.

    lumigraph train DATA --preset tiny --seconds 120 --out runs/lego && lumigraph evaluate runs/lego
    python benchmarks/collect_runs.py runs/lego --out benchmarks/results/MACHINE-DATE-scenes.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from lumigraph.bench import results
from lumigraph.training import Run, train_config
from lumigraph.training.files import read_json, write_json


def row(path: Path) -> dict[str, Any]:
    """One run; per-view scores and paths are left out."""
    run = Run.open(path)
    usual = train_config(run.config.method, run.config.preset).to_dict()
    changed = {name: v for name, v in run.config.to_dict().items() if usual[name] != v}
    scores = run.evaluation() or {}
    return {
        "scene": read_json(run.path / "scene.json")["name"],
        "preset": run.config.preset,
        "settings": changed,
        "training": {k: v for k, v in run.train_summary().items() if k not in ("run", "preset")},
        "evaluation": {k: v for k, v in scores.items() if k not in ("run", "per_view")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = [row(path) for path in arguments.runs]
    backend = rows[0]["training"]["backend"]
    content = results.document("scenes", torch.device("cpu"), backend, quick=False)
    for name in ("timing", "protocol", "quick", "load_at_start"):
        del content[name]
    write_json(arguments.out, {**content, "rows": rows})
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
