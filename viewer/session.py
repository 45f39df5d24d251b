"""One browser: its camera and settings on the way in, its pictures on the way out."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lumigraph.core import Cameras
from lumigraph.core.errors import InputError
from lumigraph.core.transforms import quaternion_from_rotation
from lumigraph.training.events import Event, Listener

from .display import Look
from .places import fitting_angle
from .views import Drawn, Shot, View, Wish

if TYPE_CHECKING:
    from .viewer import Viewer

logger = logging.getLogger(__name__)

STILL_QUALITY, MOVING_QUALITY = 92, 75
STATUS_SECONDS = 0.2
"""Between two lines of figures while pictures stream."""
DEPTH_PIXELS = 320
"""Longer side of the depths that are sent along."""
FAR = 160.0
"""Depth of what is empty; viser's depth images end at 167."""
CAPS = (160, 320, 480, 640, 960, 1280, 1920, 2560, 3840)
"""Longer sides of whole pictures to choose from, in pixels."""


def default_cap(device: str) -> int:
    """What a still picture may cost: a CPU takes a second for 640 x 480 of a volume."""
    return 1920 if device.startswith("cuda") else 640


class Session:
    """State of one browser.

    Args:
        viewer: that it belongs to.
        client: viser's handle.
    """

    def __init__(self, viewer: Viewer, client: Any) -> None:
        self.viewer, self.client = viewer, client
        self.source, self.loop = viewer.source, viewer.loop
        self.view = View(self._show, self._fail)
        self.look = Look()
        self.cap = default_cap(self.source.device)
        self.overlays: set[str] = set()
        """What the browser draws over the picture."""
        self.last: Drawn | None = None
        """The newest picture."""
        self.on_status: Callable[[str], None] = lambda text: None
        self.on_lens: Callable[[float], None] = lambda radians: None
        self.moment = 0.0
        """Time of a moving scene, in [0, 1]."""
        self.on_moment: Callable[[float], None] = lambda moment: None
        self.tickers: list[Callable[[float], None]] = []
        """Called about 20 times a second with the seconds since the last call."""
        self.listeners: list[Listener] = []
        """Told of the training's events."""
        self._pose: tuple[object, ...] | None = None
        self._status_at = 0.0
        self._background_sent = False
        self._closed = threading.Event()

    def start(self) -> None:
        """Serve the browser from its present camera on."""
        camera = self.client.camera

        async def moved(camera: Any) -> None:
            self.camera_moved(camera)

        camera.on_update(moved)
        self.camera_moved(camera)
        self.loop.add(self.view)

    def close(self) -> None:
        """The browser has gone."""
        self._closed.set()
        self.loop.remove(self.view)

    def camera_moved(self, camera: Any) -> None:
        """A message about the camera; one that makes no sense changes nothing."""
        try:
            size = (camera.image_width, camera.image_height)
            shot = Shot.of(camera.wxyz, camera.position, field_of_view=camera.fov, size=size)
        except (InputError, AssertionError):
            return
        # the browser changes its pixel density to stay fluent: no new picture for that
        pose = (*shot.camera_to_world.flatten().tolist(), shot.field_of_view, *shot.size(self.cap))
        if pose == self._pose:
            return
        first, self._pose = self._pose is None, pose
        if first:
            depth = self.viewer.composites
            wish = Wish(shot, self.look, self.cap, moment=self.moment, depth=depth)
            self.view.want(wish, moving=False)
            self.loop.wake()
        else:
            self.change(shot=shot, moving=True)

    def change(self, *, moving: bool = True, **changes: Any) -> None:
        """Some fields of the wish; `moving` allows a small picture first."""
        self.view.change(moving=moving, **changes)
        self.loop.wake()

    def set_moment(self, moment: float) -> None:
        """Time of a moving scene, in [0, 1]."""
        self.moment = min(1.0, max(0.0, moment))
        self.change(moment=self.moment)
        self.on_moment(self.moment)

    def restyle(self, **changes: Any) -> None:
        """Some fields of the look."""
        self.look = replace(self.look, **changes)
        self.change(look=self.look)

    def jump(self, cameras: Cameras, *, distance: float) -> None:
        """Stand where a captured camera stands (a batch of one), at its time, and see what it sees.

        Args:
            distance: to the point that the browser's camera turns about.
        """
        angle = fitting_angle(cameras, self.client.camera.aspect)
        self.stand_at(cameras.camera_to_world[0], angle, distance=distance)
        if cameras.times is not None:
            self.set_moment(float(cameras.times[0]))

    def tick(self, seconds: float) -> None:
        """Time has passed: what plays goes on. Never raises."""
        for ticker in self.tickers:
            try:
                ticker(seconds)
            except Exception:
                logger.debug("a clock of a closed browser", exc_info=True)

    def on_event(self, event: Event) -> None:
        """News of the training."""
        for listener in self.listeners:
            listener(event)

    @property
    def field_of_view(self) -> float:
        """Degrees across the shorter side of the window, as in `CameraPath`."""
        camera = self.client.camera
        narrow = min(1.0, camera.image_width / camera.image_height)
        return math.degrees(2 * math.atan(math.tan(camera.fov / 2) * narrow))

    def pose(self) -> Tensor:
        """(4, 4) of the browser's camera, x right, y down, z forward, in the scene frame."""
        camera = self.client.camera
        size = (camera.image_width, camera.image_height)
        shot = Shot.of(camera.wxyz, camera.position, field_of_view=camera.fov, size=size)
        return shot.camera_to_world

    def stand_at(self, pose: Tensor, angle: float, *, distance: float) -> None:
        """Move the browser's camera.

        Args:
            pose: (4, 4) in the scene frame.
            angle: radians from the lower to the upper edge.
            distance: to the point that the camera turns about.
        """
        pose = pose.double().cpu()
        position, forward = pose[:3, 3], pose[:3, 2]
        handle = self.client.camera
        with self.client.atomic():
            handle.wxyz = quaternion_from_rotation(pose[:3, :3]).numpy()
            handle.position = position.numpy()
            handle.look_at = (position + forward * distance).numpy()
            handle.fov = angle
        self.on_lens(angle)

    def download(self, name: str, content: bytes) -> None:
        """Hand the browser a file to save."""
        self.client.send_file_download(name, content, save_immediately=True)

    def notify(self, title: str, body: str) -> None:
        """A note in the corner, for a few seconds."""
        if not self._closed.is_set():
            self.client.add_notification(title, body, auto_close_seconds=8.0)

    def stop_pictures(self, stopped: bool) -> None:
        """Whether the browser draws alone."""
        self.view.paused = stopped
        if stopped and self._background_sent:
            self.client.scene.set_background_image(None)
            self._background_sent = False
        self.view.again()
        self.loop.wake()

    def _show(self, drawn: Drawn) -> None:
        if self._closed.is_set() or self.view.paused:
            return
        self.last = drawn
        depth = None
        if drawn.wish.depth:
            depth = _browser_depth(drawn.frame.depth, drawn.frame.opacity)
        quality = STILL_QUALITY if drawn.job.full else MOVING_QUALITY
        self.client.scene.set_background_image(
            drawn.picture, format="jpeg", jpeg_quality=quality, depth=depth
        )
        self._background_sent = True
        now = time.monotonic()
        if drawn.job.full or now - self._status_at > STATUS_SECONDS:
            self._status_at = now
            self.on_status(status_line(drawn))

    def _fail(self, message: str) -> None:
        if not self._closed.is_set():
            self.on_status(f"**This picture failed.** {message}")


def status_line(drawn: Drawn) -> str:
    """What a picture is, in one line of markdown: its size of the wanted one, its time."""
    width, height = drawn.size
    full_width, full_height = drawn.wish.full_size
    window = (drawn.wish.shot.width, drawn.wish.shot.height)
    text = f"**{width} x {height}**"
    if not drawn.job.full:
        text += f" of {full_width} x {full_height}, fewer pixels while moving"
    elif (full_width, full_height) != window:
        text += f", enlarged to the window's {window[0]} x {window[1]}"
    text += f" · {1e3 * drawn.job.seconds:.0f} ms"
    samples = drawn.samples_per_ray
    return text if samples is None else f"{text} · {samples:.1f} samples per ray"


def _browser_depth(depth: Tensor, opacity: Tensor) -> np.ndarray:
    """Depths to hide things behind, smaller than the picture: they compress slowly."""
    step = math.ceil(max(depth.shape) / DEPTH_PIXELS)
    seen = torch.where(opacity > 0.5, depth, FAR).clamp(0, FAR)
    return seen[step // 2 :: step, step // 2 :: step].cpu().numpy()
