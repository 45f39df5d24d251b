"""`lumigraph evaluate`: scores of a run on views it was not trained on, and of its mesh against the
true surface."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import tyro

from .parsing import UsageError, option_name
from .terminal import Terminal, escaped


@dataclass(frozen=True)
class Arguments:
    """Render the test views of a run, score them, and write the report. With --mesh also score its
    mesh (pip install 'lumigraph[mesh,geometry]').
    """

    run: tyro.conf.Positional[Path]
    """Run folder."""
    split: str = "test"
    """Which views: a split of the scene."""
    device: Literal["auto", "cpu", "cuda"] | None = None
    """Where to render; by default as in training."""
    mesh: Path | None = None
    """The true surface in the frame and unit of the data, a mesh (.ply, .obj, .glb) or points
    (.ply): score the mesh of the run against it."""
    mesh_only: bool = False
    """mesh: render no views for their own scores."""
    mesh_file: Path | None = None
    """mesh: judge this file instead of the mesh of the run."""
    resolution: int | None = None
    """mesh: voxels along the side of the scene's bounds, as in export."""
    trim_hull: int | None = None
    """mesh: leave out what lies beside the outlines, as in export."""
    samples: int = 200_000
    """mesh: points spread over each surface."""
    spacing: float | None = None
    """mesh: distance of these points instead, e.g. 0.2 (mm) as for the DTU set."""
    threshold: float | None = None
    """mesh: distance for precision, recall and F-score; by default 1 % of the diagonal."""
    cap: float | None = None
    """mesh: leave larger distances out of the means, e.g. 20 (mm) as for the DTU set."""
    seen_by: int = 1
    """mesh: training cameras that must see a point; 0 counts all of both surfaces."""
    margin: int = 8
    """mesh: pixels by which outlines are widened to say which part of the truth counts."""
    observation: Path | None = None
    """mesh: observed space of a DTU scan (ObsMask*.mat); outside the mesh does not count."""
    plane: Path | None = None
    """mesh: ground plane of a DTU scan (Plane*.mat); below the truth does not count."""
    error_limit: float | None = None
    """mesh: distance at the upper end of the colors of the picture."""
    json: bool = False
    """Print one final JSON object on stdout, everything else on stderr."""


def run(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    """Evaluate, write the report, and return the scores."""
    from lumigraph import training
    from lumigraph.training.report import write_report

    _check_options(arguments)
    opened = training.Run.open(arguments.run)
    scores: dict[str, Any] = {"run": str(arguments.run)}
    rows: list[tuple[str, object]] = []
    truth, options = None, None
    if arguments.mesh is not None:
        # Refused before views are rendered.
        truth, options = _truth(arguments.mesh, opened), _score_options(arguments)
    if not arguments.mesh_only:
        scores = evaluate_with_progress(
            opened, terminal, split=arguments.split, device=arguments.device
        )
        rows += score_rows(scores)
    if truth is not None:
        mesh, facts = _mesh_scores(arguments, opened, terminal, truth=truth, options=options)
        scores["mesh"] = mesh
        rows += facts
    report = write_report(opened.path)
    terminal.facts([*rows, ("report", report)])
    return scores


def _truth(path: Path, opened: Any) -> Any:
    from lumigraph import export

    return export.true_surface(path, opened.scene())


def _mesh_scores(
    arguments: Arguments, opened: Any, terminal: Terminal, *, truth: Any, options: Any
) -> tuple[dict[str, Any], list[tuple[str, object]]]:
    """The scores of the mesh, for machines and for people; the picture is drawn."""
    from lumigraph import export, viewer
    from lumigraph.training.run import MESH_PICTURE

    with terminal.stages("mesh") as progress:
        found = export.evaluate_mesh(
            opened,
            truth,
            mesh_file=arguments.mesh_file,
            options=options,
            mesh_options=None if arguments.mesh_file is not None else _mesh_options(arguments),
            device=arguments.device,
            on_progress=progress,
        )
    rows: list[tuple[str, object]] = [("mesh", found.numbers["file"]), *found.lines()]
    picture = None
    try:
        picture = viewer.picture_of_errors(
            found, opened.scene(), out=opened.path / MESH_PICTURE, limit=arguments.error_limit
        )
        rows.append(("picture", picture))
    except viewer.CANNOT_DRAW as reason:
        terminal.say(escaped(f"no picture: {reason}"))
    return {**found.numbers, "picture": None if picture is None else str(picture)}, rows


def _score_options(arguments: Arguments) -> Any:
    from lumigraph import export

    regions = export.RegionOptions(
        **{field.name: getattr(arguments, field.name) for field in fields(export.RegionOptions)}
    )
    shared = {field.name for field in fields(export.MeshScoreOptions)} - {"regions"}
    given = {name: getattr(arguments, name) for name in shared}
    return export.MeshScoreOptions(regions=regions, **given)


def _mesh_options(arguments: Arguments) -> Any:
    from lumigraph import export

    return export.MeshOptions(resolution=arguments.resolution, trim_hull=arguments.trim_hull)


_FOR_VIEWS = ("run", "split", "device", "json", "mesh")


def _check_options(arguments: Arguments) -> None:
    """Refuse options that would not be heeded."""
    if arguments.mesh is None:
        for field in fields(arguments):
            if field.name not in _FOR_VIEWS and getattr(arguments, field.name) != field.default:
                raise UsageError(f"{option_name(field.name)} needs --mesh with the true surface")
    if arguments.mesh_file is not None:
        for name in ("resolution", "trim_hull"):
            if getattr(arguments, name) is not None:
                option = option_name(name)
                raise UsageError(f"{option} is for the mesh of the run, not for --mesh-file")


def evaluate_with_progress(
    opened: Any, terminal: Terminal, *, split: str = "test", device: str | None = None
) -> dict[str, Any]:
    """The scores that are printed."""
    from lumigraph import training

    with terminal.events("evaluating") as listener:
        scores = training.evaluate(opened, split=split, device=device, on_event=listener)
    return {key: value for key, value in scores.items() if key != "per_view"}


def score_rows(scores: dict[str, Any]) -> list[tuple[str, object]]:
    """The scores for people; a mean without any finite value is unknown."""
    from lumigraph.training.scores import shown_scores

    rows: list[tuple[str, object]] = [("protocol", scores["protocol"])]
    if "views" in scores:
        rows.append(("test views", scores["views"]))
    rows += shown_scores(scores)
    found = [moment["psnr"] for moment in scores.get("per_moment", ())]
    known = [value for value in found if value is not None]
    if known:
        rows.append(("moments", f"{len(found)}, PSNR {min(known):.2f} to {max(known):.2f} dB"))
    return [*rows, ("evaluation time", f"{scores['seconds']:.1f} s")]
