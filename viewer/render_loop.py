"""The render thread: one for all viewers, fair, giving up what nobody wants any more.

A turn is one small picture for a viewer that moves, or one tile of a whole picture for one that
stands still. Viewers take turns, so that nobody waits longer than a turn of each of the others;
between two tiles a picture whose viewer has moved on is dropped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import torch

from lumigraph.core import Cameras, Frame
from lumigraph.fields import PrimitiveField
from lumigraph.training import Model
from lumigraph.training.control import synchronize

from .cropping import can_crop, cropped
from .display import Photo, background_of, picture
from .pacing import Pace
from .photos import photo_in_view, taken_at
from .source import FrameSource
from .views import STILL_SECONDS, Drawn, Job, View, Wish

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 2.0
"""A still picture of a model that trains is made anew this often at most."""
REFRESH_SHARE = 0.2
"""Part of the time that may go into such pictures, of all viewers together."""
POLL_SECONDS = 1.0
"""The source is asked for news this often while somebody looks."""
RETRY_SECONDS = 0.5
"""After a model could not be had."""
CLOSED = "the viewer was closed"


class RenderLoop:
    """Renders a source for any number of views.

    Args:
        source: what is shown.
    """

    def __init__(self, source: FrameSource) -> None:
        self.source = source
        self.pace = Pace()
        self._views: list[View] = []
        self._calls: list[tuple[Callable[[Model], Any], Future]] = []
        self._wake = threading.Condition()
        self._closed = False
        self._woken = False
        self._polled_at = 0.0
        self._cut: tuple[object, Model] | None = None
        self._thread = threading.Thread(target=self._run, name="viewer-render", daemon=True)
        self._thread.start()

    def add(self, view: View) -> None:
        """Serve a view from now on."""
        with self._wake:
            self._views.append(view)
        self.wake()

    def remove(self, view: View) -> None:
        """Forget a view; its picture in the making is dropped."""
        with self._wake:
            if view in self._views:
                self._views.remove(view)

    @property
    def view_count(self) -> int:
        with self._wake:
            return len(self._views)

    def wake(self) -> None:
        """There is something new to do."""
        with self._wake:
            self._woken = True
            self._wake.notify()

    def call(self, function: Callable[[Model], Any]) -> Future:
        """Run a function of the model on the render thread, before the next turn.

        The future fails with TimeoutError where the model cannot be had.
        """
        future: Future = Future()
        with self._wake:
            if self._closed:
                future.set_exception(RuntimeError(CLOSED))
                return future
            self._calls.append((function, future))
        self.wake()
        return future

    def close(self) -> None:
        """End the thread; waits for the turn that is on."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(timeout=10)
        with self._wake:
            calls, self._calls = self._calls, []
        for _, future in calls:
            future.set_exception(RuntimeError(CLOSED))

    @property
    def closed(self) -> bool:
        """Whether nothing will be rendered any more."""
        return self._closed

    def _run(self) -> None:
        while True:
            with self._wake:
                if self._closed:
                    return
                self._woken = False
                views = list(self._views)
            pause = self._round(views)
            with self._wake:
                if pause is None or pause > 0:
                    self._wake.wait_for(lambda: self._woken or self._closed, timeout=pause)

    def _round(self, views: list[View]) -> float | None:
        """A turn for everyone; how long nothing will be to do, None for ever."""
        self._serve_calls()
        if not views:
            return None
        if time.monotonic() - self._polled_at > POLL_SECONDS:
            self._polled_at = time.monotonic()
            self._guarded(None, self.source.refresh)
        movers = sum(self._moves(view) for view in views)
        pauses = []
        for view in views:
            pauses.append(self._turn(view, sharers=max(movers, 1)))
            self._serve_calls()
        return min(pauses)

    def _moves(self, view: View) -> bool:
        wish, serial, still = view.newest()
        return wish is not None and still < STILL_SECONDS and serial != view.drawn_serial

    def _turn(self, view: View, *, sharers: int) -> float:
        """Seconds until this view may need another turn."""
        wish, serial, still = view.newest()
        if wish is None or view.paused or not self.source.renders:
            view.work = None
            return POLL_SECONDS
        if view.work is not None and view.work.serial != serial and wish.reduce:
            view.work = None  # the viewer has moved on
        if view.work is None and (wait := self._rest(view, wish, serial, still)) > 0:
            return wait
        fresh = view.work is None and wish.reduce and view.drawn_serial != serial
        if view.work is None and self._serves(view, wish):
            done = self._guarded(view, lambda: self._restyle(view, wish, serial))
        elif fresh and (still < STILL_SECONDS or view.drawn_serial < 0):
            done = self._guarded(view, lambda: self._quick(view, wish, serial, sharers))
        else:
            done = self._guarded(view, lambda: self._piece(view, wish, serial))
        return 0.0 if done else RETRY_SECONDS

    def _rest(self, view: View, wish: Wish, serial: int, still: float) -> float:
        """Seconds for which there is nothing to do for a view that nothing is begun for."""
        if view.full_serial == serial:
            return self._stale_in(view)
        waits = wish.reduce and view.drawn_serial == serial and still < STILL_SECONDS
        return STILL_SECONDS - still if waits else 0.0

    def _stale_in(self, view: View) -> float:
        """Seconds until a view with a whole picture needs another one."""
        if view.full_version == self.source.version:
            return POLL_SECONDS
        rest = max(REFRESH_SECONDS, view.full_seconds * self.view_count / REFRESH_SHARE)
        return view.full_at + rest - time.monotonic()

    def _guarded(self, view: View | None, work: Callable[[], bool]) -> bool:
        """One bad picture must not end the thread."""
        try:
            return work()
        except Exception as error:
            message = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            logger.warning("a picture failed: %s", message)
            logger.debug("where it failed", exc_info=True)
            if view is not None:
                _, serial, _ = view.newest()
                view.work, view.full_serial = None, serial  # not again until something changes
                view.drawn_serial, view.full_version = serial, self.source.version
                view.fail(message)
            return True

    def _quick(self, view: View, wish: Wish, serial: int, sharers: int) -> bool:
        """A picture of a moving camera, in one piece."""
        began = time.monotonic()
        size = self.pace.moving_size(*wish.full_size, sharers=sharers)
        job = self._job(wish, serial, size)
        with self.source.session() as model:
            if model is None:
                return False
            shown = self._shown_model(model, wish, self.source.version)
            job.tiles.append(shown.render(job.cameras, channels=wish.look.needs, on_cpu=False))
            job.behind = background_of(model, job.cameras)
            synchronize(model.device)  # or the time below would be that of launching
        job.seconds = time.monotonic() - began
        self._deliver(view, job)
        self.pace.note(size[0] * size[1], time.monotonic() - began)
        return True

    def _piece(self, view: View, wish: Wish, serial: int) -> bool:
        """A tile of a whole picture; shows it when it was the last."""
        began = time.monotonic()
        if view.work is None:
            view.work = self._job(wish, serial, wish.full_size)
        job = view.work
        width, height = job.cameras.size(0)
        with self.source.session() as model:
            if model is None:
                return False
            # splats are projected and sorted anew for each tile: one piece
            whole = isinstance(model.field, PrimitiveField)
            rows = height if whole else self.pace.tile_rows(width, height)
            rows = min(rows, height - job.rows_done)
            part = job.cameras.cropped(0, job.rows_done, width, rows)
            shown = self._shown_model(model, job.wish, self.source.version)
            job.tiles.append(shown.render(part, channels=job.wish.look.needs, on_cpu=False))
            finished = job.rows_done >= height
            if finished:
                job.behind = background_of(model, job.cameras)
            synchronize(model.device)
        spent = time.monotonic() - began
        job.seconds += spent
        self.pace.note(width * rows, spent)
        if finished:
            view.work = None
            self._deliver(view, job)
        return True

    def _job(self, wish: Wish, serial: int, size: tuple[int, int]) -> Job:
        cameras = wish.shot.cameras(*size, moment=wish.moment)
        return Job(wish, serial, self.source.version, cameras, self._photo(wish, cameras))

    def _serves(self, view: View, wish: Wish) -> bool:
        """Whether the last whole frame serves a wish, shown in another way."""
        kept = view.kept
        if kept is None or kept.job.version != self.source.version:
            return False
        return kept.wish.same_frame(wish) and set(wish.look.needs) <= set(kept.frame.channels)

    def _restyle(self, view: View, wish: Wish, serial: int) -> bool:
        """Show the last whole frame in another way."""
        assert view.kept is not None
        job = replace(view.kept.job, wish=wish, serial=serial, tiles=[view.kept.frame])
        job.photo = self._photo(wish, job.cameras)
        self._deliver(view, job)
        return True

    def _deliver(self, view: View, job: Job) -> None:
        frame = joined(job.tiles)
        image = picture(frame, job.wish.look, behind=job.behind, photo=job.photo)
        drawn = Drawn(image, frame, job)
        view.drawn_serial = job.serial
        if job.full:
            view.kept = drawn
            view.full_serial, view.full_version = job.serial, job.version
            view.full_at, view.full_seconds = time.monotonic(), job.seconds
        view.show(drawn)

    def _photo(self, wish: Wish, cameras: Cameras) -> Photo | None:
        wanted = wish.look.channel == "error" or wish.look.photo_share > 0
        if wish.camera is None or self.source.scene is None or not wanted:
            return None
        index: int | None = wish.camera
        if self.source.moments is not None:  # another time is no error of the model
            index = taken_at(self.source.scene, wish.camera, wish.moment)
        return None if index is None else photo_in_view(self.source.scene, index, cameras)

    def _shown_model(self, model: Model, wish: Wish, version: int) -> Model:
        """The model, cut to the box of the wish; the last cut is kept for a model at rest."""
        if wish.box is None or not can_crop(model):
            return model
        key = (id(model), version, tuple(wish.box.flatten().tolist()))
        if self._cut is None or self._cut[0] != key:
            self._cut = (key, cropped(model, wish.box))
        return self._cut[1]

    def _serve_calls(self) -> None:
        with self._wake:
            calls, self._calls = self._calls, []
        for function, future in calls:
            try:
                with self.source.session() as model:
                    if model is None:
                        raise TimeoutError("the model cannot be had now; try again")
                    future.set_result(function(model))
            except Exception as error:
                future.set_exception(error)


def joined(tiles: list[Frame]) -> Frame:
    """One frame of tiles from top to bottom."""
    if len(tiles) == 1:
        return tiles[0]
    first = tiles[0]
    return Frame(
        color=torch.cat([tile.color for tile in tiles]),
        opacity=torch.cat([tile.opacity for tile in tiles]),
        depth=torch.cat([tile.depth for tile in tiles]),
        normal=None
        if first.normal is None
        else torch.cat([tile.normal for tile in tiles if tile.normal is not None]),
        extras={name: torch.cat([tile.extras[name] for tile in tiles]) for name in first.extras},
    )
