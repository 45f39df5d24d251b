"""The viewer: a source, a web server, and a session for each browser."""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumigraph.core import Cameras, Scene
from lumigraph.core.devices import choose_device
from lumigraph.core.transforms import look_at
from lumigraph.training import Run, RunConfig, TrainingControl
from lumigraph.training.events import Event

from .browser_gaussians import browser_gaussians
from .history import History
from .meshes import MeshFile, Placement
from .panel import build_panel
from .path_render import PathRenderer
from .places import start_view
from .render_loop import RenderLoop
from .server import DEFAULT_PORT, Doorkeeper, bind, is_loopback, quiet, start_server
from .session import Session
from .source import FrameSource, MeshSource, RunSource, TrainingSource, open_source

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.05
PICK_PIXELS = 3  # side of the little picture that tells what lies under the pointer
PICK_ANGLE = math.radians(0.1)


@dataclass(frozen=True)
class Pick:
    """A click into the scene."""

    position: Tensor
    """(3,) the surface there, in the scene frame."""
    source_position: Tensor
    """(3,) the same in the capture's own frame."""
    distance: float
    """From the camera, in scene units."""
    session: Session
    """Whose browser was clicked in."""


class Viewer:
    """Serves one source to any number of browsers, until `close`.

    Training and viewer talk by events: give `on_event` to the trainer as its listener, and a
    `TrainingSource` made of `TrainingControl.between_steps` (`serve_training` does both).

    Args:
        source: what is shown.
        host: loopback, unless others shall come in; they then need the token of `url`.
        port: 0 for any free one; None for 8080, or any free one where that is taken.
        token: what addresses must hold; None makes one up where the host is not loopback.
        meshes: files shown from the start, in the capture's own frame.

    Raises:
        InputError: the port is taken. MissingExtraError: viser is not installed.

    Example:
        with Viewer(open_source("runs/courtyard")) as viewer:
            print(viewer.url)
            viewer.wait()
    """

    def __init__(
        self,
        source: FrameSource,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        token: str | None = None,
        meshes: Sequence[str | Path] = (),
    ) -> None:
        self.source = source
        self.meshes = {Path(path).name: MeshFile.open(path) for path in meshes}
        self.composites = bool(self.meshes)
        """Whether pictures come with depths, for things drawn by the browser."""
        self.history = History()
        listener = bind(host, port)
        self.port = listener.getsockname()[1]
        self.port_was_taken = port is None and self.port != DEFAULT_PORT
        self.host, self.is_open = host, not is_loopback(host)
        self.token = token or (secrets.token_urlsafe(16) if self.is_open else None)
        try:
            door = Doorkeeper(self.port, self.token, loopback_only=not self.is_open)
            self.server = start_server(listener, door, title=source.title)
        except BaseException:
            listener.close()
            raise
        self.loop = RenderLoop(source)
        self.renderer = PathRenderer(source, self.loop)
        self._sessions: dict[int, Session] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._prepare()
        self.server.on_client_connect(self._connected)
        self.server.on_client_disconnect(self._disconnected)
        self._ticker = threading.Thread(target=self._tick, name="viewer-clock", daemon=True)
        self._ticker.start()

    @property
    def url(self) -> str:
        """The address to open, with the token where one is needed."""
        name = "localhost" if self.host in ("127.0.0.1", "0.0.0.0", "::") else self.host
        name = f"[{name}]" if ":" in name else name
        return f"http://{name}:{self.port}/" + (f"?token={self.token}" if self.token else "")

    @property
    def sessions(self) -> list[Session]:
        """Of the browsers that are connected."""
        with self._lock:
            return list(self._sessions.values())

    @property
    def scene(self) -> Any:
        """viser's `SceneApi` that all browsers share: add meshes, planes, lines, labels.

        They stand in the scene frame, and what lies behind the picture is hidden.
        """
        if not self.composites:
            self.composites = True
            for session in self.sessions:
                session.change(moving=False, depth=True)
        return self.server.scene

    def __enter__(self) -> Viewer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def wait(self, seconds: float | None = None) -> None:
        """Until `close`, Ctrl-C or so many seconds have passed."""
        self._ended.wait(seconds)

    def close(self) -> None:
        """Stop serving; browsers lose their connection."""
        if self._ended.is_set():
            return
        self._ended.set()
        for session in self.sessions:
            session.close()
        self.loop.close()
        with quiet():
            self.server.stop()

    def on_event(self, event: Event) -> None:
        """A listener for `training.train`: told of steps, checkpoints and the end. Quick."""
        changed = getattr(self.source, "changed", None)
        if changed is not None:
            changed()
            self.loop.wake()
        self.history.add(event)
        for session in self.sessions:
            try:
                session.on_event(event)
            except Exception as error:  # training must not end for a browser that has gone
                logger.debug("an event could not be shown: %s", error)

    def on_pick(self, callback: Callable[[Pick], None]) -> Callable[[Pick], None]:
        """Call a function with the point of the scene at each click; usable as a decorator.

        Clicks on nothing (less than half opaque) are not told.
        """

        @self.server.scene.on_click()
        def clicked(event: Any) -> None:
            session = self._session(event.client_id)
            if session is not None and event.ray_origin and event.ray_direction:
                pick = self.pick(session, event.ray_origin, event.ray_direction)
                if pick is not None:
                    callback(pick)

        return callback

    def pick(
        self, session: Session, origin: Sequence[float], direction: Sequence[float]
    ) -> Pick | None:
        """What a ray (origin and direction in the scene frame) meets first."""
        start = torch.tensor(origin, dtype=torch.float32)
        ahead = torch.tensor(direction, dtype=torch.float32)
        side = PICK_PIXELS
        focal = side / 2 / math.tan(PICK_ANGLE / 2)
        up = self.source.up if abs(float(ahead @ self.source.up)) < 0.99 else self.source.up.roll(1)
        pose = look_at(start, start + ahead, up=up)
        camera = Cameras.from_intrinsics(pose, side, side, focal, times=session.moment)
        frame = self.loop.call(lambda model: model.render(camera)).result(timeout=10)
        middle = side // 2
        if float(frame.opacity[middle, middle]) < 0.5:
            return None
        depth = float(frame.depth[middle, middle])
        point = start + depth * ahead / ahead.norm()
        scene = self.source.scene
        own = point if scene is None else scene.to_source(point)
        return Pick(point, own, depth, session)

    def placement(self) -> Placement:
        """Where things in the capture's own frame stand in the scene frame."""
        scene = self.source.scene
        return Placement() if scene is None else Placement.from_similarity(scene.normalization)

    def add_mesh_file(self, mesh: MeshFile, *, scene: Any = None) -> Any:
        """Show a mesh that lies in the capture's own frame; returns viser's handle.

        Args:
            scene: of one browser; None takes the one that all share.
        """
        place = self.placement()
        target = self.scene if scene is None else scene
        return target.add_glb(
            f"/meshes/{mesh.name}",
            mesh.content,
            scale=place.scale,
            wxyz=place.wxyz,
            position=place.position,
        )

    @property
    def has_gaussians(self) -> bool:
        """Whether the browser could draw the source alone."""
        return self.source.splats

    def show_gaussians(self, session: Session, shown: bool) -> None:
        """Let a browser draw the Gaussians alone, or go back to pictures."""
        session.stop_pictures(shown)
        if not shown:
            session.client.scene.remove_by_name("/gaussians")
            return
        moment = session.moment
        cloud = self.loop.call(lambda model: self.source.cloud(moment)).result(timeout=30)
        if cloud is not None and not len(cloud):  # nothing is there at this time
            session.client.scene.remove_by_name("/gaussians")
        elif cloud is not None:
            session.client.scene.add_gaussian_splats("/gaussians", **browser_gaussians(cloud))

    def _prepare(self) -> None:
        """The scene before anybody looks."""
        scene = self.server.scene
        scene.set_up_direction(tuple(float(value) for value in self.source.up))
        pose, target, angle = start_view(self.source)
        initial = self.server.initial_camera
        initial.position = pose[:3, 3].tolist()
        initial.look_at = target.tolist()
        initial.up = (-pose[:3, 1]).tolist()
        initial.fov = angle
        side = float(self.source.bounds[1, 0] - self.source.bounds[0, 0])
        initial.near, initial.far = 1e-3 * side, 1e3 * side
        if isinstance(self.source, MeshSource):
            self.add_mesh_file(self.source.mesh)
        for mesh in self.meshes.values():
            self.add_mesh_file(mesh)

    def _session(self, client_id: int) -> Session | None:
        with self._lock:
            return self._sessions.get(client_id)

    def _connected(self, client: Any) -> None:
        session = Session(self, client)
        with self._lock:
            self._sessions[client.client_id] = session
        try:
            session.start()
            build_panel(session)
        except Exception as error:  # it has gone already, or is no browser
            logger.info("a browser could not be served (%s)", type(error).__name__)
            logger.debug("where it failed", exc_info=True)

    def _disconnected(self, client: Any) -> None:
        with self._lock:
            session = self._sessions.pop(client.client_id, None)
        if session is not None:
            session.close()

    def _tick(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(TICK_SECONDS):
            now = time.monotonic()
            for session in self.sessions:
                session.tick(now - last)
            last = now


def serve(run: Run | str | Path, *, device: str | None = None, **options: Any) -> Viewer:
    """Show a run, or a file of Gaussians or a mesh: `lg.viewer.serve(run).wait()`.

    Args:
        device: where to render; None takes that of the run.
        options: of `Viewer`.
    """
    if isinstance(run, Run):
        return Viewer(RunSource(run, device=device), **options)
    return Viewer(open_source(run, device=device), **options)


def serve_training(
    control: TrainingControl,
    scene: Scene,
    *,
    config: RunConfig | None = None,
    title: str = "training",
    **options: Any,
) -> Viewer:
    """Show a run while it trains; give the viewer's `on_event` to the trainer.

    The run need not have begun. Where nobody looks, training is never asked for anything.

    Args:
        control: that the run will be started with.
        scene: that it trains on.
        config: its settings: method and device for the panel.
        title: shown above the panel.
        options: of `Viewer`: host, port, token, meshes.

    Example:
        control = TrainingControl()
        with serve_training(control, scene, config=config) as viewer:
            train(scene, config, out="runs/x", control=control, on_event=viewer.on_event)
    """
    known = {} if config is None else {"kind": config.method, "device": _device(config)}
    splats = config is not None and config.method.startswith("gaussians")
    source = TrainingSource(control, scene, title=title, splats=splats, **known)
    return Viewer(source, **options)


def _device(config: RunConfig) -> str:
    return str(choose_device(config.device))
