"""What a viewer shows: a run, a file of Gaussians, a mesh, or a field while it trains.

The viewer asks a source for a model between two pictures and renders with `training.Model.render`,
the call that `lumigraph render` makes: what is seen is what is written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from lumigraph.core import GaussianCloud, Scene, cube
from lumigraph.core.axes import AXIS_NAMES
from lumigraph.core.errors import CheckpointError, DataError, InputError
from lumigraph.core.path_shapes import upward
from lumigraph.core.transforms import axis_of
from lumigraph.export.render_source import SplatSource
from lumigraph.export.splat_files import FILE_UP
from lumigraph.export.splat_files.moving_file import is_moving_file, read_moving
from lumigraph.export.splat_files.reading import MOVING_SUFFIX, SPLAT_SUFFIXES, read_splats
from lumigraph.fields import PrimitiveField
from lumigraph.training import Model, Run, TrainingControl
from lumigraph.training.control import ModelUnavailable
from lumigraph.training.files import newest_checkpoint

from .meshes import MESH_SUFFIXES, MeshFile, has_triangles

RECENT_SECONDS = 120.0
"""A training that wrote metrics this lately is thought to be running."""


class FrameSource(Protocol):
    """Something to look at. Methods are called on the viewer's render thread alone."""

    title: str
    """Shown above the panel."""
    kind: str
    """Name of the method, or of the kind of file."""
    device: str
    """Where it is rendered, in words."""
    scene: Scene | None
    """Cameras, photographs and points, where they are known."""
    bounds: Tensor
    """(2, 3) cube of interest."""
    up: Tensor
    """(3,) unit vector that points up."""
    renders: bool
    """False where there is nothing but meshes, which the browser draws."""
    splats: bool
    """Whether it is made of Gaussians, which a browser can draw alone."""
    moments: Tensor | None
    """(F,) times in [0, 1] that a moving model was trained at; None where nothing moves, or while
    that is unknown. May change with `version`."""
    version: int
    """Grows when the model has changed."""

    def session(self) -> AbstractContextManager[Model | None]:
        """The model, unchanged within the context; None when it cannot be had now."""
        ...

    def refresh(self) -> bool:
        """Look for news, quickly; True when `version` grew."""
        ...

    def cloud(self, moment: float | None = None) -> GaussianCloud | None:
        """The Gaussians at a time in [0, 1], where the model is made of them."""
        ...


class _Source:
    """What most sources share."""

    def __init__(self, title: str, kind: str, device: str) -> None:
        self.title, self.kind, self.device = title, kind, device
        self.scene: Scene | None = None
        self.bounds = cube(torch.zeros(3), 2.0)
        self.up = axis_of("z").float()
        self.renders, self.splats, self.version = True, False, 0
        self.moments: Tensor | None = None

    def _show(self, scene: Scene) -> None:
        self.scene, self.bounds = scene, scene.bounds
        if len(scene.cameras):
            self.up = upward(scene.cameras).float()

    def refresh(self) -> bool:
        return False

    def cloud(self, moment: float | None = None) -> GaussianCloud | None:
        return None


class ModelSource(_Source):
    """A model at hand.

    Args:
        model: what is rendered.
        scene: cameras, photographs and bounds.
        title, kind: shown in the panel.
    """

    def __init__(
        self, model: Model, scene: Scene | None = None, *, title: str = "model", kind: str = "model"
    ) -> None:
        super().__init__(title, kind, str(model.device))
        self._model, self.moments = model, model.moments
        self.splats = isinstance(model.field, PrimitiveField)
        if scene is not None:
            self._show(scene)

    def session(self) -> AbstractContextManager[Model | None]:
        return nullcontext(self._model)

    def cloud(self, moment: float | None = None) -> GaussianCloud | None:
        return cloud_of(self._model.field, moment)


class RunSource(ModelSource):
    """A run folder; a newer checkpoint is taken up when it appears.

    Raises:
        DataError, ConfigError: no run. CheckpointError: no checkpoint yet; says how to go on.
    """

    def __init__(self, run: Run | str | Path, *, device: str | None = None) -> None:
        self.run = run if isinstance(run, Run) else Run.open(run)
        self._asked = device
        self._checkpoint = _first_checkpoint(self.run.path)
        model = self.run.model(device)
        name = self.run.path.resolve().name
        super().__init__(model, self.run.scene(), title=name, kind=self.run.config.method)

    def refresh(self) -> bool:
        try:
            newest = newest_checkpoint(self.run.path)
            if newest == self._checkpoint:
                return False
            self._model = self.run.model(self._asked)
        except CheckpointError:
            return False  # removed or not whole at this moment
        self._checkpoint, self.moments = newest, self._model.moments
        self.version += 1
        return True


class SplatFileSource(ModelSource):
    """Gaussians of a .ply, .splat, .spz or .lg4d file, in the file's own frame before white.

    Args:
        up: (3,) the direction that is up in the file; files do not say.
    """

    def __init__(self, path: str | Path, *, device: str = "auto", up: Tensor | None = None) -> None:
        name = Path(path).name
        if is_moving_file(path):
            moving = read_moving(path)
            splats, kind = SplatSource.of_moving(name, moving.splats, "white"), moving.report.format
        else:
            file = read_splats(path)
            splats = SplatSource(name, file.cloud, file.report.antialiased, background="white")
            kind = file.report.format
        super().__init__(splats.model(device), title=name, kind=kind)
        self.bounds = extent(splats.cloud.means)
        if up is not None:
            self.up = up.float()


class MeshSource(_Source):
    """A mesh alone: the browser draws it, nothing is rendered here."""

    def __init__(self, path: str | Path, *, up: Tensor | None = None) -> None:
        self.mesh = MeshFile.open(path)
        super().__init__(Path(path).name, "mesh", "the browser")
        self.renders = False
        self.bounds = self.mesh.bounds()
        if up is not None:
            self.up = up.float()

    def session(self) -> AbstractContextManager[Model | None]:
        return nullcontext(None)


class TrainingSource(_Source):
    """A field while it trains, looked at between two steps.

    Args:
        control: that the run was, or will be, started with.
        scene: what is trained on.
        title, kind, device: shown in the panel; `kind` is the method's name.
        splats: whether the field is made of Gaussians.
    """

    WAIT = 2.0
    """Seconds to wait for the end of a step."""

    def __init__(
        self,
        control: TrainingControl,
        scene: Scene,
        *,
        title: str = "training",
        kind: str = "training",
        device: str = "its device",
        splats: bool = False,
    ) -> None:
        super().__init__(title, kind, device)
        self.control = control
        self.splats = splats
        self._show(scene)

    def session(self) -> AbstractContextManager[Model | None]:
        return self._between_steps()

    @contextmanager
    def _between_steps(self) -> Iterator[Model | None]:
        with ExitStack() as stack:
            try:
                model = stack.enter_context(self.control.between_steps(timeout=self.WAIT))
            except (TimeoutError, ModelUnavailable):
                model = None
            if model is not None:
                self.moments = model.moments
            yield model

    def changed(self) -> None:
        """Steps were made; pictures are out of date."""
        self.version += 1

    def cloud(self, moment: float | None = None) -> GaussianCloud | None:
        with self.session() as model:
            return None if model is None else cloud_of(model.field, moment)


def open_source(
    target: str | Path, *, device: str | None = None, up: str | None = None
) -> FrameSource:
    """The source of a run folder, a file of Gaussians (.ply, .splat, .spz, .lg4d) or a mesh (.glb,
    .obj, .ply with faces).

    Args:
        device: "auto", "cpu" or "cuda"; None takes that of the run, or auto.
        up: for files, one of `core.transforms.AXIS_NAMES`; None takes what is usual: -y for
            Gaussians, y for .glb, z for other meshes.

    Raises:
        InputError and its kinds: nothing there, another kind of file, or a damaged one.
    """
    path = Path(target)
    if up is not None and up not in AXIS_NAMES:
        raise InputError(f"up is {up!r}: use one of {', '.join(AXIS_NAMES)}")
    if path.is_dir():
        if up is not None:
            raise InputError(f"{path}: a run knows what is up; leave the option up away")
        return RunSource(path, device=device)
    suffix = path.suffix.lower()
    if suffix in MESH_SUFFIXES and (suffix != ".ply" or has_triangles(path)):
        return MeshSource(path, up=axis_of(up or ("y" if suffix == ".glb" else "z")))
    splats = (*SPLAT_SUFFIXES, MOVING_SUFFIX)
    if suffix in splats:
        return SplatFileSource(path, device=device or "auto", up=axis_of(up or FILE_UP))
    known = ", ".join(dict.fromkeys((*splats, *MESH_SUFFIXES)))
    if not path.exists():
        raise DataError(f"{path}: no such run folder or file")
    raise InputError(f"{path}: cannot be viewed; give a run folder or a file that ends in {known}")


def cloud_of(field: nn.Module, moment: float | None = None) -> GaussianCloud | None:
    """A copy of the Gaussians of a field at a time; None where it is made of something else."""
    if not isinstance(field, PrimitiveField):
        return None
    with torch.no_grad():
        return GaussianCloud(*(tensor.clone() for tensor in field.gaussians_at(moment)))


def extent(points: Tensor) -> Tensor:
    """(2, 3) cube around most of the points (N, 3): outliers of 2% on each side are left out."""
    few = points[:: max(1, len(points) // 100_000)].double().cpu()
    low, high = few.quantile(0.02, dim=0), few.quantile(0.98, dim=0)
    return cube((low + high).float() / 2, max(float((high - low).max()), 1e-6))


def _first_checkpoint(folder: Path) -> Path:
    try:
        return newest_checkpoint(folder)
    except CheckpointError:
        metrics = folder / "metrics.jsonl"
        age = time.time() - metrics.stat().st_mtime if metrics.is_file() else float("inf")
        if age > RECENT_SECONDS:
            raise
        raise CheckpointError(
            f"{folder}: no checkpoint yet, but a training writes here ({age:.0f} s ago); wait for "
            "its first checkpoint, or train with --viewer to look from the first step on"
        ) from None
