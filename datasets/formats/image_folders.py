"""Which folder of a scene holds its images, and which images those are."""

import re
from pathlib import Path

from lumigraph.core.errors import DataError
from lumigraph.datasets.images import IMAGE_SUFFIXES

FOLDER_NAMES = (
    "images",
    "image",
    "rgb",
    "images_2",
    "images_4",
    "images_8",
    "input",
    "train",
)
"""Looked for in this order: full size first."""

_NO_PHOTOGRAPH = re.compile(r"_(depth|normal|mask|alpha)(_\d+)?$")


def choose_image_folder(folder: Path, wish: str | None) -> Path:
    """The image folder asked for, else the first of `FOLDER_NAMES` with images, else itself."""
    if wish is not None:
        if not listed_images(folder / wish):
            raise DataError(f"{folder / wish}: no images there; choose another image_folder")
        return folder / wish
    for name in (*FOLDER_NAMES, "."):
        if listed_images(folder / name):
            return folder / name if name != "." else folder
    raise DataError(
        f"{folder}: no images found; put them into {folder / 'images'} or name image_folder"
    )


def listed_images(folder: Path, *, natural: bool = False) -> list[Path]:
    """Images of a folder sorted by name, depth and normal maps left out.

    With `natural`, digits count as numbers (r_2 before r_10).
    """
    if not folder.is_dir():
        return []
    files = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not _NO_PHOTOGRAPH.search(path.stem)
    ]
    return sorted(files, key=natural_key if natural else None)


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sorting key in which runs of digits compare as numbers.

    Example:
        >>> sorted([Path("r_10.png"), Path("r_2.png")], key=natural_key)[0].name
        'r_2.png'
    """
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]
