"""The meshes of all moments of a run that moves: a folder of files and their times.

`meshes.json` lists them: `{"frame": "capture", "meshes": [{"file": "mesh-0000.ply", "time": 0.0,
"vertices": ..., "triangles": ...}, ...]}`, times in [0, 1] as the cameras of the run have them. It
is written last, so that a folder with it is whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic as clock
from typing import TYPE_CHECKING, Any, Literal

from lumigraph.core.devices import choose_device
from lumigraph.core.errors import InputError
from lumigraph.training.files import write_json

from .mesh_export import MeshReport, Stages, check_mesh, shown_moment, write_surface
from .mesh_options import MeshOptions
from .target_file import check_target

if TYPE_CHECKING:
    from lumigraph.training import Run

LIST = "meshes.json"


@dataclass(frozen=True)
class MeshSequenceReport:
    """Meshes that were written."""

    path: Path
    """The folder."""
    times: tuple[float, ...]
    """In [0, 1], of each mesh."""
    meshes: tuple[MeshReport, ...]
    seconds: float = field(compare=False)

    def line(self) -> str:
        """One line for people."""
        triangles = sum(mesh.triangles for mesh in self.meshes)
        size = sum(mesh.bytes for mesh in self.meshes) / 2**20
        return (
            f"{self.path}: {len(self.meshes)} meshes, {triangles:,} triangles in all, by "
            f"{self.meshes[0].source}, {size:.1f} MiB, times in {LIST}"
        )

    def to_dict(self) -> dict[str, Any]:
        """For machines; `out` is the folder."""
        meshes = [mesh.to_dict() for mesh in self.meshes]
        for time, mesh in zip(self.times, meshes, strict=True):
            mesh["time"] = time
        return {"out": str(self.path), "meshes": meshes, "seconds": self.seconds}


def mesh_sequence(
    run: Run,
    *,
    out: str | Path,
    suffix: str = ".ply",
    frame: Literal["capture", "scene"] = "capture",
    device: str | None = None,
    options: MeshOptions | None = None,
    on_progress: Stages | None = None,
) -> MeshSequenceReport:
    """Write a mesh for each moment: `lg.export.mesh_sequence(run, out="meshes")`.

    Args:
        run: a `training.Run` that moves.
        out: a folder, made where it is missing.
        suffix: of the files: .ply, .obj or .glb.
        frame, device, options: as for `mesh`.
        on_progress: told the stage with the number of the mesh, how much is done, and of how much.

    Raises:
        InputError: nothing moves, or a file is there already. Others: see `mesh`.
    """
    options, folder, started = options or MeshOptions(), Path(out), clock()
    if folder.is_file():
        raise InputError(f"{folder}: is a file; name a folder for the meshes of all moments")
    scene, model = run.scene(), run.model(device)
    if model.moments is None:
        raise InputError(f"{folder}: this run does not move; name a file that ends in {suffix}")
    times = [round(time, 6) for time in model.moments.tolist()]
    targets = [folder / f"mesh-{index:04d}{suffix}" for index in range(len(times))]
    for target in targets:
        check_mesh(target, options)
    check_target(folder / LIST, (".json",), what="it", overwrite=options.overwrite)
    (folder / LIST).unlink(missing_ok=True)
    reports = []
    for index, (time, target) in enumerate(zip(times, targets, strict=True)):
        part, still = shown_moment(scene, model, time, target)
        told = None if on_progress is None else _numbered(on_progress, index, len(times))
        report = write_surface(
            part,
            still,
            target,
            frame=frame,
            device=choose_device(device or run.config.device),
            options=options,
            on_progress=told,
        )
        reports.append(report)
    rows = [
        {"file": r.path.name, "time": t, "vertices": r.vertices, "triangles": r.triangles}
        for r, t in zip(reports, times, strict=True)
    ]
    write_json(folder / LIST, {"frame": frame, "meshes": rows})
    return MeshSequenceReport(folder, tuple(times), tuple(reports), clock() - started)


def _numbered(told: Stages, index: int, count: int) -> Stages:
    return lambda stage, done, total: told(f"{index + 1} of {count}: {stage}", done, total)
