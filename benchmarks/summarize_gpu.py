"""Prints a short table of what `on_gpu.sh` left in a folder; says what is missing.

python3 benchmarks/summarize_gpu.py OUT
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Row = tuple[str, str, str]  # what, found, target with "yes" or "no"


def verdict(good: bool | None, target: str) -> str:
    return target if good is None else f"{target}: {'yes' if good else 'NO'}"


def compile_rows(content: dict[str, Any]) -> Iterator[Row]:
    for preset, row in content["presets"].items():
        found = f"cold {row['cold_seconds']:.2f} s, warm {row['warm_seconds']:.3f} s"
        kernels = f"{row['kernels']} kernels, preset {preset}"
        yield kernels, found, verdict(row["meets"], "<= 10 s, <= 0.2 s")


def kernels_rows(content: dict[str, Any]) -> Iterator[Row]:
    rows = content["rows"]
    worst = max((row.get("difference") or 0.0 for row in rows), default=0.0)
    yield "cases, largest difference", f"{len(rows)}, {worst:.1e}", ""
    for name in content["failures"]:
        yield f"FAILED {name}", "", ""
    for row in rows:
        if "error" in row or not ("recorded" in row or "target_ms" in row):
            continue
        size = row["size"].bit_length() - 1
        what = f"{row['name']}, {row['passes']}, {row['inputs']}, 2^{size}"
        found = f"{row['ours']['median_ms']:g} ms, torch {row['ratio']:.3g}x"
        if "recorded" in row:
            found += f", {row['recorded']['peer']} {row['recorded']['ratio']:.3g}x"
        target = verdict(row["meets"], f"<= {row['target_ms']:g} ms") if "target_ms" in row else ""
        yield what, found, target


def train_rows(content: dict[str, Any]) -> Iterator[Row]:
    found = f"{content['public_step_ms']:g} ms"
    yield "step through training.train", found, verdict(content["meets"], "<= 5 ms")
    ours, kernels = content["ours"]["median_ms"], content["gpu_kernels"]["kernel_ms"]
    yield "step, torch twin", f"{ours:g} ms, {content['ratio']:.3g}x", ""
    yield "GPU kernels of a step", f"{kernels:g} ms in {content['gpu_kernels']['kernels']:g}", ""
    stages = ", ".join(f"{name} {value:g}" for name, value in content["stages_ms"].items())
    yield "stages, ms", stages, ""
    yield "frame 400x400", f"{content['frame']['median_ms']:g} ms", ""
    quality = ", ".join(f"{r['step']}: {r['psnr']} dB {r['seconds']} s" for r in content["quality"])
    yield "quality by step", quality, ""


def splat_rows(content: dict[str, Any]) -> Iterator[Row]:
    for name in content["failures"]:
        yield f"FAILED {name}", "", ""
    for row in content["rows"]:
        what = f"{row['name']}, {row['passes']}, {row['size']}"
        if "error" in row:
            yield what, row["error"], ""
            continue
        found = f"{row['ours']['median_ms']:g} ms, {row['ours'].get('peak_mib', 0):.0f} MiB"
        found += "".join(f", {name} {peer['ratio']:.3g}x" for name, peer in row["peers"].items())
        if "recorded" in row:
            found += f", {row['recorded']['peer']} {row['recorded']['ratio']:.3g}x"
        goals = {"target_ms": "<= {:g} ms", "target_peak_mib": "<= {:g} MiB"}
        target = ", ".join(text.format(row[key]) for key, text in goals.items() if key in row)
        yield what, found, verdict(row.get("meets"), target)
    for scene in content["scenes"]:
        stages = ", ".join(f"{key} {row['median_ms']:g}" for key, row in scene["stages"].items())
        yield f"stages of {scene['gaussians']}, ms", stages, ""
        beside = scene.get("gsplat", {})
        if "error" in beside:
            yield "beside gsplat", beside["error"], ""
        elif beside:
            worst = max(beside["gradients"].values())
            found = f"color {beside['color_largest_elsewhere']:g}, gradients {worst:g}, "
            found += f"{beside['pixels_at_a_threshold']} pixels at a threshold"
            yield "beside gsplat, largest", found, verdict(beside["meets"], "<= 2e-3, < 1e-3")


def splat4d_rows(content: dict[str, Any]) -> Iterator[Row]:
    for name in content["failures"]:
        yield f"FAILED {name}", "", ""
    for row in content["rows"]:
        what = f"4D {row['passes']}, {row['size']} at {row['image']}"
        found = f"{row['ours']['median_ms']:g} ms, {row['ours'].get('peak_mib', 0):.0f} MiB"
        if "frames_per_second" in row:
            found += f", {row['frames_per_second']:g} frames/s"
        target = f">= {row['target_fps']:g} frames/s" if "target_fps" in row else ""
        yield what, found, verdict(row.get("meets"), target)


def lego_rows(content: dict[str, Any]) -> Iterator[Row]:
    for row in content["rows"]:
        found = f"{row['psnr']:.2f} dB, {row['steps']} steps of {row['step_ms']:.2f} ms"
        target = "" if row["target_psnr"] is None else f">= {row['target_psnr']:g} dB"
        what = f"lego {row.get('method', 'nerf')} {row['preset']}, {row['budget_seconds']:g} s"
        yield what, found, verdict(row["meets"], target)


def tests_rows(folder: Path) -> Iterator[Row]:
    log = folder / "tests.log"
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    found = [line for line in lines if re.search(r"\d+ (passed|failed|error|skipped)", line)]
    yield "tests -m gpu", found[-1].strip("= ") if found else "no summary", ""
    for line in lines:
        if line.startswith(("FAILED", "ERROR")):
            yield line[:150], "", ""


def sanitizer_rows(folder: Path) -> Iterator[Row]:
    log = folder / "sanitizer.log"
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    marks = ("ERROR SUMMARY", "RACECHECK SUMMARY", "== sanitizer", "== racecheck", "== fuzz")
    found = [line.strip("= ") for line in lines if any(mark in line for mark in marks)]
    yield "compute-sanitizer", "; ".join(found) or "not run", ""


PARTS: dict[str, Callable[[dict[str, Any]], Iterator[Row]]] = {
    "compile.json": compile_rows,
    "kernels-cuda.json": kernels_rows,
    "train-cuda.json": train_rows,
    "splat-cuda.json": splat_rows,
    "splat4d-cuda.json": splat4d_rows,
    "lego.json": lego_rows,
}


def summary(folder: Path) -> list[Row]:
    """All findings in the order in which the parts ran."""
    rows: list[Row] = list(tests_rows(folder))
    for name, make in PARTS.items():
        path = folder / name
        if path.is_file():
            rows += make(json.loads(path.read_text()))
        else:
            rows.append((name, "missing", ""))
    return [*rows, *sanitizer_rows(folder)]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: summarize_gpu.py FOLDER")
    for what, found, target in summary(Path(sys.argv[1])):
        print(" | ".join(part for part in (what, found, target) if part))
