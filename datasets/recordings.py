"""Which recordings of several cameras a folder holds: a video of each, or a folder of images.

A camera folder holds images whose names end in a number, their time stamp: `cam00/000000.jpg`, or
`left/images/1623.25.png`. The stamps of all cameras must be the same.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lumigraph.core.errors import DataError
from lumigraph.datasets.formats.image_folders import FOLDER_NAMES, listed_images, natural_key
from lumigraph.datasets.video_frames import VIDEO_SUFFIXES

_STAMP = re.compile(r"\d+(\.\d+)?$")
_NO_CAMERA = re.compile(r"(images?|rgb|input|train|masks?|depths?)(_\d+)?", re.IGNORECASE)
"""Folders that are no cameras, whatever they hold."""
FEWEST = 2
"""Recordings that make a folder a set of several cameras."""


@dataclass(frozen=True)
class StampedImages:
    """The images of one camera in order of time."""

    folder: Path
    stamps: tuple[float, ...]
    files: tuple[Path, ...]


def has_recordings(folder: Path) -> bool:
    """Whether a folder holds several recordings and no images of its own; looks at names only."""
    if any(listed_images(folder / name) for name in FOLDER_NAMES):
        return False
    return len(videos_in(folder)) >= FEWEST or len(camera_folders(folder)) >= FEWEST


def videos_in(folder: Path) -> list[Path]:
    """Videos of a folder in natural order of their names."""
    files = [path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES]
    return sorted((path for path in files if path.is_file()), key=natural_key)


def camera_folders(folder: Path) -> list[Path]:
    """Folders with images, of one camera each, in natural order of their names."""
    found = [path for path in folder.iterdir() if path.is_dir() and _images_of(path)]
    return sorted((path for path in found if not _NO_CAMERA.fullmatch(path.name)), key=natural_key)


def stamped_images(folders: Sequence[Path]) -> list[StampedImages]:
    """Images and time stamps of some camera folders.

    Raises:
        DataError: a name without a number, a stamp twice, or stamps that differ between cameras.
    """
    cameras = [_stamped(folder) for folder in folders]
    first = cameras[0]
    for camera in cameras[1:]:
        if len(camera.stamps) != len(first.stamps):
            raise DataError(
                f"{camera.folder}: {len(camera.stamps)} images, {first.folder.name} has"
                f" {len(first.stamps)}; every camera needs one for each moment"
            )
        for file, stamp, expected in zip(camera.files, camera.stamps, first.stamps, strict=True):
            if stamp != expected:
                raise DataError(
                    f"{file}: time {stamp:.12g}, where {first.folder.name} has {expected:.12g}; the"
                    " cameras must have the same times"
                )
    return cameras


def _images_of(folder: Path) -> list[Path]:
    return listed_images(folder, natural=True) or listed_images(folder / "images", natural=True)


def _stamped(folder: Path) -> StampedImages:
    taken: dict[float, Path] = {}
    for file in _images_of(folder):
        number = _STAMP.search(file.stem)
        if number is None:
            raise DataError(
                f"{file}: the name has no number at its end that tells its time; name the images"
                " 000000.jpg, 000001.jpg, ..."
            )
        other = taken.setdefault(float(number[0]), file)
        if other is not file:
            raise DataError(
                f"{file}: the same time as {other.name}; correct the number or remove one of them"
            )
    stamps = tuple(sorted(taken))
    return StampedImages(folder, stamps, tuple(taken[stamp] for stamp in stamps))
