"""COLMAP models on disk: cameras, images and points3D as .bin or .txt files.

Layouts as COLMAP documents them; binary files are little-endian. Kept is what a scene needs:
cameras with their parameters, world-to-camera poses, points with colours, and which points each
image saw where (pixel centres at +0.5).
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from lumigraph.core.errors import DataError
from lumigraph.datasets.poses import Matrix

CAMERA_MODELS = (
    ("SIMPLE_PINHOLE", 3),
    ("PINHOLE", 4),
    ("SIMPLE_RADIAL", 4),
    ("RADIAL", 5),
    ("OPENCV", 8),
    ("OPENCV_FISHEYE", 8),
    ("FULL_OPENCV", 12),
    ("FOV", 5),
    ("SIMPLE_RADIAL_FISHEYE", 4),
    ("RADIAL_FISHEYE", 5),
    ("THIN_PRISM_FISHEYE", 12),
)
"""Name and number of parameters; the place in the table is the number in binary files."""

NO_POINT = -1


Content = TypeVar("Content")


@dataclass(frozen=True)
class ColmapCamera:
    """One lens: model name, size in pixels and parameters in COLMAP's order."""

    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


@dataclass(frozen=True)
class ColmapImage:
    """One registered image."""

    name: str
    camera_id: int
    quaternion: Matrix
    """(4,) w x y z, world to camera."""
    translation: Matrix
    """(3,) world to camera."""
    keypoints: Matrix
    """(O, 2) observed positions in pixels."""
    point_ids: np.ndarray
    """(O,) ids of the observed points, -1 for none."""


@dataclass(frozen=True)
class ColmapModel:
    """A reconstruction: lenses by id, images in file order, points."""

    folder: Path
    cameras: dict[int, ColmapCamera]
    images: list[ColmapImage]
    point_ids: np.ndarray
    """(P,) int64."""
    positions: Matrix
    """(P, 3) world."""
    colors: np.ndarray
    """(P, 3) uint8."""


def has_model(folder: Path) -> bool:
    """True when the folder holds cameras and images of a model, binary or text."""
    return any(
        (folder / f"cameras{suffix}").is_file() and (folder / f"images{suffix}").is_file()
        for suffix in (".bin", ".txt")
    )


def read_model(folder: Path) -> ColmapModel:
    """Read a model; binary files go before text files. Points may be absent."""
    binary = (folder / "cameras.bin").is_file() and (folder / "images.bin").is_file()
    suffix = ".bin" if binary else ".txt"
    cameras = _read(folder / f"cameras{suffix}", _binary_cameras if binary else _text_cameras)
    images = _read(folder / f"images{suffix}", _binary_images if binary else _text_images)
    points_file = folder / f"points3D{suffix}"
    rows: list[tuple] = []
    if points_file.is_file():
        rows = _read(points_file, _binary_points if binary else _text_points)
    ids = np.array([row[0] for row in rows], dtype=np.int64)
    positions = np.array([row[1] for row in rows], dtype=np.float64).reshape(-1, 3)
    colors = np.array([row[2] for row in rows], dtype=np.uint8).reshape(-1, 3)
    return ColmapModel(folder, cameras, images, ids, positions, colors)


def _read(file: Path, reader: Callable[[Path], Content]) -> Content:
    try:
        return reader(file)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error}); check the file") from None
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise DataError(
            f"{file}: cut short or not a COLMAP file ({error}); export the model again"
        ) from None


class _Cursor:
    """Walks through the bytes of a binary file."""

    def __init__(self, file: Path) -> None:
        self._bytes = file.read_bytes()
        self._place = 0

    def take(self, layout: str) -> tuple:
        layout = "<" + layout
        values = struct.unpack_from(layout, self._bytes, self._place)
        self._place += struct.calcsize(layout)
        return values

    def text(self) -> str:
        end = self._bytes.index(b"\0", self._place)
        start, self._place = self._place, end + 1
        return self._bytes[start:end].decode("utf-8")

    def array(self, layout: np.dtype, count: int) -> np.ndarray:
        values = np.frombuffer(self._bytes, layout, count, self._place)
        self._place += count * layout.itemsize
        return values

    def skip(self, count: int) -> None:
        self._place += count
        if self._place > len(self._bytes):
            raise ValueError("the file ends too early")


_OBSERVATION = np.dtype([("pixel", "<f8", 2), ("point", "<i8")])


def _binary_cameras(file: Path) -> dict[int, ColmapCamera]:
    cursor = _Cursor(file)
    cameras = {}
    for _ in range(cursor.take("Q")[0]):
        camera_id, number, width, height = cursor.take("iiQQ")
        if not 0 <= number < len(CAMERA_MODELS):
            raise DataError(
                f"{file}: camera {camera_id} has model number {number}, known are 0 to"
                f" {len(CAMERA_MODELS) - 1}; export the model again with a standard camera"
            )
        name, count = CAMERA_MODELS[number]
        cameras[camera_id] = ColmapCamera(name, width, height, cursor.take(f"{count}d"))
    return cameras


def _binary_images(file: Path) -> list[ColmapImage]:
    cursor = _Cursor(file)
    images = []
    for _ in range(cursor.take("Q")[0]):
        _, *pose, camera_id = cursor.take("i7di")
        name = cursor.text()
        observed = cursor.array(_OBSERVATION, cursor.take("Q")[0])
        images.append(
            ColmapImage(
                name=name,
                camera_id=camera_id,
                quaternion=np.array(pose[:4]),
                translation=np.array(pose[4:]),
                keypoints=observed["pixel"].astype(np.float64),
                point_ids=observed["point"].astype(np.int64),
            )
        )
    return images


def _binary_points(file: Path) -> list[tuple]:
    cursor = _Cursor(file)
    rows = []
    for _ in range(cursor.take("Q")[0]):
        point_id, x, y, z, red, green, blue, _, track_length = cursor.take("Q3d3BdQ")
        cursor.skip(8 * track_length)
        rows.append((point_id, (x, y, z), (red, green, blue)))
    return rows


def _text_rows(file: Path) -> Iterator[list[str]]:
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            yield line.split()


def _text_cameras(file: Path) -> dict[int, ColmapCamera]:
    counts = dict(CAMERA_MODELS)
    cameras = {}
    for camera_id, model, width, height, *parameters in _text_rows(file):
        if model not in counts:
            known = ", ".join(counts)
            raise DataError(f"{file}: camera model '{model}' is not known; use one of {known}")
        if len(parameters) != counts[model]:
            raise DataError(
                f"{file}: camera {camera_id} ({model}) has {len(parameters)} parameters, expected"
                f" {counts[model]}; export the model again"
            )
        values = tuple(map(float, parameters))
        cameras[int(camera_id)] = ColmapCamera(model, int(width), int(height), values)
    return cameras


def _text_images(file: Path) -> list[ColmapImage]:
    lines = file.read_text(encoding="utf-8").splitlines()
    # Two lines an image; the second may be empty (no observations), so empty lines count.
    lines = [line for line in lines if not line.startswith("#")]
    while lines and not lines[-1].strip():
        lines.pop()
    images = []
    for start in range(0, len(lines), 2):
        head = lines[start].split(maxsplit=9)
        if len(head) != 10:
            raise ValueError(f"line '{lines[start][:40]}' has {len(head)} entries, expected 10")
        observed = lines[start + 1].split() if start + 1 < len(lines) else []
        triples = np.array(observed, dtype=np.float64).reshape(-1, 3)
        images.append(
            ColmapImage(
                name=head[9],
                camera_id=int(head[8]),
                quaternion=np.array(head[1:5], dtype=np.float64),
                translation=np.array(head[5:8], dtype=np.float64),
                keypoints=triples[:, :2],
                point_ids=triples[:, 2].astype(np.int64),
            )
        )
    return images


def _text_points(file: Path) -> list[tuple]:
    return [
        (int(row[0]), tuple(map(float, row[1:4])), tuple(map(int, row[4:7])))
        for row in _text_rows(file)
    ]
