"""`report.html` of a run folder: one file that needs nothing else, to be read or sent on.

It shows the settings, the curves, the scores of each test view, truth against prediction and their
difference, depth, the video if there is one, time per stage, machine and versions. What a run does
not have yet (an evaluation, say) is left out.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lumigraph.core.color import colorize
from lumigraph.training.files import read_json, read_lines, read_yaml, write_text
from lumigraph.training.machine import machine_facts
from lumigraph.training.report_plots import curve, view_scores
from lumigraph.training.run import MESH_PICTURE
from lumigraph.training.scores import score_tiles

SHOWN_VIEWS = 6
"""Test views shown with their pictures: the worst, the best, and some between them."""
ERROR_RANGE = 0.25
"""Mean absolute difference of the color channels at the bright end of the error map."""
_PICTURE_SIDE, _WIDE_SIDE = 400, 1800
_VIDEO_BYTES = 8 << 20
"""A longer video stays a link to the file beside the report."""


@dataclass(frozen=True)
class ViewPictures:
    """One row of pictures as data addresses; None where the run folder has none."""

    title: str
    note: str
    pictures: tuple[tuple[str, str], ...]
    """(caption, data address)."""


def write_report(run: Any) -> Path:
    """Write `report.html` into a run folder, over an earlier one.

    Args:
        run: a `Run` or the path of a run folder; a folder that was only trained is enough.

    Returns:
        The path of the report.

    Raises:
        ConfigError: the folder is not a run folder.
        DataError: a file in it is damaged, or the report cannot be written.
    """
    folder = Path(getattr(run, "path", run))
    path = folder / "report.html"
    write_text(path, _template().render(**_contents(folder)))
    return path


def _template() -> Any:
    import jinja2

    source = resources.files(__package__).joinpath("report.html.jinja").read_text()
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(source)


def _contents(folder: Path) -> dict[str, Any]:
    config = read_yaml(folder / "config.yaml")
    training = _optional(folder / "train.json")
    evaluation = _optional(folder / "evaluate.json")
    scene = _optional(folder / "scene.json")
    timings = _optional(folder / "timings.json")
    rows = read_lines(folder / "metrics.jsonl")
    views = _list(evaluation.get("per_view"))
    return {
        "title": str(scene.get("name") or folder.resolve().name),
        "scene": _scene_facts(scene),
        "tiles": _tiles(training, evaluation, rows),
        "curves": _curves(rows),
        "video": _video(folder / "orbit.mp4"),
        "view_plot": _view_plot(views),
        "view_table": [_view_row(views, index) for index in range(len(views))],
        "rows": _picture_rows(folder / "renders" / "test", views),
        "error_range": ERROR_RANGE,
        "mesh": _mesh(folder, evaluation),
        "stages": _stages(timings),
        "settings": [(name, _text(value)) for name, value in config.items()],
        "machine": list((training.get("machine") or machine_facts()).items()),
        "protocol": evaluation.get("protocol"),
    }


def _optional(path: Path) -> dict[str, Any]:
    value = read_json(path) if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _number(value: Any) -> float:
    """A float, NaN for null and anything else that is no number."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if good else math.nan


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None:
        return "–"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _scene_facts(scene: dict[str, Any]) -> list[tuple[str, str]]:
    """What the scene is; of its source the name alone, as a report may be sent on."""
    facts = [("data", Path(str(scene["source"])).name)] if scene.get("source") else []
    splits = scene.get("splits")
    for name, indices in splits.items() if isinstance(splits, dict) else ():
        facts.append((f"{name} images", str(len(indices))))
    if (scene.get("aabb_scale") or 1) > 1:
        facts.append(("surroundings", f"{scene['aabb_scale']} times the region of interest"))
    return facts


def _tiles(
    training: dict[str, Any], evaluation: dict[str, Any], rows: Sequence[dict[str, Any]]
) -> list[tuple[str, str, str]]:
    """The numbers on top: (name, value, unit)."""
    speeds = [_number(row.get("rays_per_second")) for row in rows]
    speeds = [speed for speed in speeds if math.isfinite(speed)]
    speed = sum(speeds) / len(speeds) / 1e3 if speeds else math.nan
    mesh = evaluation.get("mesh")
    mesh = mesh if isinstance(mesh, dict) else {}
    points = _number(mesh.get("completeness_median")) if mesh.get("sparse") else math.nan
    candidates = [
        ("mesh, chamfer", _number(mesh.get("chamfer")), "{:.4g}", ""),
        ("mesh, F-score", _number(mesh.get("f_score")), "{:.4f}", ""),
        ("points to mesh, median", points, "{:.4g}", ""),
        ("training PSNR", _number(training.get("train_psnr")), "{:.2f}", "dB"),
        ("training time", _number(training.get("seconds")), "{:.0f}", "s"),
        ("steps", _number(training.get("steps")), "{:.0f}", ""),
        ("Gaussians", _number(training.get("gaussians")), "{:,.0f}", ""),
        ("speed", speed, "{:.0f}k", "rays/s"),
    ]
    tiles = score_tiles(evaluation)
    tiles += [
        (name, form.format(value), unit)
        for name, value, form, unit in candidates
        if math.isfinite(value)
    ]
    backend, device = training.get("backend"), training.get("device")
    if backend and device:
        tiles.append((f"device, {backend} kernels", str(device), ""))
    return tiles


def _curves(rows: Sequence[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    times = [_number(row.get("elapsed")) for row in rows]
    losses = [_number(row.get("loss")) for row in rows]
    psnrs = [_number(row.get("psnr")) for row in rows]
    plots = [
        curve(times, psnrs, label="PSNR of training pixels, dB"),
        curve(times, losses, label="loss", logarithmic=True),
    ]
    counts = [_number(row.get("gaussians")) for row in rows]
    if any(map(math.isfinite, counts)):
        plots.append(curve(times, counts, label="Gaussians"))
    sharpness = [_number(row.get("sharpness")) for row in rows]
    if any(map(math.isfinite, sharpness)):
        label = "sharpness of the surface, over the side of the bounds"
        plots.append(curve(times, sharpness, label=label, logarithmic=True))
    return plots


def _view_plot(views: Sequence[dict[str, Any]]) -> str | None:
    scores = [_number(view.get("psnr")) for view in views]
    return view_scores(scores, label="PSNR of each test view, dB") if scores else None


def _view_row(views: Sequence[dict[str, Any]], index: int) -> tuple[str, ...]:
    """Name and scores of a view as text."""
    name, view = _view_name(views, index), views[index]
    forms = (("psnr", "{:.2f}"), ("ssim", "{:.4f}"), ("lpips", "{:.4f}"))
    numbers = [(_number(view.get(key)), form) for key, form in forms]
    return (name, *(form.format(v) if math.isfinite(v) else "–" for v, form in numbers))


def _mesh(folder: Path, evaluation: dict[str, Any]) -> dict[str, Any] | None:
    """Scores of the mesh against the truth as (name, value), and their picture; None without."""
    scores = evaluation.get("mesh")
    if not isinstance(scores, dict):
        return None
    picture = folder / MESH_PICTURE
    address = _address(_read(picture), side=_WIDE_SIDE) if picture.is_file() else None
    return {"lines": scores.get("lines") or [], "picture": address}


def _stages(timings: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(stage, seconds, share in percent of the longest), the longest first."""
    known = {name: _number(value) for name, value in timings.items()}
    known = {name: value for name, value in known.items() if math.isfinite(value)}
    longest = max(known.values(), default=0.0) or 1.0
    ordered = sorted(known.items(), key=lambda item: -item[1])
    return [
        (name.replace("_", " "), f"{value:.2f}", f"{100 * value / longest:.1f}")
        for name, value in ordered
    ]


def _video(path: Path) -> str | None:
    """A data address, or the file's name when it is large."""
    if not path.is_file():
        return None
    if path.stat().st_size > _VIDEO_BYTES:
        return path.name
    return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()


def _picture_rows(folder: Path, views: Sequence[dict[str, Any]]) -> list[ViewPictures]:
    """Pictures of the worst, the best and some views between them by PSNR."""
    found = sorted(folder.glob("*_prediction.png"))
    order = sorted(range(len(found)), key=lambda i: _view_psnr(views, i))
    count = min(SHOWN_VIEWS, len(order))
    picked = [order[round(i * (len(order) - 1) / max(count - 1, 1))] for i in range(count)]
    notes = {picked[0]: "lowest PSNR", picked[-1]: "highest PSNR"} if count > 1 else {}
    rows = []
    for index in picked:
        psnr = _view_psnr(views, index)
        name = _view_name(views, index)
        score = f"{psnr:.2f} dB" if math.isfinite(psnr) else ""
        note = ", ".join(part for part in (score, notes.get(index, "")) if part)
        rows.append(ViewPictures(f"view {name}", note, _pictures(found[index])))
    return rows


def _view_name(views: Sequence[dict[str, Any]], index: int) -> str:
    return str(views[index].get("image", index)) if index < len(views) else str(index)


def _view_psnr(views: Sequence[dict[str, Any]], index: int) -> float:
    return _number(views[index].get("psnr")) if index < len(views) else math.inf


def _pictures(prediction: Path) -> tuple[tuple[str, str], ...]:
    stem = prediction.name.removesuffix("_prediction.png")
    truth = prediction.with_name(f"{stem}_truth.png")
    depth = prediction.with_name(f"{stem}_depth.png")
    shown: list[tuple[str, str]] = []
    rendered = _read(prediction)
    if truth.is_file():
        true = _read(truth)
        shown.append(("truth", _address(true)))
        shown.append(("prediction", _address(rendered)))
        if true.shape == rendered.shape:
            difference = np.abs(true.astype(np.float32) - rendered).mean(axis=2) / 255.0
            scaled = torch.from_numpy(difference / ERROR_RANGE)
            heat = (colorize(scaled, colormap="heat").numpy() * 255).round().astype(np.uint8)
            shown.append(("difference", _address(heat)))
    else:
        shown.append(("prediction", _address(rendered)))
    if depth.is_file():
        shown.append(("depth", _address(_read(depth))))
    return tuple(shown)


def _read(path: Path) -> np.ndarray:
    """A picture as (H, W, 3) uint8."""
    from PIL import Image

    from lumigraph.core.errors import DataError

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path}: damaged picture; run `lumigraph evaluate` again") from error


def _address(picture: np.ndarray, *, side: int = _PICTURE_SIDE) -> str:
    """The picture as a data address: JPEG, reduced to what a page shows."""
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((side, side))
    target = io.BytesIO()
    image.save(target, format="JPEG", quality=90, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(target.getvalue()).decode()
