"""Makes the package importable from a bare checkout, without installing: a folder of links that
follows the package-dir table of pyproject.toml. Put the folder on PYTHONPATH, and run Python with
PYTHONSAFEPATH=1, or the checkout itself comes first on the path and hides it.

    python3 benchmarks/link_package.py FOLDER
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def link_package(folder: Path, root: Path = ROOT) -> Path:
    """Fill `folder` with the package; returns the folder of its front door."""
    table = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    rooms = {tuple(name.split(".")): root / path for name, path in table["package-dir"].items()}
    front = min(rooms, key=len)
    door = folder.joinpath(*front)
    door.mkdir(parents=True, exist_ok=True)
    for child in rooms[front].iterdir():
        _link(door / child.name, child)
    for name, source in sorted(rooms.items()):
        place = folder.joinpath(*name)
        if not place.exists():  # most sub-packages lie inside a linked one
            _link(place, source)
    return door


def _link(place: Path, source: Path) -> None:
    if not place.is_symlink():
        place.symlink_to(source, target_is_directory=source.is_dir())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: link_package.py FOLDER")
    print(link_package(Path(sys.argv[1])))
