"""`lumigraph train --viewer`: the viewer beside a training, in the same process.

Training owes the viewer nothing: an error of the viewer's is logged, and training goes on.
"""

from __future__ import annotations

import contextlib
import logging
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from .terminal import Terminal

if TYPE_CHECKING:
    from lumigraph.core import Scene
    from lumigraph.training import RunConfig, TrainingControl
    from lumigraph.training.events import Event, Listener

logger = logging.getLogger(__name__)


class Wishes(Protocol):
    """The options of a command that say what is wanted."""

    @property
    def viewer(self) -> bool: ...
    @property
    def viewer_port(self) -> int | None: ...
    @property
    def viewer_close(self) -> bool: ...
    @property
    def json(self) -> bool: ...


class Watching:
    """A context around a training: opens no viewer unless one is wanted.

    Args:
        wishes: the command's arguments.
        terminal: told the address.

    Raises:
        InputError: options of the viewer without it. MissingExtraError: viser is not installed.
    """

    def __init__(self, wishes: Wishes, terminal: Terminal) -> None:
        from lumigraph.core.errors import InputError, require

        self.wishes, self.terminal = wishes, terminal
        self._viewer: Any = None
        self._control: TrainingControl | None = None
        self._failed = False
        if wishes.viewer:
            require("viser", extra="viewer")
        elif wishes.viewer_port is not None:
            raise InputError(f"--viewer-port {wishes.viewer_port}: needs --viewer")
        elif wishes.viewer_close:
            raise InputError("--viewer-close needs --viewer")

    def __enter__(self) -> Watching:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._viewer is not None:
            self._viewer.close()

    @property
    def wanted(self) -> bool:
        """Whether there shall be a viewer."""
        return self.wishes.viewer

    def open(self, scene: Scene, config: RunConfig, *, title: str) -> None:
        """Serve what will be trained, and say where.

        Args:
            title: shown above the panel.

        Raises:
            InputError: the port is taken.
        """
        from lumigraph import viewer
        from lumigraph.core.errors import InputError
        from lumigraph.training import TrainingControl

        self._control = TrainingControl()
        try:
            self._viewer = viewer.serve_training(
                self._control, scene, config=config, title=title, port=self.wishes.viewer_port
            )
        except InputError as error:
            # the option has another name here than in `lumigraph view`
            raise type(error)(str(error).replace("--port", "--viewer-port")) from error
        self.terminal.say(f"viewer: {self._viewer.url}")

    def options(self, listener: Listener) -> dict[str, Any]:
        """`on_event` and `control` for `training.train` and `training.resume`."""
        if self._viewer is None:
            return {"on_event": listener}

        def tell(event: Event) -> None:
            listener(event)
            try:
                self._viewer.on_event(event)
            except Exception as error:
                level = logging.DEBUG if self._failed else logging.WARNING
                logger.log(level, "the viewer failed, training goes on: %s", error)
                self._failed = True

        return {"on_event": tell, "control": self._control}

    def stay(self) -> None:
        """After training, keep the viewer open until Ctrl-C, unless it shall close."""
        if self._viewer is None or self.wishes.viewer_close or self.wishes.json:
            return
        self.terminal.say(f"the viewer stays open at {self._viewer.url}; Ctrl-C closes it")
        with contextlib.suppress(KeyboardInterrupt):
            self._viewer.wait()
