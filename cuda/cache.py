"""Where compiled code is kept: one folder a user, keyed by content, written atomically."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from lumigraph.core.errors import BackendError


def cache_folder() -> Path:
    """`LUMIGRAPH_CACHE`, else `~/.cache/lumigraph`."""
    return Path(os.environ.get("LUMIGRAPH_CACHE") or Path.home() / ".cache" / "lumigraph")


def content_key(*parts: object) -> str:
    """Name for a file whose content is a function of `parts`."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def write_atomic(target: Path, content: bytes) -> None:
    """Write whole or not at all: several processes may race for the same file.

    Raises:
        BackendError: the cache folder cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.replace(temporary, target)
    except OSError as error:
        raise BackendError(
            f"cannot keep compiled code in {target.parent} ({error.strerror}); "
            "set LUMIGRAPH_CACHE to a folder that can be written"
        ) from error
