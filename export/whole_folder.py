"""A folder that appears under its name when it is whole."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lumigraph.export.video_encoders import disk_errors


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write to; it takes the given name when the block ends without an error.

    What stood there is replaced then; whether it may be is the caller's business.

    Raises:
        InputError: the disk does not take it.
    """
    with disk_errors(folder):
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield staging
        with disk_errors(folder):
            staging.chmod(0o755)
            if folder.exists():
                shutil.rmtree(folder)
            staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
