"""Pictures of a model on a grid of directions around what the capture looks at: an orbit that a
page can show of any method, volume fields among them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lumigraph.core import Cameras, Frame, Scene
from lumigraph.core.path_shapes import OrbitGrid, focus, median_field_of_view, orbit_grid
from lumigraph.export.video_writer import to_bytes

from .document import check_size, encoded

FORMATS = {"webp": "image/webp", "jpeg": "image/jpeg"}
_REMEDY = "lower --picture-size, --picture-quality, --azimuths or --elevations"


class Renders(Protocol):
    """The model of a run."""

    def render(self, cameras: Cameras, *, channels: Sequence[str] = ...) -> Frame: ...


@dataclass(frozen=True)
class OrbitOptions:
    """What the grid holds and how its pictures are stored."""

    azimuths: int = 36
    elevations: int = 3
    size: int = 480
    """Pixels along the longer side; the shape is that of the capture's first picture."""
    quality: int = 80
    """1 to 100."""
    format: str = "webp"


def orbit_cameras(scene: Scene, grid: OrbitGrid, *, size: int) -> Cameras:
    """(E A) pinhole cameras, row by row, in the scene frame."""
    width, height = scene.cameras.size(0)
    scale = size / max(width, height)
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    angle = math.radians(median_field_of_view(scene.cameras))
    focal = min(width, height) / 2 / math.tan(angle / 2)
    return Cameras.from_intrinsics(grid.poses.flatten(0, 1).float(), width, height, focal)


def orbit_pictures(
    model: Renders,
    scene: Scene,
    *,
    options: OrbitOptions,
    target: Path,
    limit_mib: float,
    times: Sequence[float] | None = None,
    on_forecast: Callable[[str], None] | None = None,
    on_picture: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Render the grid; JSON values for the page.

    Args:
        target: the page, for messages.
        limit_mib: refuse what will be larger, after the first picture.
        times: in [0, 1], of what moves: the whole grid at each; None where nothing does.
        on_forecast: told how large the page will be, after the first picture.
        on_picture: told after each picture how many are done, and of how many.

    Raises:
        InputError: the pictures will be larger than the limit.
    """
    grid = orbit_grid(scene, azimuths=options.azimuths, elevations=options.elevations)
    cameras = orbit_cameras(scene, grid, size=options.size)
    shots = cameras
    if times is not None:
        shots = Cameras.concatenate([cameras.at_time(time) for time in times])
    total, pictures, written = len(shots), [""] * len(shots), 0
    surround = ""
    # the first one is of the middle row: it stands for all of them in the forecast
    order = np.roll(np.arange(total), -(options.elevations // 2) * options.azimuths)
    found = _encoded(model, shots, order=order, options=options)
    for done, (index, image, data) in enumerate(found, start=1):
        surround = surround or _surround(image)
        pictures[index] = encoded(data)
        written += len(pictures[index])
        forecast = written / done * total
        if done == 1 and on_forecast is not None:
            on_forecast(
                f"{total} pictures of {cameras.size(0)[0]} x {cameras.size(0)[1]} pixels, "
                f"{len(data) / 1024:.0f} KiB each: the page will take about "
                f"{forecast / 2**20:.1f} MiB"
            )
        known = forecast if done == 1 else written
        check_size(target, known, limit_mib=limit_mib, remedy=_REMEDY)
        if on_picture is not None:
            on_picture(done, total)
    return {
        **_geometry(scene, grid, cameras=cameras),
        "format": FORMATS[options.format],
        "surround": surround,
        "pictures": pictures,
        **({"times": list(times)} if times is not None and len(times) > 1 else {}),
    }


def _encoded(
    model: Renders, cameras: Cameras, *, order: np.ndarray, options: OrbitOptions
) -> Iterator[tuple[int, np.ndarray, bytes]]:
    from PIL import Image

    for index in order.tolist():
        frame = model.render(cameras[index], channels=("color",))
        buffer = io.BytesIO()
        image = to_bytes(frame.color)
        Image.fromarray(image).save(buffer, options.format.upper(), quality=options.quality)
        yield index, image, buffer.getvalue()


def _surround(image: np.ndarray) -> str:
    """The usual color of a picture's border, for the window around it."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    red, green, blue = np.median(border, axis=0).astype(int)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _geometry(scene: Scene, grid: OrbitGrid, *, cameras: Cameras) -> dict[str, Any]:
    """Where the pictures were taken from, in the capture's own frame and unit."""
    back = scene.normalization.inverse()
    poses = back.apply_poses(cameras.camera_to_world.double())
    width, height = cameras.size(0)
    return {
        "azimuths": grid.azimuths.tolist(),
        "elevations": grid.elevations.tolist(),
        "closed": grid.closed,
        "width": width,
        "height": height,
        "focal": float(cameras.intrinsics[0, 0]),
        "origin": back.apply(focus(scene)).tolist(),
        "poses": [[[round(x, 7) for x in row] for row in pose[:3].tolist()] for pose in poses],
        "start": [len(grid.azimuths) // 2 * (not grid.closed), len(grid.elevations) // 2],
    }
