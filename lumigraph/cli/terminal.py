"""What a command shows: results on stdout, or with `--json` one object there and all else on
stderr. Progress of events and of pictures is drawn by `progress.py`."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from .progress import EventProgress, FrameProgress, StageProgress


class Interrupted(KeyboardInterrupt):
    """Ctrl-C after which something worth telling was saved."""

    def __init__(self, message: str, summary: dict[str, Any]) -> None:
        super().__init__(message)
        self.summary = summary


class Terminal:
    """Output of one command; a context in which stray prints cannot spoil the JSON object."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._stdout = sys.stdout
        self._stack = contextlib.ExitStack()
        self._console: Console | None = None

    def __enter__(self) -> Terminal:
        if self.as_json:
            self._stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        self._stack.enter_context(_log_to_stderr())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def console(self) -> Console:
        if self._console is None:
            from rich.console import Console

            self._console = Console(stderr=self.as_json, highlight=False, soft_wrap=True)
        return self._console

    def say(self, text: str = "") -> None:
        """One line for people; square brackets are rich's markup."""
        self.console.print(text)

    def facts(self, rows: Sequence[tuple[str, object]]) -> None:
        """Aligned lines of a name and a value."""
        width = max((len(name) for name, _ in rows), default=0)
        for name, value in rows:
            self.console.print(f"  [dim]{name:<{width}}[/dim]  {escaped(value)}")

    def events(self, label: str) -> EventProgress:
        """A context and a listener that shows a run's events."""
        from .progress import EventProgress

        return EventProgress(self.console, label)

    def frames(self, label: str) -> FrameProgress:
        """A context and a callback `(done, total)` that shows how many pictures are done."""
        from .progress import FrameProgress

        return FrameProgress(self.console, label)

    def stages(self, label: str) -> StageProgress:
        """A context and a callback `(stage, done, total)` for work in named stages."""
        from .progress import StageProgress

        return StageProgress(self.console, label)

    @contextlib.contextmanager
    def plain_stdout(self) -> Iterator[None]:
        """`--help` goes to the true stdout, also beside `--json`."""
        with contextlib.redirect_stdout(self._stdout):
            yield

    def finish(self, result: dict[str, Any]) -> None:
        """Print the final object when `--json` was given."""
        if self.as_json:
            self._stdout.write(json.dumps(plain(result), allow_nan=False) + "\n")
            self._stdout.flush()


def plain(value: Any) -> Any:
    """The value with paths as text and numbers that JSON cannot say as null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def escaped(value: object) -> str:
    """Text in which square brackets are not markup."""
    return str(value).replace("[", r"\[")


@contextlib.contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Warnings of the library, one line each."""
    logger = logging.getLogger("lumigraph")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("lumigraph: %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
