"""Pictures of built-in scenes, kept in the user's cache folder: whole files or none.

A file is named after the modules that decide what its pictures look like, so that a change of any
of them makes new pictures. A file that is damaged is made again; a folder that cannot be written
costs time only.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """`LUMIGRAPH_CACHE`, else `~/.cache/lumigraph`."""
    return Path(os.environ.get("LUMIGRAPH_CACHE") or Path.home() / ".cache" / "lumigraph")


def content_key(modules: Iterable[str]) -> str:
    """Changes with the text of any of some modules of this folder, e.g. "moving/bodies"."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update(Path(__file__).parent.joinpath(f"{module}.py").read_bytes())
    return digest.hexdigest()[:16]


def read_pictures(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The kept pictures; None when there are none or the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            pictures = archive["pictures"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        logger.warning("%s is damaged (%s) and is made again", path, error)
        return None
    if pictures.shape != shape or pictures.dtype != np.uint8:
        logger.warning("%s holds other pictures than expected and is made again", path)
        return None
    return np.asarray(pictures, np.uint8)


def write_pictures(path: Path, pictures: NDArray[np.uint8]) -> None:
    """Keep pictures, whole or not at all; a scene that cannot be kept is still usable."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, pictures=pictures)
        os.replace(temporary, path)
    except OSError as error:
        logger.warning(
            "cannot keep the scene in %s (%s); set LUMIGRAPH_CACHE to a folder that can be written",
            path.parent,
            error.strerror,
        )
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
