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


def choose_image_folder(folder: Path, wish: str | None, *, nested: bool = False) -> Path:
    """The image folder asked for, else the first of `FOLDER_NAMES` with images, else itself.

    With `nested`, images may lie in folders of the image folder, as those of several cameras do.
    """
    if wish is not None:
        if not _holds_images(folder / wish, nested):
            raise DataError(f"{folder / wish}: no images there; choose another image_folder")
        return folder / wish
    for name in FOLDER_NAMES:
        if _holds_images(folder / name, nested):
            return folder / name
    if listed_images(folder):
        return folder
    raise DataError(
        f"{folder}: no images found; put them into {folder / 'images'} or name image_folder"
    )


def _holds_images(folder: Path, nested: bool) -> bool:
    if listed_images(folder):
        return True
    inner = folder.iterdir() if nested and folder.is_dir() else ()
    return any(listed_images(path) for path in inner)


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
