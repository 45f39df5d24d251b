"""Meshes of one run of builtin:object, from fused depths and from density, against the true shape.

    lumigraph train builtin:object --seconds 120 --out runs/object
    python benchmarks/mesh_sources.py runs/object --out benchmarks/results/MACHINE-DATE-mesh.json

Accuracy: distances of points spread over the mesh from the true surface, of those that lie near
something that a training camera sees (what none sees is anybody's guess). Completeness: distances
of points that training cameras see from the mesh. Normals: the angle between those of triangles and
of the true surface there. Lengths are scene units; the object is 2.4 wide.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

import lumigraph as lg
from lumigraph.core import Scene
from lumigraph.datasets import object_model
from lumigraph.training.machine import machine_facts

POINTS = 100_000
NEAR_SEEN = 0.05
"""Distance from a point that some camera sees within which accuracy is asked for."""


def signed_distance(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) from the object, negative inside."""
    local = points.T.astype(np.float32)
    parts = object_model.model()
    return np.min([part.distance(part.to_local(local)) for part in parts], axis=0).astype(float)


def true_normals(points: NDArray[np.float64], *, step: float = 1e-3) -> NDArray[np.float64]:
    """(N, 3) unit gradients of the distance, by differences."""
    shifts = step * np.eye(3)
    slopes = [signed_distance(points + shift) - signed_distance(points - shift) for shift in shifts]
    gradient = np.stack(slopes, axis=1)
    return gradient / np.linalg.norm(gradient, axis=1, keepdims=True)


def seen_points(scene: Scene) -> NDArray[np.float64]:
    """(N, 3) of the true surface, as training cameras see it."""
    assert scene.depths is not None
    found = []
    for index in scene.split("train").tolist():
        depth = scene.depths.load(index).reshape(-1)
        camera = scene.cameras[index]
        rays = camera.image_rays(0)
        points = rays.points(depth / camera.depth_factors(rays))
        found.append(points[depth > 0])
    points = torch.cat(found).double().numpy()
    return points[np.random.default_rng(0).permutation(len(points))[:POINTS]]


def scores(file: Path, seen: NDArray[np.float64], tree: cKDTree) -> dict[str, float | bool | int]:
    """Of one mesh."""
    mesh = trimesh.load(file, process=False)
    samples, triangles = trimesh.sample.sample_surface(mesh, POINTS, seed=0)
    near = tree.query(samples)[0] < NEAR_SEEN
    samples, normals = samples[near], mesh.face_normals[triangles[near]]
    cosine = (normals * true_normals(samples)).sum(axis=1)
    distance = signed_distance(samples)
    missing = cKDTree(samples).query(seen)[0]
    return {
        "triangles": len(mesh.faces),
        "watertight": bool(mesh.is_watertight),
        "accuracy_mean": round(float(np.abs(distance).mean()), 5),
        "accuracy_rms": round(float(np.sqrt((distance**2).mean())), 5),
        "signed_mean": round(float(distance.mean()), 5),
        "normals_median_degrees": round(float(np.degrees(np.arccos(np.median(cosine)))), 2),
        "completeness_mean": round(float(missing.mean()), 5),
        "farther_than_0.02": round(float((missing > 0.02).mean()), 4),
    }


def settings(method: str) -> list[dict[str, str | float]]:
    """What is compared."""
    fusion: list[dict[str, str | float]] = [
        {"source": "fusion", "truncation": value} for value in (4.0, 6.0)
    ]
    if method == "gaussians":
        return fusion
    return [{"source": "density", "level": value} for value in (5.0, 10.0, 20.0, 40.0)] + fusion


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--resolution", type=int, default=192)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(words)
    rows = []
    for folder in asked.runs:
        run = lg.training.Run.open(folder)
        seen = seen_points(run.scene())
        tree = cKDTree(seen)
        for chosen in settings(run.config.method):
            options = lg.export.MeshOptions(resolution=asked.resolution, **chosen)
            with tempfile.TemporaryDirectory() as place:
                file, started = Path(place) / "mesh.ply", time.perf_counter()
                lg.export.mesh(run, out=file, frame="scene", options=options)
                seconds = round(time.perf_counter() - started, 1)
                row = {"method": run.config.method, **chosen, "seconds": seconds}
                rows.append({**row, **scores(file, seen, tree)})
            print(rows[-1], flush=True)
    result = {
        "format": 1,
        "benchmark": "mesh",
        "date": datetime.date.today().isoformat(),
        "machine": machine_facts(),
        "protocol": "builtin:object, preset tiny, scene units, voxels 2.5 / resolution",
        "resolution": asked.resolution,
        "seed": 0,
        "rows": rows,
    }
    asked.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
