"""What a browser's buttons call, made safe."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from lumigraph.core.errors import LumigraphError

from .session import Session

logger = logging.getLogger(__name__)


def safe(session: Session) -> Callable[[Callable[[], None]], Callable[[Any], None]]:
    """Decorator of callbacks: an error becomes a note in the browser, never a trace."""

    def wrap(callback: Callable[[], None]) -> Callable[[Any], None]:
        @functools.wraps(callback)
        def guarded(event: Any) -> None:
            try:
                callback()
            except LumigraphError as error:
                session.notify("Not possible", str(error))
            except Exception as error:
                logger.warning("the panel failed: %s: %s", type(error).__name__, error)
                logger.debug("where it failed", exc_info=True)
                session.notify("That failed", f"{type(error).__name__}: {error}")

        return guarded

    return wrap
