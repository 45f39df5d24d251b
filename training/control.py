"""Steering a run from another thread: pause, stop, checkpoint now, and looking at the model.

The trainer owns the model and changes it in every step. Between two steps it reads one flag; only
where somebody has asked for something it halts there, lets those who wait look one after another,
does what was asked and goes on. Each of them gets one turn in a break, so that however many look,
training moves on by a step before they look again.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal

import torch

from lumigraph.core.errors import InputError, LumigraphError

from .method import Model

State = Literal["new", "loading", "training", "paused", "finished", "failed"]
"""`new`: no run has begun; `loading`: no model yet; `finished`: also after a stop."""
Order = Literal["paused", "resumed", "save", "stop", "go"]
"""What the trainer does next; after the first three it asks again."""
_ENDED = ("finished", "failed")


class ModelUnavailable(LumigraphError):
    """The run failed before it had a model: waiting leads nowhere."""


class _Ticket:
    """A place in the row of those who wait for the model."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()


class TrainingControl:
    """What steers one run; give it to `training.train` or `training.resume`.

    Every method may be called from any thread, before, while and after the run works. Once the run
    has ended, the control may be given to another one. It keeps the field, not the optimizer.

    >>> control = TrainingControl()
    >>> control.pause()
    >>> control.paused, control.state
    (True, 'new')
    """

    asked: bool
    """Whether anybody wants anything of the trainer."""
    step: int
    """Steps of the run that are done; written by the trainer."""

    def __init__(self) -> None:
        self.asked, self.step = False, 0
        self._changed = threading.Condition()
        self._state: State = "new"
        self._error: str | None = None
        self._trainer: int | None = None
        self._model: Callable[[], Model] | None = None
        self._paused = self._stop = self._checkpoint = False
        self._announced = False  # the trainer has been told that it is paused
        self._halted = False
        self._row: deque[_Ticket] = deque()
        self._called: set[_Ticket] = set()
        self._looking: _Ticket | None = None

    @property
    def state(self) -> State:
        """Where the run is; `paused` from the wish on, also while its step is still in progress."""
        with self._changed:
            return "paused" if self._state == "training" and self._paused else self._state

    @property
    def error(self) -> str | None:
        """What ended a run that failed, in words."""
        return self._error

    @property
    def paused(self) -> bool:
        """Whether the run halts between two steps, now or as soon as it gets there."""
        return self._paused

    def pause(self) -> None:
        """Halt after the step in progress. Time that a run halts is no training time."""
        self._wish(paused=True)

    def resume(self) -> None:
        """Go on after `pause`."""
        self._wish(paused=False)

    def request_checkpoint(self) -> None:
        """Save after the step in progress, paused or not; does not wait for it.

        A `CheckpointEvent` tells that it is written, a `MessageEvent` that it could not be.
        """
        self._wish(checkpoint=True)

    def stop(self) -> None:
        """End the run after the step in progress: saved, marked as interrupted, to be resumed."""
        self._wish(stop=True)

    @contextlib.contextmanager
    def between_steps(self, timeout: float | None = 30.0) -> Iterator[Model]:
        """The model while no step changes it; training waits, so hold it for a picture, not longer.

        Its tensors are those that train: do not keep them beyond the block. One thread at a time
        has the model, and may ask again while it has. On a GPU all work of both sides is done when
        it changes hands. After a failure the model is as the failed step left it.

        Args:
            timeout: seconds to wait at most for a turn; None waits without end.

        Raises:
            TimeoutError: no turn came, say since the run is still loading.
            ModelUnavailable: the run failed before it had a model.
        """
        if self._has_model_already():
            yield self._present_model()
            return
        ticket = _Ticket()
        try:
            self._wait_for_turn(ticket, timeout)
            model = self._present_model()
            try:
                yield model
            finally:
                synchronize(model.device)
        finally:
            self._leave(ticket)

    def _wish(
        self,
        *,
        paused: bool | None = None,
        checkpoint: bool = False,
        stop: bool = False,
    ) -> None:
        with self._changed:
            if self._state in _ENDED:
                return
            self._paused = self._paused if paused is None else paused
            self._checkpoint |= checkpoint
            self._stop |= stop
            self._tell()

    def _tell(self) -> None:
        """After any change: the flag that the trainer reads, and whoever sleeps."""
        self.asked = bool(self._row) or self._paused or self._checkpoint or self._stop
        self._changed.notify_all()

    def _has_model_already(self) -> bool:
        """This thread looks, or is the trainer, which calls a listener between two steps."""
        me, looking = threading.get_ident(), self._looking
        if looking is not None and looking.thread == me:
            return True
        return self._state == "training" and self._trainer == me

    def _present_model(self) -> Model:
        assert self._model is not None
        return self._model()

    def _wait_for_turn(self, ticket: _Ticket, timeout: float | None) -> None:
        with self._changed:
            self._row.append(ticket)
            self._tell()
            self._changed.wait_for(lambda: self._hopeless() or self._is_turn(ticket), timeout)
            if self._hopeless():
                raise ModelUnavailable(f"no model to look at: {self._error}")
            if not self._is_turn(ticket):
                raise TimeoutError(f"no turn within {timeout} s: the run is {self.state}")
            self._row.popleft()
            self._called.discard(ticket)
            self._looking = ticket

    def _hopeless(self) -> bool:
        return self._state == "failed" and self._model is None

    def _is_turn(self, ticket: _Ticket) -> bool:
        if self._looking is not None or self._row[0] is not ticket or self._model is None:
            return False
        at_rest = self._halted and self._paused
        return self._state in _ENDED or at_rest or ticket in self._called

    def _leave(self, ticket: _Ticket) -> None:
        with self._changed:
            if self._looking is ticket:
                self._looking = None
            if ticket in self._row:
                self._row.remove(ticket)
            self._called.discard(ticket)
            self._tell()

    # What follows is the trainer's side.

    @contextlib.contextmanager
    def steering(self) -> Iterator[None]:
        """Around a whole run; however it ends, nobody is left waiting.

        Raises:
            InputError: the control steers another run.
        """
        self._begin()
        error: str | None = None
        try:
            yield
        except BaseException as stopped:
            saved = isinstance(stopped, KeyboardInterrupt) and self._model is not None
            error = None if saved else str(stopped) or type(stopped).__name__
            raise
        finally:
            self._end(error)

    def _begin(self) -> None:
        with self._changed:
            if self._state not in ("new", *_ENDED):
                raise InputError("this control steers a run already; give every run its own")
            self._state, self._error, self._model = "loading", None, None
            self.step = 0

    def _end(self, error: str | None) -> None:
        with self._changed:
            if self._model is not None:
                model = self._model()
                # lets go of optimizer and images
                self._model = lambda: model
            self._state, self._error = ("failed" if error else "finished"), error
            self._trainer = None
            self._paused = self._stop = self._checkpoint = self._announced = False
            self._tell()

    def attach(self, model: Callable[[], Model], step: int) -> None:
        """The run has a model now, and trains it in this thread."""
        with self._changed:
            self._model, self._state, self.step = model, "training", step
            self._trainer = threading.get_ident()
            self._tell()

    def next_order(self) -> Order:
        """Halt between two steps until there is something to do or nothing to wait for.

        All work on the device must be done. Those who wait now get a turn before a "go".
        """
        with self._changed:
            self._called, self._halted = set(self._row), True
            self._changed.notify_all()
            try:
                self._changed.wait_for(self._has_order)
            finally:
                self._called, self._halted = set(), False
            return self._take_order()

    def _has_order(self) -> bool:
        if self._looking is not None:
            return False
        if self._checkpoint or self._stop or self._paused != self._announced:
            return True
        return not self._paused and not self._called

    def _take_order(self) -> Order:
        order: Order = "go"
        if self._stop:
            order = "stop"
        elif self._checkpoint:
            self._checkpoint, order = False, "save"
        elif self._paused != self._announced:
            self._announced, order = self._paused, "paused" if self._paused else "resumed"
        self._tell()
        return order


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was told; on a CPU there is nothing to wait for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
